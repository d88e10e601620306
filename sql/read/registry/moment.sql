-- Names the moment that this transaction sees, so that others can read as of it while this one lasts. Locks nothing; PostgreSQL 9.2.
SELECT pg_export_snapshot() AS snapshot
