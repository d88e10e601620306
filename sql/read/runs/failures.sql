-- What of a run failed since a moment, and why, oldest first; not what is tried again, as a server did not answer. Locks: none.
SELECT j.mirrored AS at, j.record ->> 'actor' AS worker, j.record ->> 'error' AS reason,
       (SELECT action #>> '{resource,id}'
        FROM runbooks.journal AS s
        CROSS JOIN LATERAL jsonb_array_elements(s.record #> '{observed,plan,actions}') AS action
        WHERE s.run = j.run AND s.phase = 'run-started' AND action ->> 'id' = j.record ->> 'action' LIMIT 1) AS resource
FROM runbooks.journal AS j
WHERE j.run = %(run)s AND j.mirrored > %(after)s
  AND ((j.phase = 'failed' AND j.record #>> '{observed,unreachable}' IS NULL) OR (j.phase = 'skipped' AND j.record ->> 'action' IS NULL))
ORDER BY j.mirrored, j.seq LIMIT 20
