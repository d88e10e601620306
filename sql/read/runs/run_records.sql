-- The mirrored records of one run, oldest first. Locks: none.
SELECT record FROM runbooks.journal WHERE run = %(run)s ORDER BY mirrored, seq
