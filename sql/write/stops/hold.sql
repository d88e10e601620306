-- Nobody adds to a stop, or marks a sandbox for it, until this transaction ends. No row: it was lifted. Locks: its row.
SELECT id, raised_at, raised_by, reason, halting, parts FROM runbooks.stops WHERE id = %(id)s AND lifted_at IS NULL FOR UPDATE
