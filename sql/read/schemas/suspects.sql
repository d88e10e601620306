-- Of these schemas those on which something elsewhere may rest, or of which a table may be a part of one elsewhere; on none
-- of the others anything does. A tenth of the cost of read/schemas/dependents, which is asked about these alone. Locks: none.
-- From PostgreSQL 13.
--
-- All that rests on a schema is followed through pg_depend; it is suspected unless each of it is known to be in it, and is no
-- member of an extension: CASCADE takes the whole extension with one.
-- Scalar subqueries, because PostgreSQL would read whole catalogs to hash what EXISTS asks.
WITH RECURSIVE reached (home, classid, objid) AS (
    SELECT oid, 'pg_namespace'::regclass::oid, oid FROM pg_catalog.pg_namespace WHERE nspname = ANY (%(schemas)s)
    UNION
    SELECT r.home, d.classid, d.objid
    FROM reached AS r
    CROSS JOIN LATERAL ( -- by its index: all of it would be read for what is thought to be many
        SELECT classid, objid FROM pg_catalog.pg_depend WHERE refclassid = r.classid AND refobjid = r.objid OFFSET 0
    ) AS d
)
SELECT DISTINCT n.nspname::text AS name
FROM reached AS r
JOIN pg_catalog.pg_namespace AS n ON n.oid = r.home
WHERE NOT coalesce(
    CASE r.classid
        WHEN 'pg_namespace'::regclass THEN r.objid = r.home
        WHEN 'pg_class'::regclass THEN
            (SELECT c.relnamespace IN (r.home, 'pg_toast'::regnamespace) FROM pg_catalog.pg_class AS c WHERE c.oid = r.objid)
            AND (SELECT count(*) = 0
                 FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS p ON p.oid = i.inhparent
                 WHERE i.inhrelid = r.objid AND p.relnamespace <> r.home)
        WHEN 'pg_type'::regclass THEN
            (SELECT t.typnamespace IN (r.home, 'pg_toast'::regnamespace) FROM pg_catalog.pg_type AS t WHERE t.oid = r.objid)
        WHEN 'pg_constraint'::regclass THEN
            (SELECT x.connamespace = r.home FROM pg_catalog.pg_constraint AS x WHERE x.oid = r.objid)
        WHEN 'pg_attrdef'::regclass THEN
            (SELECT c.relnamespace = r.home
             FROM pg_catalog.pg_attrdef AS x JOIN pg_catalog.pg_class AS c ON c.oid = x.adrelid WHERE x.oid = r.objid)
        WHEN 'pg_trigger'::regclass THEN
            (SELECT c.relnamespace = r.home
             FROM pg_catalog.pg_trigger AS x JOIN pg_catalog.pg_class AS c ON c.oid = x.tgrelid WHERE x.oid = r.objid)
    END,
    false
) OR (SELECT count(*) > 0 FROM pg_catalog.pg_depend AS m WHERE m.classid = r.classid AND m.objid = r.objid AND m.deptype = 'e')
