-- The emergency stop that is not lifted, if there is one. Locks: none.
SELECT id, raised_at, raised_by, reason, halting, parts FROM runbooks.stops WHERE lifted_at IS NULL
