-- The schemas whose name starts like one that belongs to this id, or is this very name: but only such as are named like
-- a sandbox's. A row that names `public` or another schema of production's does not own it. Locks: none.
SELECT n.nspname::text AS name
FROM pg_catalog.pg_namespace AS n
WHERE (starts_with(lower(n.nspname::text), %(start)s) OR lower(n.nspname::text) = lower(%(schema)s))
  AND (starts_with(lower(n.nspname::text), 'sandbox_') OR starts_with(lower(n.nspname::text), 'pending_'))
ORDER BY 1
