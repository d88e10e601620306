"""A way on which every event reaches its sandbox, to be broken piece by piece."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from diagnostics.circling import Circling
from diagnostics.postgres import Connections
from diagnostics.reach import Reach
from diagnostics.routes import Cached, Fault, Mapped, Routes, Wrong
from diagnostics.servers import Cache
from diagnostics.streams import Messaging, SeenConsumer, SeenStream
from runbooks.routing.evidence import Asked, Evidence, Heard, Way, Workers
from sandbox.facts import Known
from sandbox.model import ConsumerConfig, ConsumerState, Message, Sandbox, Status, StreamConfig, StreamState
from sandbox.streams import expected_consumers, expected_streams
from tests.unit import evidence
from tests.unit.evidence import NOW, row

__all__ = [
    "EVENTS",
    "ROUTER",
    "SANDBOX",
    "WORKERS",
    "cached",
    "consumer_state",
    "event",
    "healthy",
    "mapped",
    "messaging",
    "routes",
    "stream_state",
    "way",
    "wrong",
]

SANDBOX, EVENTS = expected_streams(None)
WORKERS, ROUTER = expected_consumers()


def stream_state(config: StreamConfig, **changes: Any) -> StreamState:
    """Return an empty stream that is led."""
    fields: dict[str, Any] = {
        "messages": 0,
        "bytes": 0,
        "first_sequence": 0,
        "last_sequence": 0,
        "oldest": None,
        "discard": "old",
        "leader": "n1",
        "replicas_current": config.replicas or 1,
    }
    return StreamState(config=config, **{**fields, **changes})


def consumer_state(config: ConsumerConfig, **changes: Any) -> ConsumerState:
    """Return a consumer that nobody has asked for anything yet."""
    fields: dict[str, Any] = {
        "pending": 0,
        "ack_pending": 0,
        "redelivered": 0,
        "waiting_pulls": 0,
        "push_bound": False,
        "delivered": 0,
        "acknowledged": 0,
    }
    return ConsumerState(config=config, **{**fields, **changes})


def messaging(**changes: Any) -> Known[Messaging]:
    """Return both streams and consumers, as expected and served.

    A change names EVENTS or SANDBOX, ROUTER or WORKERS, and is its state or, of a consumer, the looks at it; None: missing.
    """
    states: dict[str, Any] = {
        "EVENTS": stream_state(replace(EVENTS, replicas=1)),
        "SANDBOX": stream_state(replace(SANDBOX, replicas=1)),
        "ROUTER": consumer_state(ROUTER, waiting_pulls=1),
        "WORKERS": consumer_state(WORKERS, waiting_pulls=1),
    } | changes
    streams = [SeenStream(expected=each, state=states[each.name]) for each in (EVENTS, SANDBOX)]
    consumers = [
        SeenConsumer(expected=each, looks=_looks(states[name]))
        for each, name in ((ROUTER, "ROUTER"), (WORKERS, "WORKERS"))
    ]
    return Known(Messaging(streams=tuple(streams), consumers=tuple(consumers)))


def _looks(found: ConsumerState | Sequence[ConsumerState] | None) -> tuple[ConsumerState, ...]:
    if found is None:
        return ()
    return (found,) if isinstance(found, ConsumerState) else tuple(found)


def mapped(number: int = 1, status: Status = Status.RUNNING) -> Mapped:
    """Return the mapping of a guild to the sandbox of the same number."""
    return Mapped(guild=f"10{number}", sandbox=UUID(int=number), name=f"box-{number}", status=status)


def cached(number: int = 1, value: str | None = None, left: float = 40.0) -> Cached:
    """Return a guild's cached route, by default the right one."""
    return Cached(guild=f"10{number}", value=value or str(UUID(int=number)), left=left)


def wrong(number: int = 1, fault: Fault = Fault.OTHER, **changes: Any) -> Wrong:
    """Return a guild's cached route that is wrong."""
    return Wrong(cached=cached(number, **changes), fault=fault, wanted=f"box-{number}")


def routes(*wrongs: Wrong, guilds: int = 10) -> Known[Routes]:
    """Return the routes of so many guilds, these of which are wrong."""
    every = [mapped(number) for number in range(1, guilds + 1)]
    return Known(
        Routes(mapped=tuple(every), cached=frozenset(each.guild for each in every[:-1]), wrong=wrongs)
    )


def way(sandbox: Sandbox | None = None, *guilds: str, **changes: Any) -> Way:
    """Return the way of a guild, 101 by default, to its sandbox."""
    names = guilds or ("101",)
    fields: dict[str, Any] = {
        "asked": Known(Asked(guilds=names, sandbox=sandbox or row(1))),
        "cached": Known(tuple(cached(int(name) - 100) for name in names)),
        "heard": Known(Heard(messages=(), listeners=("dev-bot",))),
    }
    return Way(**{**fields, **changes})


def event(
    sequence: int, event_id: str, *, at: float, guild: str | None = "101", made: float = 0.0
) -> Message:
    """Return a message of EVENTS that was stored and made so many seconds after NOW."""
    made_at = int((NOW + timedelta(seconds=made)).timestamp() * 1000)
    told = {"event_id": event_id, "guild_id": guild, "timestamp": made_at}
    return Message(
        subject="events.member.join",
        data=json.dumps(told).encode(),
        sequence=sequence,
        time=NOW + timedelta(seconds=at),
    )


def healthy(**changes: Any) -> Evidence:
    """Return evidence in which nothing is wrong, but for the changes."""
    base = evidence.healthy()
    reach = {
        name: Known(Reach(system=name, host=f"{name}:1", connected_ms=1, answered_ms=2))
        for name in ("NATS", "PostgreSQL", "Redis")
    }
    assert isinstance(base.cache, Known)
    cache: Cache = base.cache.value
    seen = Evidence(
        now=NOW,
        stack=base.stack,
        alarm=base.alarm,
        nats=reach["NATS"],
        postgres=reach["PostgreSQL"],
        redis=reach["Redis"],
        workers=Known(Workers(service=evidence.service(), tasks=())),
        messaging=messaging(),
        circling=Known(Circling(read=20, events=20)),
        routes=routes(),
        errors=evidence.log(),
        connections=Known(Connections(used=10, limit=100, reserved=3, groups=())),
        cache=Known(cache),
    )
    return replace(seen, **changes)
