"""What the status command's slowness may come from: everything that is looked at, and what follows from it. Pure but for `gather`."""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from diagnostics import explain, indexes, latency, load, reach, waiting
from diagnostics.explain import Fault, Flaw, Plan
from diagnostics.indexes import EXPECTED, Expected, Index, Progress, Table
from diagnostics.latency import Latency, RedisState, Timed
from diagnostics.load import Load
from diagnostics.reach import Reach
from diagnostics.servers import Cache, Instance
from diagnostics.sessions import Session, read_sessions
from diagnostics.stack import Stack
from diagnostics.waiting import Tree
from runbooks.engine.systems import Readers
from runbooks.remedies.sessions import Unheeded, read_unheeded
from sandbox import health, registry
from sandbox.errors import Busy, SandboxCode, SandboxError
from sandbox.facts import Fact, Known, Unknown
from sandbox.facts import gather as gather_facts
from sandbox.limits import check_name
from sandbox.model import Status
from sandbox.ports import LatencyEvent, SlowCommand

__all__ = [
    "PATIENCE",
    "Barrier",
    "Evidence",
    "Lock",
    "Waiting",
    "barriers",
    "being_made",
    "gather",
    "lacking",
    "misleading",
    "script_blocks",
]

PATIENCE = timedelta(seconds=2)
"""For as long as a lock may be held, or waited for, before it is more than work."""

FELT = 10.0
"""Milliseconds that a statement may take before a wrong plan is felt: with an index it takes well under one."""

_MISLED = (Flaw.ESTIMATE, Flaw.SEQUENTIAL, Flaw.REMOVED)  # what wrong statistics make of a plan
_SHARE = 0.55  # of the deadline, for what is timed alone
_EXCLUSIVE = "AccessExclusiveLock"
_SLOW_COMMANDS = 20
_LIVE = frozenset(Status) - {Status.DESTROYED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """A lock on a control table that a session holds or awaits; pid 0 is a prepared transaction."""

    pid: int
    table: str
    mode: str
    granted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Who is connected, and who holds or awaits locks on the control tables; `now` is the server's clock."""

    now: datetime
    sessions: tuple[Session, ...]
    locks: tuple[Lock, ...]

    @property
    def trees(self) -> tuple[Tree, ...]:
        """Who keeps whom waiting; that this very look waits too is left out."""
        return waiting.trees([each for each in self.sessions if not (each.ours and each.blocked_by)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Barrier:
    """What bars readers from control tables: the root of whoever holds them, or stands first in line for them."""

    tree: Tree
    tables: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was seen. The plans are of the status command's own statements, in the order in which it runs them; the last one is
    of counting an owner's sandboxes, which whoever creates one waits for.
    """

    now: datetime
    stack: Stack
    timed: Fact[Timed]
    postgres: Fact[Reach]
    redis: Fact[Reach]
    nats: Fact[Reach]
    plans: Fact[tuple[Plan, ...]]
    indexes: Fact[tuple[Index, ...]]
    building: Fact[tuple[Progress, ...]]
    tables: Fact[tuple[Table, ...]]
    waiting: Fact[Waiting]
    unheeded: Fact[tuple[Unheeded, ...]]
    latency: Fact[Latency]
    state: Fact[RedisState]
    slow_commands: Fact[list[SlowCommand]]
    latency_events: Fact[list[LatencyEvent]]
    database: Fact[tuple[Instance, Load]]
    cache: Fact[tuple[Cache, tuple[Load, ...]]]


def gather(
    readers: Readers, *, now: datetime, deadline: float, stack: Stack, sandbox: str | None = None
) -> Evidence:
    """Time the command alone, so that nothing else slows it; then read the rest side by side. Bounded by `deadline` s.

    Raises SandboxError 004 where no sandbox has the name that is asked about, ArrakisError where none could.
    """
    if sandbox is not None:
        check_name(sandbox)
    began = time.monotonic()
    sql, keys, server, aws = readers.sql, readers.keys, readers.cache, readers.aws
    timed = gather_facts(
        {
            "timed": lambda: latency.time_status(sql, keys, readers.streams, sandbox=sandbox or "", now=now),
            "postgres": lambda: reach.reach_postgres(sql),
            "redis": lambda: reach.reach_redis(keys),
            "nats": lambda: reach.reach_nats(readers.streams),
        },
        deadline=deadline * _SHARE,
    )
    _insist_on_name(timed["timed"])
    probes = {
        "plans": lambda: _plans(readers, timed["timed"]),
        "indexes": lambda: _indexes(readers),
        "building": lambda: _building(readers),
        "tables": lambda: _tables(readers),
        "waiting": lambda: _waiting(readers),
        "unheeded": lambda: read_unheeded(sql),
        "latency": lambda: latency.sample(server),
        "state": lambda: latency.read_redis(server),
        "slow_commands": lambda: server.slow_commands(_SLOW_COMMANDS),
        "latency_events": server.latency_events,
        "database": lambda: load.read_database_load(aws, identifier=stack.database_instance, now=now),
        "cache": lambda: load.read_cache_load(aws, identifier=stack.cache, now=now),
    }
    rest = gather_facts(probes, deadline=max(1.0, deadline - (time.monotonic() - began)))
    return Evidence(now=now, stack=stack, **timed, **rest)


def barriers(evidence: Evidence) -> list[Barrier]:
    """Return what has barred readers from the control tables for longer than work takes, the most waited for first."""
    if isinstance(evidence.waiting, Unknown):
        return []
    seen = evidence.waiting.value
    by_pid, found = {each.pid: each for each in seen.sessions}, dict[int, set[str]]()
    for lock in seen.locks:
        if lock.mode == _EXCLUSIVE:
            for root in _roots(lock.pid, by_pid):
                found.setdefault(root, set()).add(lock.table)
    trees = {tree.pid: tree for tree in seen.trees}
    told = []
    for pid, tables in found.items():
        session = by_pid.get(pid)
        since = session.transaction_since if session else None
        if since is None or seen.now - since >= PATIENCE:
            tree = trees.get(pid) or Tree(pid=pid, session=session)
            told.append(Barrier(tree=tree, tables=tuple(sorted(tables))))
    return sorted(told, key=lambda each: (-each.tree.behind, each.tree.pid))


def lacking(evidence: Evidence) -> list[tuple[Expected, Fault | None]]:
    """Return the indexes that are missing or cannot be used, each with what the plans show of it; None: nothing is felt."""
    if isinstance(evidence.indexes, Unknown):
        return []
    found = evidence.indexes.value
    wanting = [
        each
        for each in EXPECTED.values()
        if not (index := indexes.stands_for(each, found)) or not index.usable
    ]
    return [(each, next(_hurt(each, evidence), None)) for each in wanting]


def being_made(expected: Expected, evidence: Evidence) -> Progress | None:
    """Return how far an index has come that somebody makes at this moment; None where nobody is seen to."""
    if not isinstance(evidence.building, Known):
        return None
    return next((each for each in evidence.building.value if each.index == expected.name), None)


def misleading(evidence: Evidence) -> list[tuple[Table, Fault | None]]:
    """Return the tables whose statistics are stale, each with what the plans show of it; None: nothing is felt."""
    if isinstance(evidence.tables, Unknown):
        return []
    blamed = [fault for _, fault in lacking(evidence)]
    told = []
    for table in evidence.tables.value:
        if table.stale:
            faults = (
                fault
                for plan, fault in _faults(evidence)
                if fault.flaw in _MISLED
                and fault.node.relation == table.name
                and plan.milliseconds >= FELT
                and fault not in blamed
            )
            told.append((table, next(faults, None)))
    return told


def script_blocks(evidence: Evidence) -> bool:
    """Whether Redis said to anybody that a script blocks it."""
    asked = (evidence.latency, evidence.state, evidence.slow_commands, evidence.latency_events)
    return any(isinstance(fact, Unknown) and isinstance(fact.error, Busy) for fact in asked)


def _insist_on_name(fact: Fact[Timed]) -> None:
    """A name that no sandbox has is the asker's mistake, and nothing that is unknown."""
    error = fact.error if isinstance(fact, Unknown) else None
    if isinstance(error, SandboxError) and error.code is SandboxCode.NOT_FOUND:
        raise error


def _plans(readers: Readers, timed: Fact[Timed]) -> tuple[Plan, ...]:
    """Explain what the status command asks PostgreSQL, with its own values; without a sandbox, what the listing asks."""
    name = timed.value.sandbox if isinstance(timed, Known) else ""
    with readers.sql.snapshot() as snapshot:
        explained = explain.Explained(snapshot)
        if name:
            seen = health.look_up(explained, name)
            registry.live_count(explained, seen.sandbox.owner)
        else:
            registry.listing(explained, owner=None, statuses=_LIVE)
        return tuple(explained.plans)


def _indexes(readers: Readers) -> tuple[Index, ...]:
    with readers.sql.snapshot() as snapshot:
        return indexes.read_indexes(snapshot)


def _building(readers: Readers) -> tuple[Progress, ...]:
    with readers.sql.snapshot() as snapshot:
        return indexes.read_building(snapshot)


def _tables(readers: Readers) -> tuple[Table, ...]:
    with readers.sql.snapshot() as snapshot:
        return indexes.read_tables(snapshot)


def _waiting(readers: Readers) -> Waiting:
    with readers.sql.snapshot() as snapshot:
        return Waiting(
            sessions=read_sessions(snapshot, tag=readers.tag),
            locks=tuple(snapshot.rows("read/plans/control_locks", Lock)),
            now=registry.now(snapshot),
        )


def _roots(pid: int, by_pid: Mapping[int, Session]) -> set[int]:
    """The sessions whose end a session waits for: itself if it waits for nobody."""
    found, seen, level = set[int](), {pid}, [pid]
    while level:
        following = []
        for each in level:
            blockers = by_pid[each].blocked_by if each in by_pid else ()
            if not blockers:
                found.add(each)
            following += [blocker for blocker in blockers if blocker not in seen]
            seen.update(blockers)
        level = following
    return found


def _hurt(expected: Expected, evidence: Evidence) -> Iterator[Fault]:
    """Yield where the plans go through the table for want of this index: by its first column, row by row."""
    column = re.compile(rf"\b{re.escape(expected.columns[0])}\b")
    for _, fault in _faults(evidence):
        wasted = fault.flaw in (Flaw.SEQUENTIAL, Flaw.REMOVED)
        if wasted and fault.node.relation == expected.table and column.search(fault.node.condition):
            yield fault


def _faults(evidence: Evidence) -> Iterator[tuple[Plan, Fault]]:
    for plan in evidence.plans.value if isinstance(evidence.plans, Known) else ():
        for fault in explain.flaws(plan):
            yield plan, fault
