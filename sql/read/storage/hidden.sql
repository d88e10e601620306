-- How many sessions of this database, and standbys' walsenders, hide from this role what they do, and with it how old their
-- horizon is. Superusers' do not count: on RDS those of rdsadmin are hidden from everybody. Locks: none.
SELECT count(*) AS sessions
FROM pg_catalog.pg_stat_activity AS a
JOIN pg_catalog.pg_roles AS r ON r.oid = a.usesysid
WHERE a.query = '<insufficient privilege>' AND NOT r.rolsuper AND (a.datname = current_database() OR a.datid IS NULL)
