-- Who holds the lease. Locks: none.
SELECT holder, run, since, heartbeat, token FROM runbooks.lease WHERE name = 'operator'
