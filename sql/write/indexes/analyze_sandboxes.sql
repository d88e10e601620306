-- Gathers the planner's statistics of a control table anew. Locks: SHARE UPDATE EXCLUSIVE, which holds nobody up but VACUUM,
-- ANALYZE and DDL. Needs the table's owner, or MAINTAIN from PostgreSQL 17.
ANALYZE public.sandboxes
