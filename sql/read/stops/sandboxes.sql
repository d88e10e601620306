-- The sandboxes that a stop marked and that were not given back yet: how they were, and their rows as they are now
-- (status null: the row is gone), with the guilds mapped to them now and what was last written down about them. Locks: none.
SELECT m.sandbox AS id, m.name, m.status AS was, m.destroyed_at AS was_destroyed_at, m.expires_at AS was_expires_at,
       m.schemas, m.guilds AS was_guilds, m.marked_at,
       s.status::text AS status, s.destroyed_at, s.expires_at,
       ARRAY(SELECT g.guild_id::text FROM public.sandbox_guild_mapping AS g WHERE g.sandbox_id = m.sandbox) AS guilds,
       last.event_type AS event, last.actor, last.created_at AS at
FROM runbooks.stopped_sandboxes AS m
LEFT JOIN public.sandboxes AS s ON s.id = m.sandbox
LEFT JOIN LATERAL (
    SELECT a.event_type, a.actor, a.created_at FROM public.sandbox_audit_log AS a
    WHERE a.sandbox_id = m.sandbox ORDER BY a.created_at DESC LIMIT 1
) AS last ON true
WHERE m.stop = %(stop)s AND m.restored_at IS NULL
ORDER BY m.name
