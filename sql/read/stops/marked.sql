-- The sandboxes that the raised stop marked and that were not given back yet. Locks: none.
SELECT m.sandbox AS id FROM runbooks.stopped_sandboxes AS m
JOIN runbooks.stops AS s ON s.id = m.stop
WHERE s.lifted_at IS NULL AND m.restored_at IS NULL
