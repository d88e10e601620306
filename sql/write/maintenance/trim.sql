-- Deletes these audit rows, as far as they are older than the cutoff. Locks: ROW EXCLUSIVE on sandbox_audit_log, and the rows.
DELETE FROM public.sandbox_audit_log AS a
WHERE a.id = ANY (%(ids)s::uuid[]) AND a.created_at < %(cutoff)s AND a.id <> ALL (%(kept)s::uuid[])
