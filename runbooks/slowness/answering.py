"""How the servers answer the status command: Redis, the way to each of them, and what CloudWatch says of them. Pure."""

from typing import Any

from diagnostics import reach
from diagnostics.latency import SEE_INFO, SEE_LATENCY, SEE_SLOWLOG, RedisState, histogram
from diagnostics.load import Load
from diagnostics.reach import Reach
from runbooks.engine.model import Finding, Resource, Severity
from runbooks.findings import cache_finding, instance_finding, reach_finding, unknown
from runbooks.probing import part
from runbooks.reports.plot import bars
from runbooks.slowness.evidence import Evidence, script_blocks
from runbooks.slowness.hindrances import DRAWN, loads, recent, redis_is_slow
from sandbox.facts import Fact, Unknown
from sandbox.text import counted, moment

__all__ = ["SLOW_LOGIN", "server_findings"]

SLOW_LOGIN = 1_500.0
"""Milliseconds for a connection with TLS and login, and one answer."""

_FULL = 0.9  # of memory, or of clients
_SHOWN = 5


def server_findings(evidence: Evidence) -> list[Finding]:
    """Return how Redis answers, how long connecting takes, and how hard the managed servers work."""
    return [*_redis(evidence), *_connecting(evidence), *_load(evidence)]


def _redis(evidence: Evidence) -> list[Finding]:
    if script_blocks(evidence):  # the cause says it, and nothing else can be asked
        return []
    return [_latency(evidence), *_state(evidence), _slowlog(evidence), _events(evidence)]


def _latency(evidence: Evidence) -> Finding:
    if isinstance(evidence.latency, Unknown):
        return unknown("Redis latency", evidence.latency, source=SEE_LATENCY)
    seen = evidence.latency.value
    p50, p95, p99 = (seen.percentile(share) for share in (0.5, 0.95, 0.99))
    told = (
        f"{len(seen.milliseconds)} PINGs: p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f}, max {seen.most:.1f} ms"
    )
    return Finding(
        check="Redis latency",
        severity=Severity.WARNING if redis_is_slow(evidence) else Severity.OK,
        summary=told,
        evidence={
            "p50": p50,
            "p95": p95,
            "p99": p99,
            "max": seen.most,
            "drawn": bars(histogram(seen), width=DRAWN),
        },
        source=SEE_LATENCY,
    )


def _state(evidence: Evidence) -> list[Finding]:
    if isinstance(evidence.state, Unknown):
        return [unknown("Redis state", evidence.state, source=SEE_INFO)]
    seen = evidence.state.value
    limit = f" of {seen.most_memory / 2**20:,.0f} MB" if seen.most_memory else " MB"
    clients = f"{seen.clients} of {seen.most_clients}" if seen.most_clients else str(seen.clients)
    full = [what for what, share in _shares(seen) if share >= _FULL]
    details = [
        f"{seen.evicted:,} keys evicted so far, {seen.blocked} clients in a blocking command",
        f"the last fork stopped it for {seen.fork_seconds * 1000:.0f} ms, {seen.aof_delayed} writes waited for the disk (AOF)",
    ]
    if seen.node:
        details.append(
            f"it is a cluster: of its primaries {seen.node} is the fullest, and the keys are those of all"
        )
    summary = f"{seen.product}: {seen.used_memory / 2**20:,.1f}{limit} used ({seen.policy}), {clients} clients, {seen.keys:,} keys"
    return [
        Finding(
            check="Redis state",
            severity=Severity.WARNING if full else Severity.OK,
            summary=summary + (f": its {' and its '.join(full)} are nearly full" if full else ""),
            evidence={"details": details},
            source=SEE_INFO,
        )
    ]


def _shares(seen: RedisState) -> list[tuple[str, float]]:
    clients = seen.clients / seen.most_clients if seen.most_clients else 0.0
    return [("memory", seen.memory_used or 0.0), ("clients", clients)]


def _slowlog(evidence: Evidence) -> Finding:
    """What SLOWLOG has: past delays are told; present ones are a cause."""
    if isinstance(evidence.slow_commands, Unknown):
        return unknown("slow commands", evidence.slow_commands, source=SEE_SLOWLOG)
    found = sorted(evidence.slow_commands.value, key=lambda each: -each.seconds)
    now = f", {len(recent(evidence))} of them within the last minute" if found else ""
    return Finding(
        check="slow commands",
        severity=Severity.OK,
        summary=f"SLOWLOG has {len(found)} commands{now}" if found else "SLOWLOG is empty",
        evidence={
            "details": [
                f"{moment(each.at, exact=True)} {each.seconds * 1000:.1f} ms {each.command}, from {each.client or '?'}"
                for each in found[:_SHOWN]
            ]
        },
        source=SEE_SLOWLOG,
    )


def _events(evidence: Evidence) -> Finding:
    if isinstance(evidence.latency_events, Unknown):
        return unknown("latency events", evidence.latency_events, source=SEE_LATENCY)
    found = evidence.latency_events.value
    details = [
        f"{each.event}: {each.seconds * 1000:.0f} ms at {moment(each.at, exact=True)}, at most {each.longest * 1000:.0f} ms"
        for each in found[:_SHOWN]
    ]
    summary = (
        f"LATENCY has seen {counted(len(found), 'kind')} of delay"
        if found
        else "LATENCY has nothing, or is switched off"
    )
    return Finding(
        check="latency events",
        severity=Severity.OK,
        summary=summary,
        evidence={"details": details},
        source=SEE_LATENCY,
    )


def _connecting(evidence: Evidence) -> list[Finding]:
    """How long it takes to connect: TCP, then TLS, the login and one answer."""
    seen: tuple[tuple[str, Fact[Reach], str], ...] = (
        ("PostgreSQL", evidence.postgres, reach.SEE_POSTGRES),
        ("Redis", evidence.redis, reach.SEE_REDIS),
        ("NATS", evidence.nats, reach.SEE_NATS),
    )
    return [_reached(name, fact, evidence, source=source) for name, fact, source in seen]


def _reached(name: str, fact: Fact[Reach], evidence: Evidence, *, source: str) -> Finding:
    if isinstance(fact, Unknown):
        if name == "Redis" and script_blocks(evidence):
            summary = "Redis takes connections, and answers nobody while a script blocks it"
            return Finding(check=name, severity=Severity.WARNING, summary=summary, source=source)
        return reach_finding(name, fact, source=source)
    tcp, answered = fact.value.connected_ms, fact.value.answered_ms
    summary = (
        f"{name} at {fact.value.host}: TCP takes {tcp:.1f} ms, TLS, login and one answer {answered:.0f} ms"
    )
    return Finding(
        check=name,
        severity=Severity.WARNING if answered >= SLOW_LOGIN else Severity.OK,
        summary=summary,
        evidence={"connected_ms": tcp, "answered_ms": answered},
        source=source,
    )


def _load(evidence: Evidence) -> list[Finding]:
    found = [
        instance_finding(part(evidence.database, lambda pair: pair[0])),
        cache_finding(part(evidence.cache, lambda pair: pair[0])),
    ]
    return [*found, *(_loaded(load, source) for load, source in loads(evidence))]


def _loaded(load: Load, source: str) -> Finding:
    known = {name: metric.last for name, metric in load.metrics.items() if metric.last is not None}
    told = ", ".join(_figure(name, value) for name, value in known.items())
    summary = f"{load.name} is a {load.instance_class}: {told or 'nobody publishes how hard it works'}"
    if not load.metrics:
        summary = f"{load.name} is a {load.instance_class}: cannot tell how hard it works: its metrics cannot be read"
        return Finding(check="load", severity=Severity.UNKNOWN, summary=summary, source=source)
    if load.unread:
        summary += f"; {', '.join(load.unread)} cannot be read"
    if load.spent and not load.throttled_when_spent:
        summary += "; its CPU credits are used up, and it runs on surplus ones, which cost"
    wrong = load.busy or load.spent
    evidence: dict[str, Any] = {"metrics": known}
    return Finding(
        check="load",
        severity=Severity.WARNING if wrong else Severity.UNKNOWN if load.unread else Severity.OK,
        summary=summary,
        resource=Resource(kind="server", id=load.name),
        evidence=evidence,
        source=source,
    )


def _figure(name: str, value: float) -> str:
    words = {
        "CPUUtilization": f"CPU {value:.0f} %",
        "EngineCPUUtilization": f"engine CPU {value:.0f} %",
        "CPUCreditBalance": f"{value:.0f} CPU credits",
        "DatabaseConnections": f"{value:.0f} connections",
        "ReadLatency": f"reads {value * 1000:.1f} ms",
        "WriteLatency": f"writes {value * 1000:.1f} ms",
        "DBLoad": f"{value:.1f} sessions active on average",
    }
    return words[name]
