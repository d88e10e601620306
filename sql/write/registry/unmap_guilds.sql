-- Ends every guild mapping of a sandbox. Its guilds must have been read before: their routes are invalidated by them.
DELETE FROM public.sandbox_guild_mapping WHERE sandbox_id = %(id)s
