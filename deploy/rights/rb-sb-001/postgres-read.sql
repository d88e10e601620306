-- generated: do not edit; `./inv docs`
-- psql -v ON_ERROR_STOP=1 -v role=NAME -f FILE
\set ON_ERROR_STOP on
GRANT SELECT ON public.sandbox_audit_log TO :"role";
GRANT SELECT ON public.sandboxes TO :"role";
GRANT USAGE ON SCHEMA public TO :"role";
GRANT pg_read_all_stats TO :"role";
