"""Every change of one sandbox but the last: create, register and unregister a guild, extend, expire.

Each is one short transaction with its audit rows: all of it or nothing, so two operators cannot both win. Afterwards
the cached routes that it made wrong are deleted; where Redis does not answer, the change stands and says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sandbox import registry, routes
from sandbox.errors import ArrakisError, SandboxCode, SandboxError, Unreachable
from sandbox.limits import Limits, check_guild, check_name, check_new_name, check_ttl
from sandbox.model import Sandbox, Status
from sandbox.naming import schema_for
from sandbox.ports import KeyWriter, SqlTransaction, SqlWriter

__all__ = [
    "Change",
    "Request",
    "create",
    "expire",
    "extend",
    "register_guild",
    "unregister_guild",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for. `id` and `now` are given, so that creating is repeatable in tests."""

    id: UUID
    name: str
    owner: str
    now: datetime
    ttl: timedelta = timedelta(hours=24)
    guilds: Sequence[str] = ()
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A sandbox as it is now, and whether anything changed.

    `unsettled` says why cached routes could not be deleted: they may be wrong until they end, in a minute.
    """

    sandbox: Sandbox
    changed: bool = True
    unsettled: ArrakisError | None = None


def create(database: SqlWriter, keys: KeyWriter, request: Request, *, limits: Limits | None = None) -> Change:
    """Make the row, the schema, the mappings and the audit rows in one transaction: all of it or nothing.

    Raises SandboxError: 001 name exists, 002 limit exceeded, 003 guild mapped elsewhere, 005 schema failed.
    """
    limits = limits or Limits()
    check_new_name(request.name)
    check_ttl(request.ttl, limits)
    for guild in request.guilds:
        check_guild(guild)
    row = _row(request)
    with database.transaction() as transaction:
        transaction.execute("write/registry/hold_owner", owner=row.owner)
        _insist_on_room(transaction, row, limits)
        registry.insert(transaction, row)
        _make_schema(transaction, row)
        registry.audit(
            transaction,
            row.id,
            "sandbox_created",
            actor=row.owner,
            details={"name": row.name, "schemaName": row.schema_name, **row.metadata},
        )
        for guild in sorted(set(request.guilds)):  # in one order for everybody: nobody waits in a circle
            _map(transaction, row, guild, actor=row.owner)
    return Change(sandbox=row, unsettled=routes.forget(keys, request.guilds))


def register_guild(database: SqlWriter, keys: KeyWriter, name: str, guild: str, *, actor: str) -> Change:
    """Map a guild to a running sandbox. Safe to repeat.

    Raises SandboxError: 003 guild mapped elsewhere, 004 not found, 007 not running.
    """
    check_name(name)
    check_guild(guild)
    with database.transaction() as transaction:
        row = registry.locked(transaction, name=name)
        if row.status is not Status.RUNNING:
            raise SandboxError(
                SandboxCode.INVALID_TRANSITION,
                f"{name} is {row.status}: only running sandboxes get events",
                hint=f"`gaib sandbox extend {name} 24h` brings an expired one back",
            )
        changed = _map(transaction, row, guild, actor=actor)
    return Change(sandbox=row, changed=changed, unsettled=routes.forget(keys, [guild]))


def unregister_guild(database: SqlWriter, keys: KeyWriter, name: str, guild: str, *, actor: str) -> Change:
    """End a guild's mapping to a sandbox. Safe to repeat. Raises SandboxError: 003 mapped elsewhere, 004 not found."""
    check_name(name)
    check_guild(guild)
    with database.transaction() as transaction:
        row = registry.locked(transaction, name=name)
        held = registry.mapped_to(transaction, guild)
        if held and held.id != row.id:
            raise _mapped_elsewhere(guild, held)
        changed = bool(transaction.execute("write/registry/unmap_guild", guild=guild, sandbox=row.id))
        if changed:
            registry.audit(transaction, row.id, "guild_unregistered", actor=actor, details={"guildId": guild})
    return Change(sandbox=row, changed=changed, unsettled=routes.forget(keys, [guild]))


def extend(
    database: SqlWriter,
    keys: KeyWriter,
    name: str,
    by: timedelta,
    *,
    actor: str,
    now: datetime,
    limits: Limits | None = None,
) -> Change:
    """Let a sandbox live longer, at most 168 h from its creation; an expired one is running again.

    The time is added to its end, or to now where that has passed. Raises SandboxError: 002 no more can be added,
    004 not found, 007 neither running nor expired.
    """
    check_name(name)
    most = (limits or Limits()).most_ttl
    with database.transaction() as transaction:
        row = registry.locked(transaction, name=name)
        if row.status not in (Status.RUNNING, Status.EXPIRED):
            raise SandboxError(
                SandboxCode.INVALID_TRANSITION, f"{name} cannot be extended: it is {row.status}"
            )
        if row.expires_at is None:
            raise SandboxError(SandboxCode.LIMIT_EXCEEDED, f"{name} has no end that could be moved")
        ends_now = max(row.expires_at, now)
        ends = min(ends_now + by, row.created_at + most)
        if ends <= ends_now:
            raise SandboxError(
                SandboxCode.LIMIT_EXCEEDED,
                f"{name} cannot be extended: it may live {most // timedelta(hours=1)} h, and that is used up",
                hint="create another one",
            )
        details = {"from": row.expires_at.isoformat(), "to": ends.isoformat(), "hours": _hours(by)}
        guilds = registry.guilds(transaction, row.id) if row.status is Status.EXPIRED else []
        if row.status is Status.EXPIRED:
            row = registry.change_status(transaction, row, Status.RUNNING, actor=actor, at=now)
        transaction.execute("write/registry/set_end", id=row.id, expires_at=ends)
        registry.audit(transaction, row.id, "ttl_extended", actor=actor, details=details)
    return Change(sandbox=replace(row, expires_at=ends), unsettled=routes.forget(keys, guilds))


def expire(database: SqlWriter, keys: KeyWriter, name: str, *, actor: str, now: datetime) -> Change:
    """End a running sandbox's time now: it gets no more events, and the clean-up job takes it away.

    Raises SandboxError: 004 not found, 007 not running.
    """
    check_name(name)
    with database.transaction() as transaction:
        row = registry.locked(transaction, name=name)
        transaction.execute("write/registry/set_end", id=row.id, expires_at=now)
        row = registry.change_status(transaction, row, Status.EXPIRED, actor=actor, at=now)
        guilds = registry.guilds(transaction, row.id)
    return Change(sandbox=replace(row, expires_at=now), unsettled=routes.forget(keys, guilds))


def _row(request: Request) -> Sandbox:
    metadata = {"ttlHours": _hours(request.ttl), "createdBy": request.owner, "createdFrom": "cli"}
    return Sandbox(
        id=request.id,
        name=request.name,
        owner=request.owner,
        status=Status.RUNNING,
        schema_name=schema_for(request.id),
        created_at=request.now,
        expires_at=request.now + request.ttl,
        metadata={**metadata, **(request.metadata or {})},
    )


def _hours(duration: timedelta) -> float:
    hours = duration / timedelta(hours=1)
    return int(hours) if hours.is_integer() else hours


def _insist_on_room(transaction: SqlTransaction, row: Sandbox, limits: Limits) -> None:
    held = registry.by_name(transaction, row.name)
    if held is not None:
        since = f"{held.created_at:%Y-%m-%d %H:%M} UTC"
        by_whom = (
            f"{held.owner} has it since {since}" if held.live else "a destroyed sandbox still holds this name"
        )
        raise SandboxError(SandboxCode.NAME_EXISTS, f"{row.name}: {by_whom}", hint="choose another name")
    if registry.live_count(transaction, row.owner) >= limits.per_owner:
        raise SandboxError(
            SandboxCode.LIMIT_EXCEEDED,
            f"{row.owner} has {limits.per_owner} sandboxes, and may have no more",
            hint="`gaib sandbox list` shows them; destroy one first",
        )


def _make_schema(transaction: SqlTransaction, row: Sandbox) -> None:
    try:
        transaction.execute("write/schemas/create", token=str(row.id))
    except Unreachable:
        raise
    except ArrakisError as error:
        raise SandboxError(SandboxCode.SCHEMA_FAILED, str(error), hint=error.hint) from error


def _map(transaction: SqlTransaction, row: Sandbox, guild: str, *, actor: str) -> bool:
    """Map a guild to a row that this transaction holds, with its audit row; False where it was mapped to it before."""
    transaction.execute("write/registry/unmap_destroyed", guild=guild)
    while not transaction.execute("write/registry/map_guild", guild=guild, sandbox=row.id):
        held = registry.mapped_to(transaction, guild)
        if held and held.id == row.id:
            return False
        if held:
            raise _mapped_elsewhere(guild, held)
        # Somebody unmapped it between the two statements: it is free now.
    registry.audit(transaction, row.id, "guild_registered", actor=actor, details={"guildId": guild})
    return True


def _mapped_elsewhere(guild: str, held: Sandbox) -> SandboxError:
    return SandboxError(
        SandboxCode.GUILD_MAPPED,
        f"guild {guild} is mapped to {held.name} of {held.owner}",
        hint=f"`gaib sandbox unregister-guild {held.name} {guild}` first",
    )
