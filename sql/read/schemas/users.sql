-- Who uses these schemas now: sessions that hold or await a lock on a table or on the schema itself, and sessions
-- whose statement names the schema. Ours, by backend pid, is left out. Locks: none.
SELECT schema_name, pid, coalesce(usename, '?')::text AS user_name, coalesce(application_name, '') AS application,
       coalesce(state, '?') AS state, how
FROM (
    SELECT n.nspname::text AS schema_name, l.pid, 'holds ' || l.mode AS how
    FROM pg_catalog.pg_locks AS l
    JOIN pg_catalog.pg_class AS c ON l.locktype = 'relation' AND c.oid = l.relation
        AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    UNION
    SELECT n.nspname::text, l.pid, 'holds ' || l.mode || ' on the schema'
    FROM pg_catalog.pg_locks AS l
    JOIN pg_catalog.pg_namespace AS n ON l.locktype = 'object' AND l.classid = 'pg_namespace'::regclass
        AND l.objid = n.oid
        AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
    UNION
    SELECT n.nspname::text, a.pid, 'its statement names the schema'
    FROM pg_catalog.pg_stat_activity AS a
    JOIN pg_catalog.pg_namespace AS n ON strpos(a.query, n.nspname::text) > 0
    WHERE a.datname = current_database() AND a.backend_type = 'client backend'
      AND (a.state <> 'idle' OR a.state_change > now() - %(recent)s)
      AND strpos(a.query, %(tag)s) = 0
) AS used
JOIN pg_catalog.pg_stat_activity AS a USING (pid)
WHERE schema_name = ANY (%(schemas)s) AND pid <> pg_catalog.pg_backend_pid()
  AND NOT (how = 'holds AccessShareLock' AND strpos(coalesce(query, ''), %(tag)s) > 0) -- another operator looks, as we do
  -- For another role's session without pg_read_all_stats the type is hidden too: count it.
  AND coalesce(backend_type, 'client backend') = 'client backend'
ORDER BY schema_name, pid, how
