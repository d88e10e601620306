-- Gives these sandboxes, marked by a stop and untouched since, their status back, with an audit row each.
-- Untouched: the row says what the stop wrote, its end was not moved, and nothing was written down about it after that.
-- Locks: their rows; passes over those that somebody holds.
WITH held AS (
    SELECT s.id, m.status, m.destroyed_at
    FROM public.sandboxes AS s
    JOIN runbooks.stopped_sandboxes AS m ON m.sandbox = s.id
    WHERE m.stop = %(stop)s AND m.sandbox = ANY (%(ids)s) AND m.restored_at IS NULL
      AND s.status = 'destroyed' AND s.destroyed_at = m.marked_at AND s.expires_at = m.expires_at
      AND NOT EXISTS (SELECT FROM public.sandbox_audit_log AS a
                      WHERE a.sandbox_id = s.id AND a.created_at > m.marked_at)
    FOR NO KEY UPDATE OF s SKIP LOCKED
), back AS (
    UPDATE public.sandboxes AS s
    SET status = held.status::public.sandbox_status, destroyed_at = held.destroyed_at
    FROM held WHERE s.id = held.id
    RETURNING s.id, s.status
), settled AS (
    UPDATE runbooks.stopped_sandboxes AS m SET restored_at = clock_timestamp()
    FROM back WHERE m.stop = %(stop)s AND m.sandbox = back.id
)
INSERT INTO public.sandbox_audit_log (sandbox_id, event_type, actor, details, created_at)
SELECT back.id, 'status_changed', left(%(actor)s, 64),
       jsonb_build_object('from', 'destroyed', 'to', back.status, 'emergencyResume', %(stop)s::text), clock_timestamp()
FROM back
