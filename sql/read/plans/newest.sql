-- The newest sandbox that is running, else the newest that is not destroyed: something for the status command to be timed on.
-- Locks: none.
SELECT name
FROM public.sandboxes
WHERE status IN ('pending', 'creating', 'running', 'expired', 'destroying')
ORDER BY status = 'running' DESC, created_at DESC
LIMIT 1
