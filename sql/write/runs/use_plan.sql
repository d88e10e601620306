-- Marks a plan as used; touches no row if it was used before, on any host. Locks: ROW EXCLUSIVE on used_plans.
INSERT INTO runbooks.used_plans (plan, run) VALUES (%(plan)s, %(run)s) ON CONFLICT (plan) DO NOTHING
