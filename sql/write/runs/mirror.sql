-- Copies journal records, a JSON array of them. Safe to repeat. Locks: ROW EXCLUSIVE on runbooks.journal.
INSERT INTO runbooks.journal (chain, seq, run, phase, record)
SELECT r ->> 'chain', (r ->> 'seq')::bigint, r ->> 'run', r ->> 'phase', r
FROM jsonb_array_elements(%(records)s::jsonb) AS r
ON CONFLICT (chain, seq) DO NOTHING
