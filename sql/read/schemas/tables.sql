-- The tables of a schema, partitioned ones too. Locks: none.
SELECT c.relname::text AS name
FROM pg_catalog.pg_class AS c
WHERE c.relnamespace = (SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname = %(schema)s)
  AND c.relkind IN ('r', 'p')
ORDER BY 1
