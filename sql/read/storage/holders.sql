-- What keeps VACUUM from removing dead rows of this database: whatever has a horizon older than `age` transactions, the oldest
-- first. Of sessions and prepared transactions only this database's count, and no session that is itself at VACUUM
-- (ComputeXidHorizons() in PostgreSQL's procarray.c). Of all databases count: replication slots, whose `xmin` holds back all
-- rows and `catalog_xmin` those of system catalogs alone (documentation, "pg_replication_slots"); and standbys that send
-- hot_standby_feedback, through their walsender where they have no slot (documentation, "pg_stat_replication", backend_xmin).
-- A walsender that decodes for a subscriber is connected to a database and holds back nothing by itself: its slot does.
-- Those of others' sessions are seen with pg_read_all_stats alone. Locks: none. From PostgreSQL 10.
SELECT kind, name, age, since
FROM (
    SELECT 'session' AS kind, a.pid::text AS name,
           greatest(pg_catalog.age(a.backend_xid), pg_catalog.age(a.backend_xmin)) AS age, a.xact_start AS since
    FROM pg_catalog.pg_stat_activity AS a
    WHERE a.datname = current_database() AND a.pid <> pg_catalog.pg_backend_pid() AND a.backend_type <> 'walsender'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_vacuum AS v WHERE v.pid = a.pid)
    UNION ALL
    SELECT 'standby', coalesce(nullif(application_name, ''), pid::text), pg_catalog.age(backend_xmin), NULL
    FROM pg_catalog.pg_stat_activity
    WHERE datid IS NULL AND backend_type = 'walsender'
    UNION ALL
    SELECT 'prepared transaction', gid, pg_catalog.age(transaction), prepared
    FROM pg_catalog.pg_prepared_xacts
    WHERE database = current_database()
    UNION ALL
    SELECT 'replication slot', slot_name::text, pg_catalog.age(xmin), NULL FROM pg_catalog.pg_replication_slots
    UNION ALL
    SELECT 'replication slot (catalogs only)', slot_name::text, pg_catalog.age(catalog_xmin), NULL
    FROM pg_catalog.pg_replication_slots
) AS holders
WHERE age >= %(age)s
ORDER BY age DESC, kind, name
LIMIT %(shown)s
