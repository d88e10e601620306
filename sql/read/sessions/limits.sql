-- How many connections the server takes, and how many of them are kept for superusers. Locks: none. reserved_connections
-- is known from PostgreSQL 16.
SELECT current_setting('max_connections')::int AS most,
       current_setting('superuser_reserved_connections')::int
           + coalesce(current_setting('reserved_connections', true)::int, 0) AS reserved
