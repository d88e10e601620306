-- The mirrored records of some of a run's actions, oldest first. Locks: none.
SELECT record FROM runbooks.journal
WHERE run = %(run)s AND record ->> 'action' = ANY (%(actions)s) ORDER BY mirrored, seq
