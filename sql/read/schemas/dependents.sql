-- Objects outside a schema that DROP … CASCADE would silently take with it: views and foreign keys. Locks: none.
WITH home AS (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s)
SELECT DISTINCT 'view ' || v.oid::regclass::text AS name
FROM pg_catalog.pg_depend AS d
JOIN pg_catalog.pg_class AS t ON d.refclassid = 'pg_class'::regclass AND t.oid = d.refobjid
JOIN pg_catalog.pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
JOIN pg_catalog.pg_class AS v ON v.oid = r.ev_class
WHERE t.relnamespace = (SELECT oid FROM home) AND v.relnamespace <> t.relnamespace
UNION
SELECT 'foreign key ' || k.conname || ' of ' || k.conrelid::regclass::text
FROM pg_catalog.pg_constraint AS k
JOIN pg_catalog.pg_class AS t ON t.oid = k.confrelid
JOIN pg_catalog.pg_class AS f ON f.oid = k.conrelid
WHERE k.contype = 'f' AND t.relnamespace = (SELECT oid FROM home) AND f.relnamespace <> t.relnamespace
ORDER BY 1
