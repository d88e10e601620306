-- The sandboxes whose time is over: running past their end, expired, or pending, creating or destroying with nothing
-- recorded of them since %(stuck)s; what the job itself began and did not finish, since %(retry)s. Of some only, where
-- their ids are given. Locks: none.
SELECT s.id, s.name, s.owner, s.status::text AS status, s.schema_name, s.discord_token_id, s.created_at, s.expires_at,
       s.destroyed_at, s.last_activity_at, s.metadata
FROM public.sandboxes AS s
LEFT JOIN LATERAL (
    SELECT a.created_at AS at, a.actor
    FROM public.sandbox_audit_log AS a
    WHERE a.sandbox_id = s.id
    ORDER BY a.created_at DESC
    LIMIT 1
) AS last ON true
WHERE (%(ids)s::uuid[] IS NULL OR s.id = ANY (%(ids)s))
  AND s.status <> 'destroyed'
  AND (s.status = 'running' AND s.expires_at <= %(now)s
    OR s.status = 'expired'
    OR s.status IN ('pending', 'creating', 'destroying')
       AND greatest(s.created_at, s.last_activity_at, last.at)
           <= CASE WHEN last.actor = %(job)s THEN %(retry)s ELSE %(stuck)s END)
ORDER BY s.expires_at, s.id
