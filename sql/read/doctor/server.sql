-- Which server this is, its clock, whether it takes writes, as whom one asks, and which of these tables it lacks. Locks: none.
SELECT current_setting('server_version_num')::int AS number, current_setting('server_version') AS version,
       clock_timestamp() AS at, current_user::text AS role,
       pg_catalog.pg_is_in_recovery()
           OR coalesce((SELECT setting = 'on' FROM pg_catalog.pg_settings WHERE name = 'default_transaction_read_only'), false)
           AS read_only,
       ARRAY(SELECT wanted.name
             FROM unnest(%(tables)s::text[]) AS wanted (name)
             WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c
                               JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                               WHERE n.nspname || '.' || c.relname = wanted.name)) AS missing
