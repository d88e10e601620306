-- Every sandbox row, destroyed ones too. Locks: none. Metadata is read in both forms (object, or a JSON string).
SELECT id, name, owner, status::text AS status, schema_name, discord_token_id, created_at, expires_at,
       destroyed_at, last_activity_at, metadata
FROM public.sandboxes
ORDER BY created_at, id
