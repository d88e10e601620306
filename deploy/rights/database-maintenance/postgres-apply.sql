-- generated: do not edit; `./inv docs`
-- psql -v ON_ERROR_STOP=1 -v role=NAME -f FILE
\set ON_ERROR_STOP on
GRANT DELETE ON public.sandbox_audit_log TO :"role";
GRANT INSERT ON public.sandbox_audit_log TO :"role";
GRANT INSERT ON runbooks.journal TO :"role";
GRANT INSERT ON runbooks.used_plans TO :"role";
GRANT SELECT ON public.sandbox_audit_log TO :"role";
GRANT SELECT ON public.sandboxes TO :"role";
GRANT SELECT ON runbooks.journal TO :"role";
GRANT SELECT ON runbooks.lease TO :"role";
GRANT SELECT ON runbooks.stopped_sandboxes TO :"role";
GRANT SELECT ON runbooks.stops TO :"role";
GRANT SELECT ON runbooks.used_plans TO :"role";
GRANT UPDATE ON runbooks.lease TO :"role";
GRANT USAGE ON SCHEMA public TO :"role";
GRANT USAGE ON SCHEMA runbooks TO :"role";
GRANT pg_read_all_stats TO :"role";
-- No grant on a thing gives ownership: this role has to be a member of the one that owns it, and which should be no
-- superuser, as the member could do anything then. Whose it is, say the commands; then: GRANT OWNER TO :"role";
--   owner of public.sandbox_audit_log    \dt public.sandbox_audit_log
--   owner of public.sandbox_guild_mapping    \dt public.sandbox_guild_mapping
--   owner of public.sandboxes    \dt public.sandboxes
