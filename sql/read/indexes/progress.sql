-- How far the indexes that are being made on some tables of the schema public have come; `index` is NULL before it has a name that
-- others see. Without pg_read_all_stats what others make is hidden, but for their lock on the table. Locks: for a moment, all
-- partitions of the lock table. From PostgreSQL 12.
SELECT c.relname::text AS "table", i.relname::text AS index, coalesce(p.phase, 'hidden from this role') AS phase,
       coalesce(p.blocks_done, 0) AS done, coalesce(p.blocks_total, 0) AS total, p.current_locker_pid::int AS waits_for, p.pid
FROM pg_catalog.pg_stat_progress_create_index AS p
JOIN pg_catalog.pg_class AS c ON c.relname = ANY (%(tables)s)
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = 'public'
LEFT JOIN pg_catalog.pg_class AS i ON i.oid = p.index_relid
WHERE p.datname = current_database()
  AND CASE WHEN p.relid IS NOT NULL THEN p.relid = c.oid
           ELSE EXISTS (SELECT FROM pg_catalog.pg_locks AS l WHERE l.pid = p.pid AND l.relation = c.oid
                        AND l.mode IN ('ShareLock', 'ShareUpdateExclusiveLock') AND l.granted)
           END
