-- Which roles, and whether this database, may have only so many connections, and how many each has. A role's limit counts its
-- sessions on all databases; superusers have none. Locks: none.
SELECT 'role' AS kind, r.rolname::text AS name, r.rolconnlimit AS most, count(a.pid) AS used
FROM pg_catalog.pg_roles AS r
LEFT JOIN pg_catalog.pg_stat_activity AS a
    ON a.usesysid = r.oid AND coalesce(a.backend_type, 'client backend') = 'client backend'
WHERE r.rolconnlimit >= 0 AND r.rolcanlogin AND NOT r.rolsuper
GROUP BY r.oid, r.rolname, r.rolconnlimit
UNION ALL
SELECT 'database', d.datname::text, d.datconnlimit, count(a.pid)
FROM pg_catalog.pg_database AS d
LEFT JOIN pg_catalog.pg_stat_activity AS a
    ON a.datid = d.oid AND coalesce(a.backend_type, 'client backend') = 'client backend'
WHERE d.datname = current_database() AND d.datconnlimit >= 0
GROUP BY d.oid, d.datname, d.datconnlimit
ORDER BY 1, 2
