-- Copies one journal record. Safe to repeat. Locks: ROW EXCLUSIVE on runbooks.journal.
INSERT INTO runbooks.journal (chain, seq, run, phase, record)
VALUES (%(chain)s, %(seq)s, %(run)s, %(phase)s, %(record)s::jsonb) ON CONFLICT (chain, seq) DO NOTHING
