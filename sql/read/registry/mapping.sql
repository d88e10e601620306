-- The sandbox that a guild is mapped to, whatever its status. Locks: none.
SELECT s.id, s.name, s.owner, s.status::text AS status, s.schema_name, s.discord_token_id, s.created_at, s.expires_at,
       s.destroyed_at, s.last_activity_at, s.metadata
FROM public.sandbox_guild_mapping AS m
JOIN public.sandboxes AS s ON s.id = m.sandbox_id
WHERE m.guild_id = %(guild)s
