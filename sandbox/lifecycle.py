"""Every change of one sandbox: create, register and unregister a guild, extend, expire, destroy.

Each is one short transaction with its audit rows: all of it or nothing, so two operators cannot both win. Afterwards
the cached routes that it made wrong are deleted; where Redis does not answer, the change stands and says so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sandbox import registry, routes, teardown
from sandbox.errors import ArrakisError, Blocked, Busy, SandboxCode, SandboxError, Unreachable
from sandbox.limits import Limits, check_guild, check_name, check_new_name, check_ttl
from sandbox.model import Sandbox, Status
from sandbox.naming import schema_for
from sandbox.ports import KeyWriter, SqlTransaction, SqlWriter
from sandbox.teardown import Condemned

__all__ = [
    "Change",
    "Destroyed",
    "Request",
    "Tell",
    "clean_up",
    "create",
    "destroy",
    "expire",
    "extend",
    "register_guild",
    "unregister_guild",
]

Tell = Callable[[str, Mapping[str, object]], None]
"""Takes a step that was done, and what it did."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Destroyed:
    """What went with a sandbox. `unsettled` says why its keys are left for the clean-up job."""

    sandbox: Sandbox
    schemas: Sequence[str]
    guilds: Sequence[str]
    keys: int
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


def destroy(database: SqlWriter, keys: KeyWriter, name: str, *, actor: str, now: datetime) -> Destroyed:
    """Take a sandbox away: routes, keys, schemas, mappings. Safe to repeat and to take up after any step.

    Redis being down leaves the keys to the clean-up job. Raises SandboxError: 004 not found, 006 a step failed; Blocked,
    with nothing changed, where something elsewhere depends on its schema.
    """
    check_name(name)
    hold = partial(registry.locked, name=name)
    return _take_away(database, keys, hold, actor=actor, now=now, tell=_nobody)


def clean_up(
    database: SqlWriter,
    keys: KeyWriter,
    id: UUID,
    *,
    actor: str,
    now: datetime,
    insist: Callable[[SqlTransaction, Sandbox], None],
    tell: Tell,
) -> Destroyed:
    """Take away a sandbox that is over, as `destroy` does; `tell` is called after each step, with what it did.

    `insist` is called with its row held, before anything is changed, and raises where it must not go. Raises as `destroy`.
    """

    def hold(transaction: SqlTransaction) -> Sandbox:
        row = registry.locked(transaction, id=id)
        insist(transaction, row)
        return row

    return _take_away(database, keys, hold, actor=actor, now=now, tell=tell)


def _take_away(
    database: SqlWriter,
    keys: KeyWriter,
    hold: Callable[[SqlTransaction], Sandbox],
    *,
    actor: str,
    now: datetime,
    tell: Tell,
) -> Destroyed:
    with database.transaction() as transaction:
        condemned = teardown.condemn(transaction, hold(transaction), actor=actor, at=now)
        roster = registry.claimants(transaction, tokens=[str(condemned.sandbox.id)])
        gone = not condemned.sandbox.live
        left = gone and any(row.id == condemned.sandbox.id for row in registry.unfinished(transaction))
    tell("condemned", {"status": condemned.sandbox.status.value, "guilds": len(condemned.guilds)})
    unsettled, deleted = None, 0
    try:
        deleted = teardown.clear(keys, roster, [condemned]).get(condemned.sandbox.id, 0)
    except ArrakisError as error:
        unsettled = error
        tell("keys left", {"error": error})
    else:
        tell("keys deleted", {"keys": deleted})
    schemas = _raze(database, condemned, actor=actor, now=now, keys_left=unsettled is not None)
    tell("schemas dropped", {"schemas": ",".join(schemas)})
    if left and not unsettled:  # even if they are gone by themselves by now: nobody need look for them again
        teardown.finish(database, condemned.sandbox, actor=actor)
    gone_at = condemned.sandbox.destroyed_at or now
    return Destroyed(
        sandbox=replace(condemned.sandbox, status=Status.DESTROYED, destroyed_at=gone_at),
        schemas=schemas,
        guilds=condemned.guilds,
        keys=deleted,
        unsettled=unsettled,
    )


def _raze(
    database: SqlWriter, condemned: Condemned, *, actor: str, now: datetime, keys_left: bool
) -> Sequence[str]:
    name = condemned.sandbox.name
    try:
        return teardown.raze(database, condemned, actor=actor, at=now, keys_left=keys_left).schemas
    except Blocked as error:  # no refusal any more: its keys are gone
        raise SandboxError(error.code, f"{name}: {error.reason}", hint=error.hint) from error
    except SandboxError:
        raise
    except ArrakisError as error:
        hint = error.hint if isinstance(error, Busy) else "repeat it: it takes up where it stopped"
        raise SandboxError(SandboxCode.CLEANUP_FAILED, f"{name}: {error}", hint=hint) from error


def _nobody(step: str, seen: Mapping[str, object]) -> None:
    """Nobody is told."""


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
