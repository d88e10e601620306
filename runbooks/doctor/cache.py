"""Redis as it is reached from here: version, clock, and what this login may do, by dry runs or by asking what only looks."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from diagnostics.privileges import Held, in_redis
from diagnostics.reach import SEE_REDIS
from runbooks.doctor.checks import Clock, Needs, Subject, clock, reached, rights, unreached, version
from runbooks.engine.model import Finding
from sandbox.errors import Denied
from sandbox.facts import Fact, Unknown

__all__ = ["REDIS", "Cache", "findings", "read_cache"]

REDIS = "Redis"

_NEWEST = {"redis": (8,), "valkey": (9,)}
_OLDEST = {"redis": (7,), "valkey": (7, 2)}


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
        held=in_redis(server, needs.words, cluster=told.cluster),
    )


def findings(fact: Fact[Cache], needs: Needs) -> Iterator[Finding]:
    """Say whether it can be looked at and changed from here. Pure."""
    if isinstance(fact, Unknown):
        yield unreached(REDIS, fact, fix=SEE_REDIS)
        return
    seen = fact.value
    yield reached(REDIS, f"{seen.host} answers", seen.seconds)
    least, most = _OLDEST.get(seen.product, (7,)), _NEWEST.get(seen.product, (9,))
    yield version(REDIS, seen.product.capitalize(), seen.version, least=least, most=most)
    if seen.clock:
        yield clock(REDIS, seen.clock)
    fix = {word: f"redis-cli ACL SETUSER … '{word}'" for word in seen.held}
    why = "it does not say what this login may do"
    hint = "redis-cli ACL SETUSER … +acl|whoami +acl|dryrun  # then it is known without trying"
    yield from rights(REDIS, needs, seen.held, fix=fix, why=why, hint=hint)
