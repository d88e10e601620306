-- Gives the lease back. Locks: the lease's row.
UPDATE runbooks.lease SET holder = NULL, run = NULL, since = NULL, heartbeat = NULL
WHERE name = 'operator' AND token = %(token)s AND holder = %(holder)s
