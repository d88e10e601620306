"""What was put into quarantine, since when, and what of it has been there for longer than its grace. Pure but for `gather`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from runbooks.engine.model import Action, Resource, Reversibility
from runbooks.engine.systems import Readers
from sandbox import registry, schemas
from sandbox.facts import Fact, Known
from sandbox.facts import gather as gather_facts
from sandbox.keyspace import Parked, Survey
from sandbox.model import Schema
from sandbox.naming import read_quarantined_schema, read_stamp, token_of_schema
from sandbox.text import moment

__all__ = [
    "GRACE",
    "SEE_KEYS",
    "SEE_SCHEMAS",
    "Database",
    "Quarantine",
    "gather",
    "parked_keys",
    "parked_schemas",
    "purge_keys",
    "purge_schemas",
]

GRACE = timedelta(hours=72)
"""For as long as what was put into quarantine is kept there."""

SEE_SCHEMAS = (
    "psql -c \"SELECT nspname FROM pg_namespace WHERE starts_with(nspname, 'quarantine_')\"  # any role"
)
SEE_KEYS = "redis-cli --scan --pattern 'quarantine:*' --count 1000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """The schemas, and how many sandboxes are not destroyed."""

    schemas: tuple[Schema, ...]
    live: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """What was seen."""

    now: datetime
    database: Fact[Database]
    keys: Fact[Survey]


def gather(readers: Readers, *, now: datetime, deadline: float) -> Quarantine:
    """Read schemas and keys side by side, within `deadline` seconds."""

    def database() -> Database:
        with readers.sql.snapshot() as snapshot:
            live = sum(row.live for row in registry.roster(snapshot).rows)
            return Database(schemas=tuple(schemas.census(snapshot)), live=live)

    probes = {"database": database, "keys": readers.survey}
    return Quarantine(now=now, **gather_facts(probes, deadline=deadline))


def parked_schemas(seen: Quarantine) -> list[tuple[Schema, str, datetime]]:
    """Return the schemas in quarantine, what each was called, and since when; none where that is unknown."""
    if not isinstance(seen.database, Known):
        return []
    read = ((schema, read_quarantined_schema(schema.name)) for schema in seen.database.value.schemas)
    return [(schema, found.original, found.since) for schema, found in read if found]


def parked_keys(seen: Quarantine) -> list[tuple[Parked, int, datetime]]:
    """Return the families of keys in quarantine, how many keys each has, and since when; none where that is unknown."""
    if not isinstance(seen.keys, Known):
        return []
    parked = sorted(seen.keys.value.parked.items(), key=lambda item: (item[0].stamp, item[0].token))
    return [(family, keys, read_stamp(family.stamp)) for family, keys in parked]


def purge_schemas(seen: Quarantine) -> list[Action]:
    """Return an action for each schema that is over its grace."""
    return [
        _action(
            "drop schema",
            Resource(kind="schema", id=schema.name),
            {
                "name": schema.name,
                "oid": schema.oid,
                "token": token_of_schema(original),
                "writes": schema.writes,
            },
            since,
        )
        for schema, original, since in parked_schemas(seen)
        if seen.now - since > GRACE
    ]


def purge_keys(seen: Quarantine) -> list[Action]:
    """Return an action for each family of keys that is over its grace."""
    return [
        _action(
            "delete keys",
            Resource(kind="keys", id=f"quarantine:{family.stamp}:sandbox:{family.token}"),
            {"token": family.token, "stamp": family.stamp, "keys": keys},
            since,
        )
        for family, keys, since in parked_keys(seen)
        if seen.now - since > GRACE
    ]


def _action(verb: str, resource: Resource, before: Mapping[str, object], since: datetime) -> Action:
    return Action(
        id="",
        verb=verb,
        resource=resource,
        before=before,
        after={},
        reason=f"in quarantine since {moment(since)}",
        reversibility=Reversibility.IRREVERSIBLE,
    )
