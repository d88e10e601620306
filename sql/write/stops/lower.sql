-- Lowers an emergency stop's flag: clean-ups and applies go on, its record stays. Locks: its row.
UPDATE runbooks.stops SET halting = false WHERE id = %(id)s AND lifted_at IS NULL
