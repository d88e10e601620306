"""What takes the database's room, and what keeps it from being given back; and when, at this pace, it runs out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from sandbox.errors import Denied
from sandbox.ports import SqlSnapshot
from sandbox.text import clean, counted

__all__ = [
    "SEE_CATALOG",
    "SEE_DEAD",
    "SEE_HOLDERS",
    "SEE_SIZES",
    "SEE_SLOTS",
    "SEE_WAL",
    "Catalog",
    "DeadRows",
    "Holder",
    "Size",
    "Slot",
    "Wal",
    "read_catalog",
    "read_dead_rows",
    "read_holders",
    "read_sizes",
    "read_slots",
    "read_wal",
    "runs_out",
]

SEE_CATALOG = "psql -c \"SELECT count(*), pg_size_pretty(pg_total_relation_size('pg_class')) FROM pg_class\"  # any role"
SEE_SIZES = (
    'psql -c "SELECT relnamespace::regnamespace, pg_size_pretty(sum(pg_total_relation_size(oid))) FROM pg_class'
    " WHERE relkind = 'r' GROUP BY 1 ORDER BY sum(pg_total_relation_size(oid)) DESC LIMIT 5\"  # any role"
)
SEE_DEAD = (
    'psql -c "SELECT schemaname, relname, n_dead_tup, n_live_tup, last_autovacuum FROM pg_stat_all_tables'
    ' ORDER BY n_dead_tup DESC LIMIT 5"  # any role'
)
SEE_WAL = 'psql -c "SELECT count(*), pg_size_pretty(sum(size)) FROM pg_ls_waldir()"  # pg_monitor'
SEE_SLOTS = (
    'psql -c "SELECT slot_name, active, wal_status, restart_lsn FROM pg_replication_slots"  # any role'
)
SEE_HOLDERS = (
    'psql -c "SELECT pid, age(backend_xmin), age(backend_xid), xact_start, state, backend_type FROM pg_stat_activity'
    " WHERE datname = current_database() OR backend_type = 'walsender' ORDER BY 2 DESC NULLS LAST LIMIT 5\""
    ' -c "SELECT slot_name, age(xmin), age(catalog_xmin) FROM pg_replication_slots"  # pg_read_all_stats'
)

_MEASURED = 3000  # tables whose files are looked at, a few thousandths of a second a hundred
_SHOWN = 5
_OLD = 100_000  # transactions; a horizon that is younger keeps back little
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """How many schemas are sandboxes', how many relations they hold, of how many; `bytes` is the size of their list."""

    schemas: int
    in_sandboxes: int
    relations: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A schema's size on disk in bytes, with indexes and TOAST."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadRows:
    """A table's dead rows beside its live ones, and when VACUUM was last there."""

    name: str
    dead: int
    live: int
    vacuumed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wal:
    """The write-ahead log's files, and their bytes."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A replication slot, and how many bytes of write-ahead log it holds back; None where it holds none."""

    name: str
    kind: str
    active: bool
    status: str
    retained: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A session, prepared transaction, slot or standby that keeps dead rows from being removed; its age is in transactions."""

    kind: str
    name: str
    age: int
    since: datetime | None

    def __post_init__(self) -> None:
        """Clean what a stranger wrote: a prepared transaction's name is free text."""
        object.__setattr__(self, "name", clean(self.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hidden:
    sessions: int


def read_catalog(snapshot: SqlSnapshot) -> Catalog:
    """Return how many schemas and relations there are."""
    return snapshot.rows("read/storage/catalog", Catalog)[0]


def read_sizes(snapshot: SqlSnapshot) -> tuple[Size, ...]:
    """Return the largest sandboxes' schemas, the largest first. Raises Busy where a table is being changed just then."""
    return tuple(snapshot.rows("read/storage/sizes", Size, most=_MEASURED, shown=_SHOWN))


def read_dead_rows(snapshot: SqlSnapshot) -> tuple[DeadRows, ...]:
    """Return the sandboxes' and control tables with the most dead rows."""
    return tuple(snapshot.rows("read/storage/dead_rows", DeadRows, shown=_SHOWN))


def read_wal(snapshot: SqlSnapshot) -> Wal:
    """Return the write-ahead log's size. Raises Denied without pg_monitor."""
    return snapshot.rows("read/storage/wal", Wal)[0]


def read_slots(snapshot: SqlSnapshot) -> tuple[Slot, ...]:
    """Return the replication slots, the one that holds back the most first."""
    return tuple(snapshot.rows("read/storage/slots", Slot))


def read_holders(snapshot: SqlSnapshot, *, age: int | None = None) -> tuple[Holder, ...]:
    """Return what keeps VACUUM from removing the rows that died within the last `age` transactions, or the last 100,000.

    Raises Denied where nothing is seen, and what a session holds back is hidden from this role.
    """
    found = tuple(
        snapshot.rows("read/storage/holders", Holder, age=_OLD if age is None else age, shown=_SHOWN)
    )
    if not found and (hidden := snapshot.rows("read/storage/hidden", _Hidden)[0].sessions):
        raise Denied(
            f"what {counted(hidden, 'session holds', 'sessions hold')} back is hidden from this role",
            hint="GRANT pg_read_all_stats",
        )
    return found


def runs_out(points: Sequence[tuple[datetime, float]], *, gain: float) -> datetime | None:
    """Return when what is left comes to nothing, if it goes on as over these points; None where it does not shrink.

    A straight line through the last point, with the slope of least squares. What was before more than `gain` was gained at
    once says nothing of the pace since. Two points at least, of different moments.
    """
    points = _since_gained(sorted(points), gain)
    if len({moment for moment, _ in points}) < 2:
        return None
    last, left = points[-1]
    days = [(moment - last) / _DAY for moment, _ in points]
    mean_day, mean_value = sum(days) / len(days), sum(value for _, value in points) / len(points)
    spread = sum((day - mean_day) ** 2 for day in days)
    together = sum(
        (day - mean_day) * (value - mean_value) for day, (_, value) in zip(days, points, strict=True)
    )
    a_day = together / spread
    if a_day >= 0:
        return None
    try:
        return last + _DAY * (left / -a_day)
    except OverflowError:  # not within anybody's lifetime
        return None


def _since_gained(points: Sequence[tuple[datetime, float]], gain: float) -> Sequence[tuple[datetime, float]]:
    """Return the points from the last gain on; all of them where nothing was gained."""
    gained = (
        number for number, (before, after) in enumerate(pairwise(points), 1) if after[1] - before[1] > gain
    )
    return points[max(gained, default=0) :]
