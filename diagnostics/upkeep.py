"""How the control tables are kept: sizes, dead rows, who vacuums them and when; and how much of the audit log is old."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from sandbox.model import Status
from sandbox.ports import SqlReader, SqlSnapshot
from sandbox.stride import Stride
from sandbox.text import clean, moment

__all__ = [
    "AUDIT_LOG",
    "COLUMNS",
    "SEE_LOG",
    "SEE_UPKEEP",
    "SEE_WORKERS",
    "Kept",
    "Log",
    "Upkeep",
    "Worker",
    "count_old",
    "read_log",
    "read_upkeep",
    "read_workers",
    "walk",
]

T = TypeVar("T")

AUDIT_LOG = "sandbox_audit_log"
COLUMNS = ("id", "sandbox_id", "event_type", "actor", "details", "created_at")
"""The audit log's columns: what an archive holds of it."""

SEE_UPKEEP = (
    'psql -c "SELECT relname, n_live_tup, n_dead_tup, last_vacuum, last_autovacuum, pg_size_pretty('
    "pg_total_relation_size(relid)) FROM pg_stat_all_tables WHERE schemaname = 'public' AND relname LIKE 'sandbox%'\""
)
SEE_LOG = (
    "psql -c \"SELECT count(*), min(created_at) FROM public.sandbox_audit_log WHERE created_at < '{cutoff}'\""
)
SEE_WORKERS = (
    'psql -c "SELECT relation::regclass, mode, pid, usename, xact_start, query FROM pg_locks JOIN pg_stat_activity'
    " USING (pid) WHERE locktype = 'relation' AND mode <> 'AccessShareLock'\"  # pg_read_all_stats"
)

_FIRST_PAGES, _LEAST_PAGES = 64, 8
_COUNTED, _READ = 2048, 128  # pages at the most whose rows are counted, and read, by one statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """A control table: its bytes with indexes and TOAST, its rows by the statistics, and when it was last seen to.

    `off_here`, `off_everywhere`: autovacuum does not come, to this table or to any. `lacks` are those of the rights to read, write
    and delete rows that this role does not have.
    """

    name: str
    bytes: int
    live: int
    dead: int
    vacuumed_at: datetime | None
    autovacuumed_at: datetime | None
    analyzed_at: datetime | None
    off_here: bool
    off_everywhere: bool
    owner: str
    may_vacuum: bool
    lacks: Sequence[str]
    columns: Sequence[str]

    @property
    def last_vacuumed_at(self) -> datetime | None:
        """When VACUUM was last there, by whomever it was sent."""
        return max(filter(None, (self.vacuumed_at, self.autovacuumed_at)), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """Who is at work on a control table, or waits to be, in a way that VACUUM waits for. What is hidden from this role is empty."""

    table: str
    pid: int
    user: str
    application: str
    kind: str
    since: datetime | None
    phase: str
    scanned: int | None
    total: int | None

    @property
    def told(self) -> str:
        """It in words: who, since when, and how far a VACUUM has come."""
        who = f"session {self.pid}" if self.pid else "a prepared transaction"
        whose = ", ".join(filter(None, (self.user, self.application, self._kind)))
        return "".join(
            (
                who,
                f" ({clean(whose)})" if whose else "",
                f" since {moment(self.since)}" if self.since else "",
                f": VACUUM, {self.progress}" if self.phase else "",
            )
        )

    @property
    def progress(self) -> str:
        """How far a VACUUM has come, in steps of ten percent; empty for anything else."""
        share = (
            f" {self.scanned * 10 // self.total * 10} %" if self.scanned is not None and self.total else ""
        )
        return f"{self.phase}{share}" if self.phase else ""

    @property
    def _kind(self) -> str:
        return "" if self.kind == "client backend" else self.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An old audit row that has to stay, and of which sandbox it is."""

    id: UUID
    sandbox: str
    status: Status

    def __post_init__(self) -> None:
        """Read what the driver hands over."""
        object.__setattr__(self, "status", Status(self.status))


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The audit rows older than a cutoff: how many may go, the oldest of them, and those that have to stay."""

    cutoff: datetime
    rows: int
    oldest: datetime | None
    kept: tuple[Kept, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pages:
    pages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Old:
    rows: int
    oldest: datetime | None
    left_keys: Sequence[UUID]


def read_upkeep(snapshot: SqlSnapshot) -> Mapping[str, Upkeep]:
    """Return the control tables that there are, by name. Raises Busy while somebody holds one against readers."""
    return {each.name: each for each in snapshot.rows("read/maintenance/tables", Upkeep)}


def read_workers(snapshot: SqlSnapshot) -> tuple[Worker, ...]:
    """Return who is at work on the control tables in a way that VACUUM has to wait for."""
    return tuple(snapshot.rows("read/maintenance/workers", Worker))


def read_log(sql: SqlReader, cutoff: datetime) -> Log:
    """Return what is older than the cutoff. Reads the audit log once, a range of its pages at a time."""
    found = _counted(sql, cutoff, kept=[])
    left_keys = [each for old in found for each in old.left_keys]
    with sql.snapshot() as snapshot:
        kept = snapshot.rows("read/maintenance/kept", Kept, cutoff=cutoff, left_keys=left_keys)
    return Log(
        cutoff=cutoff,
        rows=sum(old.rows for old in found) - len(kept),
        oldest=min((old.oldest for old in found if old.oldest), default=None),
        kept=tuple(kept),
    )


def count_old(sql: SqlReader, cutoff: datetime, *, kept: Sequence[UUID]) -> int:
    """Return how many audit rows are older than the cutoff, but for those that are kept."""
    return sum(old.rows for old in _counted(sql, cutoff, kept=kept))


def walk(
    sql: SqlReader, statement: str, row: type[T], /, *, most: int = _READ, **params: Any
) -> Iterator[list[T]]:
    """Yield what a statement says of each range of the audit log's pages, from its beginning to the end that it has now.

    It is read/maintenance/`statement`, which takes the range, of `most` pages at the most, as `first` and `last`. There is no index on the rows' age, so a
    search for old ones would read the whole table each time. Each range is a transaction of its own: none lasts.
    """
    with sql.snapshot() as snapshot:
        [seen] = snapshot.rows("read/maintenance/pages", _Pages)
    stride, first = Stride(_FIRST_PAGES, least=_LEAST_PAGES, most=most), 0
    while first < seen.pages:
        last, began = first + stride.size, time.monotonic()
        with sql.snapshot() as snapshot:
            found = snapshot.rows(
                f"read/maintenance/{statement}", row, first=f"({first},0)", last=f"({last},0)", **params
            )
        stride.took(time.monotonic() - began)
        yield found
        first = last


def _counted(sql: SqlReader, cutoff: datetime, *, kept: Sequence[UUID]) -> list[_Old]:
    found = walk(sql, "old_count", _Old, most=_COUNTED, cutoff=cutoff, kept=kept)
    return [old for olds in found for old in olds]
