-- One sandbox, by id or by name, held against other changes until this short transaction ends.
-- Locks: the row, FOR NO KEY UPDATE: rows that refer to it can still be written.
SELECT id, name, owner, status::text AS status, schema_name, discord_token_id, created_at, expires_at,
       destroyed_at, last_activity_at, metadata
FROM public.sandboxes
WHERE id = %(id)s OR name = %(name)s
FOR NO KEY UPDATE
