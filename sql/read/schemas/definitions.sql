-- The DDL by which each of these objects could be made again, with who owns it and may use it where that is told apart;
-- none for what has no such text. Locks: ACCESS SHARE, for the moment of reading, on what a view reads.
WITH fires (enabled, mode) AS (VALUES ('D'::"char", ' DISABLE '), ('R', ' ENABLE REPLICA '), ('A', ' ENABLE ALWAYS '))
SELECT each.classid, each.objid,
       coalesce(CASE o.type
           WHEN 'view' THEN
               'CREATE VIEW ' || o.identity || coalesce(' WITH (' || array_to_string(c.reloptions, ', ') || ')', '')
               || E' AS\n' || pg_catalog.pg_get_viewdef(each.objid)
               || coalesce((SELECT string_agg(E'\n' || pg_catalog.pg_get_triggerdef(x.oid) || ';', '' ORDER BY x.tgname)
                            FROM pg_catalog.pg_trigger AS x WHERE x.tgrelid = each.objid AND NOT x.tgisinternal), '')
               || E'\n' || rights.told
           WHEN 'materialized view' THEN
               'CREATE MATERIALIZED VIEW ' || o.identity || E' AS\n' || pg_catalog.pg_get_viewdef(each.objid)
               || coalesce((SELECT string_agg(E'\n' || pg_catalog.pg_get_indexdef(i.indexrelid) || ';', '')
                            FROM pg_catalog.pg_index AS i WHERE i.indrelid = each.objid), '')
               || E'\n' || rights.told
           WHEN 'index' THEN -- what PostgreSQL writes ON ONLY would come back without its partitions, and invalid
               (SELECT start.text || substr(whole.text, length(start.text) + CASE c.relkind WHEN 'I' THEN 6 ELSE 1 END) || ';'
                FROM pg_catalog.pg_index AS i
                CROSS JOIN pg_catalog.pg_get_indexdef(each.objid) AS whole (text)
                CROSS JOIN format('CREATE %%sINDEX %%I ON ', CASE WHEN i.indisunique THEN 'UNIQUE ' END, c.relname)
                    AS start (text)
                WHERE i.indexrelid = each.objid)
           WHEN 'function' THEN pg_catalog.pg_get_functiondef(each.objid) || rights.told
           WHEN 'procedure' THEN pg_catalog.pg_get_functiondef(each.objid) || rights.told
           WHEN 'trigger' THEN
               (SELECT pg_catalog.pg_get_triggerdef(x.oid) || ';' || coalesce(
                           E'\nALTER TABLE ' || t.identity || fires.mode || 'TRIGGER ' || quote_ident(x.tgname) || ';', '')
                FROM pg_catalog.pg_trigger AS x
                LEFT JOIN fires ON fires.enabled = x.tgenabled
                CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_class'::regclass, x.tgrelid, 0) AS t
                WHERE x.oid = each.objid)
           WHEN 'rule' THEN
               (SELECT pg_catalog.pg_get_ruledef(x.oid) || coalesce(
                           E'\nALTER TABLE ' || t.identity || fires.mode || 'RULE ' || quote_ident(x.rulename) || ';', '')
                FROM pg_catalog.pg_rewrite AS x
                LEFT JOIN fires ON fires.enabled = x.ev_enabled
                CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_class'::regclass, x.ev_class, 0) AS t
                WHERE x.oid = each.objid)
           WHEN 'table constraint' THEN
               (SELECT 'ALTER TABLE ' || t.identity || ' ADD CONSTRAINT ' || quote_ident(x.conname) || ' '
                       || pg_catalog.pg_get_constraintdef(x.oid) || ';'
                FROM pg_catalog.pg_constraint AS x
                CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_class'::regclass, x.conrelid, 0) AS t
                WHERE x.oid = each.objid)
           WHEN 'default value' THEN
               (SELECT 'ALTER TABLE ONLY ' || t.identity || ' ALTER COLUMN ' || quote_ident(a.attname) || ' SET DEFAULT '
                       || pg_catalog.pg_get_expr(x.adbin, x.adrelid) || ';'
                FROM pg_catalog.pg_attrdef AS x
                JOIN pg_catalog.pg_attribute AS a ON a.attrelid = x.adrelid AND a.attnum = x.adnum AND a.attgenerated = ''
                CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_class'::regclass, x.adrelid, 0) AS t
                WHERE x.oid = each.objid)
           WHEN 'policy' THEN
               (SELECT 'CREATE POLICY ' || o.identity || CASE WHEN x.polpermissive THEN '' ELSE ' AS RESTRICTIVE' END
                       || ' FOR ' || CASE x.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                                        WHEN 'd' THEN 'DELETE' ELSE 'ALL' END
                       || ' TO ' || (SELECT string_agg(CASE WHEN role = 0 THEN 'PUBLIC' ELSE role::regrole::text END, ', ')
                                     FROM unnest(x.polroles) AS role)
                       || coalesce(' USING (' || pg_catalog.pg_get_expr(x.polqual, x.polrelid) || ')', '')
                       || coalesce(' WITH CHECK (' || pg_catalog.pg_get_expr(x.polwithcheck, x.polrelid) || ')', '') || ';'
                FROM pg_catalog.pg_policy AS x WHERE x.oid = each.objid)
           WHEN 'table' THEN
               (SELECT string_agg(CASE
                    WHEN c.relispartition THEN 'ALTER TABLE ' || p.identity || ' ATTACH PARTITION ' || o.identity || ' '
                        || pg_catalog.pg_get_expr(c.relpartbound, c.oid) || ';'
                    ELSE 'ALTER TABLE ' || o.identity || ' INHERIT ' || p.identity || ';'
                END, E'\n' ORDER BY i.inhseqno)
                FROM pg_catalog.pg_inherits AS i
                JOIN pg_catalog.pg_class AS parent ON parent.oid = i.inhparent
                JOIN pg_catalog.pg_namespace AS n ON n.oid = parent.relnamespace AND n.nspname = ANY (%(schemas)s)
                CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_class'::regclass, i.inhparent, 0) AS p
                WHERE i.inhrelid = each.objid)
       END, '') AS definition
FROM unnest(%(classids)s::oid[], %(objids)s::oid[]) AS each (classid, objid)
CROSS JOIN LATERAL pg_catalog.pg_identify_object(each.classid, each.objid, 0) AS o
LEFT JOIN pg_catalog.pg_class AS c ON each.classid = 'pg_class'::regclass AND c.oid = each.objid
LEFT JOIN pg_catalog.pg_proc AS f ON each.classid = 'pg_proc'::regclass AND f.oid = each.objid
CROSS JOIN LATERAL (
    SELECT '-- owner ' || coalesce(c.relowner, f.proowner)::regrole::text
           || coalesce(', rights ' || coalesce(c.relacl, f.proacl)::text, '') AS told
) AS rights
