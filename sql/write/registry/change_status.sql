-- A status change of some, only from a status that allows it. Locks: the rows.
UPDATE public.sandboxes
SET status = %(new)s::public.sandbox_status,
    destroyed_at = CASE WHEN %(new)s = 'destroyed' THEN %(at)s ELSE destroyed_at END
WHERE id = ANY (%(ids)s) AND status::text = ANY (%(allowed)s)
