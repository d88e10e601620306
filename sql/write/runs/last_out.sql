-- Nobody else can end the run, or hold its lease, until this transaction ends. No row: it is no longer ours. Locks: the lease's row.
SELECT token FROM runbooks.lease WHERE name = 'operator' AND token = %(token)s AND holder = %(holder)s FOR UPDATE
