-- Who holds the lease, and whether they were heard of lately. Locks: none.
SELECT holder, run, since, heartbeat, token, coalesce(heartbeat > clock_timestamp() - %(patience)s, false) AS alive
FROM runbooks.lease WHERE name = 'operator'
