-- Ends one guild's mapping to this sandbox; touches no row if it has none. Locks: the mapping's row.
DELETE FROM public.sandbox_guild_mapping WHERE guild_id = %(guild)s AND sandbox_id = %(sandbox)s
