-- How many files of write-ahead log there are, and their bytes. Needs pg_monitor. Locks: none. From PostgreSQL 10.
SELECT count(*) AS files, coalesce(sum(size), 0)::bigint AS bytes FROM pg_catalog.pg_ls_waldir()
