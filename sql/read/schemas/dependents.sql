-- What DROP SCHEMA … CASCADE would silently take along, or empty, outside of the schema: columns, tables, views, foreign
-- keys, defaults, triggers, policies, indexes, functions, extensions that rest on anything in it, and tables elsewhere of
-- which one in it is a part. Locks: none. From PostgreSQL 13.
--
-- pg_depend is followed from the schema through everything that is in it, as CASCADE does. What is not in it is reported
-- and not followed further. Not reported: toast tables, the triggers of foreign keys, and what exists only as a part of
-- something that is in it (publications' members, default privileges, members of operator families, casts from or to its types).
WITH RECURSIVE home AS (
    SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s
), reached (classid, objid, objsubid, inside) AS (
    SELECT 'pg_namespace'::regclass::oid, oid, 0, true FROM home
    UNION
    SELECT d.classid, d.objid, d.objsubid, place.inside
    FROM reached AS r
    JOIN pg_catalog.pg_depend AS d ON d.refclassid = r.classid AND d.refobjid = r.objid
    CROSS JOIN LATERAL (
        SELECT coalesce(
            CASE d.classid
                WHEN 'pg_class'::regclass THEN
                    (SELECT c.relnamespace IN (SELECT oid FROM home UNION SELECT 'pg_toast'::regnamespace)
                     FROM pg_catalog.pg_class AS c WHERE c.oid = d.objid)
                WHEN 'pg_type'::regclass THEN
                    (SELECT t.typnamespace IN (SELECT oid FROM home UNION SELECT 'pg_toast'::regnamespace)
                     FROM pg_catalog.pg_type AS t WHERE t.oid = d.objid)
                WHEN 'pg_rewrite'::regclass THEN
                    (SELECT c.relnamespace = (SELECT oid FROM home)
                     FROM pg_catalog.pg_rewrite AS x JOIN pg_catalog.pg_class AS c ON c.oid = x.ev_class
                     WHERE x.oid = d.objid)
                WHEN 'pg_trigger'::regclass THEN
                    (SELECT x.tgisinternal OR c.relnamespace = (SELECT oid FROM home)
                     FROM pg_catalog.pg_trigger AS x JOIN pg_catalog.pg_class AS c ON c.oid = x.tgrelid
                     WHERE x.oid = d.objid)
                WHEN 'pg_attrdef'::regclass THEN
                    (SELECT c.relnamespace = (SELECT oid FROM home)
                     FROM pg_catalog.pg_attrdef AS x JOIN pg_catalog.pg_class AS c ON c.oid = x.adrelid
                     WHERE x.oid = d.objid)
                WHEN 'pg_policy'::regclass THEN
                    (SELECT c.relnamespace = (SELECT oid FROM home)
                     FROM pg_catalog.pg_policy AS x JOIN pg_catalog.pg_class AS c ON c.oid = x.polrelid
                     WHERE x.oid = d.objid)
                WHEN 'pg_cast'::regclass THEN
                    (SELECT bool_or(t.typnamespace = (SELECT oid FROM home))
                     FROM pg_catalog.pg_cast AS x
                     JOIN pg_catalog.pg_type AS t ON t.oid IN (x.castsource, x.casttarget) WHERE x.oid = d.objid)
                WHEN 'pg_transform'::regclass THEN
                    (SELECT t.typnamespace = (SELECT oid FROM home)
                     FROM pg_catalog.pg_transform AS x JOIN pg_catalog.pg_type AS t ON t.oid = x.trftype
                     WHERE x.oid = d.objid)
                WHEN 'pg_constraint'::regclass THEN
                    (SELECT x.connamespace = (SELECT oid FROM home)
                     FROM pg_catalog.pg_constraint AS x WHERE x.oid = d.objid)
            END,
            d.classid::regclass::text IN (
                'pg_amop', 'pg_amproc', 'pg_default_acl', 'pg_publication_namespace', 'pg_publication_rel'
            )
            OR (SELECT o.schema = quote_ident(%(schema)s) FROM pg_catalog.pg_identify_object(d.classid, d.objid, 0) AS o),
            false
        ) AS inside
    ) AS place
    WHERE r.inside
)
SELECT CASE r.classid
           WHEN 'pg_rewrite'::regclass THEN
               (SELECT CASE c.relkind WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialized view ' ELSE 'a rule of ' END
                           || c.oid::regclass::text
                FROM pg_catalog.pg_rewrite AS x JOIN pg_catalog.pg_class AS c ON c.oid = x.ev_class WHERE x.oid = r.objid)
           WHEN 'pg_constraint'::regclass THEN
               (SELECT CASE x.contype WHEN 'f' THEN 'foreign key ' ELSE 'constraint ' END || x.conname
                           || ' of ' || x.conrelid::regclass::text
                FROM pg_catalog.pg_constraint AS x WHERE x.oid = r.objid)
           ELSE pg_catalog.pg_describe_object(r.classid, r.objid, r.objsubid)
       END AS name
FROM reached AS r
WHERE NOT r.inside
UNION
SELECT p.oid::regclass::text || ', of which ' || c.oid::regclass::text || ' is a part'
FROM pg_catalog.pg_inherits AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid AND c.relnamespace = (SELECT oid FROM home)
JOIN pg_catalog.pg_class AS p ON p.oid = i.inhparent AND p.relnamespace <> c.relnamespace
ORDER BY 1
