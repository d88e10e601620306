-- Whether one of the few who may drop schemas at once is us, until the transaction ends. Whoever drops needs a second
-- session: if all of a small pool's held one and waited for another, none would ever get it. Locks: an advisory one.
SELECT EXISTS (
    SELECT FROM generate_series(0, %(places)s - 1) AS place
    WHERE pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended('sandbox drop ' || place, 0))
) AS taken
