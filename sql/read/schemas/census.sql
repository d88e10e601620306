-- Every schema that might be a sandbox's, or is in quarantine, with its owner, tables, bytes and estimated rows.
-- The underscore is escaped: a bare LIKE 'sandbox_%' also names `sandboxes` and `sandbox-tools`.
-- `writes` counts rows inserted, updated and deleted since the statistics were reset. Locks: none.
SELECT n.nspname::text AS name,
       n.oid::bigint AS oid,
       pg_catalog.pg_get_userbyid(n.nspowner)::text AS owner,
       count(c.oid) FILTER (WHERE c.relkind IN ('r', 'p')) AS tables,
       coalesce(sum(pg_catalog.pg_total_relation_size(c.oid)) FILTER (WHERE c.relkind IN ('r', 'm')), 0)::bigint
           AS bytes,
       coalesce(sum(s.n_live_tup), 0)::bigint AS rows_estimate,
       coalesce(sum(s.n_tup_ins + s.n_tup_upd + s.n_tup_del), 0)::bigint AS writes,
       max(greatest(s.last_vacuum, s.last_autovacuum, s.last_analyze, s.last_autoanalyze)) AS last_maintenance
FROM pg_catalog.pg_namespace AS n
LEFT JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'm')
LEFT JOIN pg_catalog.pg_stat_all_tables AS s ON s.relid = c.oid
WHERE starts_with(lower(n.nspname::text), 'sandbox') OR starts_with(n.nspname::text, 'quarantine_')
   OR starts_with(n.nspname::text, 'pending_')
GROUP BY n.oid
ORDER BY n.nspname
