-- Whether the lease is still held under this token, and whether an emergency stop is raised just now. No row: it is no longer ours.
-- Locks: none, so that asking often writes nothing; what may not change meanwhile is held by write/runs/hold_lease.
SELECT holder, run, since, heartbeat, token,
       (SELECT format('%%s, since %%s UTC', s.raised_by, to_char(s.raised_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'))
        FROM runbooks.stops AS s WHERE s.lifted_at IS NULL AND s.halting) AS stopped_by
FROM runbooks.lease
WHERE name = 'operator' AND token = %(token)s AND holder = %(holder)s
