"""The control tables' indexes and statistics: what there should be, what there is, and what is wrong with it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from sandbox.ports import SqlSnapshot

__all__ = [
    "EXPECTED",
    "SEE_INDEXES",
    "SEE_PROGRESS",
    "SEE_TABLES",
    "TABLES",
    "Expected",
    "Index",
    "Progress",
    "Table",
    "read_building",
    "read_indexes",
    "read_progress",
    "read_tables",
    "stands_for",
]

SEE_INDEXES = (
    "psql -c '\\d public.sandboxes' -c '\\d public.sandbox_guild_mapping' -c '\\d public.sandbox_audit_log'"
)
SEE_PROGRESS = 'psql -c "SELECT * FROM pg_stat_progress_create_index"  # pg_read_all_stats'
SEE_TABLES = "psql -c \"SELECT relname, n_live_tup, n_mod_since_analyze, last_analyze, last_autoanalyze FROM pg_stat_user_tables WHERE schemaname = 'public' AND relname LIKE 'sandbox%'\""

TABLES = ("sandboxes", "sandbox_guild_mapping", "sandbox_audit_log")
"""The control tables, in the schema public."""

MANY_ROWS = 10_000
"""Of a table with fewer rows the planner can be as wrong as it likes."""

_OFF = 10  # times as many rows as believed, or as few
_CHANGED = 0.5  # of the rows, since the last ANALYZE; autovacuum comes at a tenth
_BLOATED, _WASTE = 3, 50 * 2**20  # times what is needed, and bytes in vain


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """An index that the migration makes. `constraint`: it is a primary key's or a unique constraint's."""

    name: str
    table: str
    columns: tuple[str, ...]
    definition: str
    constraint: bool = False
    primary: bool = False

    @property
    def concurrently(self) -> str:
        """The statement that makes it without keeping writers waiting."""
        head, _, rest = self.definition.partition("INDEX ")
        return f"{head}INDEX CONCURRENTLY {rest}"


def _expected(name: str, table: str, keys: str, *, where: str = "", kind: str = "") -> Expected:
    unique = "UNIQUE " if kind else ""
    condition = f" WHERE {where}" if where else ""
    return Expected(
        name=name,
        table=table,
        columns=tuple(key.split()[0] for key in keys.split(", ")),
        definition=f"CREATE {unique}INDEX {name} ON public.{table} USING btree ({keys}){condition}",
        constraint=bool(kind),
        primary=kind == "primary key",
    )


EXPECTED: Mapping[str, Expected] = MappingProxyType(
    {
        each.name: each
        for each in (
            _expected("sandboxes_pkey", "sandboxes", "id", kind="primary key"),
            _expected("sandboxes_name_unique", "sandboxes", "name", kind="unique"),
            _expected("sandboxes_schema_name_unique", "sandboxes", "schema_name", kind="unique"),
            _expected("idx_sandboxes_status", "sandboxes", "status"),
            _expected("idx_sandboxes_owner", "sandboxes", "owner"),
            _expected(
                "idx_sandboxes_expires",
                "sandboxes",
                "expires_at",
                where="(status = 'running'::sandbox_status)",
            ),
            _expected("idx_sandboxes_created", "sandboxes", "created_at DESC"),
            _expected("sandbox_guild_mapping_pkey", "sandbox_guild_mapping", "guild_id", kind="primary key"),
            _expected("idx_sandbox_guild_mapping_sandbox", "sandbox_guild_mapping", "sandbox_id"),
            _expected("sandbox_audit_log_pkey", "sandbox_audit_log", "id", kind="primary key"),
            _expected(
                "idx_sandbox_audit_log_sandbox_time", "sandbox_audit_log", "sandbox_id, created_at DESC"
            ),
            _expected("idx_sandbox_audit_log_type", "sandbox_audit_log", "event_type"),
        )
    }
)
"""Every index that sql/migrations/0001_control_tables.sql makes, by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index of a control table. `needed` estimates the bytes of a fresh one; None where that is not known.

    `valid`: it may be used by statements; `ready`: it is kept up to date. `constraint` is whose index it is, `scans` how often it
    was used since the statistics were reset at `since`, None: never.
    """

    name: str
    table: str
    definition: str
    valid: bool
    ready: bool
    constraint: str | None
    scans: int
    since: datetime | None
    bytes: int
    needed: int | None

    @property
    def usable(self) -> bool:
        """Whether statements may use it, and it is up to date."""
        return self.valid and self.ready

    @property
    def bloated(self) -> bool:
        """Whether it is, by the estimate, clearly larger than it has to be."""
        needed = self.needed
        return needed is not None and self.bytes > needed * _BLOATED and self.bytes - needed > _WASTE

    def does(self, expected: Expected) -> bool:
        """Whether it is defined as an expected one, whatever its name."""
        return _bare(self.definition, self.name) == _bare(expected.definition, expected.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A control table's statistics. `believed` are the rows that the planner works with, -1 before the first count.

    `live` and `dead` were counted by the changes themselves; `modified` rows were changed since `analyzed_at`, None: never.
    """

    name: str
    believed: float
    live: int
    dead: int
    modified: int
    analyzed_at: datetime | None
    bytes: int
    autovacuum_off: bool

    @property
    def reset(self) -> bool:
        """Whether its rows were not counted since the statistics were reset, as after a crash: fewer are known than there are."""
        return self.analyzed_at is None and self.live + self.modified < self.believed

    @property
    def misjudged(self) -> bool:
        """Whether the planner works with ten times too many or too few rows, of a large table."""
        most, least = max(self.believed, self.live), max(1.0, min(self.believed, self.live))
        return most >= MANY_ROWS and most / least >= _OFF

    @property
    def stale(self) -> bool:
        """Whether its statistics are of another table than it is by now."""
        changed = self.modified >= max(MANY_ROWS, self.live * _CHANGED)
        never = self.analyzed_at is None and self.live >= MANY_ROWS
        return self.misjudged or changed or never


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an index that session `pid` makes has come; `index` is None before others see its name.

    `waits_for` is a session's pid, None where it waits for nobody.
    """

    table: str
    index: str | None
    pid: int
    phase: str
    done: int
    total: int
    waits_for: int | None

    @property
    def told(self) -> str:
        """It in words, in steps of ten percent."""
        share = f" {math.floor(self.done / self.total * 10) * 10} %" if self.total else ""
        return f"{self.phase}{share}" + (f", for session {self.waits_for}" if self.waits_for else "")


def read_indexes(snapshot: SqlSnapshot) -> tuple[Index, ...]:
    """Return the control tables' indexes. Raises Busy while somebody holds such a table against readers."""
    return tuple(snapshot.rows("read/indexes/indexes", Index))


def read_tables(snapshot: SqlSnapshot) -> tuple[Table, ...]:
    """Return the control tables' statistics, of those tables that there are."""
    return tuple(snapshot.rows("read/plans/tables", Table))


def read_building(snapshot: SqlSnapshot, tables: Sequence[str] = TABLES) -> tuple[Progress, ...]:
    """Return the indexes that are being made on these tables at this moment, by whomever."""
    return tuple(snapshot.rows("read/indexes/progress", Progress, tables=list(tables)))


def read_progress(snapshot: SqlSnapshot, table: str) -> Progress | None:
    """Return how far an index that is being made on a table has come; None where none is."""
    return next(iter(read_building(snapshot, [table])), None)


def stands_for(expected: Expected, indexes: Iterable[Index]) -> Index | None:
    """Return the index that does what an expected one should: the one of its name, else a usable one like it."""
    found = list(indexes)
    named = next(
        (each for each in found if each.name == expected.name and each.table == expected.table), None
    )
    return named or next((each for each in found if each.usable and each.does(expected)), None)


def _bare(definition: str, name: str) -> str:
    """A definition without its name, nor the schema that is written or not as the search path has it."""
    return definition.replace(f" {name} ", " ", 1).replace("public.", "")
