-- Which sessions stand in the way of taking these sandboxes away: they hold or await a lock on one of their schemas or on
-- anything in it, or hold the row of one. Who has a row is told by its xmax, as row locks are in no view; where several
-- share it, nobody is named. Left out: ours, by backend pid or by the tag of its statement, and statements at work for
-- less than %(patience)s, for which a drop waits. Locks: none.
SELECT held.schema, held.sandbox, a.pid, coalesce(a.usename, '?')::text AS "user",
       coalesce(a.application_name, '') AS application, coalesce(a.state, '?') AS state, held.how,
       a.state_change AS since, a.xact_start AS transaction_since, a.backend_start, left(coalesce(a.query, ''), 200) AS query,
       'SELECT pg_terminate_backend(' || a.pid || ')' AS statement
FROM (
    SELECT lock.schema, lock.sandbox, lock.pid, bool_or(lock.granted) AS holds,
           string_agg(DISTINCT lock.how, ', ' ORDER BY lock.how) AS how
    FROM (
        SELECT n.nspname::text AS schema, NULL::uuid AS sandbox, l.pid, l.granted,
               CASE WHEN l.granted THEN 'holds ' ELSE 'awaits ' END || l.mode AS how
        FROM pg_catalog.pg_locks AS l
        JOIN pg_catalog.pg_class AS c ON l.locktype = 'relation' AND c.oid = l.relation
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
          AND n.nspname = ANY (%(schemas)s)
        UNION ALL
        SELECT n.nspname::text, NULL, l.pid, l.granted,
               CASE WHEN l.granted THEN 'holds ' ELSE 'awaits ' END || l.mode || ' on the schema'
        FROM pg_catalog.pg_locks AS l
        JOIN pg_catalog.pg_namespace AS n ON l.locktype = 'object' AND l.classid = 'pg_namespace'::regclass AND l.objid = n.oid
        WHERE l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
          AND n.nspname = ANY (%(schemas)s)
        UNION ALL
        SELECT '', s.id, row.pid, true, 'holds its row in public.sandboxes'
        FROM public.sandboxes AS s
        JOIN pg_catalog.pg_locks AS row ON row.locktype = 'transactionid' AND row.granted AND row.transactionid = s.xmax
        JOIN pg_catalog.pg_locks AS l ON l.pid = row.pid AND l.relation = 'public.sandboxes'::regclass
            AND l.mode IN ('RowShareLock', 'RowExclusiveLock')
        WHERE s.id = ANY (%(sandboxes)s)
    ) AS lock
    GROUP BY lock.schema, lock.sandbox, lock.pid
) AS held
JOIN pg_catalog.pg_stat_activity AS a ON a.pid = held.pid
WHERE a.pid <> pg_catalog.pg_backend_pid() AND strpos(coalesce(a.query, ''), %(tag)s) = 0
  AND coalesce(a.backend_type, 'client backend') = 'client backend' -- autovacuum gives way by itself
  AND (a.state IS DISTINCT FROM 'active' OR a.xact_start < clock_timestamp() - %(patience)s)
ORDER BY held.schema, held.holds DESC, a.xact_start, a.pid
