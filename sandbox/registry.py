"""The control tables: who exists, and every change with its audit row in one transaction."""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sandbox.errors import Conflict, SandboxCode, SandboxError
from sandbox.model import Sandbox, Status, may_become
from sandbox.naming import schema_for, token_of_schema
from sandbox.orphans import Roster
from sandbox.ports import SqlReader, SqlSnapshot, SqlTransaction

__all__ = [
    "Counts",
    "Identity",
    "audit",
    "audit_all",
    "by_ids",
    "by_name",
    "change_status",
    "change_status_all",
    "claimants",
    "counts",
    "due",
    "guilds",
    "guilds_left",
    "guilds_of",
    "identity",
    "insert",
    "listing",
    "live_count",
    "locked",
    "locked_all",
    "mapped_destroyed",
    "mapped_to",
    "not_found",
    "now",
    "owned_schemas",
    "roster",
    "time_of",
    "unfinished",
]

_HEAD = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which database this is. The fingerprint survives a change of address, and differs for every other database."""

    database: str
    version: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many sandboxes are not destroyed, and how many guilds are mapped."""

    sandboxes: int
    guilds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Guild:
    guild_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mapped:
    sandbox_id: UUID
    guild_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clock:
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Count:
    live: int


def identity(snapshot: SqlSnapshot) -> Identity:
    """Return which database this is."""
    return snapshot.rows("read/registry/identity", Identity)[0]


def roster(snapshot: SqlSnapshot) -> Roster:
    """Return every sandbox row, without its metadata and Discord token, indexed by every name that it may have."""
    return Roster(snapshot.rows("read/registry/sandboxes", Sandbox))


def claimants(snapshot: SqlSnapshot, *, schemas: Iterable[str] = (), tokens: Iterable[str] = ()) -> Roster:
    """Return the sandboxes, destroyed ones too, that these schemas, or tokens of keys, could belong to."""
    names = {*schemas, *map(schema_for, tokens)}
    names = {
        name for name in names if "\0" not in name
    }  # a key may hold anything, a name in PostgreSQL no NUL
    heads = {(token_of_schema(name) or "").lower().replace("-", "")[:8] for name in names}
    ids = sorted(head for head in heads if _HEAD.fullmatch(head))
    return Roster(
        snapshot.rows(
            "read/registry/claimants",
            Sandbox,
            least=[UUID(head + "0" * 24) for head in ids],
            most=[UUID(head + "f" * 24) for head in ids],
            schemas=sorted(names),
            lowered=sorted({name.lower() for name in names}),
        )
    )


def time_of(database: SqlReader) -> datetime:
    """Return the database's time, UTC: the one clock that all hosts share. Raises Unreachable."""
    with database.snapshot() as snapshot:
        return now(snapshot)


def now(snapshot: SqlSnapshot) -> datetime:
    """Return the database's time, UTC."""
    return snapshot.rows("read/registry/clock", _Clock)[0].at


def by_name(snapshot: SqlSnapshot, name: str) -> Sandbox | None:
    """Return the sandbox of this name, destroyed or not."""
    found = snapshot.rows("read/registry/by_name", Sandbox, name=name)
    return found[0] if found else None


def locked(transaction: SqlTransaction, *, name: str | None = None, id: UUID | None = None) -> Sandbox:
    """Return a sandbox by its name or id, held against other changes until the transaction ends.

    Raises SandboxError 004 if there is none, Busy if somebody else holds it for two seconds.
    """
    found = transaction.rows("write/registry/lock", Sandbox, name=name, id=id)
    if not found:
        raise not_found(name or str(id))
    return found[0]


def locked_all(transaction: SqlTransaction, ids: Sequence[UUID]) -> list[Sandbox]:
    """Return sandboxes by their ids, in that order, held as `locked` does. Raises as it does, of any of them."""
    found = {row.id: row for row in transaction.rows("write/registry/lock_all", Sandbox, ids=list(ids))}
    for id in ids:
        if id not in found:
            raise not_found(str(id))
    return [found[id] for id in ids]


def not_found(name: str) -> SandboxError:
    """Return the error for a name that no sandbox has."""
    return SandboxError(
        SandboxCode.NOT_FOUND,
        f"there is no sandbox named {name}",
        hint="`gaib sandbox list --all` shows those that exist",
    )


def by_ids(snapshot: SqlSnapshot, ids: Sequence[UUID]) -> list[Sandbox]:
    """Return the sandboxes of these ids, destroyed or not."""
    return snapshot.rows("read/registry/by_ids", Sandbox, ids=list(ids))


def owned_schemas(snapshot: SqlSnapshot, schemas: Sequence[str]) -> Mapping[UUID, list[str]]:
    """Return, of each sandbox, those of these schemas that are its alone, under whichever naming."""
    roster = claimants(snapshot, schemas=schemas)
    owned: dict[UUID, list[str]] = defaultdict(list)
    for name in schemas:
        if owner := roster.place_schema(name).owner:
            owned[owner.id].append(name)
    return owned


def listing(snapshot: SqlSnapshot, *, owner: str | None, statuses: Collection[Status]) -> list[Sandbox]:
    """Return the sandboxes of these statuses, the newest first; of one owner, or of everybody."""
    return snapshot.rows(
        "read/registry/listing", Sandbox, owner=owner, statuses=[str(each) for each in statuses]
    )


def due(
    snapshot: SqlSnapshot,
    *,
    now: datetime,
    stuck: datetime,
    retry: datetime,
    job: str,
    ids: Sequence[UUID] | None = None,
) -> list[Sandbox]:
    """Return the sandboxes whose time is over: past their end at `now`, or stuck with nothing recorded since `stuck`.

    What was recorded last by the actor `job` is its own unfinished work, and due again after `retry`. Of all, or of these.
    """
    return snapshot.rows(
        "read/registry/due",
        Sandbox,
        now=now,
        stuck=stuck,
        retry=retry,
        job=job,
        ids=None if ids is None else list(ids),
    )


def unfinished(snapshot: SqlSnapshot, *, ids: Sequence[UUID] | None = None) -> list[Sandbox]:
    """Return the destroyed sandboxes, of all or of these, whose keys were left because Redis did not answer."""
    return snapshot.rows("read/registry/unfinished", Sandbox, ids=None if ids is None else list(ids))


def mapped_destroyed(snapshot: SqlSnapshot) -> list[Sandbox]:
    """Return the destroyed sandboxes that guilds are still mapped to."""
    return snapshot.rows("read/registry/mapped_destroyed", Sandbox)


def mapped_to(snapshot: SqlSnapshot, guild: str) -> Sandbox | None:
    """Return the sandbox, of any status, that a guild is mapped to."""
    found = snapshot.rows("read/registry/mapping", Sandbox, guild=guild)
    return found[0] if found else None


def guilds(snapshot: SqlSnapshot, sandbox: UUID) -> list[str]:
    """Return the guilds mapped to a sandbox."""
    return [row.guild_id for row in snapshot.rows("read/registry/guilds", _Guild, id=sandbox)]


def guilds_of(snapshot: SqlSnapshot, sandboxes: Sequence[Sandbox]) -> Mapping[UUID, list[str]]:
    """Return the guilds mapped to each of these sandboxes."""
    return _by_sandbox(snapshot, "read/registry/guilds_of", sandboxes)


def guilds_left(snapshot: SqlSnapshot, sandboxes: Sequence[Sandbox]) -> Mapping[UUID, list[str]]:
    """Return the guilds, nobody's now, that were mapped to each of these destroyed sandboxes whose keys were left."""
    return _by_sandbox(snapshot, "read/registry/guilds_left", sandboxes)


def _by_sandbox(
    snapshot: SqlSnapshot, statement: str, sandboxes: Sequence[Sandbox]
) -> Mapping[UUID, list[str]]:
    found: dict[UUID, list[str]] = defaultdict(list)
    for row in snapshot.rows(statement, _Mapped, ids=[sandbox.id for sandbox in sandboxes]):
        found[row.sandbox_id].append(row.guild_id)
    return found


def counts(snapshot: SqlSnapshot) -> Counts:
    """Return how much there is."""
    return snapshot.rows("read/registry/counts", Counts)[0]


def live_count(snapshot: SqlSnapshot, owner: str) -> int:
    """Return how many sandboxes of an owner are not destroyed."""
    return snapshot.rows("read/registry/count_by_owner", _Count, owner=owner)[0].live


def insert(transaction: SqlTransaction, row: Sandbox) -> None:
    """Write a new row. Raises SandboxError 001 where the name was taken a moment ago."""
    try:
        transaction.execute(
            "write/registry/insert_sandbox",
            id=row.id,
            name=row.name,
            owner=row.owner,
            status=row.status.value,
            schema_name=row.schema_name,
            created_at=row.created_at,
            expires_at=row.expires_at,
            metadata=json.dumps(dict(row.metadata)),
        )
    except Conflict as conflict:
        if conflict.constraint != "sandboxes_name_unique":
            raise
        raise SandboxError(
            SandboxCode.NAME_EXISTS, f"{row.name}: somebody took it just now", hint="choose another name"
        ) from conflict


def change_status(
    transaction: SqlTransaction,
    sandbox: Sandbox,
    new: Status,
    *,
    actor: str,
    event: str = "status_changed",
    at: datetime,
    details: Mapping[str, Any] | None = None,
) -> Sandbox:
    """Move a sandbox to a new status and write the audit row, both or neither. Returns it as it is then.

    The update is conditional on a status that allows it, so two operators cannot both win. Raises SandboxError 007.
    """
    [changed] = change_status_all(
        transaction, [sandbox], new, actor=actor, event=event, at=at, details=details
    )
    return changed


def change_status_all(
    transaction: SqlTransaction,
    alike: Sequence[Sandbox],
    new: Status,
    *,
    actor: str,
    event: str,
    at: datetime,
    details: Mapping[str, Any] | None = None,
) -> list[Sandbox]:
    """Move sandboxes of one status to a new one, all of them or none, as `change_status` does."""
    old = alike[0].status
    allowed = [status.value for status in Status if may_become(status, new)]
    ids = [sandbox.id for sandbox in alike]
    touched = transaction.execute(
        "write/registry/change_status", ids=ids, new=new.value, allowed=allowed, at=at
    )
    if touched < len(alike):
        names = ", ".join(sandbox.name for sandbox in alike)
        raise SandboxError(
            SandboxCode.INVALID_TRANSITION,
            f"{names} cannot become {new}: it is {old}, or somebody else was faster",
        )
    change = {"from": old.value, "to": new.value, **(details or {})}
    audit_all(transaction, ids, event, actor=actor, details=change)
    ended = new is Status.DESTROYED
    return [
        replace(sandbox, status=new, destroyed_at=at if ended else sandbox.destroyed_at) for sandbox in alike
    ]


def audit(
    transaction: SqlTransaction,
    sandbox: UUID,
    event: str,
    *,
    actor: str,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write one audit row."""
    audit_all(transaction, [sandbox], event, actor=actor, details=details)


def audit_all(
    transaction: SqlTransaction,
    sandboxes: Sequence[UUID],
    event: str,
    *,
    actor: str,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write one audit row of each."""
    transaction.execute(
        "write/registry/audit",
        sandboxes=list(sandboxes),
        event=event,
        actor=actor,
        details=json.dumps(dict(details or {})),
    )
