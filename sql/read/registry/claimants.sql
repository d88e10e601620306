-- The sandboxes, destroyed ones too, that some names or ids could belong to: those whose id lies between two of a pair,
-- by the primary key; those whose schema has one of the names; and live ones whose schema has one in another case, as
-- unquoted DDL folds it. Locks: none.
SELECT id, name, owner, status::text AS status, schema_name, discord_token_id, created_at, expires_at,
       destroyed_at, last_activity_at, metadata
FROM public.sandboxes
WHERE id IN (
    SELECT s.id
    FROM unnest(%(least)s::uuid[], %(most)s::uuid[]) AS range (least, most)
    JOIN public.sandboxes AS s ON s.id BETWEEN range.least AND range.most
    UNION
    SELECT s.id FROM public.sandboxes AS s WHERE s.schema_name = ANY (%(schemas)s)
    UNION
    SELECT s.id FROM public.sandboxes AS s
    WHERE s.status IN ('pending', 'creating', 'running', 'expired', 'destroying')
      AND lower(s.schema_name) = ANY (%(lowered)s)
)
ORDER BY created_at, id
