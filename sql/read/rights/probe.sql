-- A schema, whose it is, and how many tables it has; no row where there is none. Locks: none.
SELECT pg_catalog.pg_get_userbyid(n.nspowner)::text AS owner, count(c.oid) AS tables
FROM pg_catalog.pg_namespace AS n
LEFT JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relkind = 'r'
WHERE n.nspname = %(schema)s
GROUP BY n.oid, n.nspowner
