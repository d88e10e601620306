-- How far CREATE INDEX CONCURRENTLY on a table has come. Locks: none. From PostgreSQL 12.
SELECT p.phase, p.blocks_done AS done, p.blocks_total AS total, p.current_locker_pid::int AS waits_for
FROM pg_catalog.pg_stat_progress_create_index AS p
JOIN pg_catalog.pg_class AS c ON c.oid = p.relid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE p.datname = current_database() AND n.nspname = 'public' AND c.relname = %(table)s
  AND p.command = 'CREATE INDEX CONCURRENTLY'
