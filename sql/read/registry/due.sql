-- The sandboxes whose time is over: running past their end, expired, or pending, creating or destroying with nothing
-- recorded of them since %(stuck)s. Of one sandbox only, where its id is given. Locks: none.
SELECT s.id, s.name, s.owner, s.status::text AS status, s.schema_name, s.discord_token_id, s.created_at, s.expires_at,
       s.destroyed_at, s.last_activity_at, s.metadata
FROM public.sandboxes AS s
LEFT JOIN LATERAL (
    SELECT max(a.created_at) AS at FROM public.sandbox_audit_log AS a WHERE a.sandbox_id = s.id
) AS last ON s.status IN ('pending', 'creating', 'destroying')
WHERE (%(id)s::uuid IS NULL OR s.id = %(id)s)
  AND (s.status = 'running' AND s.expires_at <= %(now)s
    OR s.status = 'expired'
    OR s.status IN ('pending', 'creating', 'destroying')
       AND greatest(s.created_at, s.last_activity_at, last.at) <= %(stuck)s)
ORDER BY s.expires_at, s.id
