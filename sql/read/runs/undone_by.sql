-- Which runs, of any host, undid a run. Locks: none.
SELECT run FROM runbooks.journal WHERE phase = 'run-started' AND record #>> '{observed,plan,undoes}' = %(run)s
