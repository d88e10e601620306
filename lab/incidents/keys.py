"""The Redis part of a world: sandboxes' keys, route cache, orphaned families that look idle, decoys."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import redis

from lab.incidents.world import KeyFamily, Sandbox, World

__all__ = ["lay_out"]

_BATCH = 4000
_ROUTE_MS = 55 * 60 * 1000  # production's minute would be over before anybody looks
_DAY_MS = 24 * 60 * 60 * 1000
_TEMPLATE = "lab:template"
_DECOYS = {"sandbox:cafe:menu": "spice coffee", "sandboxes:list": "[]"}
_SESSIONS = 5000
_VALUES: dict[str, tuple[Any, ...]] = {
    "string": ("SET", '{"cached":true}'),
    "hash": ("HSET", "rank", "7", "tier", "fremen"),
    "set": ("SADD", "chani", "stilgar", "liet"),
    "zset": ("ZADD", "1", "chani", "2", "stilgar"),
    "list": ("RPUSH", "joined", "ranked", "awarded"),
}
_TYPES = tuple(_VALUES)

Command = tuple[Any, ...]


def lay_out(redis_url: str, world: World) -> None:
    """Write it all, in few round trips."""
    with redis.Redis.from_url(redis_url, socket_timeout=10) as client:
        payloads = _payloads(client)
        _send(client, _commands(world, payloads))


def _commands(world: World, payloads: dict[str, bytes]) -> Iterator[Command]:
    for sandbox in world.sandboxes:
        yield from _keys_of(sandbox)
        if sandbox.guild:
            yield ("SET", f"sandbox:route:{sandbox.guild}", str(sandbox.id), "PX", _ROUTE_MS)
    yield ("SET", "sandbox:route:1099999999999999999", "__NULL__", "PX", _ROUTE_MS)
    for family in world.families:
        yield from _idle_keys(family, payloads)
    for name, value in _DECOYS.items():
        yield ("SET", name, value)
    for number in range(_SESSIONS):
        yield ("SET", f"session:{number:05d}", f"user-{number}")


def _keys_of(sandbox: Sandbox) -> Iterator[Command]:
    """Keys of every type; every third one ends within hours, as caches do."""
    for number in range(sandbox.keys):
        kind = _TYPES[number % len(_TYPES)]
        name = f"sandbox:{sandbox.id}:{kind}:{number}"
        yield _write(name, kind)
        if number % 3 == 0:
            yield ("PEXPIRE", name, _DAY_MS // 4)


def _idle_keys(family: KeyFamily, payloads: dict[str, bytes]) -> Iterator[Command]:
    """RESTORE is the one command that can say how long a key was idle. Half of them end within days."""
    for number in range(family.count):
        kind = _TYPES[number % len(_TYPES)]
        ttl = _DAY_MS * (1 + number % 7) if number % 2 else 0
        name = f"sandbox:{family.id}:{kind}:{number}"
        yield ("RESTORE", name, ttl, payloads[kind], "IDLETIME", family.idle_seconds + number % 600)


def _payloads(client: redis.Redis) -> dict[str, bytes]:
    """One dumped value of each type: RESTORE takes nothing else."""
    payloads = {}
    for kind in _TYPES:
        name = f"{_TEMPLATE}:{kind}"
        payloads[kind] = _send(client, iter([_write(name, kind), ("DUMP", name), ("DEL", name)]))[1]
    return payloads


def _write(name: str, kind: str) -> Command:
    verb, *values = _VALUES[kind]
    return (verb, name, *values)


def _send(client: redis.Redis, commands: Iterator[Command]) -> list[Any]:
    replies: list[Any] = []
    while batch := list(islice(commands, _BATCH)):
        with client.pipeline(transaction=False) as pipeline:
            for command in batch:
                pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
            replies += pipeline.execute()
    return replies
