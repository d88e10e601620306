-- What the asking role, the deployed system's and the owners of the functions need to create sandboxes, of what exists: whether
-- they have it, who can give it, whether this role may, and the statements that give and take it. Locks: none.
WITH things AS (
    SELECT 'database' AS kind, d.oid, quote_ident(d.datname) AS name, d.datdba AS owner, ARRAY['CREATE'] AS privileges
    FROM pg_catalog.pg_database AS d WHERE d.datname = current_database()
    UNION ALL
    SELECT 'schema', n.oid, quote_ident(n.nspname), n.nspowner, ARRAY['USAGE']
    FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'public'
    UNION ALL
    SELECT 'function', p.oid, format('%%I.%%I(%%s)', n.nspname, p.proname, pg_catalog.oidvectortypes(p.proargtypes)),
           p.proowner, ARRAY['EXECUTE']
    FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname = 'public' AND p.proname = ANY (%(functions)s)
    UNION ALL
    SELECT 'table', c.oid, format('%%I.%%I', n.nspname, c.relname), c.relowner, ARRAY['SELECT', 'INSERT', 'UPDATE']
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND c.relname = ANY (%(tables)s) AND c.relkind IN ('r', 'p')
), needed AS (
    SELECT r.oid AS role, r.rolname, t.kind, t.oid, t.name, t.owner, p.privilege
    FROM things AS t
    CROSS JOIN LATERAL unnest(t.privileges) AS p (privilege)
    CROSS JOIN pg_catalog.pg_roles AS r
    WHERE r.rolname IN (current_user, %(role)s) OR r.oid IN (SELECT owner FROM things WHERE kind = 'function')
)
SELECT rolname::text AS role, privilege, kind, name, pg_catalog.pg_get_userbyid(owner)::text AS owner,
       CASE kind
           WHEN 'database' THEN pg_catalog.has_database_privilege(role, oid, privilege)
           WHEN 'schema' THEN pg_catalog.has_schema_privilege(role, oid, privilege)
           WHEN 'function' THEN pg_catalog.has_function_privilege(role, oid, privilege)
           ELSE pg_catalog.has_table_privilege(role, oid, privilege)
       END AS held,
       CASE kind
           WHEN 'database' THEN pg_catalog.has_database_privilege(oid, privilege || ' WITH GRANT OPTION')
           WHEN 'schema' THEN pg_catalog.has_schema_privilege(oid, privilege || ' WITH GRANT OPTION')
           WHEN 'function' THEN pg_catalog.has_function_privilege(oid, privilege || ' WITH GRANT OPTION')
           ELSE pg_catalog.has_table_privilege(oid, privilege || ' WITH GRANT OPTION')
       END AS may_grant,
       format('GRANT %%s ON %%s %%s TO %%I', privilege, upper(kind), name, rolname) AS statement,
       format('REVOKE %%s ON %%s %%s FROM %%I', privilege, upper(kind), name, rolname) AS taking
FROM needed
ORDER BY rolname, kind, name, privilege
