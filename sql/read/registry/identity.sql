-- Which database this is: recorded in every plan, compared before anything is changed. Locks: none.
SELECT current_database()::text AS database, current_setting('server_version') AS version,
       (SELECT oid::text FROM pg_catalog.pg_database WHERE datname = current_database())
           || '@' || coalesce((SELECT system_identifier::text FROM pg_catalog.pg_control_system()), '?') AS fingerprint
