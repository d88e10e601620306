-- Every schema that might be a sandbox's, or is in quarantine, with its owner, tables and estimated rows. No sizes: to ask for
-- them PostgreSQL opens every table and index, which for ten thousand schemas takes longer than all the rest (read/schemas/sizes).
-- The underscore is escaped: a bare LIKE 'sandbox_%' also names `sandboxes` and `sandbox-tools`.
-- `writes` counts rows inserted, updated and deleted since the statistics were reset. Locks: none.
SELECT n.nspname::text AS name,
       n.oid::bigint AS oid,
       pg_catalog.pg_get_userbyid(n.nspowner)::text AS owner,
       count(c.oid) FILTER (WHERE c.relkind IN ('r', 'p')) AS tables,
       coalesce(sum(pg_catalog.pg_stat_get_live_tuples(c.oid)), 0)::bigint AS rows_estimate,
       coalesce(sum(pg_catalog.pg_stat_get_tuples_inserted(c.oid) + pg_catalog.pg_stat_get_tuples_updated(c.oid)
           + pg_catalog.pg_stat_get_tuples_deleted(c.oid)), 0)::bigint AS writes,
       max(greatest(pg_catalog.pg_stat_get_last_vacuum_time(c.oid), pg_catalog.pg_stat_get_last_autovacuum_time(c.oid),
           pg_catalog.pg_stat_get_last_analyze_time(c.oid), pg_catalog.pg_stat_get_last_autoanalyze_time(c.oid)))
           AS last_maintenance
FROM pg_catalog.pg_namespace AS n
LEFT JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'm')
WHERE starts_with(lower(n.nspname::text), 'sandbox') OR starts_with(n.nspname::text, 'quarantine_')
   OR starts_with(n.nspname::text, 'pending_')
GROUP BY n.oid
ORDER BY n.nspname
