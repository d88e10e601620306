-- Of these pages of the audit log: the rows that are older than the cutoff, whole, each as a line of JSON. Details that are NULL are
-- left out, as JSON's own null is something else. Locks: ACCESS SHARE. A TID range scan from PostgreSQL 14.
SELECT (jsonb_build_object('id', a.id, 'sandbox_id', a.sandbox_id, 'event_type', a.event_type, 'actor', a.actor,
                           'created_at', a.created_at)
        || CASE WHEN a.details IS NULL THEN '{}'::jsonb ELSE jsonb_build_object('details', a.details) END)::text AS line
FROM public.sandbox_audit_log AS a
WHERE a.ctid >= %(first)s::tid AND a.ctid < %(last)s::tid
  AND a.created_at < %(cutoff)s AND a.id <> ALL (%(kept)s::uuid[])
