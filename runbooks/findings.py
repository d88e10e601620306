"""What the procedures say about the things that several of them look at: an alarm, a server, a schedule.

Pure: facts in, findings out. Each names the command by which a person sees the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from diagnostics import alarms, compute, servers
from diagnostics.alarms import Alarm
from diagnostics.compute import Rule, Service, TaskRun
from diagnostics.reach import Reach
from diagnostics.servers import Access, Cache, Condition, Instance
from diagnostics.stack import Stack
from runbooks.engine.model import LEFT_ALONE, Finding, Resource, Severity
from sandbox.errors import Unreachable
from sandbox.facts import Fact, Unknown
from sandbox.text import moment

__all__ = [
    "CANNOT_TELL",
    "access_finding",
    "alarm_finding",
    "cache_finding",
    "cause",
    "instance_finding",
    "left_alone",
    "reach_finding",
    "rule_finding",
    "service_finding",
    "silence_once",
    "span",
    "tasks_finding",
    "unknown",
    "weight",
]

CANNOT_TELL = ": cannot tell: "
"""What stands between what cannot be told, and why."""

_SHOWN = 3  # events or tasks that are told
_STATES = {"OK": Severity.OK, "ALARM": Severity.CRITICAL, "INSUFFICIENT_DATA": Severity.UNKNOWN}


def cause(
    summary: str,
    *,
    details: Sequence[str] = (),
    source: str = "",
    resource: Resource | None = None,
) -> Finding:
    """Say what is the cause: something that was seen for itself, and explains the symptoms."""
    return Finding(
        check="cause",
        severity=Severity.CRITICAL,
        summary=f"cause: {summary}",
        resource=resource,
        evidence={"details": list(details)},
        source=source,
    )


def weight(reason: str) -> Severity:
    """Return how bad a reason against something is: one that cannot be told is unknown, any other a warning."""
    return Severity.UNKNOWN if reason.startswith("cannot tell") else Severity.WARNING


def left_alone(
    what: str,
    reason: str,
    *,
    resource: Resource | None = None,
    evidence: Mapping[str, Any] | None = None,
    source: str = "",
) -> Finding:
    """Say why nothing is proposed for something; a reason that cannot be told is unknown."""
    return Finding(
        check=LEFT_ALONE,
        severity=weight(reason),
        summary=f"{what}: {reason}",
        resource=resource,
        evidence=evidence or {},
        source=source,
    )


def unknown(check: str, fact: Unknown, *, source: str = "") -> Finding:
    """Say that something cannot be told, why, and what to do about it."""
    summary = f"{check}{CANNOT_TELL}{fact.reason}"
    return Finding(
        check=check,
        severity=Severity.UNKNOWN,
        summary=summary,
        evidence={"hint": fact.hint} if fact.hint else {},
        source=source,
    )


def silence_once(found: Sequence[Finding], asked: Mapping[str, Fact[Any]]) -> list[Finding]:
    """Say once that a server gave no answer at all, with all that is not known for it; a refusal is for each to say.

    `asked` has what it was asked, by the check that tells of it.
    """
    silent = [each for each in found if each.severity is Severity.UNKNOWN and _is_silent(asked, each.check)]
    if len(silent) < 2:
        return list(found)
    first, *others = silent
    told = f"{first.summary}; so nothing is known of {', '.join(each.check for each in others)}"
    kept = [each for each in found if all(each is not other for other in others)]
    return [replace(each, summary=told) if each is first else each for each in kept]


def _is_silent(asked: Mapping[str, Fact[Any]], check: str) -> bool:
    fact = asked.get(check)
    return isinstance(fact, Unknown) and (fact.error is None or isinstance(fact.error, Unreachable))


def alarm_finding(fact: Fact[Alarm | None], *, suffix: str, confirmed: bool, cleared: str) -> Finding:
    """Say how the alarm stands. One that fires over nothing found is as good as over: `cleared` says what it waits for."""
    if isinstance(fact, Unknown):
        found = unknown("alarm", fact, source=alarms.SEE_ALARM.format(name=suffix))
        return replace(found, resource=Resource(kind="alarm", id=suffix))
    alarm = fact.value
    if alarm is None:
        summary = f"there is no alarm {suffix} in this account and region"
        source = alarms.SEE_ALARM.format(name=suffix)
        return Finding(
            check="alarm",
            severity=Severity.WARNING,
            summary=summary,
            resource=Resource(kind="alarm", id=suffix),
            source=source,
        )
    last = f"last value {alarm.points[-1][1]:g}" if alarm.points else f"blind: {alarm.metric} has no data"
    if alarm.quiet:
        last = f"no {alarm.metric} were counted: there were none, or nobody counts them"
    summary = f"alarm {alarm.name} is {alarm.state}: threshold {alarm.threshold:g}, {last}"
    severity = Severity.WARNING if alarm.blind else Severity.OK
    if alarm.state == "ALARM":
        severity = Severity.CRITICAL if confirmed else Severity.OK
        summary += "" if confirmed else f"; {cleared}"
    return Finding(
        check="alarm",
        severity=severity,
        summary=summary,
        resource=Resource(kind="alarm", id=suffix),
        evidence={
            "since": alarm.since,
            "reason": alarm.reason,
            "threshold": alarm.threshold,
            "points": [[at, value] for at, value in alarm.points],
            "details": _alarm_details(alarm),
            "moments": [
                [each.at, "alarm", f"alarm {alarm.name}: {each.old} → {each.new}", _STATES.get(each.new)]
                for each in alarm.changes or ()
            ],
        },
        source=alarms.SEE_ALARM.format(name=alarm.name),
    )


def _alarm_details(alarm: Alarm) -> list[str]:
    if alarm.blind or alarm.quiet:
        return [f"its metric should come from {alarm.publisher}"]
    if alarm.changes is None:
        return ["its history could not be read"]
    return [f"{moment(each.at)} {each.old} → {each.new}" for each in alarm.changes[:_SHOWN]]


def rule_finding(fact: Fact[Rule | None], stack: Stack) -> Finding:
    """Say whether the clean-up is scheduled."""
    source = compute.SEE_RULE.format(name=stack.cleanup_rule)
    if isinstance(fact, Unknown):
        return unknown("schedule", fact, source=source)
    rule = fact.value
    if rule is None:
        summary, severity = (
            f"there is no rule {stack.cleanup_rule}: nothing starts the clean-up",
            Severity.CRITICAL,
        )
    elif not rule.enabled:
        summary, severity = f"rule {rule.name} is disabled: nothing starts the clean-up", Severity.CRITICAL
    elif not rule.targets:
        summary, severity = f"rule {rule.name} starts no ECS task", Severity.CRITICAL
    else:
        summary, severity = f"rule {rule.name} is enabled, {rule.schedule}", Severity.OK
    return Finding(check="schedule", severity=severity, summary=summary, source=source)


def tasks_finding(fact: Fact[tuple[TaskRun, ...]], stack: Stack) -> Finding:
    """Say how the last runs of the clean-up's task ended. ECS forgets a stopped task after about an hour."""
    source = compute.SEE_TASKS.format(cluster=stack.cluster, family=stack.cleanup_family)
    if isinstance(fact, Unknown):
        return unknown("tasks", fact, source=source)
    ended = [task for task in fact.value if task.ended]
    running = len(fact.value) - len(ended)
    if not ended:
        summary = f"ECS knows of no ended clean-up task within the last hour, {running} running"
        return Finding(check="tasks", severity=Severity.OK, summary=summary, source=source)
    failed = sum(task.failed for task in ended)
    summary = (
        f"clean-up tasks of the last hour: {len(ended)} ended, {failed} of them failed, {running} running"
    )
    details = [f"{task.id}: {task.failure or 'ended well'}" for task in ended[:_SHOWN]]
    severity = Severity.WARNING if ended[0].failed else Severity.OK
    return Finding(
        check="tasks", severity=severity, summary=summary, evidence={"details": details}, source=source
    )


def service_finding(fact: Fact[Service | None], stack: Stack) -> Finding:
    """Say whether as many workers run as should, and nothing is under way."""
    source = compute.SEE_SERVICE.format(cluster=stack.cluster, name=stack.worker_service)
    if isinstance(fact, Unknown):
        return unknown("service", fact, source=source)
    seen = fact.value
    if seen is None:
        summary = f"there is no service {stack.worker_service} in cluster {stack.cluster}"
        return Finding(check="service", severity=Severity.WARNING, summary=summary, source=source)
    rollouts = f", {len(seen.deployments)} deployments" if len(seen.deployments) != 1 else ""
    well = seen.stable and seen.desired > 0
    return Finding(
        check="service",
        severity=Severity.OK if well else Severity.WARNING,
        summary=f"service {seen.name} is {seen.status}: {seen.running} of {seen.desired} run{rollouts}",
        evidence={} if well else _lately(seen.events, f"service {seen.name}"),
        source=source,
    )


def reach_finding(name: str, fact: Fact[Reach], *, source: str) -> Finding:
    """Say whether a server answers from here, and how fast."""
    if isinstance(fact, Unknown):
        return unknown(name, fact, source=source)
    summary = f"{name} at {fact.value.host} answers from here in {fact.value.answered_ms:.0f} ms"
    return Finding(check=name, severity=Severity.OK, summary=summary, source=source)


def instance_finding(fact: Fact[Instance]) -> Finding:
    """Say how RDS says that the database is: its status, storage, connections, last events."""
    if isinstance(fact, Unknown):
        return unknown("RDS", fact, source=servers.SEE_INSTANCE.format(identifier="ID"))
    seen = fact.value
    left = seen.storage_left
    storage = (
        f"{left / 2**30:.1f} of {seen.storage_gib} GiB left" if left is not None else "storage left unknown"
    )
    used = f"{seen.connections:.0f} connections" if seen.connections is not None else "connections unknown"
    return Finding(
        check="RDS",
        severity=_severity(seen.condition, short=seen.short_of_storage),
        summary=f"RDS instance {seen.identifier} is {seen.status}: {storage}, {used}",
        resource=Resource(kind="instance", id=seen.identifier),
        evidence=_lately(seen.events, f"RDS instance {seen.identifier}"),
        source=servers.SEE_INSTANCE.format(identifier=seen.identifier),
    )


def cache_finding(fact: Fact[Cache]) -> Finding:
    """Say how ElastiCache says that Redis is."""
    if isinstance(fact, Unknown):
        return unknown("ElastiCache", fact, source=servers.SEE_CACHE)
    seen = fact.value
    memory = seen.memory_used_percent
    used = f"{memory:.0f} % of its memory used" if memory is not None else "memory used unknown"
    return Finding(
        check="ElastiCache",
        severity=_severity(seen.condition, short=seen.short_of_memory),
        summary=f"ElastiCache {seen.identifier} is {seen.status}: nodes: {seen.nodes}, {used}",
        resource=Resource(kind="cache", id=seen.identifier),
        evidence=_lately(seen.events, f"ElastiCache {seen.identifier}"),
        source=servers.SEE_CACHE,
    )


def access_finding(name: str, fact: Fact[Access], groups: Sequence[str], *, proven: bool) -> Finding:
    """Say whether a server's security groups let the clean-up's task reach it; `proven`: it has just done so."""
    check = f"{name} access"
    source = servers.SEE_ACCESS.format(groups=" ".join(groups)) if groups else ""
    if isinstance(fact, Unknown):
        return unknown(check, fact, source=source)
    summary = f"{name}, from the clean-up's task: {fact.value.how}"
    severity = {True: Severity.OK, False: Severity.CRITICAL, None: Severity.UNKNOWN}[fact.value.allowed]
    if not fact.value.allowed and proven:
        severity, summary = Severity.OK, f"{summary}; but the job has just been there"
    return Finding(check=check, severity=severity, summary=summary, source=source)


def span(duration: timedelta) -> str:
    """Return a duration as a person says it."""
    minutes = int(duration.total_seconds() // 60)
    if minutes < 2:
        return f"{max(0, int(duration.total_seconds()))} s"
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes / 60
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} d"


def _severity(condition: Condition, *, short: bool | None) -> Severity:
    """How bad a managed server's condition is; one that is usable and short of room is a warning."""
    if condition is Condition.USABLE:
        return Severity.WARNING if short else Severity.OK
    return Severity.WARNING if condition is Condition.CHANGING else Severity.CRITICAL


def _lately(events: tuple[tuple[Any, str], ...] | None, of: str) -> dict[str, Any]:
    """Return something's last events as evidence: in words, and as moments of a time line."""
    if events is None:
        return {"details": ["its events could not be read"]}
    return {
        "details": [f"{moment(at)} {message}" for at, message in events[:_SHOWN]],
        "moments": [[at, "event", f"{of}: {message}", None] for at, message in events[:_SHOWN]],
    }
