-- The running sandboxes that guilds are mapped to: what the EventRouter falls back to. Locks: none.
SELECT m.guild_id, m.sandbox_id
FROM public.sandbox_guild_mapping AS m
JOIN public.sandboxes AS s ON s.id = m.sandbox_id AND s.status = 'running'
WHERE m.guild_id = ANY (%(guilds)s)
