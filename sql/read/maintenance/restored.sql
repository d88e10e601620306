-- Of rows that were trimmed: how many are in the audit log, how many could be put back, and how many could not, as their sandbox's
-- row is gone. Locks: none.
SELECT count(a.id) AS present, count(*) FILTER (WHERE a.id IS NULL AND s.id IS NOT NULL) AS absent,
       count(*) FILTER (WHERE a.id IS NULL AND s.id IS NULL) AS orphaned
FROM unnest(%(ids)s::uuid[], %(sandboxes)s::uuid[]) AS r (id, sandbox_id)
LEFT JOIN LATERAL (SELECT l.id FROM public.sandbox_audit_log AS l WHERE l.id = r.id OFFSET 0) AS a ON true
LEFT JOIN LATERAL (SELECT b.id FROM public.sandboxes AS b WHERE b.id = r.sandbox_id OFFSET 0) AS s ON true
