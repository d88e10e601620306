"""One operator at a time: a row in PostgreSQL with holder, heartbeat and a fencing token.

No session state, because PgBouncer pools transactions. Whoever stalls past the patience loses the lease, and every
changing transaction of theirs then fails at its first statement, the fence. The fence also says whether an emergency stop
is raised, so that no change begins once it is, on whatever host.
"""

import getpass
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from runbooks.engine.copied import entry_as_json, entry_from_json
from runbooks.engine.errors import LeaseHeld, Refused, Stopped
from runbooks.engine.journal import JournalEntry
from runbooks.engine.plan import dumps
from sandbox.errors import ArrakisError, Missing
from sandbox.ports import SqlReader, SqlSnapshot, SqlTransaction, SqlWriter

__all__ = ["Lease", "Mirror", "actor", "given_back", "holder", "prepare", "records", "stopped"]

_PATIENCE = timedelta(seconds=30)
_AT_ONCE = 200  # records mirrored by one statement
_BEAT = 5.0  # seconds between heartbeats
_MIGRATIONS = ("migrations/0002_runbooks", "migrations/0003_emergencies")
_NO_LEASE = (
    "nothing was changed: the lease is kept in PostgreSQL, which has to take writes; otherwise do it by hand"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    holder: str | None
    run: str | None
    since: datetime | None
    heartbeat: datetime | None
    token: int
    alive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    there: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held(_Row):
    stopped_by: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    record: dict[str, Any]


def actor() -> str:
    """Return the person at work: SANDBOX_OWNER, or else who is logged in; what is no UTF-8 in it is a question mark."""
    named = os.environ.get("SANDBOX_OWNER") or getpass.getuser()
    return named.encode(errors="replace").decode()


def holder(actor: str) -> str:
    """Return who we are: person, host and process, the last two in a way that no other machine shares."""
    return f"{actor} on {socket.gethostname()} ({_machine()}, pid {os.getpid()})"


class Lease:
    """The lease, once taken. `fence` goes first into every changing transaction; `check` between other steps."""

    def __init__(self, database: SqlWriter, *, holder: str, token: int) -> None:
        """Use `Lease.held` to get one."""
        self._database, self._holder, self.token = database, holder, token
        self._ended = threading.Event()

    @classmethod
    @contextmanager
    def held(cls, database: SqlWriter, *, holder: str, run: str, shared: bool = False) -> Iterator["Lease"]:
        """Take the lease and keep it alive. Raises LeaseHeld naming who has it, and since when.

        A `shared` one is held in the run's name by all who work on that run; it is given back by whoever leaves last, when
        nobody keeps it alive any more.
        """
        try:
            prepare(database)
            with database.transaction() as transaction:
                row = _acquired(transaction, holder, run, shared=shared)
        except ArrakisError as error:
            error.hint = error.hint or _NO_LEASE
            raise
        lease = cls(database, holder=holder, token=row.token)
        beating = threading.Thread(target=lease._beat, daemon=True, name="lease heartbeat")
        beating.start()
        try:
            yield lease
        finally:
            lease._ended.set()
            if not shared:
                lease.release()

    def fence(self, transaction: SqlTransaction) -> None:
        """Raise LeaseHeld unless the lease is ours, and keep it so until this transaction ends; Stopped in an emergency."""
        self._insist(transaction, "write/runs/hold_lease")

    def check(self) -> None:
        """Raise LeaseHeld unless the lease is ours now, Stopped in an emergency. It writes nothing: it is asked often."""
        with self._database.snapshot() as snapshot:
            self._insist(snapshot, "read/runs/held")

    def _insist(self, snapshot: SqlSnapshot, statement: str) -> None:
        held = snapshot.rows(statement, _Held, token=self.token, holder=self._holder)
        if not held:
            raise LeaseHeld(
                "the lease is not ours any more: another operator took over", hint="see `history`"
            )
        if held[0].stopped_by:
            raise stopped(held[0].stopped_by)

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT):
            try:
                with self._database.transaction() as transaction:
                    transaction.execute("write/runs/heartbeat", token=self.token, holder=self._holder)
            except ArrakisError:
                continue  # a missed beat is no harm; the fence decides

    def release(self) -> None:
        """Give it back. Where that fails it runs out by itself."""
        try:
            with self._database.transaction() as transaction:
                transaction.execute("write/runs/release_lease", token=self.token, holder=self._holder)
        except ArrakisError:
            return  # PostgreSQL is gone


class Mirror:
    """Copies journal records to PostgreSQL; what it could not copy is copied by the next run."""

    def __init__(self, database: SqlWriter) -> None:
        """Take the database. Its tables are made by taking the lease."""
        self._database = database

    def __call__(self, entries: list[JournalEntry]) -> None:
        """Copy records, or leave them for the next run."""
        try:
            self.copy(entries)
        except ArrakisError:
            return  # the journal on disk is the one that counts

    def catch_up(self, entries: list[JournalEntry]) -> None:
        """Copy what earlier runs could not; where that fails now, the next run tries again."""
        try:
            with self._database.snapshot() as snapshot:
                found = snapshot.rows(
                    "read/runs/mirrored", _Place, chains=[entry.chain for entry in entries[:1]]
                )
            there = {row.seq for row in found}
            self.copy([entry for entry in entries if entry.seq not in there])
        except ArrakisError:
            return

    def copy(self, entries: list[JournalEntry]) -> None:
        """Copy records; those that are there already are passed over."""
        with self._database.transaction() as transaction:
            for start in range(0, len(entries), _AT_ONCE):
                batch = [entry_as_json(entry) for entry in entries[start : start + _AT_ONCE]]
                transaction.execute("write/runs/mirror", records=dumps(batch))


def records(database: SqlReader, run: str) -> list[JournalEntry]:
    """Return the mirrored records of a run made on any host."""
    try:
        with database.snapshot() as snapshot:
            found = snapshot.rows("read/runs/run_records", _Record, run=run)
    except Missing:  # nothing was ever applied here
        return []
    try:
        return [entry_from_json(row.record) for row in found]
    except (ValueError, KeyError, TypeError):
        raise Refused(
            f"the mirrored records of {run} were changed", hint="use the host it was started on"
        ) from None


def given_back(database: SqlReader, *, within: timedelta) -> frozenset[str]:
    """Return the ids of the resources that undo runs, on any host, gave back within this time."""
    try:
        with database.snapshot() as snapshot:
            return frozenset(row.id for row in snapshot.rows("read/runs/given_back", _Given, within=within))
    except Missing:  # nothing was ever applied here
        return frozenset()


def stopped(by: str) -> Stopped:
    """Return the error for an emergency stop that is raised; `by` says by whom, and since when."""
    return Stopped(
        f"an emergency stop is raised by {by}", hint="`emergency-status` says what resuming would do"
    )


def prepare(database: SqlWriter) -> None:
    """Make the toolkit's own tables where they are missing; only that needs the right to create a schema."""
    try:
        with database.snapshot() as snapshot:
            snapshot.rows("read/runs/prepared", _Found)
    except Missing:
        for name in _MIGRATIONS:
            database.script(name)


def _acquired(transaction: SqlTransaction, holder: str, run: str, *, shared: bool) -> _Row:
    now = _row(transaction)
    if shared and now.holder == holder and now.alive:
        return now
    dead = now.holder if now.holder and _is_dead(now.holder) else None
    taken = transaction.rows(
        "write/runs/acquire_lease", _Row, holder=holder, run=run, patience=_PATIENCE, dead=dead
    )
    if taken:
        return taken[0]
    now = _row(transaction)
    if shared and now.holder == holder:  # another of this run's workers was faster
        return now
    if now.since is None:  # given back between our two looks
        raise LeaseHeld("another operator was at work a moment ago", hint="try again")
    raise LeaseHeld(
        f"{now.holder} is at work since {now.since:%Y-%m-%d %H:%M:%S} UTC, run {now.run}",
        hint=f"wait for it, or talk to them; a holder silent for {_PATIENCE.seconds} s loses the lease",
    )


def _row(snapshot: SqlSnapshot) -> _Row:
    return snapshot.rows("read/runs/lease", _Row, patience=_PATIENCE)[0]


def _is_dead(name: str) -> bool:
    """Whether a holder was a process of this very machine that has ended: no need to wait for its lease to run out."""
    _, _, place = name.rpartition(f" on {socket.gethostname()} ({_machine()}, pid ")
    pid = place.rstrip(")")
    return (
        place != name and pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists()
    )


def _machine() -> str:
    """Tell machines and containers apart that share a host name: the boot and the process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
        return f"{boot}.{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return "-"
