-- Every guild's mapping, with the sandbox that it leads to, whatever its status. Locks: none.
SELECT m.guild_id AS guild, s.id AS sandbox, s.name, s.status::text AS status
FROM public.sandbox_guild_mapping AS m
JOIN public.sandboxes AS s ON s.id = m.sandbox_id
ORDER BY m.guild_id
