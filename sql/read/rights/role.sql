-- Who asks, on which database, and whether it takes writes; whether the deployed system's role is there, and whether this one
-- may act as it. Locks: none. From PostgreSQL 16 on a right of its own lets one act as another role.
SELECT current_user::text AS name, current_database()::text AS database,
       (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) AS superuser,
       pg_catalog.pg_is_in_recovery() AS recovering,
       coalesce((SELECT setting = 'on' FROM pg_catalog.pg_settings WHERE name = 'default_transaction_read_only'), false)
           AS read_only,
       coalesce((SELECT pg_catalog.has_schema_privilege(oid, 'CREATE')
                 FROM pg_catalog.pg_namespace WHERE nspname = 'public'), false) AS may_migrate,
       EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = %(role)s) AS deployed_exists,
       coalesce((
           SELECT pg_catalog.pg_has_role(oid, CASE WHEN current_setting('server_version_num')::int >= 160000
                                              THEN 'SET' ELSE 'MEMBER' END)
           FROM pg_catalog.pg_roles WHERE rolname = %(role)s
       ), false) AS may_act
