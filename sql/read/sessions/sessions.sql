-- Every client's session on any database of the server, and which sessions it waits for: pg_blocking_pids() sees heavyweight
-- locks, and those whose requests stand before its own. `ours`: its last statement is tagged as this toolkit's, or it is the
-- asking one. Without pg_read_all_stats the state, the times and the statement of others are hidden (`?`); that
-- they wait is seen in pg_locks all the same. Locks: for a moment,
-- all partitions of the lock table, as pg_blocking_pids() is documented to. `may_signal` is what pg_terminate_backend() asks for,
-- superusers' sessions aside. From PostgreSQL 9.6.
SELECT a.pid, coalesce(a.usename, '?')::text AS "user", coalesce(a.datname, '?')::text AS database,
       coalesce(a.application_name, '') AS application, coalesce(host(a.client_addr), 'local') AS client,
       coalesce(a.state, '?') AS state, coalesce(a.wait_event_type || ': ' || a.wait_event, '') AS waits_for,
       a.backend_start, a.xact_start AS transaction_since, a.query_start AS statement_since, a.state_change AS since,
       left(coalesce(a.query, ''), 200) AS query, coalesce(r.rolsuper, true) AS superuser,
       a.pid = pg_catalog.pg_backend_pid() OR strpos(coalesce(a.query, ''), %(tag)s) > 0 AS ours,
       CASE WHEN coalesce(a.wait_event_type = 'Lock', a.state IS NULL AND a.pid IN (SELECT pid FROM pg_catalog.pg_locks
                                                                                    WHERE NOT granted))
            THEN pg_catalog.pg_blocking_pids(a.pid) ELSE '{}' END AS blocked_by,
       pg_catalog.pg_has_role(a.usesysid, 'USAGE') OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE') AS may_signal
FROM pg_catalog.pg_stat_activity AS a
LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = a.usesysid
WHERE coalesce(a.backend_type, 'client backend') = 'client backend' AND a.datid IS NOT NULL AND a.usesysid IS NOT NULL
ORDER BY a.xact_start NULLS LAST, a.pid
