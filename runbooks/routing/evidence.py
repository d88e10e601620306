"""The way that events take to sandboxes: what is known of its parts, and of one guild's or sandbox's own way.

Nothing here changes anything.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from diagnostics.alarms import Alarm, read_alarm
from diagnostics.circling import Circling, read_circling
from diagnostics.compute import Service, TaskRun, read_service, read_tasks
from diagnostics.grouping import ErrorGroup
from diagnostics.logs import LogReport, read_errors
from diagnostics.postgres import Connections, connections
from diagnostics.reach import Reach, reach_nats, reach_postgres, reach_redis
from diagnostics.routes import Cached, Routes, read_cached, read_routes
from diagnostics.servers import Cache, read_cache
from diagnostics.stack import Stack
from diagnostics.streams import Messaging, read_messaging
from runbooks.engine.systems import Readers
from runbooks.engine.work import Result
from sandbox import registry, streams
from sandbox.errors import ArrakisError, Missing, SandboxError
from sandbox.facts import Fact, Known, Unknown
from sandbox.facts import gather as gather_facts
from sandbox.limits import check_guild, check_name
from sandbox.model import Message, Sandbox

__all__ = ["ALARM", "MOST_MESSAGES", "Asked", "Evidence", "Heard", "Way", "Workers", "gather"]

ALARM = "sandbox-routing-errors"

WINDOW = timedelta(hours=6)
"""How far back the log and the metric are read."""

MOST_MESSAGES = 100
"""How many of a sandbox's messages are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """The service that the EventRouter runs in, None where there is none, and its tasks, the newest first."""

    service: Service | None
    tasks: tuple[TaskRun, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Whose way is asked for: the guilds, and the sandbox that they are mapped to, of any status; None where to none."""

    guilds: tuple[str, ...]
    sandbox: Sandbox | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What is on a sandbox's subjects now, at most MOST_MESSAGES, and who listens to it in particular."""

    messages: tuple[Message, ...]
    listeners: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The way of what was asked for: what the table says, what is cached, what is on its subjects and who listens.

    `whole`: of a sandbox and all its guilds, not of one guild.
    """

    asked: Fact[Asked]
    cached: Fact[tuple[Cached, ...]]
    heard: Fact[Heard]
    whole: bool = False

    @property
    def guilds(self) -> tuple[str, ...]:
        """The guilds, as far as they are known."""
        return self.asked.value.guilds if isinstance(self.asked, Known) else ()

    @property
    def sandbox(self) -> Sandbox | None:
        """The sandbox, as far as it is known."""
        return self.asked.value.sandbox if isinstance(self.asked, Known) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was seen. `now` is this host's clock; `way` is None where nobody asked for one in particular.

    `canary` is what became of one, or why none was sent; None where nobody asked for that.
    """

    now: datetime
    stack: Stack
    alarm: Fact[Alarm | None]
    nats: Fact[Reach]
    postgres: Fact[Reach]
    redis: Fact[Reach]
    workers: Fact[Workers]
    messaging: Fact[Messaging]
    circling: Fact[Circling]
    routes: Fact[Routes]
    errors: Fact[LogReport]
    connections: Fact[Connections]
    cache: Fact[Cache]
    way: Way | None = None
    canary: Fact[tuple[Result, ...]] | None = None

    @property
    def groups(self) -> tuple[ErrorGroup, ...]:
        """The errors of the worker's log, as far as it was read."""
        return self.errors.value.groups if isinstance(self.errors, Known) else ()


def gather(
    readers: Readers,
    *,
    now: datetime,
    deadline: float,
    stack: Stack,
    guild: str | None = None,
    sandbox: str | None = None,
) -> Evidence:
    """Read everything side by side, within `deadline` seconds; of a guild or sandbox, first of all what the table says.

    Raises ArrakisError for what can be no guild's id or sandbox's name, the empty one too: that asks about one, not about
    all; and for both. Raises SandboxError for a sandbox that is not there.
    """
    asked, left = None, deadline
    if guild is not None and sandbox is not None:
        raise ArrakisError(
            "a guild and a sandbox are two ways to ask", hint="say --guild ID or --sandbox NAME"
        )
    if guild is not None:
        check_guild(guild)
    if sandbox is not None:
        check_name(sandbox)
    if guild or sandbox:
        probe = {"asked": lambda: _asked(readers, guild=guild, sandbox=sandbox)}
        asked = gather_facts(probe, deadline=deadline * 0.3)["asked"]
        left = deadline * 0.7
        if isinstance(asked, Unknown) and isinstance(asked.error, SandboxError):
            raise asked.error
    known = asked.value if isinstance(asked, Known) else None
    own = _own(readers, known, guild) if asked else {}
    seen = gather_facts({**_shared(readers, now, stack, budget=left * 0.8), **own}, deadline=left)
    way = None
    if asked:
        untold = Unknown("no sandbox is known to ask about")
        own_facts = {name: seen.pop(name, untold) for name in ("cached", "heard")}
        way = Way(asked=asked, whole=sandbox is not None, **own_facts)
    return Evidence(now=now, stack=stack, way=way, **seen)


def _shared(readers: Readers, now: datetime, stack: Stack, *, budget: float) -> dict[str, Callable[[], Any]]:
    aws = readers.aws

    def used() -> Connections:
        with readers.sql.snapshot() as snapshot:
            return connections(snapshot)

    return {
        "alarm": lambda: read_alarm(aws, suffix=ALARM, prefix=stack.alarm_prefix, now=now, window=WINDOW),
        "nats": lambda: reach_nats(readers.streams),
        "postgres": lambda: reach_postgres(readers.sql),
        "redis": lambda: reach_redis(readers.keys),
        "workers": lambda: _workers(readers, stack),
        "messaging": lambda: read_messaging(readers.streams, replicas=stack.stream_replicas),
        "circling": lambda: read_circling(readers.streams),
        "routes": lambda: read_routes(readers.sql, readers.keys),
        "errors": lambda: read_errors(aws, stack.worker_logs, begin=now - WINDOW, end=now, budget=budget),
        "connections": used,
        "cache": lambda: read_cache(aws, identifier=stack.cache, now=now, window=WINDOW),
    }


def _own(readers: Readers, asked: Asked | None, guild: str | None) -> dict[str, Callable[[], Any]]:
    """The probes of one way; without the table, a guild's cached route can still be looked at."""
    guilds = asked.guilds if asked else tuple(filter(None, (guild,)))
    probes: dict[str, Callable[[], Any]] = {}
    if guilds:
        probes["cached"] = lambda: tuple(read_cached(readers.keys, guilds))
    if asked and (row := asked.sandbox):
        probes["heard"] = lambda: _heard(readers, row)
    return probes


def _asked(readers: Readers, *, guild: str | None, sandbox: str | None) -> Asked:
    with readers.sql.snapshot() as snapshot:
        if guild:
            return Asked(guilds=(guild,), sandbox=registry.mapped_to(snapshot, guild))
        row = registry.by_name(snapshot, sandbox or "")
        if row is None:
            raise registry.not_found(sandbox or "")
        return Asked(guilds=tuple(registry.guilds(snapshot, row.id)), sandbox=row)


def _heard(readers: Readers, row: Sandbox) -> Heard:
    try:
        messages = streams.read(readers.streams, row.id, MOST_MESSAGES)
    except Missing:  # that there is no stream is told elsewhere
        messages = []
    heard = streams.listeners(readers.streams.subscriptions(), str(row.id))
    return Heard(messages=tuple(messages), listeners=tuple(heard))


def _workers(readers: Readers, stack: Stack) -> Workers:
    service = read_service(readers.aws, cluster=stack.cluster, name=stack.worker_service)
    family = service.family if service else ""
    tasks = read_tasks(readers.aws, cluster=stack.cluster, family=family) if family else ()
    return Workers(service=service, tasks=tasks)
