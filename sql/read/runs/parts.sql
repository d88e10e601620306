-- How many of a run's actions ended how, or were begun, by who wrote that down last. What failed before the run was put on the work queue
-- again does not count, and counts as begun where a server did not answer: it is tried again. Locks: none.
WITH begun AS (
    SELECT max(mirrored) AS at FROM runbooks.journal WHERE run = %(run)s AND phase IN ('run-started', 'planned')
), latest AS (
    SELECT DISTINCT ON (j.record ->> 'action')
           CASE WHEN j.record #>> '{observed,unreachable}' = 'true' AND j.phase = 'failed' THEN 'started' ELSE j.phase END AS phase,
           j.record ->> 'actor' AS worker, j.mirrored
    FROM runbooks.journal AS j, begun
    WHERE j.run = %(run)s AND j.phase IN ('started', 'done', 'skipped', 'failed') AND j.record ->> 'action' IS NOT NULL
      AND (j.phase IN ('done', 'skipped') OR j.mirrored >= begun.at)
    ORDER BY j.record ->> 'action', j.phase IN ('done', 'skipped') DESC, j.mirrored DESC, j.seq DESC
)
SELECT worker, max(mirrored) AS seen,
       count(*) FILTER (WHERE phase = 'done') AS done, count(*) FILTER (WHERE phase = 'skipped') AS skipped,
       count(*) FILTER (WHERE phase = 'failed') AS failed, count(*) FILTER (WHERE phase = 'started') AS begun
FROM latest GROUP BY worker ORDER BY worker
