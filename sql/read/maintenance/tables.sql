-- The control tables' upkeep: bytes with indexes and TOAST, rows by the statistics, when VACUUM and ANALYZE were last there, whether
-- autovacuum comes, and what this role may do: VACUUM passes a table over, with a warning only, for who is neither its owner nor the
-- database's, nor has MAINTAIN (from PostgreSQL 17). Locks: ACCESS SHARE on the tables; so it waits for whoever holds ACCESS EXCLUSIVE.
SELECT c.relname::text AS name, pg_catalog.pg_total_relation_size(c.oid) AS bytes, s.n_live_tup AS live, s.n_dead_tup AS dead,
       s.last_vacuum AS vacuumed_at, s.last_autovacuum AS autovacuumed_at,
       greatest(s.last_analyze, s.last_autoanalyze) AS analyzed_at,
       coalesce((SELECT NOT option.option_value::boolean
                 FROM pg_catalog.pg_options_to_table(c.reloptions) AS option
                 WHERE option.option_name = 'autovacuum_enabled'), false) AS off_here,
       NOT current_setting('autovacuum')::boolean AS off_everywhere,
       pg_catalog.pg_get_userbyid(c.relowner)::text AS owner,
       pg_catalog.pg_has_role(c.relowner, 'USAGE') OR pg_catalog.pg_has_role(d.datdba, 'USAGE')
           OR CASE WHEN current_setting('server_version_num')::integer >= 170000
                   THEN pg_catalog.has_table_privilege(c.oid, 'MAINTAIN') ELSE false END AS may_vacuum,
       ARRAY(SELECT privilege FROM unnest(ARRAY['SELECT', 'INSERT', 'DELETE']) AS privilege
             WHERE NOT pg_catalog.has_table_privilege(c.oid, privilege)) AS lacks,
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS columns
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_stat_all_tables AS s ON s.relid = c.oid
JOIN pg_catalog.pg_database AS d ON d.datname = current_database()
WHERE n.nspname = 'public' AND c.relname IN ('sandboxes', 'sandbox_guild_mapping', 'sandbox_audit_log')
ORDER BY 1
