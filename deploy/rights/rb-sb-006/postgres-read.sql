-- generated: do not edit; `./inv docs`
-- psql -v ON_ERROR_STOP=1 -v role=NAME -f FILE
\set ON_ERROR_STOP on
GRANT SELECT ON public.sandbox_guild_mapping TO :"role";
GRANT SELECT ON public.sandboxes TO :"role";
GRANT SELECT ON runbooks.journal TO :"role";
GRANT USAGE ON SCHEMA public TO :"role";
GRANT USAGE ON SCHEMA runbooks TO :"role";
GRANT pg_read_all_stats TO :"role";
