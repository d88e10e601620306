-- What others feel just now: how many client sessions that are not this toolkit's wait for a lock, how many are at work, those
-- that wait among them, and how many did anything within `recent`. `all_seen`: without pg_read_all_stats the state
-- of other roles' sessions is hidden: they do not count as at work, and `lately` is null; who waits is then asked of the table of
-- locks, which hides nothing. Locks: none; in that case, for a moment, all partitions of the lock table in shared mode. From
-- PostgreSQL 10.
WITH others AS (
    SELECT a.pid, a.state, a.state_change, a.wait_event_type
    FROM pg_catalog.pg_stat_activity AS a
    WHERE coalesce(a.backend_type, 'client backend') = 'client backend'
      AND a.datid IS NOT NULL AND a.usesysid IS NOT NULL
      AND a.pid <> pg_catalog.pg_backend_pid()
      AND coalesce(a.application_name, '') <> %(application)s
      AND strpos(coalesce(a.query, ''), '/* ' || %(application)s) <> 1
), rights AS (
    SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS all_seen
)
SELECT CASE
           WHEN r.all_seen THEN (SELECT count(*) FROM others WHERE wait_event_type = 'Lock')
           ELSE (SELECT count(DISTINCT l.pid)
                 FROM pg_catalog.pg_locks AS l JOIN others AS o ON o.pid = l.pid WHERE NOT l.granted)
       END AS lock_waits,
       (SELECT count(*) FROM others WHERE state = 'active') AS active,
       CASE WHEN r.all_seen THEN
           (SELECT count(*) FROM others
            WHERE state = 'active' OR state_change > clock_timestamp() - %(recent)s)
       END AS lately,
       r.all_seen
FROM rights AS r
