-- The sandboxes' tables, and the control tables, with the most dead rows, by the statistics. Locks: none.
SELECT s.schemaname::text || '.' || s.relname::text AS name, s.n_dead_tup AS dead, s.n_live_tup AS live,
       greatest(s.last_vacuum, s.last_autovacuum) AS vacuumed_at
FROM pg_catalog.pg_stat_all_tables AS s
WHERE s.n_dead_tup > 0
    AND (starts_with(lower(s.schemaname::text), 'sandbox_') OR starts_with(s.schemaname::text, 'quarantine_')
         OR s.schemaname = 'public' AND starts_with(s.relname::text, 'sandbox'))
ORDER BY s.n_dead_tup DESC, 1
LIMIT %(shown)s
