-- Drops a sandbox's schema by the deployed system's own function. Locks: AccessExclusiveLock on all that is in it.
SELECT public.drop_sandbox_schema(%(token)s)
