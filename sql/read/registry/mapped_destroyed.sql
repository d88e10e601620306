-- The destroyed sandboxes that guilds are still mapped to. Locks: none.
SELECT DISTINCT sandbox_id AS id
FROM public.sandbox_guild_mapping AS m
JOIN public.sandboxes AS s ON s.id = m.sandbox_id AND s.status = 'destroyed'
