"""Taking sandboxes away: each step may be the last before a crash, and each may be repeated.

    condemn   one transaction: nothing elsewhere depends on the schemas, the status is `destroying`, the guilds are read
    clear     the cached routes, then the keys of all condemned sandboxes in one pass over the keyspace
    raze      one transaction a sandbox: its schemas under any naming, its mappings, the status `destroyed`

What is still in the way after a crash is found by its row: a sandbox in `destroying`, or a `destroyed` one whose last
audit row says that its keys were left.
"""

import random
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

from sandbox import keyspace, registry, routes, schemas
from sandbox.errors import Crowded, SandboxCode, SandboxError
from sandbox.keyspace import Hold
from sandbox.model import Sandbox, Status, way_to_destroying
from sandbox.naming import same_sandbox
from sandbox.orphans import Roster
from sandbox.ports import KeyReader, KeyWriter, SqlSnapshot, SqlTransaction, SqlWriter
from sandbox.schemas import Fence

__all__ = [
    "Belongings",
    "Condemned",
    "Razed",
    "belongings",
    "clear",
    "condemn",
    "condemn_all",
    "finish",
    "keys_of",
    "raze",
]

_TRIES = 60  # for a turn, some 10 s in all


@dataclass(frozen=True, slots=True, kw_only=True)
class Belongings:
    """A sandbox, what is its alone under whichever naming, and all rows that could claim a name of it."""

    sandbox: Sandbox
    guilds: Sequence[str]
    schemas: Sequence[str]
    roster: Roster


@dataclass(frozen=True, slots=True, kw_only=True)
class Condemned:
    """A sandbox that nothing brings back, and the guilds that were mapped to it, or that it left cached routes of."""

    sandbox: Sandbox
    guilds: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Razed:
    """The schemas that were dropped, and whether it was us who brought the sandbox to its end."""

    schemas: Sequence[str]
    ended: bool


def belongings(snapshot: SqlSnapshot, row: Sandbox) -> Belongings:
    """Return what a sandbox has in the database."""
    names = schemas.named(snapshot, [row])
    roster = registry.claimants(snapshot, schemas=names, tokens=[str(row.id)])
    mine = [name for name in names if (owner := roster.place_schema(name).owner) and owner.id == row.id]
    return Belongings(sandbox=row, guilds=registry.guilds(snapshot, row.id), schemas=mine, roster=roster)


def condemn(transaction: SqlTransaction, row: Sandbox, *, actor: str, at: datetime) -> Condemned:
    """Move a row, held by this transaction, to `destroying` by allowed changes, with an audit row each.

    One that is there already gets an audit row too, which says that somebody is at it again. Raises Blocked where
    something elsewhere depends on its schemas, with nothing changed, and SandboxError 007.
    """
    [condemned] = condemn_all(transaction, [row], actor=actor, at=at)
    return condemned


def condemn_all(
    transaction: SqlTransaction, rows: Sequence[Sandbox], *, actor: str, at: datetime
) -> list[Condemned]:
    """Condemn rows held by this transaction, all of them or none, as `condemn` does."""
    owned = _schemas_of(transaction, rows)
    schemas.insist_on_no_dependents(transaction, [name for row in rows for name in owned.get(row.id, ())])
    guilds = registry.guilds_of(transaction, rows)
    dead = [row for row in rows if not row.live]
    left = registry.guilds_left(transaction, dead) if dead else {}
    moved: dict[UUID, Sandbox] = {}
    for status in Status:
        if alike := [row for row in rows if row.status is status]:
            moved |= {row.id: row for row in _moved(transaction, alike, actor=actor, at=at)}
    return [
        Condemned(sandbox=moved[row.id], guilds=(*guilds.get(row.id, ()), *left.get(row.id, ())))
        for row in rows
    ]


def _moved(
    transaction: SqlTransaction, alike: Sequence[Sandbox], *, actor: str, at: datetime
) -> Sequence[Sandbox]:
    """Move rows of one status to `destroying`; destroyed ones stay what they are."""
    if alike[0].status is Status.DESTROYING:
        ids = [row.id for row in alike]
        registry.audit_all(transaction, ids, "sandbox_destroying", actor=actor, details={"resumed": True})
    for new in way_to_destroying(alike[0].status):
        event = "sandbox_destroying" if new is Status.DESTROYING else "status_changed"
        alike = registry.change_status_all(transaction, alike, new, actor=actor, event=event, at=at)
    return alike


def _schemas_of(snapshot: SqlSnapshot, rows: Sequence[Sandbox]) -> Mapping[UUID, Sequence[str]]:
    """Return the schemas that are each one's alone, under whichever naming."""
    return registry.owned_schemas(snapshot, schemas.named(snapshot, rows))


def clear(
    keys: KeyWriter, roster: Roster, condemned: Sequence[Condemned], *, hold: Hold = nullcontext
) -> Mapping[UUID, int]:
    """Delete the cached routes and the keys of all of these; return how many keys each had. Each batch within `hold()`.

    Keys that another sandbox could own as well are left alone. Raises Unreachable or Denied, with part of it done.
    """
    with hold():
        keys.unlink([routes.key_of(guild) for each in condemned for guild in each.guilds])
    mine = {each.sandbox.id for each in condemned}

    def owner(token: str) -> UUID | None:
        found = _owner_of_keys(roster, token)
        return found if found in mine else None

    return keyspace.delete_families(keys, owner, hold=hold)


def keys_of(keys: KeyReader, roster: Roster, row: Sandbox) -> int:
    """Return how many keys are this sandbox's alone, under whichever naming; `roster` holds all that could own them."""
    families = keyspace.survey(keys).families
    return sum(count for token, count in families.items() if _owner_of_keys(roster, token) == row.id)


def raze(
    database: SqlWriter,
    condemned: Condemned,
    *,
    actor: str,
    at: datetime,
    keys_left: bool = False,
    fence: Fence = lambda _: None,
) -> Razed:
    """Drop the sandbox's schemas, end its mappings, mark it destroyed; with `keys_left` its audit row says so.

    Raises Blocked where an object elsewhere has come to depend on a schema, Busy where one is in use; Crowded, a Busy, where
    no turn came in some 10 s.
    """
    once = partial(_raze, database, condemned, actor=actor, at=at, keys_left=keys_left, fence=fence)
    for _ in range(_TRIES - 1):
        try:
            return once()
        except Crowded:  # several may wait for each other: they must not try again together
            time.sleep(random.uniform(0.05, 0.3))
    return once()


def _raze(
    database: SqlWriter, condemned: Condemned, *, actor: str, at: datetime, keys_left: bool, fence: Fence
) -> Razed:
    with database.transaction() as transaction:
        fence(transaction)
        row = registry.locked(transaction, id=condemned.sandbox.id)
        if row.status not in (Status.DESTROYING, Status.DESTROYED):
            raise SandboxError(
                SandboxCode.INVALID_TRANSITION, f"{row.name} is {row.status} again: its schema is left alone"
            )
        mine = _schemas_of(transaction, [row]).get(row.id, [])
        schemas.drop(database, transaction, mine)
        fence(transaction)  # a stop may have been raised while we waited for their locks
        transaction.execute("write/registry/unmap_guilds", id=row.id)
        ended = row.status is Status.DESTROYING
        if ended:
            details = {
                "schemas": list(mine),
                "guilds": list(condemned.guilds),
                "keysLeft": keys_left,
            }
            registry.change_status(
                transaction,
                row,
                Status.DESTROYED,
                actor=actor,
                event="sandbox_destroyed",
                at=at,
                details=details,
            )
    return Razed(schemas=mine, ended=ended)


def finish(database: SqlWriter, row: Sandbox, *, actor: str, fence: Fence = lambda _: None) -> None:
    """Write down that keys of a destroyed sandbox, which were left, are to be deleted no more."""
    with database.transaction() as transaction:
        fence(transaction)
        registry.audit(transaction, row.id, "sandbox_destroyed", actor=actor, details={"keysLeft": False})


def _owner_of_keys(roster: Roster, token: str) -> UUID | None:
    """Return whose keys these are: of one row alone, and by its id, as `sandbox:cafe:menu` is nobody's."""
    owner = roster.place_family(token).owner
    return owner.id if owner and same_sandbox(token, str(owner.id)) else None
