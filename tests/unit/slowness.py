"""A status command that is quick, to be slowed down piece by piece."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from diagnostics.explain import Node, Plan
from diagnostics.indexes import EXPECTED, Index, Table
from diagnostics.latency import Latency, RedisState, Step, Timed
from diagnostics.load import Load, Metric
from diagnostics.reach import Reach
from diagnostics.servers import Cache, Instance
from diagnostics.sessions import Session
from diagnostics.stack import Stack
from runbooks.slowness.evidence import Evidence, Lock, Waiting
from sandbox.facts import Known
from sandbox.ports import SlowCommand

__all__ = [
    "EXCLUSIVE",
    "NOW",
    "database",
    "healthy",
    "indexes",
    "latency",
    "load",
    "node",
    "plan",
    "session",
    "slow_command",
    "state",
    "table",
    "timed",
    "waiting",
]

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
EXCLUSIVE = "AccessExclusiveLock"


def session(pid: int, *blocked_by: int, idle: timedelta = timedelta(0), **changes: Any) -> Session:
    """Return a session that has been at work for 5 minutes, or idle in its transaction for as long as it is said."""
    began = NOW - max(idle, timedelta(minutes=5))
    fields: dict[str, Any] = {
        "pid": pid,
        "user": "ada",
        "database": "arrakis",
        "application": "psql",
        "client": "10.0.0.7",
        "state": "idle in transaction" if idle else "active",
        "waits_for": "Lock: relation" if blocked_by else "",
        "backend_start": NOW - timedelta(hours=1),
        "transaction_since": began,
        "statement_since": began,
        "since": NOW - idle if idle else began,
        "query": f"SELECT {pid}",
        "superuser": False,
        "ours": False,
        "blocked_by": blocked_by,
        "may_signal": True,
    }
    return Session(**{**fields, **changes})


def waiting(*sessions: Session, locks: tuple[tuple[int, bool], ...] = ()) -> Known[Waiting]:
    """Return who is connected; `locks` are those who hold (True) or await the exclusive lock on the sandboxes' table."""
    held = tuple(Lock(pid=pid, table="sandboxes", mode=EXCLUSIVE, granted=granted) for pid, granted in locks)
    return Known(Waiting(now=NOW, sessions=sessions, locks=held))


def node(kind: str = "Index Scan", **changes: Any) -> Node:
    """Return a node that did a little: one row by an index of the sandboxes' table."""
    fields: dict[str, Any] = {
        "kind": kind,
        "relation": "sandboxes",
        "index": "sandboxes_name_unique" if "Index" in kind else "",
        "condition": "((name)::text = '…'::text)",
        "planned": 1.0,
        "seen": 1.0,
        "loops": 1.0,
        "milliseconds": 0.1,
        "hit": 3,
        "read": 0,
        "removed": 0.0,
        "spilled_kb": 0,
        "lossy": 0,
    }
    return Node(**{**fields, **changes})


def plan(root: Node | None = None, *, execution: float = 0.2, **changes: Any) -> Plan:
    """Return a statement's plan."""
    fields: dict[str, Any] = {"statement": "read/registry/by_name", "planning": 0.1, "jit": 0.0}
    return Plan(root=root or node(), execution=execution, **{**fields, **changes})


def indexes(*missing: str, **changed: Any) -> Known[tuple[Index, ...]]:
    """Return the migration's indexes but for some; `changed` has fields by an index' name."""
    found = []
    for each in EXPECTED.values():
        fields: dict[str, Any] = {
            "name": each.name,
            "table": each.table,
            "definition": each.definition,
            "valid": True,
            "ready": True,
            "constraint": each.name if each.constraint else None,
            "scans": 9,
            "since": None,
            "bytes": 8192,
            "needed": None,
        }
        if each.name not in missing:
            found.append(Index(**{**fields, **changed.get(each.name, {})}))
    return Known(tuple(found))


def table(name: str = "sandboxes", **changes: Any) -> Table:
    """Return a control table whose statistics are fresh."""
    fields: dict[str, Any] = {
        "name": name,
        "believed": 200_000.0,
        "live": 200_000,
        "dead": 10,
        "modified": 10,
        "analyzed_at": NOW - timedelta(hours=1),
        "bytes": 10**7,
        "autovacuum_off": False,
    }
    return Table(**{**fields, **changes})


def timed(**steps: float | None) -> Known[Timed]:
    """Return the status command timed; a step without seconds has not ended."""
    known = {"lookup": 0.02, "routes": 0.01, "keys": 0.05, "events": 0.03, **steps}
    told = tuple(
        Step(
            name="look-up" if name == "lookup" else name,
            seconds=seconds,
            said="" if seconds is None else "well",
            trouble="cannot tell: no answer within 4 s" if seconds is None else "",
        )
        for name, seconds in known.items()
    )
    whole = known["lookup"] or 0.0
    others = [seconds if seconds is not None else 4.0 for name, seconds in known.items() if name != "lookup"]
    return Known(Timed(what="the status of box", seconds=whole + max(others), steps=told, sandbox="box"))


def latency(*milliseconds: float) -> Known[Latency]:
    """Return a second of PINGs."""
    return Known(Latency(milliseconds=tuple(sorted(milliseconds or (0.1,) * 100))))


def state(**changes: Any) -> Known[RedisState]:
    """Return what INFO says of a Redis that is well."""
    fields: dict[str, Any] = {
        "product": "redis 7.0.15",
        "now": NOW,
        "used_memory": 10 * 2**20,
        "most_memory": 100 * 2**20,
        "policy": "volatile-lru",
        "evicted": 0,
        "clients": 10,
        "most_clients": 1000,
        "blocked": 0,
        "keys": 5000,
        "fork_seconds": 0.0,
        "aof_delayed": 0,
        "node": "",
    }
    return Known(RedisState(**{**fields, **changes}))


def slow_command(seconds: float = 0.3, *, ago: timedelta = timedelta(seconds=5)) -> SlowCommand:
    """Return a command that blocked Redis."""
    return SlowCommand(at=NOW - ago, seconds=seconds, command="EVAL", client="10.0.0.9:4711")


def load(kind: str = "db.t4g.medium", *, throttled: bool = False, **metrics: float) -> Load:
    """Return a server's load."""
    known = {name: Metric(name=name, points=((NOW, value),)) for name, value in metrics.items()}
    return Load(name="arrakis", instance_class=kind, throttled_when_spent=throttled, metrics=known)


def database(its: Load) -> Known[tuple[Instance, Load]]:
    """Return an RDS instance that is well, with its load."""
    instance = Instance(
        identifier="arrakis",
        status="available",
        engine="postgres",
        version="15.8",
        address="db",
        port=5432,
        storage_gib=20,
        security_groups=(),
        storage_left=10.0 * 2**30,
        connections=12.0,
        events=(),
    )
    return Known((instance, its))


def healthy(**changes: Any) -> Evidence:
    """Return evidence in which nothing is wrong, but for the changes."""
    cache = Cache(
        identifier="arrakis",
        status="available",
        members=("arrakis-001",),
        address="redis",
        port=6379,
        events=(),
        memory_used_percent=20.0,
    )
    seen = Evidence(
        now=NOW,
        stack=Stack(),
        timed=timed(),
        postgres=Known(Reach(system="PostgreSQL", host="db:5432", connected_ms=1, answered_ms=9)),
        redis=Known(Reach(system="Redis", host="redis:6379", connected_ms=1, answered_ms=2)),
        nats=Known(Reach(system="NATS", host="nats:4222", connected_ms=1, answered_ms=5)),
        plans=Known((plan(),)),
        indexes=indexes(),
        building=Known(()),
        tables=Known((table(),)),
        waiting=waiting(session(1), session(2)),
        unheeded=Known(()),
        latency=latency(),
        state=state(),
        slow_commands=Known([]),
        latency_events=Known([]),
        database=database(load(CPUUtilization=10, CPUCreditBalance=500)),
        cache=Known(
            (cache, (load("cache.t4g.small", throttled=True, EngineCPUUtilization=3, CPUCreditBalance=200),))
        ),
    )
    return replace(seen, **changes)
