-- What keeps VACUUM from removing dead rows: sessions, prepared transactions and slots whose horizon is older than `age`
-- transactions, the oldest first. Those of others' sessions are seen with pg_read_all_stats alone. Locks: none.
SELECT kind, name, age, since
FROM (
    SELECT 'session' AS kind, pid::text AS name,
           greatest(pg_catalog.age(backend_xid), pg_catalog.age(backend_xmin)) AS age, xact_start AS since
    FROM pg_catalog.pg_stat_activity
    WHERE pid <> pg_catalog.pg_backend_pid() AND backend_type <> 'walsender'
    UNION ALL
    SELECT 'prepared transaction', gid, pg_catalog.age(transaction), prepared FROM pg_catalog.pg_prepared_xacts
    UNION ALL
    SELECT 'replication slot', slot_name::text, greatest(pg_catalog.age(xmin), pg_catalog.age(catalog_xmin)), NULL
    FROM pg_catalog.pg_replication_slots
) AS holders
WHERE age >= %(age)s
ORDER BY age DESC, kind, name
LIMIT %(shown)s
