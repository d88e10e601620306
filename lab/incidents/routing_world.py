"""Eight sandboxes with a guild each, whose events reach them; others that are over; and what the account says of it. Pure."""

import random
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from lab.incidents.telemetry import Line, Lines, Series, pino, traffic
from lab.incidents.world import Sandbox, World

__all__ = ["STRAY", "build", "errors", "guilds", "lines", "quiet"]

STRAY = "1399999999999999999"
"""A guild that no sandbox has: its events are production's."""

_RUNNING, _EXPIRED, _DESTROYED = 8, 1, 3
_OWNERS = ("chani", "stilgar", "liet", "jessica")
_PURPOSES = ("onboarding", "tiers", "badges", "wallets", "ranking", "theming", "webhooks", "imports")
_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)
_POINTS = 72  # one every five minutes for six hours
_SEED = 4


def build(now: datetime) -> World:
    """The world as it looks at `now`: the running ones first, then an expired one and those that are destroyed."""
    chance = random.Random(_SEED)
    rows = [_sandbox(chance, index, now) for index in range(_RUNNING + _EXPIRED + _DESTROYED)]
    return World(now=now, sandboxes=(*rows[:_RUNNING], *_over(rows[_RUNNING:], now)))


def guilds(world: World) -> dict[str, uuid.UUID]:
    """Return the guilds whose events reach a sandbox, and which."""
    return {row.guild: row.id for row in world.sandboxes if row.guild and row.status == "running"}


def errors(now: datetime) -> Series:
    """EventRoutingErrors of six hours: one now and then."""
    values = [float(index % 17 == 5) for index in range(_POINTS - 1)]
    return Series(metric="EventRoutingErrors", values=[*values, 0.0], until=now, step=5 * _MINUTE)


def quiet(now: datetime) -> Series:
    """EventRoutingErrors of an hour in which there were none."""
    return Series(metric="EventRoutingErrors", values=[0.0] * 12, until=now, step=5 * _MINUTE)


def lines(world: World) -> Lines:
    """Two hours of lines, in which nothing is wrong."""
    cleanup = list[Line]()
    for step in range(8):
        at = world.now - 15 * _MINUTE * step - 5 * _MINUTE
        cleanup.append(
            pino(at, 30, "CleanupProvider", "Expired sandbox cleanup completed", cleanedUp=0, failed=0)
        )
    ids = [str(row.id) for row in world.sandboxes if row.status == "running"]
    return {**traffic(world.now, ids), "sandbox-cleanup": cleanup}


def _over(rows: list[Sandbox], now: datetime) -> Iterator[Sandbox]:
    """An expired sandbox keeps its guild's mapping; a destroyed one has none, nor any schema."""
    for index, row in enumerate(rows):
        ended = now - (4 * _MINUTE + index * 7 * _HOUR)
        born = ended - 24 * _HOUR
        if index < _EXPIRED:
            yield replace(row, status="expired", created_at=born, expires_at=ended)
        else:
            yield replace(
                row,
                status="destroyed",
                created_at=born,
                expires_at=ended - 6 * _MINUTE,
                destroyed_at=ended,
                guild=None,
            )


def _sandbox(chance: random.Random, index: int, now: datetime) -> Sandbox:
    """A running one, named in full in both places."""
    each = uuid.UUID(int=chance.getrandbits(128), version=4)
    return Sandbox(
        id=each,
        name=f"{_PURPOSES[index % len(_PURPOSES)]}-{each.hex[:4]}",
        owner=_OWNERS[index % len(_OWNERS)],
        status="running",
        schema_name=f"sandbox_{each}",
        schema_token=str(each),
        created_at=now - (2 + 2 * index) * _HOUR,
        expires_at=now + (6 + index) * _HOUR,
        last_activity_at=now - (1 + index) * _MINUTE,
        metadata_as_string=index % 2 == 0,
        guild=f"{1_300_000_000_000_000_000 + chance.randrange(10**17 - 1) // 10 * 9}",
        profiles=4,
        keys=6,
    )
