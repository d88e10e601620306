-- How many pages the audit log has. Locks: a moment's ACCESS SHARE on it.
SELECT pg_catalog.pg_relation_size('public.sandbox_audit_log') / current_setting('block_size')::bigint AS pages
