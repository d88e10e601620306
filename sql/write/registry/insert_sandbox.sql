-- A new sandbox row. Locks: ROW EXCLUSIVE on sandboxes.
INSERT INTO public.sandboxes (id, name, owner, status, schema_name, created_at, expires_at, metadata)
VALUES (%(id)s, %(name)s, %(owner)s, %(status)s::public.sandbox_status, %(schema_name)s, %(created_at)s,
        %(expires_at)s, %(metadata)s::jsonb)
