-- The guilds mapped to a sandbox. Locks: none.
SELECT guild_id FROM public.sandbox_guild_mapping WHERE sandbox_id = %(id)s ORDER BY guild_id
