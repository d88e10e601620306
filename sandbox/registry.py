"""The control tables: who exists, and every change of status with its audit row in one transaction."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sandbox.errors import SandboxCode, SandboxError
from sandbox.model import TRANSITIONS, Sandbox, Status
from sandbox.naming import hex_of, schema_for
from sandbox.orphans import Roster
from sandbox.ports import SqlSnapshot, SqlTransaction

__all__ = [
    "Identity",
    "audit",
    "by_name",
    "change_status",
    "claimants",
    "guilds",
    "identity",
    "insert",
    "live_count",
    "roster",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which database this is. The fingerprint survives a change of address, and differs for every other database."""

    database: str
    version: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Guild:
    guild_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Count:
    live: int


def identity(snapshot: SqlSnapshot) -> Identity:
    """Return which database this is."""
    return snapshot.rows("read/registry/identity", Identity)[0]


def roster(snapshot: SqlSnapshot) -> Roster:
    """Return every sandbox row, indexed by every name that it may have."""
    return Roster(snapshot.rows("read/registry/sandboxes", Sandbox))


def claimants(snapshot: SqlSnapshot, token: str) -> Roster:
    """Return the sandboxes, not destroyed, that a token (an id, or the start of one) could belong to."""
    digits = (hex_of(token) or token.lower())[:8]
    return Roster(snapshot.rows("read/registry/claimants", Sandbox, hex=digits, schema=schema_for(token)))


def by_name(snapshot: SqlSnapshot, name: str) -> Sandbox | None:
    """Return the sandbox of this name, destroyed or not."""
    found = snapshot.rows("read/registry/by_name", Sandbox, name=name)
    return found[0] if found else None


def guilds(snapshot: SqlSnapshot, sandbox: UUID) -> list[str]:
    """Return the guilds mapped to a sandbox."""
    return [row.guild_id for row in snapshot.rows("read/registry/guilds", _Guild, id=sandbox)]


def live_count(snapshot: SqlSnapshot, owner: str) -> int:
    """Return how many sandboxes of an owner are not destroyed."""
    return snapshot.rows("read/registry/count_by_owner", _Count, owner=owner)[0].live


def insert(transaction: SqlTransaction, row: Sandbox) -> None:
    """Write a new row. The id's schema name is the whole id, as the deployed clean-up looks for it."""
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


def change_status(
    transaction: SqlTransaction,
    sandbox: Sandbox,
    new: Status,
    *,
    actor: str,
    event: str,
    at: datetime,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Move a sandbox to a new status and write the audit row, both or neither.

    The update is conditional on a status that allows it, so two operators cannot both win. Raises SandboxError 007.
    """
    allowed = [old.value for old in Status if new in TRANSITIONS[old]]
    touched = transaction.execute(
        "write/registry/change_status", id=sandbox.id, new=new.value, allowed=allowed, at=at
    )
    if not touched:
        raise SandboxError(
            SandboxCode.INVALID_TRANSITION,
            f"{sandbox.name} cannot become {new}: it is {sandbox.status}, or somebody else was faster",
        )
    audit(transaction, sandbox.id, event, actor=actor, details=details)


def audit(
    transaction: SqlTransaction,
    sandbox: UUID,
    event: str,
    *,
    actor: str,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write one audit row."""
    transaction.execute(
        "write/registry/audit",
        sandbox=sandbox,
        event=event,
        actor=actor,
        details=json.dumps(dict(details or {})),
    )
