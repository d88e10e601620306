-- How many locks are held, and how many the table that all sessions share has room for, as the documentation of
-- max_locks_per_transaction has it. Locks: none.
SELECT (SELECT count(*) FROM pg_catalog.pg_locks WHERE locktype <> 'virtualxid' AND NOT fastpath) AS used,
       current_setting('max_locks_per_transaction')::bigint
           * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint) AS room
