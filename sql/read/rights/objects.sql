-- What there is of the migration's objects, as the catalog has it: an enum's labels; of tables each column, constraint and
-- index; of functions the result, the language and the body. `valid` is false where an index or a constraint is not enforced.
-- Locks: none. PostgreSQL 18 lists NOT NULL among the constraints: columns tell of it here.
SELECT 'type' AS kind, t.typname::text AS name, string_agg(e.enumlabel::text, ', ' ORDER BY e.enumsortorder) AS text,
       true AS valid
FROM pg_catalog.pg_type AS t
JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
JOIN pg_catalog.pg_enum AS e ON e.enumtypid = t.oid
WHERE n.nspname = 'public' AND t.typname = ANY (%(types)s)
GROUP BY t.oid, t.typname
UNION ALL
SELECT 'column', c.relname::text || '.' || a.attname::text,
       pg_catalog.format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
           || coalesce(' DEFAULT ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid), ''),
       true
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE n.nspname = 'public' AND c.relname = ANY (%(tables)s) AND c.relkind IN ('r', 'p')
UNION ALL
SELECT 'constraint', c.relname::text, pg_catalog.pg_get_constraintdef(k.oid), k.convalidated AND coalesce(i.indisvalid, true)
FROM pg_catalog.pg_constraint AS k
JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_index AS i ON i.indexrelid = k.conindid AND k.contype IN ('p', 'u')
WHERE n.nspname = 'public' AND c.relname = ANY (%(tables)s) AND k.contype IN ('p', 'u', 'f', 'c')
UNION ALL
SELECT 'index', c.relname::text, pg_catalog.pg_get_indexdef(i.indexrelid), i.indisvalid AND i.indisready
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relname = ANY (%(tables)s)
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u'))
UNION ALL
SELECT 'function', p.proname::text || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')',
       pg_catalog.pg_get_function_result(p.oid) || ' ' || l.lanname || ' ' || p.prosrc, true
FROM pg_catalog.pg_proc AS p
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
WHERE n.nspname = 'public' AND p.proname = ANY (%(functions)s)
ORDER BY 1, 2, 3
