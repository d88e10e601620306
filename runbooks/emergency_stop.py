"""Emergency stop.

Trigger    sandboxes, their clean-up or the EventRouter harm production, and there is no time to find out why.
Symptoms   events go to the wrong guilds or circle; a clean-up takes away what it should not; production slows down for any of it.
Looks at   the stop flag and who raised it; the clean-up's schedule; the EventRouter's service with its autoscaling; what a stop
           has written on either of them; the sandboxes that run. Each for itself, within seconds: what is broken stops no other.
May change it each step on its own and all side by side, whatever of the rest is broken:
           1. raises the stop flag: every clean-up, mass clean-up and apply of this toolkit, on every host, halts within a second;
           2. disables the clean-up's schedule;
           3. suspends autoscaling, stops the EventRouter's service, and watches until nothing runs;
           4. marks running sandboxes destroyed. Their schemas and keys stay.
How        it shows what it is about to stop and asks once. It needs no lease: an emergency does not wait for another operator's run,
           but ends it. `--only` takes a part of it: cleanup, router, sandboxes.
Undo       `invoke emergency-resume` restores exactly that; `invoke emergency-status` says what it would do. How all of it was is
           kept in PostgreSQL (schema `runbooks`), as tags on the rule and the service, and in the journal.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace

from diagnostics.compute import Service
from diagnostics.scaling import Scaling
from runbooks.emergency import page, state
from runbooks.emergency.evidence import CLEANUP, PARTS, ROUTER, SANDBOXES, Evidence, gather
from runbooks.engine.model import Action, Finding, Pace, Runbook, Severity, State
from runbooks.engine.page import Look, Page
from runbooks.findings import left_alone
from runbooks.remedies import remedies
from runbooks.remedies.halted import DISABLE, STOP, UNTOLD, counted, service_stands
from runbooks.remedies.marking import marking, raising
from runbooks.remedies.stopping import disabling, stopping
from runbooks.remedies.tags import Stop
from sandbox.facts import Known, Unknown

__all__ = ["RUNBOOK", "propose"]

_SEE_RUNNING = (
    "aws ecs list-tasks --cluster {cluster} --family {family} --desired-status RUNNING  # ecs:ListTasks"
)
_ALL = len(PARTS) + 1  # steps that may go on side by side, and of which any may fail


def propose(
    evidence: Evidence, *, parts: Collection[str] = PARTS, reason: str = ""
) -> tuple[list[Action], list[Finding]]:
    """Return what stops these parts, and a finding for each that is stopped already, or of which nobody can tell. Pure."""
    stop = Stop(id=f"stop-{evidence.now:%Y%m%d-%H%M%S-%f}", by=evidence.actor, at=evidence.now)
    steps: list[Action | Finding] = []
    if CLEANUP in parts:
        steps += _disabling(evidence, stop)
    if ROUTER in parts:
        steps += _stopping(evidence, stop)
    if SANDBOXES in parts:
        steps += _marking(evidence, stop)
    actions = [each for each in steps if isinstance(each, Action)]
    left = [each for each in steps if isinstance(each, Finding)]
    actions = [*_raising(evidence, stop, actions, parts=parts, reason=reason), *actions]
    return [replace(action, id=f"a{number}") for number, action in enumerate(actions, 1)], left


def diagnose(evidence: Evidence) -> list[Finding]:
    """Say how all stands. That something is stopped is nothing wrong here; that nobody can tell is. Pure."""
    return [
        each if each.severity is Severity.UNKNOWN else replace(each, severity=Severity.OK)
        for each in state.findings(evidence)
    ]


def outlook(evidence: Evidence) -> list[Finding]:
    """Say how all stands after the stop; above all, that clean-ups are not halted where no flag was raised. Pure."""
    found = diagnose(evidence)
    if evidence.stop is None:
        told = "is not raised" if isinstance(evidence.raised, Known) else "is not known to be raised"
        summary = f"the stop flag {told}: clean-ups and applies of this toolkit are NOT halted by it"
        found.append(
            Finding(
                check=state.FLAG,
                severity=Severity.WARNING,
                summary=summary,
                source=state.see(evidence, state.FLAG),
            )
        )
    return found


def existing(evidence: Evidence) -> int | None:
    """Nothing limits an emergency."""
    return None


def _raising(
    evidence: Evidence, stop: Stop, actions: list[Action], *, parts: Collection[str], reason: str
) -> Iterator[Action]:
    """Record what is stopped and how it was, with what only tags tell of so far; raise the flag with the clean-up."""
    halting, raised = CLEANUP in parts, evidence.stop
    said = {each.verb: each for each in actions if each.verb in (DISABLE, STOP)}
    for part, former in ((CLEANUP, evidence.disabled_by()), (ROUTER, evidence.stopped_by())):
        if former and part in parts:
            said.setdefault(former.verb, former)
    new = [each for verb, each in said.items() if evidence.recorded(verb) != each]
    over = {each.verb: raised.parts[each.verb] for each in new if raised and each.verb in raised.parts}
    if actions or new or (halting and not (raised and raised.halting)):
        yield raising(stop.id, halting=halting, reason=reason, parts=new, over=over)


def _disabling(evidence: Evidence, stop: Stop) -> list[Action | Finding]:
    what, rule, (command, _) = (
        f"schedule {evidence.stack.cleanup_rule}",
        evidence.rule,
        state.by_hand(evidence),
    )
    source = state.see(evidence, state.RULE)
    if isinstance(rule, Unknown):
        return [_untold(f"{what} is not disabled", rule, CLEANUP, source=source, command=command)]
    if rule.value is None:
        return [left_alone(what, "there is no such rule", source=source)]
    if not rule.value.enabled:
        return [_stopped(f"{what} is disabled already")]
    note = _left(
        "a clean-up task that runs already is not ended: this toolkit's halts by the flag, the deployed one goes on to its end",
        source=_SEE_RUNNING.format(cluster=evidence.stack.cluster, family=evidence.stack.cleanup_family),
    )
    return [disabling(rule.value, stop), note]


def _stopping(evidence: Evidence, stop: Stop) -> list[Action | Finding]:
    what, source = f"service {evidence.stack.worker_service}", state.see(evidence, state.SERVICE)
    service, scaling, (_, command) = evidence.service, evidence.scaling, state.by_hand(evidence)
    if isinstance(service, Unknown):
        return [_untold(f"{what} is not stopped", service, ROUTER, source=source, command=command)]
    now = service.value
    if now is None or now.status != "ACTIVE":
        return [left_alone(what, "there is no such active service", source=source)]
    if isinstance(scaling, Unknown):
        blind = [stopping(now, UNTOLD, stop, cluster=evidence.stack.cluster)] if now.desired else []
        untold = _untold(
            f"autoscaling of {what} is not suspended", scaling, ROUTER, source=source, command=command
        )
        return [*blind, untold]
    return [_halting(evidence, now, scaling.value, stop)]


def _halting(evidence: Evidence, now: Service, limits: Scaling | None, stop: Stop) -> Action | Finding:
    """Return what stops the service, of which all is known: anew, or what is left of a stop that knows how it was."""
    former, halted = evidence.stopped_by(), limits is None or limits == limits.halted
    if not now.desired and halted and (former is None or not (now.running or now.pending)):
        return _stopped(f"service {now.name} is stopped already: {counted(now)}")
    anew = stopping(now, limits, stop, cluster=evidence.stack.cluster)
    if former is None:
        return anew
    if service_stands(former, now, limits, back=False)[0] is State.PARTLY:
        return former  # a stop is under way, or was interrupted: it knows how it was
    if (
        not now.desired
    ):  # it is stopped still, and somebody has changed autoscaling alone, or nobody could tell of it
        return replace(former, before={**former.before, "scaling": anew.before["scaling"]})
    return anew


def _marking(evidence: Evidence, stop: Stop) -> list[Action | Finding]:
    running, source = evidence.running, state.see(evidence, state.ROWS)
    if isinstance(running, Unknown):
        return [_untold("running sandboxes are not marked destroyed", running, SANDBOXES, source=source)]
    if not running.value:
        return [_stopped("no sandbox runs")]
    note = _left(
        f"{len(running.value)} sandboxes will be marked destroyed, their schemas, keys and mappings left behind:"
        " `emergency-resume` brings them back. The scheduled clean-up will not take what they leave; if they are not to"
        " come back, `mass-cleanup` does, after `emergency-resume --only cleanup`",
        source=source,
    )
    return [marking(stop.id, running.value), note]


def _untold(what: str, fact: Unknown, part: str, *, source: str, command: str = "") -> Finding:
    """Say that something is not stopped, and how to: the same again, or by hand."""
    again = f"`emergency-stop --only {part}` does it once that can be told, and --timeout 30 waits longer"
    return left_alone(
        what,
        f"cannot tell how it is: {fact.reason}. {again}",
        evidence={"drawn": [f"by hand: {command}"] if command else []},
        source=source,
    )


def _left(summary: str, *, source: str) -> Finding:
    return Finding(check="what is left", severity=Severity.WARNING, summary=summary, source=source)


def _stopped(summary: str) -> Finding:
    return Finding(check="stopped already", severity=Severity.OK, summary=summary)


RUNBOOK = Runbook(
    name="emergency-stop",
    title="Emergency stop",
    gather=gather,
    diagnose=diagnose,
    propose=propose,
    existing=existing,
    remedies=remedies,
    outlook=outlook,
    pace=Pace(workers=_ALL, failures=_ALL),
    urgent=True,
    page=Page(
        text=__doc__,
        reads=page.READS,
        writes=page.WRITES,
        examples=(
            (
                'emergency-stop --env production --reason "events go to the wrong guilds"',
                "stop all of it: shows what, asks once, and does it",
            ),
            ("emergency-stop --env production --only router", "stop the EventRouter alone"),
            (
                "emergency-status --env production",
                "say what is stopped, by whom, since when; changes nothing",
            ),
        ),
        looks=(
            *page.LOOKS,
            Look(
                what="clean-up tasks that run, which no stop of the schedule ends",
                command=_SEE_RUNNING.format(cluster="CLUSTER", family="CLEANUP_FAMILY"),
            ),
        ),
        thresholds=page.THRESHOLDS,
    ),
)
