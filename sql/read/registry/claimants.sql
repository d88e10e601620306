-- The sandboxes that are not destroyed and that a name or id could belong to. One read, so that it and the census
-- of schemas may share a snapshot. Locks: none.
SELECT id, name, owner, status::text AS status, schema_name, discord_token_id, created_at, expires_at,
       destroyed_at, last_activity_at, metadata
FROM public.sandboxes
WHERE status <> 'destroyed'
  AND (starts_with(replace(id::text, '-', ''), %(hex)s) OR schema_name = %(schema)s)
ORDER BY created_at, id
