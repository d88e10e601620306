-- Whose the sandboxes' functions are, and whether they work with their owner's rights. Locks: none.
SELECT p.proname::text AS name, pg_catalog.pg_get_userbyid(p.proowner)::text AS owner, p.prosecdef AS definer
FROM pg_catalog.pg_proc AS p
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = 'public' AND p.proname = ANY (%(functions)s)
ORDER BY 1
