-- The largest sandboxes' schemas, quarantined ones too: of those that hold the most pages by the planner's count, or that were
-- never counted, the sizes on disk, with indexes and TOAST. With many schemas only `most` tables are measured. A table that
-- somebody holds in AccessExclusiveLock is left out, as measuring would wait for it; so is what was dropped since. Locks: a moment's AccessShareLock on each.
SELECT t.schema AS name, sum(pg_catalog.pg_total_relation_size(t.oid))::bigint AS bytes
FROM (
    SELECT n.nspname::text AS schema, c.oid
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm')
        AND (starts_with(lower(n.nspname::text), 'sandbox_') OR starts_with(lower(n.nspname::text), 'pending_')
             OR starts_with(n.nspname::text, 'quarantine_'))
        AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_locks AS l
            WHERE l.relation = c.oid AND l.mode = 'AccessExclusiveLock' AND l.granted
        )
    ORDER BY c.reltuples < 0 AND pg_catalog.pg_stat_get_live_tuples(c.oid) > 0 DESC,
             c.relpages + greatest(0, pg_catalog.pg_stat_get_live_tuples(c.oid)) / 100 DESC, c.oid
    LIMIT %(most)s
) AS t
GROUP BY t.schema
HAVING sum(pg_catalog.pg_total_relation_size(t.oid)) IS NOT NULL
ORDER BY 2 DESC, 1
LIMIT %(shown)s
