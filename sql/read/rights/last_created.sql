-- When a sandbox was created last that came to run: proof that its schema could be created then. Locks: none.
SELECT max(created_at) AS at FROM public.sandboxes WHERE status IN ('running', 'expired')
