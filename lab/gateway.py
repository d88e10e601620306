"""What comes in from Discord: the gateway's events, as the deployed one writes and publishes them."""

import asyncio
import itertools
import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import nats

__all__ = ["KINDS", "send", "traffic"]

KINDS = ("member.join", "guild.update", "member.update", "member.leave", "guild.join")
_PAUSE = 0.25
_SECONDS = 5


def send(nats_url: str, guilds: Iterable[str], kinds: Sequence[str] = KINDS) -> int:
    """Publish an event of each kind for each guild; how many there were."""
    made = [(guild, kind) for guild in guilds for kind in kinds]
    asyncio.run(_publish(nats_url, iter(made), pause=0, say_ready=lambda: None))
    return len(made)


def traffic(nats_url: str, guilds: Sequence[str], say_ready: Callable[[], None]) -> None:
    """Publish four events a second, of all kinds and guilds in turn, for ever."""
    turns = zip(itertools.cycle(guilds), itertools.cycle(KINDS), strict=False)
    asyncio.run(_publish(nats_url, turns, pause=_PAUSE, say_ready=say_ready))


async def _publish(
    nats_url: str, turns: Iterator[tuple[str, str]], *, pause: float, say_ready: Callable[[], None]
) -> None:
    client = await nats.connect(nats_url, name="arrakis-gateway", connect_timeout=_SECONDS)
    say_ready()
    try:
        for guild, kind in turns:
            await client.publish(f"events.{kind}", json.dumps(_event(guild, kind)).encode())
            await asyncio.sleep(pause)
        await client.flush(_SECONDS)
    finally:
        await client.close()


def _event(guild: str, kind: str) -> dict[str, Any]:
    return {
        "event_id": str(uuid.uuid4()),
        "event_type": kind,
        "shard_id": 0,
        "timestamp": int(time.time() * 1000),
        "guild_id": guild,
        "channel_id": None,
        "user_id": "200000000000000007",
        "data": {},
    }
