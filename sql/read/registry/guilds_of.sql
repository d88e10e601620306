-- The guilds mapped to each of these sandboxes. Locks: none.
SELECT sandbox_id, guild_id FROM public.sandbox_guild_mapping WHERE sandbox_id = ANY (%(ids)s) ORDER BY guild_id
