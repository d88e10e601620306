-- Destroyed sandboxes whose keys were left because Redis did not answer, as their last audit row says. Locks: none.
SELECT DISTINCT ON (a.sandbox_id) s.id, s.name, s.owner, s.status::text AS status, s.schema_name, s.discord_token_id,
       s.created_at, s.expires_at, s.destroyed_at, s.last_activity_at, s.metadata
FROM public.sandbox_audit_log AS a
JOIN public.sandboxes AS s ON s.id = a.sandbox_id AND s.status = 'destroyed'
WHERE a.event_type = 'sandbox_destroyed' AND a.details ->> 'keysLeft' = 'true'
ORDER BY a.sandbox_id
