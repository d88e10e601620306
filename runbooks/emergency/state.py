"""How what can be stopped stands. Pure: facts in, findings out, each with the command that shows the same."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from diagnostics.compute import SEE_RULE, SEE_SERVICE
from diagnostics.scaling import SEE_SCALING
from runbooks.emergency.evidence import SEE_ROWS, SEE_STOP, Evidence
from runbooks.engine.model import Finding, Resource, Severity
from runbooks.findings import unknown
from sandbox.facts import Fact, Unknown

__all__ = ["FLAG", "ROWS", "RULE", "SCALING", "SERVICE", "by_hand", "findings", "see"]

FLAG, RULE, SERVICE = "stop flag", "schedule", "EventRouter's service"
SCALING, ROWS = "autoscaling", "sandboxes"
"""What is looked at, as findings call it."""

_NOBODY = "neither record nor tags tell of a stop that did it: `history` may, on the host where it was done"
_DISABLE = "aws events disable-rule --name {name}"
_STOP = (
    "aws application-autoscaling register-scalable-target --service-namespace ecs --resource-id service/{cluster}/{name}"
    " --scalable-dimension ecs:service:DesiredCount --min-capacity 0 --suspended-state"
    " DynamicScalingInSuspended=true,DynamicScalingOutSuspended=true,ScheduledScalingSuspended=true"
    " && aws ecs update-service --cluster {cluster} --service {name} --desired-count 0"
)


def findings(evidence: Evidence) -> list[Finding]:
    """Say of the flag, the schedule, the service and the sandboxes how they stand."""
    told: list[tuple[str, Fact[Any], Callable[[Evidence, Any], Finding]]] = [
        (FLAG, evidence.raised, _flag),
        (RULE, evidence.rule, _schedule),
        (SERVICE, evidence.service, _service),
        (SCALING, evidence.scaling, _scaling),
        (ROWS, evidence.running, _sandboxes),
    ]
    found: list[Finding] = []
    for check, fact, say in told:
        if isinstance(fact, Unknown):
            found.append(unknown(check, fact, source=see(evidence, check)))
        else:
            found.append(say(evidence, fact.value))
    for check, bearer, kept in (
        (RULE, evidence.rule, evidence.rule_kept),
        (SERVICE, evidence.service, evidence.service_kept),
    ):
        if isinstance(kept, Unknown) and not isinstance(bearer, Unknown):
            found.append(unknown(f"{check}'s tags", kept, source=see(evidence, check)))
    return found


def by_hand(evidence: Evidence) -> tuple[str, str]:
    """Return the commands that disable the schedule and stop the service, for whoever has to do it by hand."""
    named = {"cluster": evidence.stack.cluster, "name": evidence.stack.worker_service}
    return _DISABLE.format(name=evidence.stack.cleanup_rule), _STOP.format(**named)


def see(evidence: Evidence, check: str) -> str:
    """Return the command by which a person sees one of these things."""
    named = {"cluster": evidence.stack.cluster, "name": evidence.stack.worker_service}
    return {
        FLAG: SEE_STOP,
        RULE: SEE_RULE.format(name=evidence.stack.cleanup_rule),
        SERVICE: SEE_SERVICE.format(**named),
        SCALING: SEE_SCALING.format(**named),
        ROWS: SEE_ROWS,
    }[check]


def _finding(
    evidence: Evidence, check: str, summary: str, *, well: bool, details: list[str] | None = None
) -> Finding:
    return Finding(
        check=check,
        severity=Severity.OK if well else Severity.WARNING,
        summary=summary,
        evidence={"details": details or []},
        source=see(evidence, check),
    )


def _flag(evidence: Evidence, _: Any) -> Finding:
    stop = evidence.stop
    if stop is None:
        return _finding(evidence, FLAG, "no emergency stop is raised", well=True)
    told = f"{stop.id} is raised by {stop.by}" + (f": {stop.reason}" if stop.reason else "")
    told += "; every clean-up and apply of this toolkit halts" if stop.halting else "; clean-ups go on"
    return replace(_finding(evidence, FLAG, told, well=False), severity=Severity.CRITICAL)


def _schedule(evidence: Evidence, rule: Any) -> Finding:
    name = evidence.stack.cleanup_rule
    if rule is None:
        return _finding(evidence, RULE, f"there is no rule {name}", well=False)
    by = evidence.disabled_by()
    told = f"schedule {name} is {rule.state}"
    if not rule.enabled:
        told += f" by {by.before['stop']} of {by.before['by']}" if by else f"; {_NOBODY}"
    return _finding(evidence, RULE, told, well=rule.enabled)


def _service(evidence: Evidence, service: Any) -> Finding:
    name = evidence.stack.worker_service
    if service is None or service.status != "ACTIVE":
        return _finding(evidence, SERVICE, f"there is no active service {name}", well=False)
    told = f"service {name}: {service.running} of {service.desired} tasks run"
    by = evidence.stopped_by()
    if by and not service.desired:
        told += f", stopped by {by.before['stop']} of {by.before['by']}; {by.before['desired']} ran before"
    elif not service.desired:
        told += f"; {_NOBODY}"
    return _finding(evidence, SERVICE, told, well=bool(service.desired))


def _scaling(evidence: Evidence, scaling: Any) -> Finding:
    if scaling is None:
        return _finding(evidence, SCALING, "autoscaling does not watch the service", well=True)
    return _finding(evidence, SCALING, f"autoscaling: {scaling}", well=not scaling.suspended)


def _sandboxes(evidence: Evidence, running: Any) -> Finding:
    raised = evidence.raised.value if not isinstance(evidence.raised, Unknown) else None
    told = f"{len(running)} sandboxes run"
    if raised is None or not (raised.waiting or raised.lost):
        return _finding(evidence, ROWS, told, well=True)
    told += f"; {len(raised.waiting) + len(raised.lost)} were marked destroyed by {raised.stop.id}"
    ended = sum(each.expires_at is not None and each.expires_at < evidence.now for each in raised.waiting)
    past = f"past their end by now: {ended} of them; once back, the next clean-up takes these"
    return Finding(
        check=ROWS,
        severity=Severity.WARNING,
        summary=told,
        resource=Resource(kind="sandboxes", id=raised.stop.id),
        evidence={"details": [past] if ended else []},
        source=SEE_ROWS,
    )
