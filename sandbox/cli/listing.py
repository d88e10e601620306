"""Sandboxes with what they have, all of one moment."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sandbox import registry, schemas
from sandbox.model import Sandbox, Status
from sandbox.ports import SqlReader, SqlSnapshot

__all__ = ["Listed", "listing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A sandbox, its guilds, and the schemas that really exist and are its alone."""

    sandbox: Sandbox
    guilds: Sequence[str]
    schemas: Sequence[str]


def listing(database: SqlReader, *, owner: str | None, statuses: Collection[Status]) -> list[Listed]:
    """Return the sandboxes of these statuses, the newest first; of one owner, or of everybody. Raises Unreachable."""
    with database.snapshot() as snapshot:
        rows = registry.listing(snapshot, owner=owner, statuses=statuses)
        if not rows:
            return []
        guilds, owned = registry.guilds_of(snapshot, rows), _schemas(snapshot)
        return [Listed(sandbox=row, guilds=guilds.get(row.id, ()), schemas=owned[row.id]) for row in rows]


def _schemas(snapshot: SqlSnapshot) -> defaultdict[UUID, list[str]]:
    """Return every sandbox's schemas. All rows that could claim one are needed to say whose it is."""
    names, owned = schemas.names(snapshot), defaultdict[UUID, list[str]](list)
    roster = registry.claimants(snapshot, schemas=names)
    for name in names:
        if owner := roster.place_schema(name).owner:
            owned[owner.id].append(name)
    return owned
