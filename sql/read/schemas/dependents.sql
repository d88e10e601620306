-- What DROP SCHEMA … CASCADE would silently take along, or empty, outside of each of these schemas: columns, tables, views,
-- foreign keys, defaults, triggers, policies, indexes, functions, extensions that rest on anything in it, what rests on
-- those in turn, and tables elsewhere of which one in it is a part. In the order in which they can be dropped one by one.
-- `statement` clears it without CASCADE and without losing a row; empty where none does. Locks: none. From PostgreSQL 13.
--
-- pg_depend is followed from the schema through everything that is in it, as CASCADE does, and then through what would be
-- dropped elsewhere; `part` is what goes silently with something that is reported. A table elsewhere is detached, never
-- dropped, so what rests on it stays. `level` counts from the schema: the deepest goes first. Not reported: toast tables, the
-- triggers of foreign keys, what partitions and children have of their parents (what stays with them when they are detached
-- is seen then), and what exists only as a part of something that is in
-- the schema (publications' members, default privileges, members of operator families, casts from or to its types).
WITH RECURSIVE home AS (
    SELECT oid, nspname::text AS name FROM pg_catalog.pg_namespace WHERE nspname = ANY (%(schemas)s)
), reached (home, classid, objid, objsubid, inside, part, level) AS (
    SELECT oid, 'pg_namespace'::regclass::oid, oid, 0, true, false, 0 FROM home
    UNION
    SELECT r.home,
           CASE WHEN view.oid IS NULL THEN d.classid ELSE 'pg_class'::regclass END,
           coalesce(view.oid, d.objid),
           d.objsubid,
           place.inside,
           NOT r.inside AND d.deptype <> 'n',
           CASE WHEN place.inside THEN 0 ELSE r.level + (r.inside OR d.deptype = 'n')::int END
    FROM reached AS r
    JOIN home AS h ON h.oid = r.home
    JOIN pg_catalog.pg_depend AS d ON d.refclassid = r.classid AND d.refobjid = r.objid
        AND r.objsubid IN (0, d.refobjsubid)
    LEFT JOIN LATERAL ( -- pg_depend knows a view by its rule, which rests on the view too
        SELECT c.oid
        FROM pg_catalog.pg_rewrite AS x JOIN pg_catalog.pg_class AS c ON c.oid = x.ev_class
        WHERE d.classid = 'pg_rewrite'::regclass AND x.oid = d.objid AND x.rulename = '_RETURN'
    ) AS view ON true
    CROSS JOIN LATERAL (
        SELECT coalesce(
            CASE d.classid
                WHEN 'pg_class'::regclass THEN
                    (SELECT c.relnamespace IN (r.home, 'pg_toast'::regnamespace)
                     FROM pg_catalog.pg_class AS c WHERE c.oid = d.objid)
                WHEN 'pg_type'::regclass THEN
                    (SELECT t.typnamespace IN (r.home, 'pg_toast'::regnamespace)
                     FROM pg_catalog.pg_type AS t WHERE t.oid = d.objid)
                WHEN 'pg_rewrite'::regclass THEN
                    (SELECT c.relnamespace = r.home
                     FROM pg_catalog.pg_rewrite AS x JOIN pg_catalog.pg_class AS c ON c.oid = x.ev_class
                     WHERE x.oid = d.objid)
                WHEN 'pg_trigger'::regclass THEN
                    (SELECT x.tgisinternal OR c.relnamespace = r.home
                     FROM pg_catalog.pg_trigger AS x JOIN pg_catalog.pg_class AS c ON c.oid = x.tgrelid
                     WHERE x.oid = d.objid)
                WHEN 'pg_attrdef'::regclass THEN
                    (SELECT c.relnamespace = r.home
                     FROM pg_catalog.pg_attrdef AS x JOIN pg_catalog.pg_class AS c ON c.oid = x.adrelid
                     WHERE x.oid = d.objid)
                WHEN 'pg_policy'::regclass THEN
                    (SELECT c.relnamespace = r.home
                     FROM pg_catalog.pg_policy AS x JOIN pg_catalog.pg_class AS c ON c.oid = x.polrelid
                     WHERE x.oid = d.objid)
                WHEN 'pg_cast'::regclass THEN
                    (SELECT bool_or(t.typnamespace = r.home)
                     FROM pg_catalog.pg_cast AS x
                     JOIN pg_catalog.pg_type AS t ON t.oid IN (x.castsource, x.casttarget) WHERE x.oid = d.objid)
                WHEN 'pg_transform'::regclass THEN
                    (SELECT t.typnamespace = r.home
                     FROM pg_catalog.pg_transform AS x JOIN pg_catalog.pg_type AS t ON t.oid = x.trftype
                     WHERE x.oid = d.objid)
                WHEN 'pg_constraint'::regclass THEN
                    (SELECT x.connamespace = r.home FROM pg_catalog.pg_constraint AS x WHERE x.oid = d.objid)
            END,
            d.classid::regclass::text IN ('pg_default_acl', 'pg_publication_namespace', 'pg_publication_rel')
            OR d.classid IN ('pg_amop'::regclass, 'pg_amproc'::regclass) AND NOT EXISTS ( -- an operator class goes with its members
                SELECT FROM pg_catalog.pg_depend AS m JOIN pg_catalog.pg_opclass AS x ON x.oid = m.refobjid
                WHERE m.classid = d.classid AND m.objid = d.objid AND m.refclassid = 'pg_opclass'::regclass
                    AND m.deptype = 'i' AND x.opcnamespace <> r.home
            )
            OR (SELECT o.schema = quote_ident(h.name) FROM pg_catalog.pg_identify_object(d.classid, d.objid, 0) AS o),
            false
        ) AS inside,
        coalesce(
            CASE d.classid
                WHEN 'pg_class'::regclass THEN
                    (SELECT c.relispartition AND c.relkind IN ('i', 'I') FROM pg_catalog.pg_class AS c WHERE c.oid = d.objid)
                WHEN 'pg_trigger'::regclass THEN
                    (SELECT x.tgparentid <> 0 FROM pg_catalog.pg_trigger AS x WHERE x.oid = d.objid)
                WHEN 'pg_constraint'::regclass THEN
                    (SELECT x.conparentid <> 0 OR x.coninhcount > 0 AND NOT x.conislocal
                     FROM pg_catalog.pg_constraint AS x WHERE x.oid = d.objid)
            END,
            false
        ) AS inherited
    ) AS place
    WHERE NOT place.inherited
      AND (r.inside
        OR NOT place.inside
           AND view.oid IS DISTINCT FROM r.objid
           AND r.level < 32 -- views may rest on one another in a circle
           AND (r.classid <> 'pg_class'::regclass
             OR r.objsubid = 0
                AND (SELECT c.relkind IN ('v', 'm', 'i', 'I') FROM pg_catalog.pg_class AS c WHERE c.oid = r.objid)))
), outside AS (
    SELECT home, classid, objid, objsubid, max(level) AS level
    FROM reached
    WHERE NOT inside AND NOT part
    GROUP BY home, classid, objid, objsubid
)
SELECT h.name AS schema,
       CASE
           WHEN con.contype = 'f' THEN 'foreign key'
           WHEN con.oid IS NOT NULL THEN 'constraint'
           WHEN o.type = 'default value' THEN 'default'
           WHEN o.type = 'table column' THEN 'column'
           ELSE o.type
       END AS kind,
       address.object_names[1] AS place,
       address.object_names[2] AS relation,
       CASE
           WHEN o.type IN ('table constraint', 'default value', 'trigger', 'policy', 'rule') THEN path.whole
           ELSE o.identity
       END AS name,
       CASE
           WHEN con.contype = 'f' THEN 'foreign key ' || con.conname || ' of ' || con.conrelid::regclass::text
           WHEN con.conrelid <> 0 THEN 'constraint ' || con.conname || ' of ' || con.conrelid::regclass::text
           WHEN o.type IN ('view', 'materialized view') THEN o.type || ' ' || r.objid::regclass::text
           ELSE pg_catalog.pg_describe_object(r.classid, r.objid, r.objsubid)
       END AS described,
       coalesce(CASE
           WHEN o.type = 'index' AND EXISTS ( -- it goes with its constraint only, and what is unique would be so no more
               SELECT FROM pg_catalog.pg_constraint AS x WHERE x.conindid = r.objid AND x.contype IN ('p', 'u', 'x')
           ) THEN NULL
           WHEN o.type IN ('view', 'materialized view', 'index', 'function', 'procedure', 'trigger', 'rule') THEN
               'DROP ' || upper(o.type) || ' ' || o.identity || ';'
           WHEN o.type = 'policy' THEN -- without a restrictive one more could be read than before
               (SELECT 'DROP POLICY ' || o.identity || ';'
                FROM pg_catalog.pg_policy AS x WHERE x.oid = r.objid AND x.polpermissive)
           WHEN o.type = 'table constraint' THEN 'ALTER TABLE ' || path."table" || ' DROP CONSTRAINT ' || path.own || ';'
           WHEN o.type = 'default value' THEN -- a child has its own
               (SELECT 'ALTER TABLE ONLY ' || path."table" || ' ALTER COLUMN ' || path.own || ' DROP DEFAULT;'
                FROM pg_catalog.pg_attrdef AS x
                JOIN pg_catalog.pg_attribute AS a ON a.attrelid = x.adrelid AND a.attnum = x.adnum
                WHERE x.oid = r.objid AND a.attgenerated = '')
           WHEN o.type = 'table' THEN
               (SELECT CASE
                    WHEN bool_or(c.relispartition) THEN
                        'ALTER TABLE ' || min(p.identity) || ' DETACH PARTITION ' || o.identity || ';'
                    ELSE 'ALTER TABLE ' || o.identity || ' NO INHERIT ' || string_agg(p.identity, ', NO INHERIT ') || ';'
                END
                FROM pg_catalog.pg_inherits AS i
                JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
                JOIN pg_catalog.pg_class AS parent ON parent.oid = i.inhparent AND parent.relnamespace = r.home
                CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_class'::regclass, i.inhparent, 0) AS p
                WHERE i.inhrelid = r.objid)
       END, '') AS statement,
       r.classid, r.objid, r.level
FROM outside AS r
JOIN home AS h ON h.oid = r.home
LEFT JOIN pg_catalog.pg_constraint AS con ON r.classid = 'pg_constraint'::regclass AND con.oid = r.objid
CROSS JOIN LATERAL pg_catalog.pg_identify_object(r.classid, r.objid, r.objsubid) AS o
CROSS JOIN LATERAL pg_catalog.pg_identify_object_as_address(r.classid, r.objid, r.objsubid) AS address
CROSS JOIN LATERAL (
    SELECT string_agg(quote_ident(each.name), '.' ORDER BY each.place) AS whole,
           string_agg(quote_ident(each.name), '.' ORDER BY each.place) FILTER (WHERE each.place < 3) AS "table",
           max(quote_ident(each.name)) FILTER (WHERE each.place = 3) AS own
    FROM unnest(address.object_names) WITH ORDINALITY AS each (name, place)
) AS path
WHERE o.identity IS NOT NULL -- or it was dropped just now
UNION ALL
SELECT h.name, 'table', n.nspname, p.relname, o.identity,
       p.oid::regclass::text || ', of which ' || c.oid::regclass::text || ' is a part',
       '', 'pg_class'::regclass, p.oid, 1
FROM home AS h
JOIN pg_catalog.pg_class AS c ON c.relnamespace = h.oid
JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = c.oid
JOIN pg_catalog.pg_class AS p ON p.oid = i.inhparent AND p.relnamespace <> h.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.relnamespace
CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_class'::regclass, p.oid, 0) AS o
UNION ALL -- CASCADE takes an extension with any member of it
SELECT DISTINCT h.name, 'extension', x.extname::text, NULL, quote_ident(x.extname), 'extension ' || x.extname,
       '', 'pg_extension'::regclass, x.oid, 1
FROM reached AS r
JOIN home AS h ON h.oid = r.home
JOIN pg_catalog.pg_depend AS m ON m.classid = r.classid AND m.objid = r.objid AND m.deptype = 'e'
JOIN pg_catalog.pg_extension AS x ON x.oid = m.refobjid
WHERE r.inside AND NOT EXISTS (
    SELECT FROM outside AS o WHERE o.home = r.home AND o.classid = 'pg_extension'::regclass AND o.objid = x.oid
)
ORDER BY level DESC, described
