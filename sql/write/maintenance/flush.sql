-- Has this transaction's counts of dead rows seen as soon as it ends: they would come up to seconds later, after a VACUUM that has
-- removed those rows. Locks: none. From PostgreSQL 15; before that it does nothing.
DO $flush$
BEGIN
    IF current_setting('server_version_num')::integer >= 150000 THEN
        PERFORM pg_catalog.pg_stat_force_next_flush();
    END IF;
END
$flush$
