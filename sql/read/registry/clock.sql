-- The database's time: the one clock that all hosts share. Locks: none.
SELECT clock_timestamp() AS at
