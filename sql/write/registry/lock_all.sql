-- Sandboxes by their ids, held against other changes until this short transaction ends; refused where somebody else holds one.
-- Locks: the rows, FOR NO KEY UPDATE: rows that refer to them can still be written.
SELECT id, name, owner, status::text AS status, schema_name, discord_token_id, created_at, expires_at,
       destroyed_at, last_activity_at, metadata
FROM public.sandboxes
WHERE id = ANY (%(ids)s)
ORDER BY id
FOR NO KEY UPDATE NOWAIT
