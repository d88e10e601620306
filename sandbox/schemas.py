"""Sandbox schemas: the census, who uses them, when they were last written, quarantine."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sandbox.deadline import within
from sandbox.errors import ArrakisError, Blocked, Crowded, Denied, Missing, SandboxCode, Unreachable
from sandbox.model import Sandbox, Schema
from sandbox.naming import SCHEMA_PREFIX
from sandbox.orphans import Standing
from sandbox.ports import SqlReader, SqlSnapshot, SqlTransaction, SqlWriter
from sandbox.registry import claimants
from sandbox.text import counted

__all__ = [
    "Blocker",
    "Existing",
    "Fence",
    "SchemaUser",
    "blockers",
    "census",
    "dependents",
    "drop",
    "drop_blocker",
    "drop_orphan",
    "existing",
    "holding_orphan",
    "insist_on_no_dependents",
    "last_activity",
    "named",
    "names",
    "not_ours",
    "rename_orphan",
    "restore",
    "sizes",
    "users",
]

Fence = Callable[[SqlTransaction], None]
"""Called first in every changing transaction; raises if we no longer hold the lease."""

_AT_WORK = 2  # who may drop at once; a pool has to have one session more
_GLANCE = 3.0  # seconds for the second look at what a drop would take along
_AT_ONCE = 100  # schemas a statement: of some hundred more PostgreSQL reads all of pg_depend again for each
_READ_AT_ONCE = (
    50  # schemas a transaction whose rows are read: some 15 locks each, of a table that all sessions share
)
_UNTOUCHABLE = (SCHEMA_PREFIX, "pending_", "quarantine_", "runbooks")
_CONTROL = ("sandboxes", "sandbox_guild_mapping", "sandbox_audit_log")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaUser:
    """A session that uses a schema now, or did a moment ago."""

    schema_name: str
    pid: int
    user_name: str
    application: str
    state: str
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """An object outside of `schema` that rests on it, and that DROP SCHEMA … CASCADE would take along or empty.

    `name` is qualified, and quoted where PostgreSQL wants that: `reporting.overview`, `reporting.orders.orders_profile_fkey`,
    `reporting.active(uuid)`; `place` is the schema that it is in. `statement` clears it alone and loses no row; it is empty
    where nothing does, or where it is not ours to clear. `definition` would bring it back.
    """

    schema: str
    kind: str
    place: str | None
    name: str
    described: str
    statement: str
    definition: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dependent:
    schema: str
    kind: str
    place: str | None
    relation: str | None
    name: str
    described: str
    statement: str
    classid: int
    objid: int
    level: int

    @property
    def untouchable(self) -> bool:
        """Whether it is a sandbox's, in quarantine, or the control plane's: not to be cleared for another one's sake."""
        place = self.place or ""
        return place.lower().startswith(_UNTOUCHABLE) or (place == "public" and self.relation in _CONTROL)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Definition:
    classid: int
    objid: int
    definition: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hidden:
    hidden: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Name:
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    taken: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Existing:
    """A schema that exists: which object it is, and how many rows were written in it since the statistics were reset."""

    name: str
    oid: int
    writes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    name: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    schema_name: str
    table_name: str
    column_name: str


def census(snapshot: SqlSnapshot) -> list[Schema]:
    """Return every schema that may be a sandbox's, or is in quarantine, without sizes."""
    return snapshot.rows("read/schemas/census", Schema)


def sizes(snapshot: SqlSnapshot, names: Sequence[str]) -> Mapping[str, int]:
    """Return the bytes of those of these schemas that exist; each table and index is opened for it."""
    if not names:
        return {}
    return {row.name: row.bytes for row in snapshot.rows("read/schemas/sizes", _Size, schemas=list(names))}


def names(snapshot: SqlSnapshot) -> list[str]:
    """Return the names alone of the schemas that may be a sandbox's: cheap, as no size is asked for."""
    return [row.name for row in snapshot.rows("read/schemas/names", _Name)]


def named(snapshot: SqlSnapshot, sandboxes: Sequence[Sandbox]) -> list[str]:
    """Return the schemas whose name starts like one of these sandboxes, or is the one that its row names.

    Never one that is not named like a sandbox's, such as `public`, whatever the row says.
    """
    starts = [f"{SCHEMA_PREFIX}{sandbox.hex[:8]}" for sandbox in sandboxes]
    given = [sandbox.schema_name for sandbox in sandboxes if sandbox.schema_name]
    return [row.name for row in snapshot.rows("read/schemas/named", _Name, starts=starts, schemas=given)]


def existing(snapshot: SqlSnapshot, names: Sequence[str]) -> Mapping[str, Existing]:
    """Return those of these schemas that exist, by name; cheap, as no size is asked for."""
    found = snapshot.rows("read/schemas/existing", Existing, schemas=list(names))
    return {row.name: row for row in found}


def not_ours(snapshot: SqlSnapshot, names: Sequence[str]) -> list[str]:
    """Return which of these schemas this role may not drop, as it is no member of their owner."""
    return [row.name for row in snapshot.rows("read/schemas/not_ours", _Name, schemas=list(names))]


def users(snapshot: SqlSnapshot, names: Sequence[str], *, tag: str, recent: timedelta) -> list[SchemaUser]:
    """Return the sessions that lock, await or name these schemas; statements tagged `tag` are ours.

    Raises Denied where other sessions hide what they run: then nobody can tell.
    """
    if hidden := snapshot.rows("read/schemas/hidden_sessions", _Hidden)[0].hidden:
        raise Denied(
            f"PostgreSQL hides what {counted(hidden, 'session runs', 'sessions run')}",
            hint="GRANT pg_read_all_stats to this role, to see who uses a schema",
        )
    return snapshot.rows("read/schemas/users", SchemaUser, schemas=list(names), tag=tag, recent=recent)


def last_activity(database: SqlReader, names: Sequence[str]) -> Mapping[str, datetime | None]:
    """Return for each schema the newest moment in its rows' own time columns; None where nothing tells.

    What is read stays locked until its transaction ends, so that each reads a few schemas only.
    """
    newest: dict[str, datetime | None] = dict.fromkeys(names)
    for start in range(0, len(names), _READ_AT_ONCE):
        with database.snapshot() as snapshot:
            newest.update(_newest(snapshot, names[start : start + _READ_AT_ONCE]))
    return newest


def dependents(snapshot: SqlSnapshot, names: Sequence[str]) -> Mapping[str, list[str]]:
    """Return, of each of these schemas that has any, the objects elsewhere that dropping it would take along.

    No definition is read, so that nobody's lock is waited for.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for row in _dependents(snapshot, names):
        found[row.schema].append(row.described)
    return found


def blockers(snapshot: SqlSnapshot, names: Sequence[str]) -> list[Blocker]:
    """Return what rests on these schemas from elsewhere, in the order in which it can be cleared one by one.

    What rests on a blocker in turn stands before it. What cannot be written down is not cleared. Raises Busy where somebody
    keeps a definition from being read for two seconds.
    """
    found = _dependents(snapshot, names)
    made = snapshot.rows(
        "read/schemas/definitions",
        _Definition,
        schemas=list(names),
        classids=[row.classid for row in found],
        objids=[row.objid for row in found],
    )
    definitions = {(row.classid, row.objid): row.definition for row in made}
    return [_blocker(row, definitions.get((row.classid, row.objid), "")) for row in found]


def drop_blocker(
    database: SqlWriter, schema: str, name: str, *, fence: Fence, definition: str | None = None
) -> None:
    """Clear the one object of this name that still rests on this schema; nothing else goes with it.

    Raises ArrakisError where there is none, none that may be cleared, or one that is not as `definition` has it; Busy where
    something rests on it in turn, or somebody uses it for two seconds.
    """
    with database.transaction() as transaction:
        fence(transaction)
        found = [each for each in blockers(transaction, [schema]) if each.name == name]
        if not found:
            raise ArrakisError(f"no {name} rests on {schema} any more")
        described = " and ".join(each.described for each in found)
        if len(found) > 1 or not found[0].statement:
            raise ArrakisError(f"no statement drops {described} safely", hint="clear it by hand")
        if definition not in (None, found[0].definition):
            raise ArrakisError(f"{described} was replaced since the plan", hint="run the runbook again")
        transaction.run_made(found[0].statement)


@contextmanager
def holding_orphan(database: SqlWriter, token: str, *, fence: Fence) -> Iterator[SqlTransaction]:
    """Hold the lease and the control table, so that what is an orphan now is one until this transaction ends.

    Raises ArrakisError where a sandbox owns the token, Busy where somebody holds a lock.
    """
    with database.transaction() as transaction:
        fence(transaction)
        transaction.execute("write/schemas/hold_rows")
        fence(transaction)  # a stop may have been raised while we waited for the lock
        placement = claimants(transaction, tokens=[token]).place_family(token)
        if placement.standing is not Standing.ORPHAN:
            raise ArrakisError(f"{token} is not an orphan any more: {placement.reason}")
        yield transaction


def rename_orphan(
    database: SqlWriter, old: str, new: str, *, token: str, oid: int | None, fence: Fence
) -> None:
    """Rename an orphaned schema, if it still is one when nobody can write to the control table.

    It must be the object of this `oid`, or what has taken its name stays; None is any. Raises Missing where it is another.
    """
    with holding_orphan(database, token, fence=fence) as transaction:
        transaction.rename_schema(old, new)
        _insist_on(transaction, new, oid)  # now that nobody can take the name


def drop_orphan(database: SqlWriter, name: str, *, token: str, oid: int | None, fence: Fence) -> None:
    """Drop an orphaned schema for good, under the same conditions. Raises Blocked and Crowded as `drop` does."""
    with holding_orphan(database, token, fence=fence) as transaction:
        _insist_on(transaction, name, oid)
        drop(database, transaction, [name])
        fence(transaction)  # as above


def drop(database: SqlReader, transaction: SqlTransaction, names: Sequence[str]) -> None:
    """Drop schemas within a transaction. Raises Blocked where CASCADE took anything else along, or emptied it.

    It is asked when the drop has all its locks, by another session: that one still sees what was there, and what was
    committed while the drop waited; nothing can be added any more. The caller's transaction then gives all of it back.
    Raises Crowded where it is not our turn, or no other session can be had: who holds one must not wait long for more.
    """
    if not names:
        return
    if not transaction.rows("write/schemas/take_turn", _Turn, places=_AT_WORK)[0].taken:
        raise Crowded("others drop schemas just now", hint="try again")
    for name in names:
        transaction.drop_schema(name)

    def look() -> None:
        with database.snapshot() as outside:
            insist_on_no_dependents(outside, names)

    try:
        within(_GLANCE, look, f"PostgreSQL at {database.host}")
    except Unreachable as error:
        raise Crowded(f"no second session to look from: {error}", hint="try again") from error


def insist_on_no_dependents(snapshot: SqlSnapshot, names: Sequence[str]) -> None:
    """Raise Blocked where anything elsewhere rests on what is in these schemas."""
    if outside := _dependents(snapshot, names):
        raise Blocked(
            SandboxCode.CLEANUP_FAILED,
            f"dropping {', '.join(names)} would take along {', '.join(row.described for row in outside)}",
            hint="drop that first, or move what it rests on",
        )


def _insist_on(snapshot: SqlSnapshot, name: str, oid: int | None) -> None:
    found = existing(snapshot, [name]).get(name)
    if oid is not None and (found is None or found.oid != oid):
        raise Missing(
            f"the schema that was planned is gone, and another is called {name}", hint="run the runbook again"
        )


def restore(database: SqlWriter, quarantined: str, original: str, *, fence: Fence) -> None:
    """Give a schema in quarantine its name back."""
    with database.transaction() as transaction:
        fence(transaction)
        transaction.rename_schema(quarantined, original)


def _newest(snapshot: SqlSnapshot, names: Sequence[str]) -> Mapping[str, datetime | None]:
    columns: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for column in snapshot.rows("read/schemas/timestamp_columns", _Column, schemas=list(names)):
        columns[column.schema_name].append((column.table_name, column.column_name))
    return snapshot.newest(columns)


def _dependents(snapshot: SqlSnapshot, names: Sequence[str]) -> list[_Dependent]:
    found: list[_Dependent] = []
    for start in range(0, len(names), _AT_ONCE):
        some = snapshot.rows("read/schemas/suspects", _Name, schemas=list(names[start : start + _AT_ONCE]))
        if some:
            suspects = [row.name for row in some]
            found += snapshot.rows("read/schemas/dependents", _Dependent, schemas=suspects)
    return sorted(found, key=lambda row: -row.level)  # the deepest first, over all of them


def _blocker(row: _Dependent, definition: str) -> Blocker:
    return Blocker(
        schema=row.schema,
        kind=row.kind,
        place=row.place,
        name=row.name,
        described=row.described,
        statement=row.statement if definition and not row.untouchable else "",
        definition=definition,
    )
