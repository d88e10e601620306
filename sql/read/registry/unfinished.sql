-- Destroyed sandboxes whose keys were left because Redis did not answer, as the newest such audit row says.
-- Of some only, where their ids are given. Locks: none.
SELECT s.id, s.name, s.owner, s.status::text AS status, s.schema_name, s.discord_token_id, s.created_at, s.expires_at,
       s.destroyed_at, s.last_activity_at, s.metadata
FROM (
    SELECT DISTINCT ON (a.sandbox_id) a.sandbox_id, a.details
    FROM public.sandbox_audit_log AS a
    WHERE a.event_type = 'sandbox_destroyed' AND (%(ids)s::uuid[] IS NULL OR a.sandbox_id = ANY (%(ids)s))
    ORDER BY a.sandbox_id, a.created_at DESC
) AS last
JOIN public.sandboxes AS s ON s.id = last.sandbox_id AND s.status = 'destroyed'
WHERE last.details ->> 'keysLeft' = 'true'
