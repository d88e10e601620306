"""How a sandbox is, and how to connect to it. Reads only, side by side, each with its own deadline."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sandbox import registry, routes, streams, teardown
from sandbox.errors import SandboxCode, SandboxError
from sandbox.facts import Known, Unknown, gather
from sandbox.limits import check_name
from sandbox.model import Sandbox, Status
from sandbox.naming import schema_for
from sandbox.ports import KeyReader, SqlReader, SqlSnapshot, StreamReader
from sandbox.teardown import Belongings
from sandbox.text import counted

__all__ = ["DEADLINE", "Check", "Connection", "Health", "Level", "connection", "examine", "look_up"]

DEADLINE = 4.0
"""Seconds that all checks together may take: a status over five seconds is an incident (RB-SB-006)."""


class Level(StrEnum):
    """How well something is. Unknown is not well."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one look found, and how long it took; `seconds` is None for one that did not end."""

    name: str
    level: Level
    message: str
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """A sandbox with what it has and how it is."""

    sandbox: Sandbox
    guilds: Sequence[str]
    schemas: Sequence[str]
    checks: Sequence[Check]
    checked_at: datetime

    @property
    def level(self) -> Level:
        """The worst that was found; something wrong outweighs something unknown."""
        found = {check.level for check in self.checks}
        order = (Level.UNHEALTHY, Level.DEGRADED, Level.UNKNOWN)
        return next((level for level in order if level in found), Level.HEALTHY)

    @property
    def time_left(self) -> timedelta | None:
        """How long it may still live; negative past its end, None for one that has none."""
        return self.sandbox.expires_at - self.checked_at if self.sandbox.expires_at else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What a program needs to work inside a sandbox. Nothing of it is secret."""

    id: str
    name: str
    schema: str
    redis_prefix: str
    nats_prefix: str


def connection(database: SqlReader, name: str) -> Connection:
    """Return how to connect to a sandbox, with the schema that really exists.

    Raises SandboxError: 004 not found, 005 it has no schema, 007 it is being taken away.
    """
    seen = _see(database, name)
    row = seen.sandbox
    if row.status in (Status.DESTROYING, Status.DESTROYED):
        raise SandboxError(
            SandboxCode.INVALID_TRANSITION, f"{name} is {row.status}: there is nothing to connect to"
        )
    if not seen.schemas:
        raise SandboxError(
            SandboxCode.SCHEMA_FAILED,
            f"{name} has no schema: a program that connects would write to production's tables",
            hint=f"`gaib sandbox destroy {name}`, then create another one",
        )
    schema = min(seen.schemas, key=lambda name: (name != schema_for(row.id), name != row.schema_name))
    return Connection(
        id=str(row.id),
        name=row.name,
        schema=schema,
        redis_prefix=f"sandbox:{row.id}:",
        nats_prefix=f"sandbox.{row.id}.",
    )


def examine(
    database: SqlReader,
    keys: KeyReader,
    messaging: StreamReader,
    name: str,
    *,
    now: datetime,
    deadline: float = DEADLINE,
) -> Health:
    """Look at all that a sandbox has. What cannot be told is an unknown check. Raises SandboxError 004, Unreachable."""
    began = time.monotonic()
    seen = _see(database, name)
    spent = time.monotonic() - began
    checks = [_status(seen.sandbox, now, spent), _schema(seen)]
    probes: dict[str, Callable[[], Check]] = {
        "routes": lambda: _routes(keys, seen),
        "keys": lambda: _keys(keys, seen),
        "events": lambda: _events(messaging),
    }
    facts = gather(
        {what: _timed(probe) for what, probe in probes.items()}, deadline=max(0.5, deadline - spent)
    )
    for what, fact in facts.items():
        match fact:
            case Known(check):
                checks.append(check)
            case Unknown(reason=reason):
                checks.append(Check(name=what, level=Level.UNKNOWN, message=f"cannot tell: {reason}"))
    return Health(
        sandbox=seen.sandbox, guilds=seen.guilds, schemas=seen.schemas, checks=checks, checked_at=now
    )


def look_up(snapshot: SqlSnapshot, name: str) -> Belongings:
    """Return a sandbox with what it has in the database, as every check begins. Raises SandboxError 004."""
    row = registry.by_name(snapshot, name)
    if row is None:
        raise registry.not_found(name)
    return teardown.belongings(snapshot, row)


def _see(database: SqlReader, name: str) -> Belongings:
    check_name(name)
    with database.snapshot() as snapshot:
        return look_up(snapshot, name)


def _timed(probe: Callable[[], Check]) -> Callable[[], Check]:
    def timed() -> Check:
        began = time.monotonic()
        check = probe()
        return Check(
            name=check.name,
            level=check.level,
            message=check.message,
            seconds=time.monotonic() - began,
        )

    return timed


def _status(row: Sandbox, now: datetime, seconds: float) -> Check:
    over = row.expires_at is not None and row.expires_at <= now
    message: str = row.status
    if row.status is Status.RUNNING and over:
        message = "running, past its end: the clean-up job takes it away"
    well = row.status is Status.RUNNING and not over
    return Check(
        name="status", level=Level.HEALTHY if well else Level.DEGRADED, message=message, seconds=seconds
    )


def _schema(seen: Belongings) -> Check:
    if seen.sandbox.live == bool(seen.schemas):
        message = ", ".join(seen.schemas) or "gone, as it should be"
        return Check(name="schema", level=Level.HEALTHY, message=message)
    message = f"still there: {', '.join(seen.schemas)}" if seen.schemas else "there is none"
    return Check(name="schema", level=Level.UNHEALTHY, message=message)


def _routes(keys: KeyReader, seen: Belongings) -> Check:
    cached = routes.cached(keys, seen.guilds)
    running = seen.sandbox.status is Status.RUNNING
    wrong = routes.stale(cached, dict.fromkeys(seen.guilds, seen.sandbox.id) if running else {})
    if wrong:
        message = f"the cache sends {', '.join(wrong)} elsewhere, for a minute at most"
        return Check(name="routes", level=Level.DEGRADED, message=message)
    message = f"mapped: {', '.join(seen.guilds)}; cached: {len(cached)}" if seen.guilds else "no guild"
    return Check(name="routes", level=Level.HEALTHY, message=message)


def _keys(keys: KeyReader, seen: Belongings) -> Check:
    total = teardown.keys_of(keys, seen.roster, seen.sandbox)
    left = total and not seen.sandbox.live
    message = counted(total, "key is left", "keys are left") if left else counted(total, "key")
    return Check(name="keys", level=Level.UNHEALTHY if left else Level.HEALTHY, message=message)


def _events(messaging: StreamReader) -> Check:
    """Whether there is a stream that takes the sandbox's events, and a consumer that hands them on."""
    expected: list[streams.Config] = [*streams.expected_streams(), *streams.expected_consumers()]
    wrong: list[str] = []
    for each in streams.check(messaging, filter(_sandboxes, expected)):
        if each.condition is streams.Condition.MISSING:
            wrong.append(f"{each.expected.where} is missing")
        # How many replicas there should be is production's own business.
        wrong += [str(drift) for drift in each.drift if drift.field != "replicas"]
    if wrong:
        return Check(name="events", level=Level.DEGRADED, message="; ".join(wrong))
    return Check(name="events", level=Level.HEALTHY, message="stream and consumer as expected")


def _sandboxes(config: streams.Config) -> bool:
    return "SANDBOX" in (config.name, getattr(config, "stream", None))
