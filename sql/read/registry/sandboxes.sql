-- Every sandbox row, destroyed ones too, as far as it takes to say whose a name is: there may be very many. Locks: none.
SELECT id, name, owner, status::text AS status, schema_name, created_at, expires_at, destroyed_at, last_activity_at
FROM public.sandboxes
ORDER BY created_at, id
