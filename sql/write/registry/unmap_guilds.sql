-- Ends every guild mapping of a sandbox. Its guilds must have been read before: their routes are invalidated by them.
-- Locks: the mappings' rows, in the order in which everybody takes them.
DELETE FROM public.sandbox_guild_mapping
WHERE guild_id IN (
    SELECT guild_id FROM public.sandbox_guild_mapping WHERE sandbox_id = %(id)s ORDER BY guild_id FOR UPDATE
)
