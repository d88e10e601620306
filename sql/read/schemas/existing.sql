-- Which of these schemas exist, which objects they are, and how many rows were inserted, updated and deleted in each since the statistics were reset:
-- what pg_stat_all_tables says, without reading it for all tables there are. Locks: none.
SELECT n.nspname::text AS name,
       n.oid::bigint AS oid,
       coalesce(sum(pg_catalog.pg_stat_get_tuples_inserted(c.oid) + pg_catalog.pg_stat_get_tuples_updated(c.oid)
           + pg_catalog.pg_stat_get_tuples_deleted(c.oid)), 0)::bigint AS writes
FROM pg_catalog.pg_namespace AS n
LEFT JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'm')
WHERE n.nspname = ANY (%(schemas)s)
GROUP BY n.oid
