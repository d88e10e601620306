"""One operator at a time: a row in PostgreSQL with holder, heartbeat and a fencing token.

No session state, because PgBouncer pools transactions. Whoever stalls past the patience loses the lease, and every
changing transaction of theirs then fails at its first statement, the fence.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from runbooks.engine.errors import LeaseHeld, Refused
from runbooks.engine.journal import JournalEntry, entry_from_json
from runbooks.engine.plan import dumps
from sandbox.errors import ArrakisError, Missing
from sandbox.ports import SqlReader, SqlTransaction, SqlWriter

__all__ = ["Lease", "Mirror", "given_back", "holder", "records"]

_PATIENCE = timedelta(seconds=30)
_BEAT = 5.0  # seconds between heartbeats


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    holder: str | None
    run: str | None
    since: datetime | None
    heartbeat: datetime | None
    token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    record: dict[str, Any]


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
    def held(cls, database: SqlWriter, *, holder: str, run: str) -> Iterator["Lease"]:
        """Take the lease and keep it alive. Raises LeaseHeld naming who has it, and since when."""
        _prepare(database)
        with database.transaction() as transaction:
            row = _acquired(transaction, holder, run)
        lease = cls(database, holder=holder, token=row.token)
        beating = threading.Thread(target=lease._beat, daemon=True, name="lease heartbeat")
        beating.start()
        try:
            yield lease
        finally:
            lease._ended.set()
            lease._release()

    def fence(self, transaction: SqlTransaction) -> None:
        """Raise LeaseHeld unless the lease is ours, and keep it so until this transaction ends."""
        if not transaction.rows("write/runs/hold_lease", _Row, token=self.token, holder=self._holder):
            raise LeaseHeld(
                "the lease is not ours any more: another operator took over", hint="see `history`"
            )

    def check(self) -> None:
        """Raise LeaseHeld unless the lease is ours now."""
        with self._database.transaction() as transaction:
            self.fence(transaction)

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT):
            try:
                with self._database.transaction() as transaction:
                    transaction.execute("write/runs/heartbeat", token=self.token, holder=self._holder)
            except ArrakisError:
                continue  # a missed beat is no harm; the fence decides

    def _release(self) -> None:
        try:
            with self._database.transaction() as transaction:
                transaction.execute("write/runs/release_lease", token=self.token, holder=self._holder)
        except ArrakisError:
            return  # PostgreSQL is gone; the lease runs out by itself


class Mirror:
    """Copies journal records to PostgreSQL; what it could not copy is copied by the next run."""

    def __init__(self, database: SqlWriter) -> None:
        """Take the database. Its tables are made by taking the lease."""
        self._database = database

    def __call__(self, entry: JournalEntry) -> None:
        """Copy one record, or leave it for the next run."""
        try:
            self.copy([entry])
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
            for entry in entries:
                transaction.execute(
                    "write/runs/mirror",
                    chain=entry.chain,
                    seq=entry.seq,
                    run=entry.run,
                    phase=entry.phase.value,
                    record=dumps(asdict(entry)),
                )


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


def _prepare(database: SqlWriter) -> None:
    """Make the toolkit's own tables where they are missing; only that needs the right to create a schema."""
    try:
        with database.snapshot() as snapshot:
            snapshot.rows("read/runs/lease", _Row)
    except Missing:
        database.script("migrations/0002_runbooks")


def _acquired(transaction: SqlTransaction, holder: str, run: str) -> _Row:
    now = transaction.rows("read/runs/lease", _Row)[0]
    dead = now.holder if now.holder and _is_dead(now.holder) else None
    taken = transaction.rows(
        "write/runs/acquire_lease", _Row, holder=holder, run=run, patience=_PATIENCE, dead=dead
    )
    if taken:
        return taken[0]
    since = f"{now.since:%Y-%m-%d %H:%M:%S} UTC" if now.since else "a moment ago"
    raise LeaseHeld(
        f"{now.holder or 'another operator'} is at work since {since}, run {now.run}",
        hint=f"wait for it, or talk to them; a holder silent for {_PATIENCE.seconds} s loses the lease",
    )


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
