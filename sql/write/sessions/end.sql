-- End one session, if it is as planned at this very moment: the same process in the same transaction, idle beyond the limit, or
-- waited for by others while it is idle or runs the statement that was cancelled in vain (`unheeded`), and neither a superuser's, nor a worker's, nor this toolkit's. Needs membership in its
-- role or pg_signal_backend. What it has not committed is lost. Locks: for a moment, all partitions of the lock table.
SELECT pg_catalog.pg_terminate_backend(a.pid)
FROM pg_catalog.pg_stat_activity AS a
JOIN pg_catalog.pg_roles AS r ON r.oid = a.usesysid
WHERE a.pid = %(pid)s AND a.backend_start = %(backend_start)s
    AND a.xact_start IS NOT DISTINCT FROM %(transaction_since)s
    AND a.backend_type = 'client backend' AND NOT r.rolsuper
    AND a.pid <> pg_catalog.pg_backend_pid() AND a.application_name <> %(ours)s
    AND CASE WHEN %(unheeded)s
        THEN a.state = 'active' AND a.query_start = %(statement_since)s AND a.wait_event_type IS DISTINCT FROM 'Lock'
        ELSE a.state LIKE 'idle in transaction%%'
        END
    AND CASE WHEN %(idle)s
        THEN a.state_change < now() - %(limit)s AND a.query_start = %(statement_since)s
        ELSE EXISTS (
            SELECT FROM pg_catalog.pg_stat_activity AS w
            WHERE w.wait_event_type = 'Lock' AND a.pid = ANY (pg_catalog.pg_blocking_pids(w.pid))
        )
        END
