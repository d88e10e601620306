-- How many sandboxes are not destroyed, and how many guilds are mapped. Locks: none.
SELECT (SELECT count(*) FROM public.sandboxes WHERE status <> 'destroyed') AS sandboxes,
       (SELECT count(*) FROM public.sandbox_guild_mapping) AS guilds
