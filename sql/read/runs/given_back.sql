-- What undo runs have given back within a time. Locks: none.
SELECT DISTINCT action -> 'resource' ->> 'id' AS id
FROM runbooks.journal AS j
CROSS JOIN LATERAL jsonb_array_elements(j.record -> 'observed' -> 'plan' -> 'actions') AS action
WHERE j.phase = 'run-started' AND j.record -> 'observed' -> 'plan' ->> 'undoes' IS NOT NULL
  AND j.mirrored > now() - %(within)s
