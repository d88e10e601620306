-- Nobody can take the lease over until this transaction ends. No row: it is no longer ours. Locks: the lease's row.
SELECT holder, run, since, heartbeat, token FROM runbooks.lease
WHERE name = 'operator' AND token = %(token)s AND holder = %(holder)s
FOR SHARE
