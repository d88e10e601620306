-- Puts archived audit rows back, but for those that are there, or whose sandbox's row is gone. Locks: ROW EXCLUSIVE on
-- sandbox_audit_log, KEY SHARE on the sandboxes' rows.
INSERT INTO public.sandbox_audit_log (id, sandbox_id, event_type, actor, details, created_at)
SELECT (r ->> 'id')::uuid, (r ->> 'sandbox_id')::uuid, r ->> 'event_type', r ->> 'actor', r -> 'details',
       (r ->> 'created_at')::timestamptz
FROM jsonb_array_elements(%(rows)s::jsonb) AS r
WHERE EXISTS (SELECT FROM public.sandboxes AS s WHERE s.id = (r ->> 'sandbox_id')::uuid)
ON CONFLICT (id) DO NOTHING
