-- Every schema that might be a sandbox's, or was on the way to be one. Locks: none.
SELECT n.nspname::text AS name
FROM pg_catalog.pg_namespace AS n
WHERE starts_with(lower(n.nspname::text), 'sandbox') OR starts_with(lower(n.nspname::text), 'pending_')
ORDER BY 1
