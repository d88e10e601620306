-- Marks those of these sandboxes that run as destroyed, for the stop that is raised: how they were is kept, and an audit row
-- written, first. Locks: their rows, and keeps the stop from being lifted; passes over rows that somebody holds.
WITH stop AS (
    SELECT id FROM runbooks.stops WHERE lifted_at IS NULL FOR KEY SHARE
), held AS (
    SELECT s.id, s.name, s.status, s.destroyed_at, s.expires_at, given.schemas
    FROM public.sandboxes AS s
    JOIN jsonb_to_recordset(%(sandboxes)s::jsonb) AS given (id uuid, schemas text[]) USING (id)
    WHERE s.status = 'running'
    ORDER BY s.id
    FOR NO KEY UPDATE OF s SKIP LOCKED
), kept AS (
    INSERT INTO runbooks.stopped_sandboxes (stop, sandbox, name, status, destroyed_at, expires_at, schemas, guilds, marked_at)
    SELECT stop.id, held.id, held.name, held.status::text, held.destroyed_at, held.expires_at, held.schemas,
           ARRAY(SELECT g.guild_id FROM public.sandbox_guild_mapping AS g WHERE g.sandbox_id = held.id ORDER BY g.guild_id),
           now()
    FROM held, stop
    ON CONFLICT (stop, sandbox) DO UPDATE
    SET status = excluded.status, destroyed_at = excluded.destroyed_at, expires_at = excluded.expires_at,
        schemas = excluded.schemas, guilds = excluded.guilds, marked_at = excluded.marked_at, restored_at = NULL
), told AS (
    INSERT INTO public.sandbox_audit_log (sandbox_id, event_type, actor, details, created_at)
    SELECT held.id, 'sandbox_destroyed', left(%(actor)s, 64),
           jsonb_build_object('from', held.status, 'to', 'destroyed', 'emergencyStop', stop.id), now()
    FROM held, stop
)
UPDATE public.sandboxes AS s SET status = 'destroyed', destroyed_at = now() FROM held, stop WHERE s.id = held.id
