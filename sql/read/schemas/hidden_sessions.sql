-- How many sessions of others on this database hide what they run from this role. Locks: none.
SELECT count(*) AS hidden
FROM pg_catalog.pg_stat_activity
WHERE datname = current_database() AND query = '<insufficient privilege>'
