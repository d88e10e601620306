-- The destroyed sandboxes that guilds are still mapped to. Locks: none.
SELECT s.id, s.name, s.owner, s.status::text AS status, s.schema_name, s.discord_token_id, s.created_at, s.expires_at,
       s.destroyed_at, s.last_activity_at, s.metadata
FROM public.sandboxes AS s
WHERE s.status = 'destroyed' AND s.id IN (SELECT m.sandbox_id FROM public.sandbox_guild_mapping AS m)
