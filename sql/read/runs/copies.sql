-- The mirrored records of every host's journal, each chain's in its order, from behind one on. Locks: none.
SELECT chain, seq, run, phase, record FROM runbooks.journal
WHERE (chain, seq) > (%(chain)s, %(seq)s)
ORDER BY chain, seq LIMIT %(limit)s
