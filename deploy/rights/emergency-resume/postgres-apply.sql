-- generated: do not edit; `./inv docs`
-- psql -v ON_ERROR_STOP=1 -v role=NAME -f FILE
\set ON_ERROR_STOP on
GRANT INSERT ON public.sandbox_audit_log TO :"role";
GRANT INSERT ON runbooks.journal TO :"role";
GRANT INSERT ON runbooks.stopped_sandboxes TO :"role";
GRANT INSERT ON runbooks.stops TO :"role";
GRANT INSERT ON runbooks.used_plans TO :"role";
GRANT SELECT ON public.sandbox_audit_log TO :"role";
GRANT SELECT ON public.sandbox_guild_mapping TO :"role";
GRANT SELECT ON public.sandboxes TO :"role";
GRANT SELECT ON runbooks.journal TO :"role";
GRANT SELECT ON runbooks.lease TO :"role";
GRANT SELECT ON runbooks.stopped_sandboxes TO :"role";
GRANT SELECT ON runbooks.stops TO :"role";
GRANT SELECT ON runbooks.used_plans TO :"role";
GRANT UPDATE ON public.sandboxes TO :"role";
GRANT UPDATE ON runbooks.lease TO :"role";
GRANT UPDATE ON runbooks.stopped_sandboxes TO :"role";
GRANT UPDATE ON runbooks.stops TO :"role";
GRANT USAGE ON SCHEMA public TO :"role";
GRANT USAGE ON SCHEMA runbooks TO :"role";
