"""Which sandboxes, orphans and decoys there are: a value, the same each time. Pure."""

import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

__all__ = ["DECOY_SCHEMAS", "KeyFamily", "Orphan", "Sandbox", "World", "build"]

DECOY_SCHEMAS = ("sandboxes", "sandbox-tools", "sandbox_notes", "sandboxXdata")
_OWNERS = ("chani", "stilgar", "liet", "jessica")
_PURPOSES = ("onboarding", "tiers", "badges", "wallets", "ranking", "theming", "webhooks", "imports")
_LIVE, _EXPIRED_AT, _SHORT_FROM, _FULL_FROM = 12, 6, 10, 7  # of the live: where each naming begins
_ORPHAN_SIZES = (400, 3000, 40, 1500, 900, 12, 5)
_SEED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A registry row, and what exists for it: `schema_token` is what was handed to create_sandbox_schema.

    A `bare` one is a row, its mapping and its history, without a schema.
    """

    id: uuid.UUID
    name: str
    owner: str
    status: str
    schema_name: str
    schema_token: str
    created_at: datetime
    expires_at: datetime
    destroyed_at: datetime | None = None
    last_activity_at: datetime | None = None
    metadata_as_string: bool = False
    ttl_hours: int = 24
    bare: bool = False
    guild: str | None = None
    profiles: int = 0
    keys: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A schema without a live row; its newest profile is of `last_active`."""

    schema_token: str
    profiles: int
    last_active: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFamily:
    """Keys `sandbox:{id}:…` that nobody has touched for `idle_seconds`."""

    id: uuid.UUID
    count: int
    idle_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything there is: `sandboxes` are all rows, the destroyed ones included; `decoys` schemas that are nobody's."""

    now: datetime
    sandboxes: tuple[Sandbox, ...]
    orphans: tuple[Orphan, ...] = ()
    families: tuple[KeyFamily, ...] = ()
    decoys: tuple[str, ...] = ()


def build(now: datetime) -> World:
    """The world of RB-SB-003 as it looks at `now`; only the moments differ from one call to the next."""
    chance = random.Random(_SEED)
    live = tuple(_live(chance, now))
    destroyed = tuple(_destroyed(chance, now))
    forgotten = [_uuid(chance) for _ in range(5)]
    families = tuple(
        KeyFamily(id=each, count=chance.randint(2000, 4000), idle_seconds=7200 * (2 + 11 * index))
        for index, each in enumerate((destroyed[0].id, forgotten[0], _uuid(chance)))
    )
    rows = (*live, _being_created(chance, now), *destroyed)
    return World(
        now=now,
        sandboxes=rows,
        orphans=_orphans(destroyed, forgotten, now),
        families=families,
        decoys=DECOY_SCHEMAS,
    )


def _orphans(
    destroyed: Sequence[Sandbox], forgotten: Sequence[uuid.UUID], now: datetime
) -> tuple[Orphan, ...]:
    """Two that a destroyed row explains, then without any row: two whole ids, one hyphenless, two short."""
    tokens = [
        *(row.schema_token for row in destroyed),
        *(str(each) for each in forgotten[:2]),
        forgotten[2].hex,
        *(each.hex[:8] for each in forgotten[3:]),
    ]
    return tuple(
        Orphan(schema_token=token, profiles=size, last_active=now - timedelta(days=2 + 3 * index, hours=5))
        for index, (token, size) in enumerate(zip(tokens, _ORPHAN_SIZES, strict=True))
    )


def _live(chance: random.Random, now: datetime) -> Iterator[Sandbox]:
    """Seven as deployed (the column is short, the schema whole), three whole in both, two short in both."""
    for index in range(_LIVE):
        each = _uuid(chance)
        whole, short = str(each), each.hex[:8]
        column = whole if _FULL_FROM <= index < _SHORT_FROM else short
        expired = index == _EXPIRED_AT
        yield Sandbox(
            id=each,
            name=_name(index, short),
            owner=_OWNERS[index % len(_OWNERS)],
            status="expired" if expired else "running",
            schema_name=f"sandbox_{column}",
            schema_token=short if index >= _SHORT_FROM else whole,
            created_at=now - timedelta(hours=6 + 3 * index),
            expires_at=now + (timedelta(minutes=-20) if expired else timedelta(hours=4 + 5 * index)),
            last_activity_at=now - timedelta(minutes=chance.randint(1, 40)),
            metadata_as_string=index % 2 == 0,
            guild=None if expired else f"{1_100_000_000_000_000_000 + chance.randrange(10**17)}",
            profiles=chance.randint(5, 60),
            keys=chance.randint(15, 60),
        )


def _being_created(chance: random.Random, now: datetime) -> Sandbox:
    each = _uuid(chance)
    created = now - timedelta(seconds=20)
    return Sandbox(
        id=each,
        name=_name(12, each.hex[:8]),
        owner=_OWNERS[0],
        status="creating",
        schema_name=f"pending_{each}",
        schema_token=str(each),
        created_at=created,
        expires_at=created + timedelta(hours=24),
        keys=3,
    )


def _destroyed(chance: random.Random, now: datetime) -> Iterator[Sandbox]:
    """Rows that say destroyed while their schema remains; the world lists those schemas as orphans."""
    for index in range(2):
        each = _uuid(chance)
        ended = now - timedelta(days=1 + index, hours=2)
        yield Sandbox(
            id=each,
            name=_name(13 + index, each.hex[:8]),
            owner=_OWNERS[2 + index],
            status="destroyed",
            schema_name=f"sandbox_{each.hex[:8]}",
            schema_token=str(each),
            created_at=ended - timedelta(hours=26 + index),
            expires_at=ended - timedelta(minutes=8),
            destroyed_at=ended,
            metadata_as_string=True,
        )


def _name(index: int, short: str) -> str:
    return f"{_PURPOSES[index % len(_PURPOSES)]}-{short[:4]}"


def _uuid(chance: random.Random) -> uuid.UUID:
    return uuid.UUID(int=chance.getrandbits(128), version=4)
