-- Who holds or awaits which table lock on the control tables. A prepared transaction holds locks without a session: its pid is 0.
-- Locks: for a moment, all partitions of the lock table.
SELECT coalesce(l.pid, 0) AS pid, c.relname::text AS "table", l.mode, l.granted
FROM pg_catalog.pg_locks AS l
JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE l.locktype = 'relation' AND n.nspname = 'public'
  AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
  AND c.relname IN ('sandboxes', 'sandbox_guild_mapping', 'sandbox_audit_log')
ORDER BY 1, 2, 3
