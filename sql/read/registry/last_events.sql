-- The newest audit row of each of these sandboxes, with the sandbox's name; `infinity` is no moment. Locks: none.
SELECT s.id AS sandbox_id, s.name, last.event, last.actor, last.at, last.details
FROM public.sandboxes AS s
CROSS JOIN LATERAL (
    SELECT a.event_type AS event, a.actor, a.created_at AS at, a.details
    FROM public.sandbox_audit_log AS a
    WHERE a.sandbox_id = s.id AND isfinite(a.created_at)
    ORDER BY a.created_at DESC
    LIMIT 1
) AS last
WHERE s.id = ANY (%(ids)s)
