-- Makes the commit that follows a real one: a row lock is written to the WAL, so the commit is flushed, and waits for
-- synchronous standbys, as everybody's is. It leaves no row and no dead one, needs no right that the lease does not need, and
-- waits for nobody who only shares the row or changes what is no key of it. Locks: the lease's row, FOR KEY SHARE.
SELECT FROM runbooks.lease WHERE name = 'operator' FOR KEY SHARE
