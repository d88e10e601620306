-- Takes the lease if nobody holds it, its holder has fallen silent, or the holder is known to be dead.
-- The token grows with every holder: whoever has an older one can write nothing. Locks: the lease's row.
UPDATE runbooks.lease
SET holder = %(holder)s, run = %(run)s, since = clock_timestamp(), heartbeat = clock_timestamp(), token = token + 1
WHERE name = 'operator'
  AND (holder IS NULL OR heartbeat < clock_timestamp() - %(patience)s OR holder = %(dead)s)
RETURNING holder, run, since, heartbeat, token
