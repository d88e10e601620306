"""Emergency stops: the flag that halts every clean-up and apply, and the record of how things were before.

The record is in PostgreSQL, schema `runbooks`, where every host finds it. The fence of the lease (runbooks/engine/lease.py)
reads the flag in every changing transaction; what changes things without a lease, the clean-up job, asks a Watch.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from runbooks.engine.errors import Stopped
from runbooks.engine.lease import stopped
from runbooks.engine.plan import dumps
from sandbox import schemas
from sandbox.errors import ArrakisError, Denied, Missing
from sandbox.ports import SqlReader, SqlSnapshot, SqlTransaction

__all__ = [
    "Marked",
    "Stop",
    "Watch",
    "give_back",
    "held",
    "lift",
    "lower",
    "mark",
    "marked",
    "raise_stop",
    "raised",
    "standing",
    "watching",
]

_GONE = "schema {schemas} is gone; if it is in quarantine, the undo of that run has to come first"
_GLANCE = 0.5  # seconds between two looks at the flag: it has to be honoured within one


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """An emergency stop that is not lifted. `halting`: clean-ups and applies halt.

    `parts` holds, by their verbs and as JSON, the actions that stopped something in AWS: they say how it was before.
    """

    id: str
    raised_at: datetime
    raised_by: str
    reason: str
    halting: bool
    parts: Mapping[str, Mapping[str, Any]]

    @property
    def by(self) -> str:
        """By whom, and since when."""
        return f"{self.raised_by}, since {self.raised_at:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """A sandbox that a stop marked destroyed: how it was, and its row as it is now; `status` None: the row is gone.

    `guilds` are those mapped to it now; `event`, `actor` and `at` are what was last written down about it.
    """

    id: UUID
    name: str
    was: str
    was_destroyed_at: datetime | None
    was_expires_at: datetime | None
    schemas: Sequence[str]
    was_guilds: Sequence[str]
    marked_at: datetime
    status: str | None
    destroyed_at: datetime | None
    expires_at: datetime | None
    guilds: Sequence[str]
    event: str | None
    actor: str | None
    at: datetime | None

    @property
    def touched(self) -> str | None:
        """Say what became of it since the stop, if anything did."""
        if self.status is None:
            return "its row is gone"
        if self.status != "destroyed" or self.destroyed_at != self.marked_at:
            return f"it is {self.status} by somebody else's hand"
        if self.expires_at != self.was_expires_at:
            return "somebody moved its end since"
        if self.at and self.at > self.marked_at:
            return f"{self.actor} wrote {self.event} about it since"
        return None

    @property
    def unmapped(self) -> tuple[str, ...]:
        """The guilds that were mapped to it, and are not any more."""
        return tuple(guild for guild in self.was_guilds if guild not in self.guilds)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Id:
    id: UUID


def raised(database: SqlReader) -> Stop | None:
    """Return the stop that is not lifted. Raises Unreachable or Denied where nobody can tell."""
    try:
        with database.snapshot() as snapshot:
            found = snapshot.rows("read/stops/raised", Stop)
    except Missing:  # nothing was ever stopped or applied here
        return None
    except Denied as error:
        raise Denied(
            f"cannot tell whether an emergency stop is raised: {error}",
            hint="GRANT USAGE ON SCHEMA runbooks, and SELECT ON ALL TABLES IN SCHEMA runbooks, to this role",
        ) from error
    return found[0] if found else None


def standing(snapshot: SqlSnapshot, stop: str) -> tuple[list[Marked], list[tuple[Marked, str]]]:
    """Return the sandboxes that a stop marked and that can be given back; and those that cannot, each with the reason."""
    there = set(schemas.names(snapshot))
    waiting: list[Marked] = []
    lost: list[tuple[Marked, str]] = []
    for each in snapshot.rows("read/stops/sandboxes", Marked, stop=stop):
        gone = sorted(set(each.schemas) - there)
        reason = each.touched or (_GONE.format(schemas=", ".join(gone)) if gone else None)
        if reason:
            lost.append((each, reason))
        else:
            waiting.append(each)
    return waiting, lost


def marked(database: SqlReader) -> frozenset[UUID]:
    """Return the sandboxes that the stop which is not lifted marked, and that were not given back: what is theirs is to stay."""
    try:
        with database.snapshot() as snapshot:
            return frozenset(row.id for row in snapshot.rows("read/stops/marked", _Id))
    except Missing:  # nothing was ever stopped here
        return frozenset()


def raise_stop(
    transaction: SqlTransaction,
    *,
    id: str,
    by: str,
    reason: str,
    halting: bool,
    parts: Mapping[str, Mapping[str, Any]],
    over: Mapping[str, Mapping[str, Any]],
) -> None:
    """Record a stop, or add to the one that is raised: what that one knows of how things were stays, but for what is `over`."""
    transaction.execute(
        "write/stops/raise",
        id=id,
        by=by,
        reason=reason,
        halting=halting,
        parts=dumps(parts),
        over=dumps(over),
    )


def held(transaction: SqlTransaction, *, id: str) -> Stop | None:
    """Return a stop, and keep all from adding to it until this transaction ends; None if it is lifted."""
    found = transaction.rows("write/stops/hold", Stop, id=id)
    return found[0] if found else None


def lower(transaction: SqlTransaction, *, id: str) -> None:
    """Let clean-ups and applies go on; the stop and its record stay."""
    transaction.execute("write/stops/lower", id=id)


def lift(transaction: SqlTransaction, *, id: str, by: str) -> None:
    """End a stop. One that is lifted already is no error."""
    transaction.execute("write/stops/lift", id=id, by=by)


def mark(transaction: SqlTransaction, having: Mapping[UUID, Sequence[str]], *, actor: str) -> int:
    """Mark those of these sandboxes, having these schemas, that run as destroyed; return how many.

    How they were is kept with the stop that is raised. Rows that somebody holds are passed over. Raises ArrakisError where
    no stop is raised any more.
    """
    if not transaction.rows("read/stops/raised", Stop):
        raise ArrakisError(
            "the stop was lifted just now: nothing is marked for it", hint="stop again, if need be"
        )
    given = [{"id": id, "schemas": names} for id, names in having.items()]
    return transaction.execute("write/stops/mark", sandboxes=dumps(given), actor=actor)


def give_back(transaction: SqlTransaction, *, stop: str, ids: list[UUID], actor: str) -> int:
    """Give sandboxes that nobody has touched since the stop their status back; return how many. Passes over held rows."""
    return transaction.execute("write/stops/give_back", stop=stop, ids=ids, actor=actor)


class Watch:
    """Looks at the flag twice a second. `insist` raises Stopped as soon as it was seen raised, or Unreachable if untold."""

    def __init__(self, database: SqlReader) -> None:
        """Use `watching`."""
        self._database = database
        self._error: ArrakisError | None = None
        self._ended = threading.Event()

    def insist(self) -> None:
        """Raise Stopped if a stop is raised, or what kept us from telling."""
        if self._error:
            raise self._error

    def look(self) -> None:
        """Look at the flag now."""
        try:
            stop = raised(self._database)
        except ArrakisError as error:
            self._error = self._error if isinstance(self._error, Stopped) else error
            return
        if stop and stop.halting:
            self._error = stopped(stop.by)
        elif not isinstance(
            self._error, Stopped
        ):  # a run that was halted is over, even if the stop is lifted soon
            self._error = None

    def _watch(self) -> None:
        while not self._ended.wait(_GLANCE):
            try:
                self.look()
            except Exception as error:  # a watch that looks no more must not pass for a flag that is down
                self._error = ArrakisError(f"nobody can tell whether a stop is raised: {error!r}")


@contextmanager
def watching(database: SqlReader) -> Iterator[Watch]:
    """Yield a watch that has looked once already."""
    watch = Watch(database)
    watch.look()
    thread = threading.Thread(target=watch._watch, daemon=True, name="stop flag")
    thread.start()
    try:
        yield watch
    finally:
        watch._ended.set()
