-- Who is connected: clients of all databases, as they share the limit, by application, user and state. Without
-- pg_read_all_stats the type of others is hidden: what has a database and a user is a client. Locks: none.
SELECT coalesce(application_name, '') AS application, coalesce(usename, '?')::text AS "user",
       coalesce(state, '?') AS state, count(*) AS count
FROM pg_catalog.pg_stat_activity
WHERE coalesce(backend_type, 'client backend') = 'client backend' AND datid IS NOT NULL AND usesysid IS NOT NULL
GROUP BY 1, 2, 3
ORDER BY 4 DESC, 1, 2, 3
