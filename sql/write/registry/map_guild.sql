-- Maps a guild to a sandbox unless it is mapped already; touches no row then. Locks: ROW EXCLUSIVE.
INSERT INTO public.sandbox_guild_mapping (guild_id, sandbox_id) VALUES (%(guild)s, %(sandbox)s)
ON CONFLICT (guild_id) DO NOTHING
