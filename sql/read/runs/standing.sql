-- How a run stands since it was begun, or was last put on the work queue: of how many actions it is, whether it has ended. No row: nobody
-- here knows it. What was set aside, being none of its actions, is counted. Locks: none.
WITH begun AS (
    SELECT max(mirrored) AS at, max(mirrored) FILTER (WHERE phase = 'planned') AS queued
    FROM runbooks.journal WHERE run = %(run)s AND phase IN ('run-started', 'planned')
)
SELECT begun.queued IS NOT NULL AS queued,
       coalesce(
           (SELECT (record #>> '{observed,actions}')::int FROM runbooks.journal
            WHERE run = %(run)s AND phase = 'planned' ORDER BY mirrored DESC LIMIT 1),
           (SELECT jsonb_array_length(record #> '{observed,plan,actions}') FROM runbooks.journal
            WHERE run = %(run)s AND phase = 'run-started' ORDER BY mirrored LIMIT 1)) AS total,
       (SELECT (record #>> '{observed,exit}')::int FROM runbooks.journal
        WHERE run = %(run)s AND phase = 'run-ended' AND mirrored >= begun.at ORDER BY mirrored DESC LIMIT 1) AS exit,
       (SELECT count(*) FROM runbooks.journal
        WHERE run = %(run)s AND phase = 'skipped' AND record ->> 'action' IS NULL AND mirrored >= begun.at) AS strangers,
       clock_timestamp() AS now
FROM begun WHERE begun.at IS NOT NULL
