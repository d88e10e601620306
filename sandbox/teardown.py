"""Taking sandboxes away: each step may be the last before a crash, and each may be repeated.

    condemn   one transaction: the status is `destroying`, the guilds are read while the mappings exist
    clear     the cached routes, then the keys of all condemned sandboxes in one pass over the keyspace
    raze      one transaction a sandbox: its schemas under any naming, its mappings, the status `destroyed`

What is still in the way after a crash is found by its row: a sandbox in `destroying`, or `destroyed` with remains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sandbox import keyspace, registry, routes, schemas
from sandbox.errors import SandboxCode, SandboxError
from sandbox.model import Sandbox, Status, way_to_destroying
from sandbox.naming import token_of_schema
from sandbox.orphans import Roster
from sandbox.ports import KeyReader, KeyWriter, SqlSnapshot, SqlTransaction, SqlWriter

__all__ = ["Condemned", "clear", "condemn", "keys_of", "raze", "schemas_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condemned:
    """A sandbox that nothing brings back, and the guilds that were mapped to it."""

    sandbox: Sandbox
    guilds: tuple[str, ...]


def condemn(transaction: SqlTransaction, row: Sandbox, *, actor: str, at: datetime) -> Condemned:
    """Move a row, held by this transaction, to `destroying` by allowed changes, with an audit row each.

    One that is there already gets an audit row too, which says that somebody is at it again. Raises SandboxError 007.
    """
    if row.status is Status.DESTROYING:
        registry.audit(transaction, row.id, "sandbox_destroying", actor=actor, details={"resumed": True})
    for new in way_to_destroying(row.status):
        event = "sandbox_destroying" if new is Status.DESTROYING else "status_changed"
        row = registry.change_status(transaction, row, new, actor=actor, event=event, at=at)
    return Condemned(sandbox=row, guilds=tuple(registry.guilds(transaction, row.id)))


def clear(keys: KeyWriter, roster: Roster, condemned: Sequence[Condemned]) -> Mapping[UUID, int]:
    """Delete the cached routes and the keys of all of these; return how many keys each had.

    Keys that another sandbox could own as well are left alone. Raises Unreachable or Denied, with part of it done.
    """
    keys.unlink([routes.key_of(guild) for each in condemned for guild in each.guilds])
    mine = {each.sandbox.id for each in condemned}

    def owner(token: str) -> UUID | None:
        found = roster.place_family(token).owner
        return found.id if found and found.id in mine else None

    return keyspace.delete_families(keys, owner)


def raze(database: SqlWriter, condemned: Condemned, *, actor: str, at: datetime) -> list[str]:
    """Drop the sandbox's schemas, end its mappings, mark it destroyed; return the schemas dropped.

    Raises SandboxError 006 where an object elsewhere depends on a schema, which CASCADE would silently take with it.
    """
    with database.transaction() as transaction:
        row = registry.locked(transaction, id=condemned.sandbox.id)
        if row.status not in (Status.DESTROYING, Status.DESTROYED):
            raise SandboxError(
                SandboxCode.INVALID_TRANSITION, f"{row.name} is {row.status} again: its schema is left alone"
            )
        names = schemas_of(transaction, row)
        for name in names:
            _insist_on_no_dependents(transaction, row, name)
            transaction.drop_schema(name)
        transaction.execute("write/registry/unmap_guilds", id=row.id)
        if row.status is Status.DESTROYING:
            registry.change_status(
                transaction,
                row,
                Status.DESTROYED,
                actor=actor,
                event="sandbox_destroyed",
                at=at,
                details={"schemas": names},
            )
    return names


def schemas_of(snapshot: SqlSnapshot, row: Sandbox) -> list[str]:
    """Return the schemas that really exist and are this sandbox's alone, under whichever naming."""
    return [name for name in schemas.named(snapshot, row) if _owner(snapshot, row, name) == row.id]


def keys_of(keys: KeyReader, roster: Roster, row: Sandbox) -> int:
    """Return how many keys are this sandbox's alone, under whichever naming; `roster` holds all that could own them."""
    families = keyspace.survey(keys).families
    owners = {token: roster.place_family(token).owner for token in families}
    return sum(families[token] for token, owner in owners.items() if owner and owner.id == row.id)


def _owner(snapshot: SqlSnapshot, row: Sandbox, name: str) -> UUID | None:
    """Return who owns a schema, of all the rows that could."""
    owner = registry.claimants(snapshot, token_of_schema(name) or str(row.id)).place_schema(name).owner
    return owner.id if owner else None


def _insist_on_no_dependents(transaction: SqlTransaction, row: Sandbox, name: str) -> None:
    if outside := schemas.dependents(transaction, name):
        raise SandboxError(
            SandboxCode.CLEANUP_FAILED,
            f"{row.name}: {', '.join(outside)} depends on {name}, and would go with it",
            hint="drop that first, or move it",
        )
