-- Makes a sandbox's schema and tables by the deployed system's own function.
SELECT public.create_sandbox_schema(%(token)s)
