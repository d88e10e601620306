-- Sandboxes, optionally of one owner, of these statuses. Locks: none.
SELECT id, name, owner, status::text AS status, schema_name, discord_token_id, created_at, expires_at,
       destroyed_at, last_activity_at, metadata
FROM public.sandboxes
WHERE (%(owner)s::text IS NULL OR owner = %(owner)s) AND status = ANY (%(statuses)s::public.sandbox_status[])
ORDER BY created_at DESC, id
