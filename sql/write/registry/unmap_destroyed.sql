-- Frees a guild that a destroyed sandbox still holds: the deployed gaib leaves such mappings behind. `destroyed` is for
-- ever, so nothing can come back to life here. Locks: the mapping's row.
DELETE FROM public.sandbox_guild_mapping AS m
USING public.sandboxes AS s
WHERE m.guild_id = %(guild)s AND s.id = m.sandbox_id AND s.status = 'destroyed'
