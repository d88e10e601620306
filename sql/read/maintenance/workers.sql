-- Who holds or awaits a lock on the control tables that VACUUM has to wait for: another VACUUM, an ANALYZE, DDL. What has been at
-- it for less than two seconds is passed over, but for a VACUUM. A session's kind, its start and a VACUUM's progress are hidden
-- from other roles without pg_read_all_stats; a prepared transaction has no session: its pid is 0.
-- Locks: for a moment, all partitions of the lock table.
SELECT c.relname::text AS "table", coalesce(l.pid, 0) AS pid, coalesce(a.usename::text, '') AS "user",
       coalesce(a.application_name, '') AS application, coalesce(a.backend_type, '') AS kind, a.xact_start AS since,
       coalesce(p.phase, '') AS phase, p.heap_blks_scanned AS scanned, p.heap_blks_total AS total
FROM pg_catalog.pg_locks AS l
JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
LEFT JOIN pg_catalog.pg_stat_progress_vacuum AS p ON p.pid = l.pid AND p.relid = c.oid
WHERE l.locktype = 'relation' AND n.nspname = 'public'
  AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
  AND c.relname IN ('sandboxes', 'sandbox_guild_mapping', 'sandbox_audit_log')
  AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
  AND (p.pid IS NOT NULL OR a.xact_start IS NULL OR a.xact_start < clock_timestamp() - interval '2 seconds')
ORDER BY 1, since NULLS LAST, pid
