"""Redis as it is reached from here: version, clock, and what this login may do, by dry runs or by asking what only looks."""

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diagnostics.reach import SEE_REDIS
from runbooks.doctor.checks import Clock, Held, Needs, Subject, clock, rights, unreached, version, well
from runbooks.engine.model import Finding
from sandbox.errors import Denied
from sandbox.facts import Fact, Unknown

if TYPE_CHECKING:
    from sandbox.adapters.redis_access import RedisAccess

__all__ = ["REDIS", "Cache", "findings", "read_cache"]

REDIS = "Redis"

_KEY, _PARKED = "sandbox:route:0", "quarantine:00000000000000:sandbox:0"  # they need not be there
_NEWEST = {"redis": (8,), "valkey": (9,)}
_OLDEST = {"redis": (7,), "valkey": (7, 2)}
_BY_LOOKING: Mapping[str, tuple[str, ...]] = {
    "+scan": ("SCAN", "0", "COUNT", "1"),
    "+get": ("GET", _KEY),
    "+pttl": ("PTTL", _KEY),
    "+object|idletime": ("OBJECT", "IDLETIME", _KEY),
    "+memory|usage": ("MEMORY", "USAGE", _KEY),
    "+ping": ("PING",),
    "+info": ("INFO", "server"),
    "+slowlog|get": ("SLOWLOG", "GET", "1"),
    "+latency|latest": ("LATENCY", "LATEST"),
    "+cluster|info": ("CLUSTER", "INFO"),
    "+cluster|nodes": ("CLUSTER", "NODES"),
    "+cluster|slots": ("CLUSTER", "SLOTS"),
    "%R~sandbox:*": ("GET", _KEY),
}
_BY_DRY_RUN: Mapping[str, tuple[str, ...]] = {
    **_BY_LOOKING,
    "+unlink": ("UNLINK", _KEY),
    "+set": ("SET", _KEY, "0"),
    "+renamenx": ("RENAMENX", _KEY, _PARKED),
    "~sandbox:*": ("UNLINK", _KEY),
    "~quarantine:*": ("UNLINK", _PARKED),
}
"""A command for each right: refused for what the right is about, it is lacking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """What answers at `host`, within how many seconds; its clock, where it tells that; which rights are held."""

    host: str
    seconds: float
    product: str
    version: str
    clock: Clock | None
    held: Held


def read_cache(subject: Subject, needs: Needs) -> Cache:
    """Ask it. Raises Unreachable, Denied for a login that is not accepted, or ArrakisError for a malformed address."""
    from sandbox.adapters.redis_access import RedisAccess

    server = RedisAccess(subject.environment.redis_url, timeout=subject.deadline)
    began = time.monotonic()
    told = server.server()
    seconds, seen = time.monotonic() - began, None
    with suppress(Denied):  # +time is a right that nothing else needs
        before = subject.now()
        seen = Clock.of(server.time(), before=before, after=subject.now())
    return Cache(
        host=server.host,
        seconds=seconds,
        product=told.product,
        version=told.version,
        clock=seen,
        held=_held(server, [word for word in needs.words if word in _BY_DRY_RUN]),
    )


def findings(fact: Fact[Cache], needs: Needs) -> Iterator[Finding]:
    """Say whether it can be looked at and changed from here. Pure."""
    if isinstance(fact, Unknown):
        yield unreached(REDIS, fact, fix=SEE_REDIS)
        return
    seen = fact.value
    told = f"{seen.host} answers in {seen.seconds * 1000:.0f} ms"
    yield well(REDIS, "reach", told, milliseconds=round(seen.seconds * 1000, 1))
    least, most = _OLDEST.get(seen.product, (7,)), _NEWEST.get(seen.product, (9,))
    yield version(REDIS, seen.product.capitalize(), seen.version, least=least, most=most)
    if seen.clock:
        yield clock(REDIS, seen.clock)
    fix = {word: f"redis-cli ACL SETUSER … '{word}'" for word in seen.held}
    why = "it does not say what this login may do"
    hint = "redis-cli ACL SETUSER … +acl|whoami +acl|dryrun  # then it is known without trying"
    yield from rights(REDIS, needs, seen.held, fix=fix, why=why, hint=hint)


def _held(server: "RedisAccess", words: Collection[str]) -> Held:
    from sandbox.adapters.redis_access import Refusal

    def judged(word: str, refusal: Refusal) -> bool:
        return refusal is not (Refusal.COMMAND if word.startswith("+") else Refusal.KEY)

    try:
        refusals = server.refusals([_BY_DRY_RUN[word] for word in words])
        return {word: judged(word, found) for word, found in zip(words, refusals, strict=True)}
    except Denied:
        looks = [word for word in words if word in _BY_LOOKING]
        found = zip(looks, server.tried([_BY_LOOKING[word] for word in looks]), strict=True)
        return {**dict.fromkeys(words), **{word: judged(word, refusal) for word, refusal in found}}
