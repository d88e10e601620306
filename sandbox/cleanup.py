"""The clean-up job: takes away what is over, and what nothing else revisits.

Due are sandboxes past their end, expired ones, those stuck in `pending`, `creating` or `destroying` for over an hour,
and destroyed ones whose mappings remain or whose keys were left because Redis did not answer. Two jobs at once are
harmless: a sandbox is taken in one short transaction, which one of them wins. One that fails does not stop the others,
and is tried again by the next run; only a dead database ends the job.

What else remains of destroyed sandboxes, and what has no row at all, is not deleted here but reported: it is put into
quarantine, where it can be given back.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sandbox import keyspace, registry, routes, schemas, teardown
from sandbox.errors import ArrakisError, Blocked, Busy, Halted, Unreachable
from sandbox.joblog import fields
from sandbox.keyspace import Survey
from sandbox.model import Sandbox, Status
from sandbox.orphans import Orphan, find_orphans
from sandbox.ports import KeyWriter, SqlSnapshot, SqlTransaction, SqlWriter
from sandbox.teardown import Condemned

__all__ = ["ACTOR", "STUCK_AFTER", "Job", "Report", "due_at"]

ACTOR = "sandbox-cleanup"
STUCK_AFTER = timedelta(hours=1)
"""A sandbox that has been half made, or half taken away, for longer is stuck."""

# What this job began and could not finish is tried again by the next one, unless another may still be at it.
_RETRY_AFTER = timedelta(minutes=5)
_SESSIONS = 2  # that are kept from one sandbox to the next: a drop needs a second one
_BATCH = 1000  # sandboxes taken before their keys are deleted, in one pass over the keyspace for all of them


@dataclass(slots=True, kw_only=True)
class Report:
    """What a job did: sandboxes brought to their end, failed, ended with their keys left, and ended before but finished
    now; cached routes corrected.

    `orphans` is what no live sandbox owns and the job did not take away; None where Redis did not answer.
    """

    cleaned: int = 0
    failed: int = 0
    keys_left: int = 0
    finished: int = 0
    routes: int = 0
    orphans: Sequence[Orphan] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """The world as the job finds it: what is due, and destroyed rows of which keys or mappings were left.

    `settled` are those of which nothing is to be deleted any more: an operator gave back keys, and what is left of them
    counts as anybody's orphan now; or their keys went by themselves.
    """

    due: Sequence[Sandbox]
    keyed: Sequence[Sandbox]
    settled: Sequence[Sandbox]
    mapped: Sequence[Sandbox]


class Job:
    """One run of the clean-up. `clock` returns the time, UTC."""

    def __init__(
        self,
        database: SqlWriter,
        keys: KeyWriter,
        *,
        clock: Callable[[], datetime],
        log: logging.Logger,
        insist: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the systems. Nothing is read before `run`. `insist` is called before each change, and raises to end the job."""
        self._database, self._keys, self._clock, self._log = database, keys, clock, log
        self._insist = insist
        self.redis_answers = True
        self._passed_over = 0  # not due any more when their turn came, or taken by somebody else
        self.report = Report()

    def run(self, *, spared: Collection[str] | None = (), kept: Collection[UUID] = ()) -> Report:
        """Clean up what is due; keys of these tokens, which an operator gave back, are not deleted (None: of any).

        `kept` are destroyed sandboxes that may come back: nothing of theirs is touched, or reported as an orphan.
        Raises Unreachable, Denied or Missing where the database cannot be read at all, Halted when it is to stop.
        """
        survey = self._survey()
        seen = self._look(survey, spared, kept)
        self._log.info("Sandboxes due for cleanup", extra=fields(count=len(seen.due)))
        try:
            with self._database.keeping(_SESSIONS):
                for start in range(0, len(seen.due), _BATCH):
                    self._clean(seen.due[start : start + _BATCH])
                self._finish(seen)
        except Halted as error:
            self._log.warning("Cleanup is halted", extra=fields(error=error))
            raise
        except Unreachable as error:
            self.report.failed = max(1, len(seen.due) - self.report.cleaned - self._passed_over)
            self._log.critical("Database is gone: cleanup ends here", extra=fields(error=error))
            return self.report
        if survey and self.redis_answers:
            self._settle_routes(survey)
        return self.report

    def _survey(self) -> Survey | None:
        try:
            return keyspace.survey(self._keys)
        except ArrakisError as error:
            self._lose_redis(error)
            return None

    def _look(self, survey: Survey | None, spared: Collection[str] | None, kept: Collection[UUID]) -> _Seen:
        families = survey.families if survey else {}
        with self._database.snapshot() as snapshot:
            names = schemas.names(snapshot)
            roster = registry.claimants(snapshot, schemas=names, tokens=families)
            due, mapped = due_at(snapshot, self._clock()), registry.mapped_destroyed(snapshot)
            left = {row.id: row for row in registry.unfinished(snapshot) if row.id not in kept}
        orphans = [each for each in find_orphans(roster, names, families) if _owner(each) not in kept]
        given_back = {_owner(orphan) for orphan in orphans if spared is not None and orphan.token in spared}
        present = {_owner(orphan) for orphan in orphans if orphan.kind == "keys"}
        keyed = present & left.keys() - given_back if spared is not None else set()
        settled = given_back | (left.keys() - present if survey else set())
        if survey:
            self.report.orphans = [
                each for each in orphans if each.kind == "schema" or _owner(each) not in keyed
            ]
        return _Seen(
            due=due,
            keyed=[row for row in left.values() if row.id in keyed],
            settled=[row for row in left.values() if row.id in settled],
            mapped=[row for row in mapped if row.id not in kept],
        )

    def _clean(self, batch: Sequence[Sandbox]) -> None:
        condemned: list[Condemned] = []
        for row in batch:
            with self._isolated(row, "take"):
                self._insist()
                if taken := self._take(row):
                    condemned.append(taken)
        keys = self._clear(condemned)
        for each in condemned:
            with self._isolated(each.sandbox, "drop schema"):
                self._insist()
                razed = teardown.raze(
                    self._database, each, actor=ACTOR, at=self._clock(), keys_left=keys is None
                )
                gone = keys.get(each.sandbox.id, 0) if keys is not None else None
                self.report.cleaned += razed.ended
                self.report.keys_left += razed.ended and keys is None
                self._passed_over += not razed.ended  # somebody else was faster
                self._log.info(
                    "Sandbox cleaned up", extra=fields(each.sandbox, schemas=razed.schemas, keys=gone)
                )

    def _take(self, row: Sandbox) -> Condemned | None:
        """Take a sandbox, if it still is due: it may have been extended, or somebody else may have it."""
        try:
            with self._database.transaction() as transaction:
                held = self._held(transaction, row)
                return teardown.condemn(transaction, held, actor=ACTOR, at=self._clock()) if held else None
        except Blocked:
            self._end_events(row)
            raise

    def _held(self, transaction: SqlTransaction, row: Sandbox) -> Sandbox | None:
        """Hold a row that is due, and let it be expired if it was running; None if it is not due any more."""
        try:
            held = registry.locked(transaction, id=row.id)
        except Busy as error:
            self._passed_over += 1
            self._log.warning("Sandbox is held by somebody else", extra=fields(row, error=error))
            return None
        if not due_at(transaction, self._clock(), ids=[row.id]):
            self._passed_over += 1
            self._log.debug("Sandbox is not due any more", extra=fields(held, status=held.status))
            return None
        if held.status is Status.RUNNING:
            held = registry.change_status(transaction, held, Status.EXPIRED, actor=ACTOR, at=self._clock())
        return held

    def _end_events(self, row: Sandbox) -> None:
        """Let a sandbox that is over, and cannot go, get no more events."""
        with self._database.transaction() as transaction:
            held = self._held(transaction, row)
            guilds = registry.guilds(transaction, row.id) if held else []
        self._forget(guilds)

    def _forget(self, guilds: Sequence[str]) -> None:
        if self.redis_answers and guilds and (error := routes.forget(self._keys, guilds)):
            self._lose_redis(error)

    def _clear(self, condemned: Sequence[Condemned]) -> Mapping[UUID, int] | None:
        """Delete routes and keys; return how many keys each had, or None: they are left for the next run."""
        if not condemned or not self.redis_answers:
            return {} if self.redis_answers else None
        try:
            with self._database.snapshot() as snapshot:
                roster = registry.claimants(snapshot, tokens=[str(each.sandbox.id) for each in condemned])
        except ArrakisError as error:
            self._log.error("Keys are left: nobody can tell whose they are", extra=fields(error=error))
            self._insist_on_database(error)
            return None
        try:
            return teardown.clear(self._keys, roster, condemned, hold=self._holding)
        except Halted:
            raise
        except ArrakisError as error:
            self._lose_redis(error)
            return None

    @contextmanager
    def _holding(self) -> Iterator[None]:
        self._insist()
        yield

    def _finish(self, seen: _Seen) -> None:
        """Take away what was left of destroyed sandboxes: mappings, and keys that are known to have been left."""
        for row in seen.mapped:
            with self._isolated(row, "end mappings"):
                self._insist()
                with self._database.transaction() as transaction:
                    registry.locked(transaction, id=row.id)
                    guilds = registry.guilds(transaction, row.id)
                    transaction.execute("write/registry/unmap_guilds", id=row.id)
                self._forget(guilds)
                self.report.finished += 1
        gone = self._clear([Condemned(sandbox=row, guilds=()) for row in seen.keyed])
        for row in (*seen.settled, *(seen.keyed if gone is not None else ())):
            with self._isolated(row, "finish"):
                teardown.finish(self._database, row, actor=ACTOR)
        self.report.finished += len(seen.keyed) if gone is not None else 0

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

    @contextmanager
    def _isolated(self, row: Sandbox, step: str) -> Iterator[None]:
        """Count and log what goes wrong with one sandbox, and go on; only a dead database ends the job."""
        try:
            yield
        except Halted:
            raise
        except ArrakisError as error:
            self.report.failed += 1
            self._log.error("Sandbox cleanup failed", extra=fields(row, step=step, error=error))
            self._insist_on_database(error)

    def _insist_on_database(self, error: ArrakisError) -> None:
        """Raise Unreachable if the database is gone: one session alone may have been ended."""
        if isinstance(error, Unreachable):
            registry.time_of(self._database)

    def _lose_redis(self, error: ArrakisError) -> None:
        self.redis_answers = False
        self._log.warning("Redis does not answer: keys are left for the next run", extra=fields(error=error))


def due_at(snapshot: SqlSnapshot, now: datetime, *, ids: Sequence[UUID] | None = None) -> list[Sandbox]:
    """Return the sandboxes, of all or of these, that are due for clean-up at a moment."""
    return registry.due(
        snapshot, now=now, stuck=now - STUCK_AFTER, retry=now - _RETRY_AFTER, job=ACTOR, ids=ids
    )


def _owner(orphan: Orphan) -> UUID | None:
    """Return the destroyed sandbox that left an orphan behind, if there is one."""
    owner = orphan.placement.owner
    return owner.id if owner else None
