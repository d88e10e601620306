-- Ends an emergency stop. Locks: its row.
UPDATE runbooks.stops SET lifted_at = clock_timestamp(), lifted_by = %(by)s WHERE id = %(id)s AND lifted_at IS NULL
