-- How many sandboxes of an owner are not destroyed. Locks: none.
SELECT count(*) AS live FROM public.sandboxes WHERE owner = %(owner)s AND status <> 'destroyed'
