"""How a run stands, as its mirrored journal tells on every host: what has ended, who is at work, whether it is over."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runbooks.engine.copied import entry_from_json
from runbooks.engine.errors import PlanError, Refused
from runbooks.engine.journal import JournalEntry
from sandbox.errors import Missing
from sandbox.ports import SqlReader, SqlSnapshot

__all__ = [
    "Failure",
    "Part",
    "Standing",
    "failures",
    "latest_run",
    "records_of",
    "refuse_undone",
    "standing",
    "standing_in",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One worker's part of a run: how many actions it wrote down last as what, and when it was seen last."""

    worker: str
    seen: datetime
    done: int
    skipped: int
    failed: int
    begun: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    queued: bool
    total: int
    exit: int | None
    strangers: int
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A run at one moment, `now` by PostgreSQL's clock.

    `queued`: it was put on the work queue. `exit` is its exit code, None while it is not over. `strangers` were found on its queue and
    set aside, being none of its actions.
    """

    queued: bool
    total: int
    exit: int | None
    strangers: int
    now: datetime
    parts: tuple[Part, ...]

    @property
    def done(self) -> int:
        """How many actions were done."""
        return sum(part.done for part in self.parts)

    @property
    def skipped(self) -> int:
        """How many were skipped."""
        return sum(part.skipped for part in self.parts)

    @property
    def failed(self) -> int:
        """How many failed, and were not done since."""
        return sum(part.failed for part in self.parts)

    @property
    def left(self) -> int:
        """How many have not ended."""
        return self.total - self.done - self.skipped - self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Something that went wrong: with which resource, None where it is none of the run's; who says so, and why."""

    at: datetime
    worker: str
    resource: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    record: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Name:
    run: str


def standing(database: SqlReader, run: str) -> Standing | None:
    """Return how a run stands; None where nobody knows it here."""
    try:
        with database.snapshot() as snapshot:
            return standing_in(snapshot, run)
    except Missing:  # nothing was ever applied here
        return None


def standing_in(snapshot: SqlSnapshot, run: str) -> Standing | None:
    """Return the same, as a transaction sees it."""
    found = snapshot.rows("read/runs/standing", _Run, run=run)
    if not found:
        return None
    parts = tuple(snapshot.rows("read/runs/parts", Part, run=run))
    return Standing(
        queued=found[0].queued,
        total=found[0].total,
        exit=found[0].exit,
        strangers=found[0].strangers,
        now=found[0].now,
        parts=parts,
    )


def failures(database: SqlReader, run: str, *, after: datetime) -> list[Failure]:
    """Return what was written down as failed or set aside after a moment, oldest first, the first 20."""
    with database.snapshot() as snapshot:
        return snapshot.rows("read/runs/failures", Failure, run=run, after=after)


def records_of(database: SqlReader, run: str, actions: Sequence[str]) -> list[JournalEntry]:
    """Return the records of some of a run's actions, oldest first. Raises Refused where they were changed."""
    with database.snapshot() as snapshot:
        found = snapshot.rows("read/runs/records_of", _Record, run=run, actions=list(actions))
    try:
        return [entry_from_json(row.record) for row in found]
    except (ValueError, KeyError, TypeError):
        raise Refused(
            f"the mirrored records of {run} were changed", hint="use the host it was started on"
        ) from None


def latest_run(database: SqlReader, runbook: str) -> str:
    """Return the run of a runbook that was begun last, on any host. Raises PlanError if there is none."""
    try:
        with database.snapshot() as snapshot:
            found = snapshot.rows("read/runs/latest", _Name, runbook=runbook)
    except Missing:
        found = []
    if not found:
        raise PlanError(f"there is no run of {runbook} in this environment", hint=f"`{runbook}` plans one")
    return found[0].run


def refuse_undone(database: SqlReader, run: str) -> None:
    """Raise Refused for a run that was undone, from whatever host. Only with the lease in hand it stays as it is told."""
    try:
        with database.snapshot() as snapshot:
            found = snapshot.rows("read/runs/undone_by", _Name, run=run)
    except Missing:  # nothing was ever applied here
        return
    if found:
        raise Refused(f"run {run} was undone by {found[0].run}", hint="run its runbook again")
