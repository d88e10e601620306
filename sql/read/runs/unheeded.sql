-- Statements of sessions that a run on any host has cancelled in vain: its record says `told`. The latest first. Locks: none.
SELECT (action -> 'before' ->> 'pid')::int AS pid,
       (action -> 'before' ->> 'backend_start')::timestamptz AS backend_start,
       (action -> 'before' ->> 'statement_since')::timestamptz AS statement_since,
       (failed.record ->> 'at')::timestamptz AS told_at, failed.run
FROM runbooks.journal AS failed
JOIN runbooks.journal AS begun ON begun.run = failed.run AND begun.phase = 'run-started'
CROSS JOIN LATERAL jsonb_array_elements(begun.record -> 'observed' -> 'plan' -> 'actions') AS action
WHERE failed.phase = 'failed' AND failed.mirrored > now() - interval '1 day'
  AND strpos(failed.record ->> 'error', %(told)s) > 0
  AND action ->> 'id' = failed.record ->> 'action' AND action ->> 'verb' = 'cancel query'
ORDER BY told_at DESC
LIMIT 100
