-- A status change, only from a status that allows it. Locks: the row.
UPDATE public.sandboxes
SET status = %(new)s::public.sandbox_status,
    destroyed_at = CASE WHEN %(new)s = 'destroyed' THEN %(at)s ELSE destroyed_at END
WHERE id = %(id)s AND status::text = ANY (%(allowed)s)
