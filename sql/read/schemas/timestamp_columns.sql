-- The columns of the named schemas that tell when a row was last written or seen, where this role may read them.
-- Locks: none.
SELECT n.nspname::text AS schema_name, c.relname::text AS table_name, a.attname::text AS column_name
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND NOT a.attisdropped
WHERE n.nspname = ANY (%(schemas)s) AND c.relkind = 'r'
  AND a.attname IN ('updated_at', 'last_seen_at', 'created_at', 'awarded_at')
  AND a.atttypid = 'timestamptz'::regtype
  AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
ORDER BY 1, 2, 3
