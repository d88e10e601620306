-- Of these pages of the audit log: the rows that are older than the cutoff. Locks: ACCESS SHARE. A TID range scan from PostgreSQL 14.
SELECT a.id
FROM public.sandbox_audit_log AS a
WHERE a.ctid >= %(first)s::tid AND a.ctid < %(last)s::tid
  AND a.created_at < %(cutoff)s AND a.id <> ALL (%(kept)s::uuid[])
