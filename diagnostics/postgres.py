"""PostgreSQL as a patient: who is connected, who stands in a schema's way, and what the audit table says last."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sandbox.model import as_object
from sandbox.ports import SqlSnapshot
from sandbox.text import clean

__all__ = [
    "SEE_CONNECTIONS",
    "SEE_EVENTS",
    "SEE_SESSIONS",
    "AuditEntry",
    "ConnectionGroup",
    "Connections",
    "InTheWay",
    "LockTable",
    "Quota",
    "connections",
    "in_the_way",
    "last_events",
    "lock_table",
    "see_dependents",
    "shown",
]

SEE_CONNECTIONS = 'psql -c "SELECT application_name, usename, state, count(*) FROM pg_stat_activity GROUP BY 1, 2, 3 ORDER BY 4 DESC"  # pg_read_all_stats'
SEE_EVENTS = "psql -c \"SELECT * FROM public.sandbox_audit_log WHERE sandbox_id = '{id}' ORDER BY created_at DESC LIMIT 5\""
SEE_SESSIONS = 'psql -c "SELECT pid, usename, application_name, state, xact_start, query FROM pg_stat_activity ORDER BY xact_start"  # pg_read_all_stats'

_PATIENCE = timedelta(seconds=2)  # for as long as a drop waits for a lock
_TOKEN = re.compile(  # a quote within a name or a remark begins no value
    r"""(?P<value>[eE]'(?:[^'\\]|''|\\.)*(?:'|\\?\Z)|'(?:[^']|'')*(?:'|\Z)"""
    r"""|\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?(?:\$(?P=tag)\$|\Z))"""
    r"""|"(?:[^"]|"")*"?|--[^\n]*|/\*.*?(?:\*/|\Z)|[^\W\d][\w$]*""",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InTheWay:
    """A session that keeps a sandbox from being taken away; `statement` ends it. Times are UTC, `since` is its state's.

    It holds or awaits a lock on `schema` or on something in it; or, with no schema, it holds the row of `sandbox`. `query` is
    its last statement, cut, without the values. Where this role may not see them, `state` is `?` and `query` says so: GRANT
    pg_read_all_stats shows them.
    """

    schema: str
    pid: int
    user: str
    application: str
    state: str
    how: str
    since: datetime | None
    transaction_since: datetime | None
    backend_start: datetime | None
    query: str
    statement: str
    sandbox: UUID | None = None

    def __post_init__(self) -> None:
        """Clean what a stranger wrote: it is shown on terminals, and a value may be a secret."""
        object.__setattr__(self, "application", clean(self.application))
        object.__setattr__(self, "query", shown(self.query))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionGroup:
    """How many sessions of one application and user are in a state."""

    application: str
    user: str
    state: str
    count: int

    def __post_init__(self) -> None:
        """Clean what a stranger wrote: it is shown on terminals."""
        object.__setattr__(self, "application", clean(self.application))

    @property
    def told(self) -> str:
        """Who they are, in words."""
        return f"{self.count} of {self.application or 'no name'} as {self.user}, {self.state}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How many connections a role, or this database, has of those that it alone may have."""

    kind: str
    name: str
    most: int
    used: int

    @property
    def full(self) -> bool:
        """Whether it can have no more."""
        return self.used >= self.most


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """How many connections are used, of how many; `reserved` of them are for superusers alone. `quotas` bind besides."""

    used: int
    limit: int
    reserved: int
    groups: tuple[ConnectionGroup, ...]
    quotas: tuple[Quota, ...] = ()

    @property
    def left(self) -> int:
        """How many more a role that is no superuser can have."""
        return max(0, self.limit - self.reserved - self.used)


@dataclass(frozen=True, slots=True, kw_only=True)
class LockTable:
    """How many locks are held, and how many the table that all sessions share has room for."""

    used: int
    room: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """A row of the audit table. The deployed code writes the details as a JSON string."""

    sandbox_id: UUID
    name: str
    event: str
    actor: str
    at: datetime
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read the details in either form."""
        object.__setattr__(self, "details", as_object(self.details))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    most: int
    reserved: int


def in_the_way(
    snapshot: SqlSnapshot,
    schemas: Sequence[str],
    *,
    tag: str,
    sandboxes: Sequence[UUID] = (),
    patience: timedelta = _PATIENCE,
) -> list[InTheWay]:
    """Return the sessions that stand in the way of dropping these schemas, or hold the rows of these sandboxes.

    Whoever holds a lock stands before those who await one. Statements tagged `tag` are ours; one that is at work for less
    than `patience` is waited for, and in nobody's way.
    """
    return snapshot.rows(
        "read/schemas/in_the_way",
        InTheWay,
        schemas=list(schemas),
        sandboxes=list(sandboxes),
        tag=tag,
        patience=patience,
    )


def connections(snapshot: SqlSnapshot) -> Connections:
    """Return how many clients are connected, and how many may be."""
    limits = snapshot.rows("read/sessions/limits", _Limits)[0]
    groups = tuple(snapshot.rows("read/sessions/groups", ConnectionGroup))
    return Connections(
        used=sum(group.count for group in groups),
        limit=limits.most,
        reserved=limits.reserved,
        groups=groups,
        quotas=tuple(snapshot.rows("read/sessions/quotas", Quota)),
    )


def lock_table(snapshot: SqlSnapshot) -> LockTable:
    """Return how full the table of locks is. A drop of a sandbox's schema takes about 75."""
    return snapshot.rows("read/sessions/lock_table", LockTable)[0]


def last_events(snapshot: SqlSnapshot, ids: Sequence[UUID]) -> Mapping[UUID, AuditEntry]:
    """Return the newest audit row of each of these sandboxes that has one."""
    found = snapshot.rows("read/registry/last_events", AuditEntry, ids=list(ids))
    return {entry.sandbox_id: entry for entry in found}


def shown(query: str) -> str:
    """Return a statement, which may be cut, as it may be shown: on one line, and with `'…'` for each value in quotes."""
    told = _TOKEN.sub(lambda found: "'…'" if found["value"] else found[0], query)
    return clean(" ".join(told.split()))


def see_dependents(schema: str) -> str:
    """Return the command by which a person sees what rests on what is in a schema, safe to paste whatever its name."""
    literal = "'" + schema.replace("'", "''") + "'"
    query = (
        "SELECT DISTINCT pg_describe_object(d.classid, d.objid, d.objsubid) FROM pg_depend AS d "
        "JOIN pg_class AS c ON c.oid = d.refobjid JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        f"WHERE n.nspname = {literal}"
    )
    return f"psql -c {shlex.quote(query)}  # any role"
