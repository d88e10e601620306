"""Why sandboxes that are over do not go: which known causes the evidence confirms, rules out, or leaves open. Pure.

A log names causes; a probe confirms them. What explains the others comes first: a server that does not answer, then a
schedule that starts nothing, then what is in the way of single sandboxes, then a task that fails by itself.
"""

from datetime import timedelta
from typing import Any

from diagnostics.causes import Probe
from diagnostics.compute import SEE_DEFINITION, Rule
from diagnostics.grouping import ErrorGroup
from diagnostics.postgres import SEE_CONNECTIONS, SEE_SESSIONS, see_dependents
from diagnostics.reach import SEE_POSTGRES, SEE_REDIS
from diagnostics.servers import SEE_ACCESS
from runbooks import findings, logged, probing
from runbooks.engine.model import Finding, Resource, Severity
from runbooks.overdue.evidence import Evidence
from runbooks.overdue.suspects import probed
from runbooks.probing import Answer
from runbooks.remedies.task import danger
from sandbox.facts import Fact, Known, Unknown
from sandbox.text import counted, moment

__all__ = ["confirmed_causes", "job_findings", "log_findings", "server_findings"]

_LATELY = timedelta(minutes=20)


def confirmed_causes(evidence: Evidence) -> list[Finding]:
    """Return the causes that were seen for themselves, the one that explains the others first."""
    of_all = [*_dead_servers(evidence), *_schedule(evidence), *_shut_out(evidence)]
    of_some = [*_blocked(evidence), *_held(evidence)]
    found = [*of_all, *of_some, *_logged_only(evidence)]
    unexplained = any(not evidence.blocking(each) and not evidence.holding(each) for each in evidence.behind)
    if not found or (unexplained and not of_all):
        found += _failing_task(evidence) or _never_run(evidence)
    return found or _not_found(evidence)


def log_findings(evidence: Evidence) -> list[Finding]:
    """Return a finding for each cause that the log names, with what its probe says; and for each error without one."""
    return logged.log_findings(
        evidence.errors, evidence.stack.cleanup_logs, lambda group: _judged(group, evidence)
    )


def job_findings(evidence: Evidence) -> list[Finding]:
    """Return what is known of the clean-up job: its schedule, its task's last ends, its own words.

    A schedule that starts nothing is a cause, and told as one.
    """
    stack = evidence.stack
    found = [
        findings.rule_finding(evidence.rule, stack),
        findings.tasks_finding(evidence.tasks, stack),
        logged.runs_finding(evidence.runs, stack, now=evidence.now),
        findings.service_finding(evidence.service, stack),
    ]
    return _definitions(evidence) + [each for each in found if each.severity is not Severity.CRITICAL]


def _definitions(evidence: Evidence) -> list[Finding]:
    """What must be known of a task before it is let loose: whether it takes live sandboxes along, or that nobody can tell."""
    rule = evidence.rule.value if isinstance(evidence.rule, Known) else None
    if rule is None:
        return []  # which is told of the schedule
    sources = {each.definition: SEE_DEFINITION.format(name=each.definition) for each in rule.targets}
    if isinstance(evidence.definitions, Unknown):
        return [
            findings.unknown("task definition", evidence.definitions, source=source)
            for source in sources.values()
        ]
    told = {target.definition: danger(target, made) for target, made in evidence.scheduled}
    return [_at_risk(name, reason, rule, source=sources[name]) for name, reason in told.items() if reason]


def _at_risk(name: str, reason: str, rule: Rule, *, source: str) -> Finding:
    severity = findings.weight(reason)
    runs = severity is Severity.WARNING and rule.enabled
    stop = f"aws events disable-rule --name {rule.name}"
    return Finding(
        check="task definition",
        severity=Severity.CRITICAL if runs else severity,
        summary=f"{name}: {reason}" + (f"; it is started {rule.schedule}" if runs else ""),
        evidence={"details": [f"stop it before anything else: {stop}"]} if runs else {},
        source=source,
    )


def server_findings(evidence: Evidence) -> list[Finding]:
    """Return how the servers are: from here, by AWS, and for the clean-up's task. Security groups that shut it out are causes."""
    proven = _worked_lately(evidence)
    found = [
        *(findings.reach_finding(name, fact, source=source) for name, fact, source in _reached(evidence)),
        findings.instance_finding(evidence.instance),
        findings.cache_finding(evidence.cache),
        findings.access_finding(
            "PostgreSQL", evidence.postgres_access, _groups_of(evidence.instance), proven=proven
        ),
        findings.access_finding("Redis", evidence.redis_access, _groups_of(evidence.cache), proven=proven),
    ]
    found = [
        finding
        for finding in found
        if not finding.check.endswith("access") or finding.severity is not Severity.CRITICAL
    ]
    for name in ("database", "blockers", "holders"):
        fact: Fact[Any] = getattr(evidence, name)
        if isinstance(fact, Unknown):
            found.append(findings.unknown(name, fact))
    return found


def _dead_servers(evidence: Evidence) -> list[Finding]:
    """Servers that refuse us or do not answer."""
    lately = "the job's last task ended well all the same: perhaps it is only the way from here"
    note = lately if _worked_lately(evidence) else ""
    return [
        finding
        for name, fact, source in _reached(evidence)
        for finding in probing.dead_server(name, fact, source=source, note=note)
    ]


def _reached(evidence: Evidence) -> tuple[tuple[str, Any, str], ...]:
    return ("PostgreSQL", evidence.postgres, SEE_POSTGRES), ("Redis", evidence.redis, SEE_REDIS)


def _worked_lately(evidence: Evidence) -> bool:
    """Whether the job's last task has just ended with 0, which it does only where it could use both servers."""
    last = evidence.last_task
    return bool(last and not last.failed and last.stopped_at and evidence.now - last.stopped_at < _LATELY)


def _shut_out(evidence: Evidence) -> list[Finding]:
    """Security groups that do not let the task in; but where it has just been there, it has another way."""
    if _worked_lately(evidence):
        return []
    asked = (
        ("PostgreSQL", evidence.postgres_access, evidence.instance),
        ("Redis", evidence.redis_access, evidence.cache),
    )
    return [
        findings.cause(
            f"the clean-up's task cannot reach {name}: {fact.value.how}",
            source=SEE_ACCESS.format(groups=" ".join(_groups_of(server))),
        )
        for name, fact, server in asked
        if isinstance(fact, Known) and fact.value.allowed is False
    ]


def _schedule(evidence: Evidence) -> list[Finding]:
    """A schedule that is not there, is disabled, or starts what ECS does not start."""
    starts = evidence.runs.value.starts if isinstance(evidence.runs, Known) else ()
    details = [f"the job was started last at {moment(starts[-1])}"] if starts else []
    rule = Resource(kind="rule", id=evidence.stack.cleanup_rule)
    finding = findings.rule_finding(evidence.rule, evidence.stack)
    gone = [
        (f"rule {rule.id} is to start {name}, of which ECS starts nothing", SEE_DEFINITION.format(name=name))
        for name in evidence.gone
    ]
    found = [(finding.summary, finding.source)] if finding.severity is Severity.CRITICAL else []
    return [
        findings.cause(summary, details=details, source=source, resource=rule)
        for summary, source in found + gone
    ]


def _blocked(evidence: Evidence) -> list[Finding]:
    found = []
    for each in evidence.behind:
        if blockers := evidence.blocking(each):
            names = ", ".join(f"{blocker.kind} {blocker.name}" for blocker in blockers)
            found.append(
                findings.cause(
                    f"the schema of {each.row.name} cannot be dropped: {names} rests on it",
                    details=[f"cleared by: {blocker.statement}" for blocker in blockers if blocker.statement],
                    source=see_dependents(blockers[0].schema),
                    resource=Resource(kind="sandbox", id=each.row.name),
                )
            )
    return found


def _held(evidence: Evidence) -> list[Finding]:
    found = []
    for each in evidence.behind:
        if holders := evidence.holding(each):
            first = holders[0]
            since = f" since {moment(first.transaction_since)}" if first.transaction_since else ""
            found.append(
                findings.cause(
                    f"{each.row.name} is held: session {first.pid} of {first.user} "
                    f"({first.application or 'no name'}, {first.state}{since}) {first.how}",
                    details=[
                        f"it ran: {first.query}",
                        f"ask {first.user} first; ended by: {first.statement}",
                    ],
                    source=SEE_SESSIONS,
                    resource=Resource(kind="sandbox", id=each.row.name),
                )
            )
    return found


def _logged_only(evidence: Evidence) -> list[Finding]:
    """Causes that only the log pointed to, and a probe confirms: disk, connections, rights, memory."""
    seen_otherwise = (
        Probe.POSTGRES,
        Probe.REDIS,
        Probe.LOGIN,
        Probe.NETWORK,
        Probe.BLOCKERS,
        Probe.LOCKS,
        Probe.REGISTRY,
        Probe.TASK,
    )
    found = {}
    for group in evidence.groups:
        if group.cause and group.cause.probe not in seen_otherwise:
            answer, why = probed(group.cause, evidence)
            told = group.cause.probe is Probe.CONNECTIONS and isinstance(evidence.postgres, Unknown)
            if answer is Answer.CONFIRMED and not told:
                details = [f"means: {group.cause.meaning}", f"check: {group.cause.check}"]
                source = SEE_CONNECTIONS if group.cause.probe is Probe.CONNECTIONS else _see_log(evidence)
                found[group.cause.key] = findings.cause(
                    f"{group.cause.title}: {why}", details=details, source=source
                )
    return list(found.values())


def _failing_task(evidence: Evidence) -> list[Finding]:
    """A task that fails though everything answers here: its own image, address, rights or network."""
    last = evidence.last_task
    if last is None or not last.failed:
        return []
    recent = [group for group in evidence.groups if not _settled(group, evidence)]
    said = max(recent, key=lambda group: group.last, default=None)
    details = []
    if said is not None:
        details.append(f"its log says: {said.sample}")
    if said is not None and said.cause:
        answer, why = probed(said.cause, evidence)
        details.append(f"{said.cause.title}: {answer}, {why}")
        if answer is Answer.RULED_OUT:
            details.append("so look at the task's own address, credentials and security group")
    finding = findings.tasks_finding(evidence.tasks, evidence.stack)
    return [
        findings.cause(f"the clean-up task fails: {last.failure}", details=details, source=finding.source)
    ]


def _never_run(evidence: Evidence) -> list[Finding]:
    """A schedule that is enabled, and yet nothing was started."""
    runs, tasks = evidence.runs, evidence.tasks
    if not isinstance(runs, Known) or not isinstance(tasks, Known) or not isinstance(evidence.rule, Known):
        return []
    if not evidence.behind or tasks.value or not runs.value.complete:
        return []
    last = runs.value.starts[-1] if runs.value.starts else None
    if last is not None and evidence.now - last < logged.MISSED:
        return []
    when = f"since {moment(last)}" if last else "within the hours that were read"
    finding = logged.runs_finding(runs, evidence.stack, now=evidence.now)
    return [findings.cause(f"the clean-up is scheduled, but was not started {when}", source=finding.source)]


def _not_found(evidence: Evidence) -> list[Finding]:
    """Some were left behind, and nothing that was looked at says why."""
    if not evidence.behind:
        return []
    return [
        Finding(
            check="cause",
            severity=Severity.WARNING,
            summary=f"cause not found: {counted(len(evidence.behind), 'sandbox was', 'sandboxes were')} left behind, and nothing seen here says why",
            source=_see_log(evidence),
        )
    ]


def _see_log(evidence: Evidence) -> str:
    return logged.SEE_LOG.format(name=evidence.stack.cleanup_logs)


def _groups_of(fact: Fact[Any]) -> tuple[str, ...]:
    return fact.value.security_groups if isinstance(fact, Known) else ()


def _judged(group: ErrorGroup, evidence: Evidence) -> tuple[Severity, str]:
    """How bad an error of the log is by now: what a probe rules out, or a later run did not meet again, is over."""
    answer, why = probed(group.cause, evidence) if group.cause else (Answer.UNKNOWN, "no known cause matches")
    if answer is Answer.CONFIRMED:
        return Severity.WARNING, f"confirmed: {why}"
    if answer is Answer.RULED_OUT and not (group.cause and group.cause.step_only):
        return Severity.OK, f"ruled out now: {why}"
    if _settled(group, evidence):
        return Severity.OK, "a later run went without it"
    if isinstance(evidence.database, Known) and not evidence.over:
        return Severity.OK, "it left no sandbox behind"
    return Severity.WARNING, f"cannot tell whether it still holds: {why}"


def _settled(group: ErrorGroup, evidence: Evidence) -> bool:
    """Whether a run of the job after the last such error had no failure."""
    return any(run.at > group.last and not run.failed for run in evidence.reported)
