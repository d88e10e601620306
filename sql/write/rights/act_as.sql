-- Work as another role until this transaction ends, as SET LOCAL ROLE does. Needs membership in it; from PostgreSQL 16 on a
-- grant of it WITH SET. Locks: none.
SELECT pg_catalog.set_config('role', %(role)s, true)
