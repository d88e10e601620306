-- Whether the asking role holds each of these rights, and whether it holds any part of it; null where what it is about is not there.
-- An owner's rights are those of whoever is a member of the role that owns it; a name with a star stands for all schemas that begin
-- so, and only these can be held in part. Locks: none. From PostgreSQL 15.
SELECT w.word,
       coalesce(o.whole, p.held) AS held,
       coalesce(o.part, p.held) AS partly
FROM unnest(%(words)s::text[], %(kinds)s::text[], %(names)s::text[], %(privileges)s::text[]) AS w (word, kind, name, privilege)
CROSS JOIN LATERAL (
    SELECT CASE w.kind
               WHEN 'table' THEN
                   (SELECT pg_catalog.has_table_privilege(c.oid, w.privilege)
                    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                    WHERE n.nspname || '.' || c.relname = w.name)
               WHEN 'schema' THEN
                   (SELECT pg_catalog.has_schema_privilege(n.oid, w.privilege) FROM pg_catalog.pg_namespace AS n WHERE n.nspname = w.name)
               WHEN 'database' THEN pg_catalog.has_database_privilege(current_database(), w.privilege)
               WHEN 'role' THEN
                   (SELECT pg_catalog.pg_has_role(r.oid, 'USAGE') FROM pg_catalog.pg_roles AS r WHERE r.rolname = w.name)
           END AS held) AS p
CROSS JOIN LATERAL (
    SELECT bool_and(pg_catalog.pg_has_role(owners.owner, 'USAGE')) AS whole,
           bool_or(pg_catalog.pg_has_role(owners.owner, 'USAGE')) AS part
    FROM (SELECT d.datdba FROM pg_catalog.pg_database AS d
          WHERE d.datname = current_database() AND w.name = 'the database'
          UNION SELECT c.relowner FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          WHERE n.nspname || '.' || c.relname = w.name
          UNION SELECT n.nspowner FROM pg_catalog.pg_namespace AS n
          WHERE right(w.name, 1) = '*' AND starts_with(n.nspname::text, rtrim(w.name, '*'))) AS owners (owner)
    WHERE w.kind = 'owner') AS o
