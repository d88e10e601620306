-- The replication slots, and how many bytes of write-ahead log each holds back. Locks: none. From PostgreSQL 13 (wal_status).
SELECT s.slot_name::text AS name, s.slot_type AS kind, s.active, coalesce(s.wal_status, '') AS status,
       pg_catalog.pg_wal_lsn_diff(
           CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_receive_lsn()
                ELSE pg_catalog.pg_current_wal_lsn() END,
           s.restart_lsn
       )::bigint AS retained
FROM pg_catalog.pg_replication_slots AS s
ORDER BY retained DESC NULLS LAST, 1
