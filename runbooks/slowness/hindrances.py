"""Why the status command is slow: the causes that were seen for themselves, the deepest first. Pure.

A lock that bars readers explains every look-up, a script that blocks Redis every answer of it; an index or statistics are to
blame only where the command's own plans show it.
"""

import shlex
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from diagnostics import reach, waiting
from diagnostics.explain import Fault
from diagnostics.indexes import SEE_INDEXES, SEE_TABLES, Expected, Table, stands_for
from diagnostics.latency import SEE_LATENCY, SEE_SLOWLOG, SEE_STATUS
from diagnostics.load import SEE_CACHE_LOAD, SEE_DATABASE_LOAD, Load
from diagnostics.reach import Reach
from diagnostics.sessions import SEE_WAITING
from runbooks.engine.model import Finding, Resource
from runbooks.findings import cause
from runbooks.probing import dead_server
from runbooks.slowness.evidence import (
    Barrier,
    Evidence,
    barriers,
    being_made,
    lacking,
    misleading,
    script_blocks,
)
from sandbox.facts import Fact, Known
from sandbox.ports import SlowCommand
from sandbox.text import counted, moment

__all__ = [
    "DRAWN",
    "SLOW_PING",
    "STALL",
    "causes",
    "holder",
    "loads",
    "recent",
    "redis_is_slow",
    "statistics",
]

DRAWN = 71
"""Columns for what is drawn: a terminal's 80 without what stands before a finding's lines."""

SLOW_PING, STALL = 50.0, 250.0
"""Milliseconds: what one PING in twenty may take at most, and for how long slower ones may take together, of the second in
which they are sampled, without Redis being called slow."""

FAR = 250.0
"""Milliseconds for a TCP connection, above which the network is to blame."""

SLOW_WALK, MANY_KEYS = 2.0, 1_000_000
"""Seconds for the walk through all keys, and how many explain it: a million takes about 0.7 s."""

_LATELY = timedelta(minutes=1)  # a slow command that is older says nothing about now


def causes(evidence: Evidence) -> list[Finding]:
    """Return the causes that were seen for themselves, the one that explains the others first."""
    return [
        *dead_server("PostgreSQL", evidence.postgres, source=reach.SEE_POSTGRES),
        *(_locked(barrier, evidence) for barrier in barriers(evidence)),
        *_redis(evidence),
        *dead_server("NATS", evidence.nats, source=reach.SEE_NATS),
        *(_unindexed(expected, fault, evidence) for expected, fault in lacking(evidence) if fault),
        *(_misled(table, fault) for table, fault in misleading(evidence) if fault),
        *_throttled(evidence),
        *_far(evidence),
        *_walked(evidence),
    ]


def holder(barrier: Barrier, evidence: Evidence) -> str:
    """Say who bars readers."""
    tree, session = barrier.tree, barrier.tree.session
    if session is None:
        return "a prepared transaction" if tree.pid == waiting.PREPARED else f"process {tree.pid}"
    application = f" ({session.application})" if session.application else ""
    since = session.transaction_since
    seen = evidence.waiting
    age = f" for {waiting.age(seen.value.now - since)}" if since and isinstance(seen, Known) else ""
    return f"session {tree.pid} of {session.user}{application}, {session.state}{age},"


def recent(evidence: Evidence) -> list[SlowCommand]:
    """Return the slow commands of the last minute, by the server's clock."""
    if not isinstance(evidence.slow_commands, Known):
        return []
    now = evidence.state.value.now if isinstance(evidence.state, Known) else evidence.now
    return [each for each in evidence.slow_commands.value if now - each.at <= _LATELY]


def blocking(evidence: Evidence) -> list[SlowCommand]:
    """Return the slow commands of the last minute that explain a slow PING, the longest first."""
    long = (each for each in recent(evidence) if each.seconds * 1000 >= SLOW_PING)
    return sorted(long, key=lambda each: -each.seconds)


def redis_is_slow(evidence: Evidence) -> bool:
    """Whether Redis keeps its clients waiting: half of the PINGs, or fewer where a slow command explains it.

    A few slow PINGs that nothing at the server explains may be this host's own.
    """
    if not isinstance(evidence.latency, Known):
        return False
    seen = evidence.latency.value
    if blocking(evidence):
        # Who waits cannot PING: they are few.
        waited = sum(each for each in seen.milliseconds if each >= SLOW_PING)
        return waited >= STALL or seen.percentile(0.95) >= SLOW_PING
    return seen.percentile(0.5) >= SLOW_PING


def statistics(table: Table) -> str:
    """Say what the planner believes of a table, and what is so."""
    believed = "has never counted" if table.believed < 0 else f"works with {table.believed:,.0f}"
    when = moment(table.analyzed_at) if table.analyzed_at else "never"
    rows = "was not counted since the statistics were reset" if table.reset else f"has {table.live:,} rows"
    return f"{table.name} {rows}, the planner {believed}; analyzed {when}, {table.modified:,} changes since"


def loads(evidence: Evidence) -> Iterator[tuple[Load, str]]:
    """Yield each managed server's load that is known, and how a person sees it."""
    if isinstance(evidence.database, Known):
        load = evidence.database.value[1]
        yield load, SEE_DATABASE_LOAD.format(name=load.name)
    if isinstance(evidence.cache, Known):
        for load in evidence.cache.value[1]:
            yield load, SEE_CACHE_LOAD.format(name=load.name)


def _locked(barrier: Barrier, evidence: Evidence) -> Finding:
    tree = barrier.tree
    what = f"{holder(barrier, evidence)} keeps readers from {', '.join(barrier.tables)}"
    waits = f": {counted(tree.behind, 'session waits', 'sessions wait')}" if tree.behind else ""
    drawn = (
        waiting.drawn(tree, evidence.waiting.value.now, width=DRAWN)
        if isinstance(evidence.waiting, Known)
        else []
    )
    found = cause(what + waits, source=SEE_WAITING, resource=Resource(kind="session", id=str(tree.pid)))
    return replace(found, evidence={**found.evidence, "drawn": drawn})


def _redis(evidence: Evidence) -> Iterator[Finding]:
    if script_blocks(evidence):
        details = ["`redis-cli SCRIPT KILL` ends a script that has written nothing; its caller gets an error"]
        yield cause(
            "a script blocks Redis: it answers BUSY to everybody", details=details, source=SEE_LATENCY
        )
        return
    yield from dead_server("Redis", evidence.redis, source=reach.SEE_REDIS)
    if redis_is_slow(evidence) and isinstance(evidence.latency, Known):
        seen, slow = evidence.latency.value, blocking(evidence)
        blamed = f", blocked by {slow[0].command}" if slow else ", and its SLOWLOG names no command for it"
        what = f"Redis keeps its clients waiting: half of the PINGs take over {seen.percentile(0.5):.0f} ms{blamed}"
        if seen.percentile(0.5) < SLOW_PING:
            what = f"Redis keeps its clients waiting: a PING took {seen.most:.0f} ms{blamed}"
        details = [
            f"{moment(each.at, exact=True)} {each.seconds * 1000:.0f} ms {each.command}, from {each.client or '?'}"
            for each in slow[:3]
        ]
        if slow:
            at = f" at {slow[0].client}" if slow[0].client else ""
            details.append(f"nothing is ended from here: `redis-cli CLIENT LIST` names the client{at}")
        yield cause(what, details=details, source=SEE_SLOWLOG)


def _unindexed(expected: Expected, fault: Fault, evidence: Evidence) -> Finding:
    found = stands_for(expected, evidence.indexes.value) if isinstance(evidence.indexes, Known) else None
    what = f"index {expected.name} is invalid" if found else f"index {expected.name} is missing"
    progress = being_made(expected, evidence)
    if progress:
        what = f"index {expected.name} is not ready yet: session {progress.pid} makes it ({progress.told})"
    return cause(
        f"{what}: every look-up {fault.words}",
        source=SEE_INDEXES,
        resource=Resource(kind="index", id=expected.name),
    )


def _misled(table: Table, fault: Fault) -> Finding:
    off = " Its autovacuum is off." if table.autovacuum_off else ""
    return cause(
        f"the statistics of {table.name} are stale, and mislead the planner",
        details=[f"{statistics(table)}.{off}", fault.words],
        source=SEE_TABLES,
        resource=Resource(kind="table", id=table.name),
    )


def _throttled(evidence: Evidence) -> Iterator[Finding]:
    for load, source in loads(evidence):
        if load.spent and load.throttled_when_spent:
            yield cause(
                f"{load.name} has used up its CPU credits: a {load.instance_class} gets its baseline and no more",
                details=[
                    "wait for credits, find what needs the CPU, or move to a larger class or one that is not burstable"
                ],
                source=source,
            )


def _far(evidence: Evidence) -> Iterator[Finding]:
    sources = {"PostgreSQL": reach.SEE_POSTGRES, "Redis": reach.SEE_REDIS, "NATS": reach.SEE_NATS}
    seen: tuple[Fact[Reach], ...] = (evidence.postgres, evidence.redis, evidence.nats)
    for fact in seen:
        if isinstance(fact, Known) and fact.value.connected_ms >= FAR:
            what = f"the network: a TCP connection to {fact.value.system} takes {fact.value.connected_ms:.0f} ms from here"
            yield cause(what, source=sources[fact.value.system])


def _walked(evidence: Evidence) -> Iterator[Finding]:
    """Counting a sandbox's keys goes through all keys that there are: with very many that takes its time."""
    if not (isinstance(evidence.timed, Known) and isinstance(evidence.state, Known)) or redis_is_slow(
        evidence
    ):
        return
    walk = next((step for step in evidence.timed.value.steps if step.name == "keys"), None)
    total = evidence.state.value.keys
    if walk and (walk.seconds is None or walk.seconds >= SLOW_WALK) and total >= MANY_KEYS:
        yield cause(
            f"Redis has {total:,} keys, and the status command goes through all of them to count a sandbox's",
            source=SEE_STATUS.format(name=shlex.quote(evidence.timed.value.sandbox)),
        )
