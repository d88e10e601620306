"""The clean-up job: takes away what is over, and what nothing else revisits.

Due are sandboxes past their end, expired ones, those stuck in `pending`, `creating` or `destroying` for over an hour,
and destroyed ones whose schema, keys or mappings remain. Two jobs at once are harmless: a sandbox is taken in one
short transaction, which one of them wins. One that fails does not stop the others; only a dead database does.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sandbox import keyspace, registry, routes, schemas, teardown
from sandbox.errors import ArrakisError, Unreachable
from sandbox.joblog import fields
from sandbox.keyspace import Survey
from sandbox.model import Sandbox, Status
from sandbox.naming import quarantined_schema, stamp_of
from sandbox.orphans import Orphan, Roster, find_orphans
from sandbox.ports import KeyWriter, SqlTransaction, SqlWriter, StreamReader
from sandbox.teardown import Condemned
from sandbox.usage import Usage, look

__all__ = ["ACTOR", "STUCK_AFTER", "Job", "Report"]

ACTOR = "sandbox-cleanup"
STUCK_AFTER = timedelta(hours=1)
BATCH = 50  # sandboxes taken before their keys are deleted, in one pass over the keyspace for all of them

# More orphans than that are too many to be true (a restored or wrong database): for a person to look at.
_FEW_ORPHANS = 5  # what the alarm tolerates
_MOST_ORPHANS = 0.20  # of what exists


@dataclass(slots=True, kw_only=True)
class Report:
    """What a job did. Counts are sandboxes, except `routes`, `quarantined` and `orphans_left`: resources."""

    cleaned: int = 0
    failed: int = 0
    keys_left: int = 0
    routes: int = 0
    quarantined: int = 0
    orphans_left: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """The world as the job finds it; `survey` is None where Redis does not answer."""

    roster: Roster
    names: list[str]
    survey: Survey | None
    due: list[Sandbox]


class Job:
    """One run of the clean-up. `clock` returns the time, UTC; `tag` marks our own statements."""

    def __init__(
        self,
        database: SqlWriter,
        keys: KeyWriter,
        messaging: StreamReader,
        *,
        clock: Callable[[], datetime],
        log: logging.Logger,
        tag: str,
    ) -> None:
        """Take the systems. Nothing is read before `run`."""
        self._database, self._keys, self._messaging = database, keys, messaging
        self._clock, self._log, self._tag = clock, log, tag
        self._redis_answers = True
        self._passed_over = 0  # not due any more when their turn came
        self.report = Report()

    def run(self, *, orphaned: bool = False) -> Report:
        """Clean up what is due; with `orphaned` put into quarantine what no sandbox owns and nobody uses.

        Raises Unreachable, Denied or Missing where the database cannot be read at all.
        """
        seen = self._look()
        self._log.info("Sandboxes due for cleanup", extra=fields(count=len(seen.due)))
        for start in range(0, len(seen.due), BATCH):
            batch = seen.due[start : start + BATCH]
            try:
                self._clean(batch, seen.roster)
            except Unreachable as error:
                self.report.failed = len(seen.due) - self.report.cleaned - self._passed_over
                self._log.critical("Database is gone: cleanup ends here", extra=fields(error=error))
                return self.report
        if seen.survey and self._redis_answers:
            self._settle_routes(seen.survey)
        if orphaned:
            self._quarantine(seen)
        return self.report

    def _look(self) -> _Seen:
        survey = None
        try:
            survey = keyspace.survey(self._keys)
        except ArrakisError as error:
            self._lose_redis(error)
        now = self._clock()
        with self._database.snapshot() as snapshot:
            roster, names = registry.roster(snapshot), schemas.names(snapshot)
            due = registry.due(snapshot, now=now, stuck=now - STUCK_AFTER)
            mapped = registry.mapped_destroyed(snapshot)
        found = find_orphans(roster, names, survey.families if survey else ())
        behind = mapped | {owner.id for orphan in found if (owner := orphan.placement.owner)}
        remains = [row for row in roster.rows if not row.live and row.id in behind]
        return _Seen(roster=roster, names=names, survey=survey, due=due + remains)

    def _clean(self, batch: Sequence[Sandbox], roster: Roster) -> None:
        condemned: list[Condemned] = []
        for row in batch:
            with self._isolated(row, "take"):
                if taken := self._take(row):
                    condemned.append(taken)
        keys = self._clear(condemned, roster)
        for each in condemned:
            with self._isolated(each.sandbox, "drop schema"):
                dropped = teardown.raze(self._database, each, actor=ACTOR, at=self._clock())
                gone = keys.get(each.sandbox.id, 0)
                # A destroyed one of which nothing is found was finished by another job a moment ago.
                self.report.cleaned += bool(each.sandbox.live or dropped or gone or each.guilds)
                self._log.info("Sandbox cleaned up", extra=fields(each.sandbox, schemas=dropped, keys=gone))

    def _take(self, row: Sandbox) -> Condemned | None:
        """Take a sandbox, if it still is due: it may have been extended, or another job may have it."""
        now = self._clock()
        with self._database.transaction() as transaction:
            held = registry.locked(transaction, id=row.id)
            if held.live and not registry.due(transaction, now=now, stuck=now - STUCK_AFTER, id=row.id):
                self._passed_over += 1
                self._log.debug("Sandbox is not due any more", extra=fields(held, status=held.status))
                return None
            if held.status is Status.RUNNING:
                held = registry.change_status(transaction, held, Status.EXPIRED, actor=ACTOR, at=now)
            return teardown.condemn(transaction, held, actor=ACTOR, at=now)

    def _clear(self, condemned: Sequence[Condemned], roster: Roster) -> Mapping[UUID, int]:
        """Delete routes and keys; return how many keys each had. Without Redis they are left for the next run."""
        if condemned and self._redis_answers:
            try:
                return teardown.clear(self._keys, roster, condemned)
            except ArrakisError as error:
                self._lose_redis(error)
        if not self._redis_answers:
            self.report.keys_left += len(condemned)
        return {}

    def _settle_routes(self, survey: Survey) -> None:
        """Delete cached routes that are not what the table says: of what was changed while Redis was away."""
        try:
            wrong = routes.forget_stale(self._database, self._keys, survey.routes)
        except ArrakisError as error:
            self._log.warning("Cached routes could not be compared", extra=fields(error=error))
            return
        self.report.routes = len(wrong)
        if wrong:
            self._log.warning("Stale cached routes deleted", extra=fields(guilds=wrong))

    def _quarantine(self, seen: _Seen) -> None:
        """Put what has never had a row into quarantine. What a destroyed sandbox left was cleaned up with it."""
        families = seen.survey.families if seen.survey else {}
        orphans = [
            each for each in find_orphans(seen.roster, seen.names, families) if not each.placement.sandboxes
        ]
        live = sum(row.live for row in seen.roster.rows)
        if len(orphans) > max(_FEW_ORPHANS, _MOST_ORPHANS * (live + len(seen.names) + len(families))):
            self.report.orphans_left = len(orphans)
            why = "too many to be true; invoke rb-sb-003 shows them, and --max-targets lets more of them go"
            self._log.error("Orphans left alone", extra=fields(count=len(orphans), reason=why))
            return
        try:
            usage = look(
                self._database, self._keys, self._messaging, [each.token for each in orphans], tag=self._tag
            )
        except ArrakisError as error:
            self.report.orphans_left = len(orphans)
            self._log.error("Orphans left alone: cannot tell who uses them", extra=fields(error=error))
            return
        for orphan in orphans:
            self._put_away(orphan, usage)

    def _put_away(self, orphan: Orphan, usage: Usage) -> None:
        kind, name = orphan.kind, orphan.placement.name
        if user := usage.of(orphan.token, name):
            self.report.orphans_left += 1
            self._log.warning("Orphan left alone: in use", extra=fields(kind=kind, orphan=name, reason=user))
            return
        try:
            self._park(orphan)
        except ArrakisError as error:
            self.report.orphans_left += 1
            self._log.error("Orphan left alone", extra=fields(kind=kind, orphan=name, error=error))
            return
        self.report.quarantined += 1
        self._log.warning("Orphan put into quarantine", extra=fields(kind=kind, orphan=name))

    def _park(self, orphan: Orphan) -> None:
        now = self._clock()
        if orphan.kind == "schema":
            name = orphan.placement.name
            parked = quarantined_schema(name, now)
            schemas.rename_orphan(self._database, name, parked, token=orphan.token, fence=_no_lease)
        else:
            keyspace.park(
                self._keys,
                orphan.token,
                stamp_of(now),
                hold=lambda: schemas.holding_orphan(self._database, orphan.token, fence=_no_lease),
            )

    @contextmanager
    def _isolated(self, row: Sandbox, step: str) -> Iterator[None]:
        """Count and log what goes wrong with one sandbox, and go on; a dead database ends the job."""
        try:
            yield
        except ArrakisError as error:
            self.report.failed += 1
            self._log.error("Sandbox cleanup failed", extra=fields(row, step=step, error=error))
            if isinstance(error, Unreachable):
                raise

    def _lose_redis(self, error: ArrakisError) -> None:
        self._redis_answers = False
        self._log.warning("Redis does not answer: keys are left for the next run", extra=fields(error=error))


def _no_lease(_: SqlTransaction) -> None:
    """The job holds no operator's lease: every step of it is guarded by the rows themselves."""
