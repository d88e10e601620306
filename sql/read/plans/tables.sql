-- The control tables' statistics: rows as the planner believes (reltuples, -1: never counted) and as they were counted by every
-- change since the statistics were reset; changes since the last ANALYZE. Locks: none.
SELECT c.relname::text AS name, c.reltuples::float8 AS believed, s.n_live_tup AS live, s.n_dead_tup AS dead,
       s.n_mod_since_analyze AS modified, greatest(s.last_analyze, s.last_autoanalyze) AS analyzed_at,
       c.relpages::bigint * current_setting('block_size')::bigint AS bytes,
       coalesce((SELECT option.option_value IN ('false', 'off', 'no', '0')
                 FROM pg_catalog.pg_options_to_table(c.reloptions) AS option
                 WHERE option.option_name = 'autovacuum_enabled'), false)
           OR NOT current_setting('autovacuum')::boolean AS autovacuum_off
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_stat_all_tables AS s ON s.relid = c.oid
WHERE n.nspname = 'public' AND c.relname IN ('sandboxes', 'sandbox_guild_mapping', 'sandbox_audit_log')
ORDER BY 1
