-- Says that the holder is alive; touches no row if the lease is not ours. Locks: the lease's row.
UPDATE runbooks.lease SET heartbeat = clock_timestamp()
WHERE name = 'operator' AND token = %(token)s AND holder = %(holder)s
