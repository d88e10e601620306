"""Create and destroy a sandbox, with its audit rows, leaving nothing half made behind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sandbox import keyspace, registry
from sandbox.errors import ArrakisError, SandboxCode, SandboxError
from sandbox.model import Sandbox, Status
from sandbox.naming import schema_for
from sandbox.orphans import Standing
from sandbox.ports import KeyWriter, SqlTransaction, SqlWriter
from sandbox.schemas import census

__all__ = ["Limits", "Request", "create", "destroy"]

_TTL_LEAST, _TTL_MOST = timedelta(hours=1), timedelta(hours=168)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an owner may have."""

    per_owner: int = 5


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


def create(database: SqlWriter, request: Request, *, limits: Limits | None = None) -> Sandbox:
    """Make the row, the schema, the mappings and the audit row in one transaction: all of it or nothing.

    Raises SandboxError: 001 name exists, 002 limit exceeded, 003 guild mapped elsewhere, 005 schema failed.
    """
    if not _TTL_LEAST <= request.ttl <= _TTL_MOST:
        raise SandboxError(SandboxCode.LIMIT_EXCEEDED, "a TTL is at least 1 h and at most 168 h")
    row = Sandbox(
        id=request.id,
        name=request.name,
        owner=request.owner,
        status=Status.RUNNING,
        schema_name=schema_for(request.id),
        created_at=request.now,
        expires_at=request.now + request.ttl,
        metadata=dict(request.metadata or {}),
    )
    with database.transaction() as transaction:
        transaction.execute("write/schemas/hold_rows")
        _insist_on_room(transaction, row, limits or Limits())
        registry.insert(transaction, row)
        _make_schema(transaction, row)
        for guild in request.guilds:
            if not transaction.execute("write/registry/map_guild", guild=guild, sandbox=row.id):
                raise SandboxError(SandboxCode.GUILD_MAPPED, f"guild {guild} is mapped to another sandbox")
        registry.audit(transaction, row.id, "sandbox_created", actor=row.owner)
    return row


def destroy(database: SqlWriter, keys: KeyWriter, name: str, *, actor: str, now: datetime) -> Sandbox:
    """Take a sandbox away: routes, keys, schema, mappings. Safe to repeat and to take up after any step.

    The guilds are read first, while the mappings that name them exist. Raises SandboxError 004, 006 or 007.
    """
    with database.transaction() as transaction:
        row = registry.by_name(transaction, name)
        if row is None:
            raise SandboxError(SandboxCode.NOT_FOUND, f"there is no sandbox named {name}")
        if row.status not in (Status.DESTROYING, Status.DESTROYED):
            registry.change_status(
                transaction, row, Status.DESTROYING, actor=actor, event="sandbox_destroying", at=now
            )
        guilds = registry.guilds(transaction, row.id)
    try:
        keys.unlink([f"sandbox:route:{guild}".encode() for guild in guilds])
        keyspace.delete_family(keys, str(row.id))
        _finish(database, row, actor=actor, now=now)
    except SandboxError:
        raise
    except ArrakisError as error:
        raise SandboxError(
            SandboxCode.CLEANUP_FAILED, f"{name}: {error}", hint="repeat it; it resumes"
        ) from error
    return replace(row, status=Status.DESTROYED, destroyed_at=now)


def _insist_on_room(transaction: SqlTransaction, row: Sandbox, limits: Limits) -> None:
    held = registry.by_name(transaction, row.name)
    if held is not None:
        by_whom = "a destroyed sandbox still holds this name" if not held.live else f"{held.owner} has it"
        raise SandboxError(SandboxCode.NAME_EXISTS, f"{row.name}: {by_whom}", hint="choose another name")
    if registry.live_count(transaction, row.owner) >= limits.per_owner:
        raise SandboxError(
            SandboxCode.LIMIT_EXCEEDED,
            f"{row.owner} has {limits.per_owner} sandboxes",
            hint="destroy one first",
        )


def _make_schema(transaction: SqlTransaction, row: Sandbox) -> None:
    try:
        transaction.execute("write/schemas/create", token=str(row.id))
    except ArrakisError as error:
        raise SandboxError(SandboxCode.SCHEMA_FAILED, str(error)) from error


def _finish(database: SqlWriter, row: Sandbox, *, actor: str, now: datetime) -> None:
    """Drop the schemas that are this sandbox's alone, under whichever naming; end the mappings; say so."""
    with database.transaction() as transaction:
        roster = registry.roster(transaction)
        for schema in census(transaction):
            placement = roster.place_schema(schema.name)
            if placement.standing is Standing.LIVE and [owner.id for owner in placement.sandboxes] == [
                row.id
            ]:
                transaction.drop_schema(schema.name)
        transaction.execute("write/registry/unmap_guilds", id=row.id)
        if row.status is not Status.DESTROYED:
            registry.change_status(
                transaction, row, Status.DESTROYED, actor=actor, event="sandbox_destroyed", at=now
            )
