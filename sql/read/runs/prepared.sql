-- Whether the toolkit's own tables are there: fails where one is not. Locks: none.
SELECT 1 AS there
FROM runbooks.lease, (SELECT FROM runbooks.stops LIMIT 0) AS stops, (SELECT FROM runbooks.stopped_sandboxes LIMIT 0) AS marked
