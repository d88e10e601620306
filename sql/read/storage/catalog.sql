-- How many schemas are sandboxes', how many relations are in them, how many there are in all, and how large the catalog that
-- lists them has grown. Locks: a moment's AccessShareLock on pg_class.
SELECT count(DISTINCT n.oid) FILTER (WHERE n.ours) AS schemas,
       count(c.oid) FILTER (WHERE n.ours) AS in_sandboxes,
       count(c.oid) AS relations,
       pg_catalog.pg_total_relation_size('pg_catalog.pg_class') AS bytes
FROM (
    SELECT oid, starts_with(lower(nspname::text), 'sandbox_') OR starts_with(lower(nspname::text), 'pending_')
        OR starts_with(nspname::text, 'quarantine_') AS ours
    FROM pg_catalog.pg_namespace
) AS n
LEFT JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid
