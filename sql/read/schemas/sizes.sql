-- The bytes of these schemas' tables, with their indexes and TOAST. Locks: ACCESS SHARE on each table, for a moment.
SELECT n.nspname::text AS name,
       coalesce(sum(pg_catalog.pg_total_relation_size(c.oid)), 0)::bigint AS bytes
FROM pg_catalog.pg_namespace AS n
LEFT JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'm')
WHERE n.nspname = ANY (%(schemas)s)
GROUP BY n.oid
