-- One creation at a time for an owner, so that what was counted stays true. Ends with the transaction, as pooling wants.
-- Locks: an advisory one, of the owner's name.
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('sandbox owner ' || %(owner)s, 0))
