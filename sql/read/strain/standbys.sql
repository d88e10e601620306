-- How far the worst standby is behind: in seconds, null where all have replayed everything, and in bytes. `hidden` counts those
-- that this role may not look at: pg_read_all_stats. Who copies only, such as a backup, is no standby. Locks: none. From
-- PostgreSQL 10.
SELECT count(*) AS standbys,
       count(*) FILTER (WHERE s.state IS NULL) AS hidden,
       extract(epoch FROM max(s.replay_lag))::float8 AS seconds,
       max(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.replay_lsn))::bigint AS bytes
FROM pg_catalog.pg_stat_replication AS s
WHERE s.state IS NULL OR s.state IN ('streaming', 'catchup') AND s.replay_lsn IS NOT NULL
