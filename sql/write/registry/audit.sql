-- One audit row of each of these; several of one transaction keep their order. Locks: ROW EXCLUSIVE on sandbox_audit_log, KEY
-- SHARE on the sandboxes' rows.
INSERT INTO public.sandbox_audit_log (sandbox_id, event_type, actor, details, created_at)
SELECT id, %(event)s, %(actor)s, %(details)s::jsonb, clock_timestamp() FROM unnest(%(sandboxes)s::uuid[]) AS id
