-- The sandboxes, destroyed ones too, that a name or id could belong to: those whose id lies between the two (both null
-- for what is no id), by the primary key, and the one whose schema has this name. Locks: none.
SELECT id, name, owner, status::text AS status, schema_name, discord_token_id, created_at, expires_at,
       destroyed_at, last_activity_at, metadata
FROM public.sandboxes
WHERE id BETWEEN %(least)s::uuid AND %(most)s::uuid OR schema_name = %(schema)s
ORDER BY created_at, id
