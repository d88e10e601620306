-- The guilds that were mapped to these destroyed sandboxes, where their keys were left, and are to nobody now: their cached routes
-- were left, too. As the newest audit row of their end says. Locks: none.
SELECT last.sandbox_id, was.guild_id
FROM (
    SELECT DISTINCT ON (a.sandbox_id) a.sandbox_id, a.details
    FROM public.sandbox_audit_log AS a
    WHERE a.event_type = 'sandbox_destroyed' AND a.sandbox_id = ANY (%(ids)s)
    ORDER BY a.sandbox_id, a.created_at DESC
) AS last
CROSS JOIN LATERAL jsonb_array_elements_text(
    CASE jsonb_typeof(last.details -> 'guilds') WHEN 'array' THEN last.details -> 'guilds' ELSE '[]' END
) AS was (guild_id)
WHERE last.details ->> 'keysLeft' = 'true'
  AND NOT EXISTS (SELECT FROM public.sandbox_guild_mapping AS m WHERE m.guild_id = was.guild_id)
ORDER BY was.guild_id
