-- The run of a runbook that was begun last, on any host: by its own record, as an old one may be mirrored late. Locks: none.
SELECT run FROM runbooks.journal
WHERE phase = 'run-started' AND starts_with(run, %(runbook)s || '-')
ORDER BY (record ->> 'at')::timestamptz DESC LIMIT 1
