-- Records an emergency stop, or adds to the one that is raised: what was stopped before keeps its first record, unless it is
-- still the one that is known to be over. Locks: its row; one at a time, as two of one id would be in each other's way.
WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtext('arrakis-runbooks stop')))
INSERT INTO runbooks.stops (id, raised_by, reason, halting, parts)
SELECT %(id)s, %(by)s, %(reason)s, %(halting)s, %(parts)s::jsonb FROM turn
ON CONFLICT ((true)) WHERE lifted_at IS NULL
DO UPDATE SET halting = stops.halting OR excluded.halting,
              reason = CASE WHEN stops.reason = '' THEN excluded.reason ELSE stops.reason END,
              parts = excluded.parts || coalesce((
                  SELECT jsonb_object_agg(part.key, part.value)
                  FROM jsonb_each(stops.parts) AS part
                  WHERE part.value IS DISTINCT FROM %(over)s::jsonb -> part.key
              ), '{}')
