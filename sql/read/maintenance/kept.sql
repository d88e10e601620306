-- The rows older than the cutoff that others rest on: of each sandbox that is not destroyed the newest (read/registry/due and
-- last_events look at it), and of `left_keys` those that are a destroyed sandbox's newest word on its end (read/registry/unfinished).
-- Each is looked up for itself, whatever the statistics say; '' keeps the index on event_type out, which finds a third of the log.
-- Locks: none.
SELECT last.id, s.name AS sandbox, s.status::text AS status
FROM public.sandboxes AS s
CROSS JOIN LATERAL (
    SELECT a.id, a.created_at
    FROM public.sandbox_audit_log AS a
    WHERE a.sandbox_id = s.id AND isfinite(a.created_at)
    ORDER BY a.created_at DESC
    LIMIT 1
) AS last
WHERE s.status IN ('pending', 'creating', 'running', 'expired', 'destroying') AND last.created_at < %(cutoff)s
UNION ALL
SELECT a.id, s.name, s.status::text
FROM unnest(%(left_keys)s::uuid[]) AS k (id)
CROSS JOIN LATERAL (
    SELECT l.id, l.sandbox_id, l.created_at FROM public.sandbox_audit_log AS l WHERE l.id = k.id OFFSET 0
) AS a
CROSS JOIN LATERAL (
    SELECT b.created_at
    FROM public.sandbox_audit_log AS b
    WHERE b.sandbox_id = a.sandbox_id AND b.event_type || '' = 'sandbox_destroyed'
    ORDER BY b.created_at DESC
    LIMIT 1
) AS newest
JOIN public.sandboxes AS s ON s.id = a.sandbox_id
WHERE s.status = 'destroyed' AND a.created_at = newest.created_at
ORDER BY 2, 1
