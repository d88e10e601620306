-- The control tables' indexes. `needed` estimates the bytes of a freshly built one: entries of the average width of its columns
-- (pg_stats shows what this role may read; NULL where it does not) at 90 % fill; `scans` are since `since`, or the beginning.
-- Locks: ACCESS SHARE on the tables, for the definitions; so it waits for whoever holds ACCESS EXCLUSIVE.
SELECT i.relname::text AS name, t.relname::text AS "table", pg_catalog.pg_get_indexdef(i.oid) AS definition,
       x.indisvalid AS valid, x.indisready AS ready, k.conname::text AS "constraint",
       coalesce(s.idx_scan, 0) AS scans, d.stats_reset AS since,
       i.relpages::bigint * current_setting('block_size')::bigint AS bytes,
       (SELECT i.reltuples::float8 * (16 + 8 * ceil(sum(w.avg_width) / 8.0)) / 0.9
        FROM pg_catalog.pg_attribute AS a
        LEFT JOIN pg_catalog.pg_stats AS w
            ON w.schemaname = 'public' AND w.tablename = t.relname AND w.attname = a.attname
        WHERE a.attrelid = i.oid AND i.reltuples > 0
        HAVING bool_and(w.avg_width IS NOT NULL))::bigint AS needed
FROM pg_catalog.pg_index AS x
JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
JOIN pg_catalog.pg_class AS t ON t.oid = x.indrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
LEFT JOIN pg_catalog.pg_constraint AS k ON k.conindid = i.oid AND k.contype IN ('p', 'u', 'x')
LEFT JOIN pg_catalog.pg_stat_all_indexes AS s ON s.indexrelid = i.oid
CROSS JOIN (SELECT stats_reset FROM pg_catalog.pg_stat_database WHERE datname = current_database()) AS d
WHERE n.nspname = 'public' AND t.relname IN ('sandboxes', 'sandbox_guild_mapping', 'sandbox_audit_log')
ORDER BY t.relname, i.relname
