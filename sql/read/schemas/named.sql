-- The schemas whose name starts like one that belongs to one of some ids, or is one of these very names: but only such as are
-- named like a sandbox's. A row that names `public` or another schema of production's does not own it. Locks: none.
SELECT n.nspname::text AS name
FROM pg_catalog.pg_namespace AS n
WHERE (left(lower(n.nspname::text), 16) = ANY (%(starts)s)
       OR lower(n.nspname::text) = ANY (ARRAY(SELECT lower(given) FROM unnest(%(schemas)s::text[]) AS given)))
  AND (starts_with(lower(n.nspname::text), 'sandbox_') OR starts_with(lower(n.nspname::text), 'pending_'))
ORDER BY 1
