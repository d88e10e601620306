-- One audit row; several of one transaction keep their order. Locks: ROW EXCLUSIVE on sandbox_audit_log, KEY SHARE on the sandbox's row.
INSERT INTO public.sandbox_audit_log (sandbox_id, event_type, actor, details, created_at)
VALUES (%(sandbox)s, %(event)s, %(actor)s, %(details)s::jsonb, clock_timestamp())
