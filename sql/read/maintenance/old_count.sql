-- Of these pages of the audit log: how many rows are older than the cutoff, the oldest of them, and those that say that keys were
-- left. Locks: ACCESS SHARE. A TID range scan from PostgreSQL 14; before that the whole table is read.
SELECT count(*) AS rows, min(a.created_at) FILTER (WHERE isfinite(a.created_at)) AS oldest,
       coalesce(array_agg(a.id) FILTER (WHERE a.event_type = 'sandbox_destroyed' AND a.details ->> 'keysLeft' = 'true'),
                '{}') AS left_keys
FROM public.sandbox_audit_log AS a
WHERE a.ctid >= %(first)s::tid AND a.ctid < %(last)s::tid
  AND a.created_at < %(cutoff)s AND a.id <> ALL (%(kept)s::uuid[])
