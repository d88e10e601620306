"""Sandboxes that are over and do not go: 105 that are not destroyed, six of them overdue. Pure.

The others live, but there are more of them each day, and a few owners have more than their share.
"""

import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lab.incidents.world import Sandbox, World

__all__ = ["OVERDUE", "Plot", "build", "count_at"]

OVERDUE = 6
_LIVE, _GONE = 99, 20
_FURNISHED = 3  # of the live ones: with a schema and keys; a row is enough for the others
_RUNNING = 2  # of the overdue: still marked running, the others expired
_OLD = 60  # of the live ones: those that were there two days ago
_TTLS = (24, 48, 72, 120, 168)
_OWNERS = (
    *("paul", "gurney", "duncan", "thufir", "leto", "harah", "jamis", "shadout", "mapes", "farok", "otheym"),
    *("korba", "tandis", "geoff", "ramallo", "orlop", "kaleff", "alia"),
)
_GREEDY = {"chani": 14, "stilgar": 9, "liet": 7}
_PURPOSES = ("load", "seasons", "tiers", "badges", "wallets", "ranking", "webhooks", "imports", "demo")
_SEED = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """How it came to this: for how long each of the six is over, and until when the clean-up took sandboxes away."""

    overdue: Sequence[timedelta]
    worked_until: timedelta


def build(now: datetime, plot: Plot) -> World:
    """The world as it looks at `now`; the overdue ones come first, the longest overdue before the others."""
    chance = random.Random(_SEED)
    owners = _owners(chance)
    rows = (
        *_overdue(chance, now, plot.overdue, owners),
        *_live(chance, now, owners),
        *_destroyed(chance, now, plot.worked_until),
    )
    return World(now=now, sandboxes=rows)


def count_at(world: World, moment: datetime) -> int:
    """How many sandboxes were not destroyed at a moment of the last two days."""
    return sum(
        row.created_at <= moment and (row.destroyed_at is None or row.destroyed_at > moment)
        for row in world.sandboxes
    )


def _owners(chance: random.Random) -> Iterator[str]:
    """An owner for each that is not destroyed: three have many, the others up to five."""
    rest = OVERDUE + _LIVE - sum(_GREEDY.values())
    names = [name for name, share in _GREEDY.items() for _ in range(share)]
    names += [_OWNERS[index % len(_OWNERS)] for index in range(rest)]
    chance.shuffle(names)
    return iter(names)


def _overdue(
    chance: random.Random, now: datetime, overdue: Sequence[timedelta], owners: Iterator[str]
) -> Iterator[Sandbox]:
    """Named in full, with schemas, keys and a guild, whose cached route still leads to them."""
    for index, over in enumerate(sorted(overdue, reverse=True)):
        expires, ttl = now - over, _TTLS[index % 3]
        yield _sandbox(
            chance,
            owner=next(owners),
            status="running" if index < _RUNNING else "expired",
            created_at=expires - timedelta(hours=ttl),
            ttl_hours=ttl,
            last_activity_at=expires - timedelta(minutes=chance.randint(5, 300)),
            metadata_as_string=index % 2 == 0,
            guild=_guild(chance),
            profiles=chance.randint(5, 40),
            keys=chance.randint(15, 40),
        )


def _live(chance: random.Random, now: datetime, owners: Iterator[str]) -> Iterator[Sandbox]:
    """Sixty are two to six days old; the others came since, twelve of them in the last six hours."""
    for index in range(_LIVE):
        if index < _OLD:
            age = timedelta(hours=49 + 1.6 * index)
        elif index < _LIVE - 12:
            age = timedelta(hours=6.5 + 1.5 * (index - _OLD))
        else:
            age = timedelta(minutes=12 + 29 * (_LIVE - 1 - index))
        fitting = [ttl for ttl in _TTLS if timedelta(hours=ttl) > age + timedelta(hours=4)]
        yield _sandbox(
            chance,
            owner=next(owners),
            status="running",
            created_at=now - age,
            ttl_hours=fitting[0] if index % 3 else chance.choice(fitting),
            last_activity_at=now - timedelta(minutes=chance.randint(1, 10)),
            metadata_as_string=index % 2 == 0,
            bare=index >= _FURNISHED,
            guild=_guild(chance) if index < _FURNISHED else None,
            profiles=chance.randint(5, 40) if index < _FURNISHED else 0,
            keys=chance.randint(15, 40) if index < _FURNISHED else 0,
        )


def _destroyed(chance: random.Random, now: datetime, worked_until: timedelta) -> Iterator[Sandbox]:
    """Those that the clean-up took away, while it did: the last two days' at most."""
    since = timedelta(hours=48)
    for index in range(_GONE):
        ended = now - since + (since - worked_until) * (index + 1) / _GONE
        expired, ttl = ended - timedelta(minutes=chance.randint(1, 14)), _TTLS[index % 2]
        yield _sandbox(
            chance,
            owner=chance.choice(_OWNERS),
            status="destroyed",
            created_at=expired - timedelta(hours=ttl),
            ttl_hours=ttl,
            destroyed_at=ended,
            metadata_as_string=index % 2 == 0,
        )


def _sandbox(
    chance: random.Random, *, owner: str, created_at: datetime, ttl_hours: int, **more: object
) -> Sandbox:
    """A sandbox named in full in both places, as the library names what it creates."""
    each = uuid.UUID(int=chance.getrandbits(128), version=4)
    given: dict[str, object] = {
        "id": each,
        "name": f"{chance.choice(_PURPOSES)}-{each.hex[:6]}",
        "owner": owner,
        "schema_name": f"sandbox_{each}",
        "schema_token": str(each),
        "created_at": created_at,
        "expires_at": created_at + timedelta(hours=ttl_hours),
        "ttl_hours": ttl_hours,
    }
    return Sandbox(**(given | more))  # type: ignore[arg-type]


def _guild(chance: random.Random) -> str:
    return f"{1_200_000_000_000_000_000 + chance.randrange(10**17)}"
