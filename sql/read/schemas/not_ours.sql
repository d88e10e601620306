-- Which of these schemas this role may not drop: it is no member of their owner. Locks: none.
SELECT nspname::text AS name
FROM pg_catalog.pg_namespace
WHERE nspname = ANY (%(schemas)s) AND NOT pg_catalog.pg_has_role(nspowner, 'USAGE')
ORDER BY 1
