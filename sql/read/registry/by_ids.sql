-- The sandboxes of these ids, destroyed or not. Locks: none.
SELECT id, name, owner, status::text AS status, schema_name, discord_token_id, created_at, expires_at,
       destroyed_at, last_activity_at, metadata
FROM public.sandboxes
WHERE id = ANY (%(ids)s)
ORDER BY id
