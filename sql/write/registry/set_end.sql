-- Another end for a running sandbox; touches no row if it is not running. Locks: the row.
UPDATE public.sandboxes SET expires_at = %(expires_at)s WHERE id = %(id)s AND status = 'running'
