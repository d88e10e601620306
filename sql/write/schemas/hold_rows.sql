-- Nobody may write to the control table until this short transaction ends: what was checked stays true.
-- Locks: SHARE on sandboxes (readers go on). Needs UPDATE, DELETE or TRUNCATE on it.
LOCK TABLE public.sandboxes IN SHARE MODE
