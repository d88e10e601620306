"""How long things take: the status command step by step, and Redis' answers, with what it says of its own delays."""

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sandbox import health, registry
from sandbox.errors import Busy
from sandbox.model import Status
from sandbox.ports import KeyReader, KeyServer, SqlReader, StreamReader

__all__ = [
    "SEE_INFO",
    "SEE_LATENCY",
    "SEE_SLOWLOG",
    "SEE_STATUS",
    "Latency",
    "RedisState",
    "Step",
    "Timed",
    "histogram",
    "read_redis",
    "sample",
    "time_status",
]

SEE_STATUS = "time gaib sandbox status {name}"
SEE_LATENCY = "redis-cli --latency-history -i 1; redis-cli LATENCY LATEST  # +latency"
SEE_SLOWLOG = "redis-cli SLOWLOG GET 10  # +slowlog"
SEE_INFO = "redis-cli INFO  # +info"

_PINGS, _SECONDS = 300, 1.0
_BUCKETS = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1000.0)  # milliseconds, at most
_LIVE = frozenset(Status) - {Status.DESTROYED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of the status command. `seconds` is None where it did not end in time; `trouble` why there is no answer."""

    name: str
    seconds: float | None
    said: str = ""
    trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """The status command's work, timed: about a sandbox, or where there is none, the listing.

    `locked`: its look-up gave up waiting for a lock. The interpreter's start is not in it.
    """

    what: str
    seconds: float
    steps: tuple[Step, ...]
    sandbox: str = ""
    locked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long PINGs took, in milliseconds, the quickest first. There is one at least."""

    milliseconds: tuple[float, ...]

    def percentile(self, share: float) -> float:
        """Return what this share of the PINGs, at the most, took."""
        return self.milliseconds[min(len(self.milliseconds) - 1, int(len(self.milliseconds) * share))]

    @property
    def most(self) -> float:
        """What the slowest took."""
        return self.milliseconds[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisState:
    """What INFO says. Bytes; `most_memory` and `most_clients` are limits, None: there is none, or it is not told.

    `fork_seconds` is how long the last fork stopped it; `now` is the server's clock, UTC. Of a cluster, `node` is the
    primary that this is about, the fullest, and `keys` are those of all; else it is empty.
    """

    product: str
    now: datetime
    used_memory: int
    most_memory: int | None
    policy: str
    evicted: int
    clients: int
    most_clients: int | None
    blocked: int
    keys: int
    fork_seconds: float
    aof_delayed: int
    node: str

    @property
    def memory_used(self) -> float | None:
        """The share of its memory that is used; None where there is no limit."""
        return self.used_memory / self.most_memory if self.most_memory else None


def time_status(
    sql: SqlReader, keys: KeyReader, streams: StreamReader, *, sandbox: str, now: datetime
) -> Timed:
    """Do what `gaib sandbox status` does, and time it: for a sandbox by name, else the newest that is alive.

    Raises SandboxError 004 where there is none of this name, Unreachable or Denied where the look-up cannot be made.
    """
    began = time.monotonic()
    try:
        name = sandbox or _newest(sql)
        if name is None:
            return _listing(sql, began)
        began = time.monotonic()
        seen = health.examine(sql, keys, streams, name, now=now)
    except Busy as error:
        step = Step(name="look-up", seconds=time.monotonic() - began, trouble=str(error))
        what = f"the status of {sandbox}" if sandbox else "the status of a sandbox"
        return Timed(what=what, seconds=step.seconds or 0.0, steps=(step,), sandbox=sandbox, locked=True)
    seconds = time.monotonic() - began
    steps = tuple(
        _step(check) for check in seen.checks if check.name != "schema"
    )  # it is seen in the look-up
    return Timed(what=f"the status of {name}", seconds=seconds, steps=steps, sandbox=name)


def sample(server: KeyServer, *, count: int = _PINGS, seconds: float = _SECONDS) -> Latency:
    """PING over a second, so that a delay that comes now and then is met, too; fewer times where answers are slow.

    Raises Busy while a script blocks Redis, Unreachable or Denied.
    """
    server.ping()  # the first one connects
    found: list[float] = []
    end = time.monotonic() + seconds
    while len(found) < count and (not found or time.monotonic() < end):
        found.append(server.ping() * 1000)
        time.sleep(seconds / count)
    return Latency(milliseconds=tuple(sorted(found)))


def histogram(latency: Latency) -> list[tuple[str, int]]:
    """Return how many PINGs took at most so long, the empty ends left out. Pure."""
    bounds = [0.0, *_BUCKETS, float("inf")]
    counts = [
        (low, high, sum(low < each <= high for each in latency.milliseconds))
        for low, high in itertools.pairwise(bounds)
    ]
    filled = [number for number, (_, _, count) in enumerate(counts) if count]
    kept = counts[filled[0] : filled[-1] + 1] if filled else []
    return [
        (f"≤ {high:g} ms" if high < float("inf") else f"> {low:g} ms", count) for low, high, count in kept
    ]


def read_redis(server: KeyServer) -> RedisState:
    """Return what INFO says. Raises Denied, Busy or Unreachable."""
    return state_of(server.info())


def state_of(facts: Mapping[str, Any]) -> RedisState:
    """Read INFO, of Redis 6 to 8 and Valkey. Pure."""
    usec = facts.get("server_time_usec")
    name, version = str(facts.get("server_name", "redis")), facts.get("valkey_version")
    return RedisState(
        product=f"{name} {version or facts.get('redis_version', '')}".strip(),
        now=datetime.fromtimestamp(int(usec) / 1_000_000, UTC) if usec else datetime.now(UTC),
        used_memory=int(facts.get("used_memory", 0)),
        most_memory=int(facts.get("maxmemory", 0)) or None,
        policy=str(facts.get("maxmemory_policy", "")),
        evicted=int(facts.get("evicted_keys", 0)),
        clients=int(facts.get("connected_clients", 0)),
        most_clients=int(facts.get("maxclients", 0)) or None,
        blocked=int(facts.get("blocked_clients", 0)),
        keys=sum(
            int(found["keys"])
            for database, found in facts.items()
            if database.startswith("db") and isinstance(found, Mapping) and "keys" in found
        ),
        fork_seconds=int(facts.get("latest_fork_usec", 0)) / 1_000_000,
        aof_delayed=int(facts.get("aof_delayed_fsync", 0)),
        node=str(facts.get("cluster_node", "")),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Name:
    name: str


def _newest(sql: SqlReader) -> str | None:
    with sql.snapshot() as snapshot:
        found = snapshot.rows("read/plans/newest", _Name)
    return found[0].name if found else None


def _listing(sql: SqlReader, began: float) -> Timed:
    """There is no sandbox to ask for: the listing asks the same tables."""
    with sql.snapshot() as snapshot:
        registry.listing(snapshot, owner=None, statuses=_LIVE)
    seconds = time.monotonic() - began
    step = Step(name="listing", seconds=seconds, said="no sandbox is alive")
    return Timed(what="the listing, as no sandbox is alive", seconds=seconds, steps=(step,))


def _step(check: health.Check) -> Step:
    trouble = check.message if check.level is health.Level.UNKNOWN else ""
    name = "look-up" if check.name == "status" else check.name
    return Step(name=name, seconds=check.seconds, said="" if trouble else check.message, trouble=trouble)
