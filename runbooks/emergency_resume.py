"""Emergency resume.

Trigger    what made the emergency stop necessary is over.
Symptoms   sandboxes get no events, nothing is cleaned up, and every apply says that an emergency stop is raised.
Looks at   the record of the stop in PostgreSQL, or the tags on the rule and the service where PostgreSQL does not answer; how all of
           it stands now: the schedule, the service with its autoscaling, the sandboxes.
May change it in this order, each step whatever became of the one before:
           1. gives the sandboxes that the stop marked their status back, if their schemas still exist and nobody touched them since;
           2. starts the EventRouter's service, with autoscaling as it was, and watches until as many tasks run;
           3. enables the clean-up's schedule;
           4. lifts the stop flag, once all that can come back has.
How        it shows what comes back and asks once. What somebody else changed since the stop is left alone, and told. Twice in a row is
           harmless. `--only` takes a part of it: cleanup, router, sandboxes.
Undo       `invoke emergency-stop` stops it again. `invoke undo --run ID` does not take a resume back.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace

from diagnostics.scaling import Scaling
from runbooks.emergency import page, state
from runbooks.emergency.evidence import CLEANUP, PARTS, ROUTER, SANDBOXES, Evidence, gather
from runbooks.engine.model import Action, Finding, Pace, Runbook, Severity, State
from runbooks.engine.page import Page
from runbooks.engine.plan import action_from_json
from runbooks.engine.work import UNDO
from runbooks.findings import left_alone
from runbooks.remedies import remedies
from runbooks.remedies.halted import UNTOLD, by_hand, rule_stands, service_stands
from runbooks.remedies.marking import given_back, lost_lines, raising, unmapped_lines
from runbooks.remedies.tags import Kept
from sandbox.facts import Fact, Known, Unknown

__all__ = ["RUNBOOK", "propose"]


def propose(evidence: Evidence, *, parts: Collection[str] = PARTS) -> tuple[list[Action], list[Finding]]:
    """Return what takes a stop of these parts back, and a finding for what cannot come back. Pure."""
    steps: list[Action | Finding] = []
    rest: list[Action | Finding] = []  # of the stop, beside these parts
    for part, back in ((SANDBOXES, _sandboxes), (ROUTER, _service), (CLEANUP, _schedule)):
        (steps if part in parts else rest).extend(back(evidence))
    untold = any(isinstance(each, Finding) and each.severity is Severity.UNKNOWN for each in steps)
    steps += _flag(evidence, parts, whole=not rest, untold=untold)
    actions = [each for each in steps if isinstance(each, Action)]
    left = [each for each in steps if isinstance(each, Finding)]
    return [replace(action, id=f"a{number}") for number, action in enumerate(actions, 1)], left


def existing(evidence: Evidence) -> int | None:
    """Nothing limits what only takes a stop back."""
    return None


def _sandboxes(evidence: Evidence) -> Iterator[Action | Finding]:
    source = state.see(evidence, state.FLAG)
    if isinstance(evidence.raised, Unknown):
        yield _untold("sandboxes that are marked destroyed", evidence.raised, SANDBOXES, source=source)
        return
    raised = evidence.raised.value
    if raised is None:
        return
    for line in (*lost_lines(raised.lost), *unmapped_lines(raised.waiting)):
        yield left_alone("marked sandboxes", line, source=source)
    if raised.waiting:
        yield _undone(given_back(raised.stop.id, raised.waiting))


def _service(evidence: Evidence) -> Iterator[Action | Finding]:
    what, source = f"service {evidence.stack.worker_service}", state.see(evidence, state.SERVICE)
    stopped = evidence.stopped_by()
    blind = stopped is not None and stopped.before["scaling"] == UNTOLD  # it was left as it was
    limits: Fact[Scaling | None] = Known(None) if blind else evidence.scaling
    for fact in (evidence.service, limits):
        if isinstance(fact, Unknown):
            yield _untold(what, fact, ROUTER, source=source, action=stopped)
            return
    assert isinstance(evidence.service, Known)  # or the loop would have returned
    assert isinstance(limits, Known)
    service, scaling = evidence.service.value, limits.value
    if stopped is None:
        if isinstance(evidence.service_kept, Unknown) and service and not service.desired:
            yield _untold(
                f"{what} runs no task: who stopped it", evidence.service_kept, ROUTER, source=source
            )
        return
    if service is None or service.status != "ACTIVE":
        yield left_alone(what, "there is no such active service any more", source=source)
        return
    stands, told = service_stands(_undone(stopped), service, scaling, back=True)
    if stands is State.CHANGED:
        yield left_alone(what, told, source=source)
    elif stands is not State.BEFORE or _tagged(evidence.service_kept):
        yield _undone(stopped)


def _schedule(evidence: Evidence) -> Iterator[Action | Finding]:
    what, source = f"schedule {evidence.stack.cleanup_rule}", state.see(evidence, state.RULE)
    disabled, rule = evidence.disabled_by(), evidence.rule
    if isinstance(rule, Unknown):
        yield _untold(what, rule, CLEANUP, source=source, action=disabled)
        return
    if disabled is None:
        if isinstance(evidence.rule_kept, Unknown) and rule.value and not rule.value.enabled:
            yield _untold(f"{what} is disabled: by whom", evidence.rule_kept, CLEANUP, source=source)
        return
    stands, told = rule_stands(_undone(disabled), rule.value.state if rule.value else None, back=True)
    if stands is State.CHANGED:
        yield left_alone(what, told, source=source)
    elif stands is not State.BEFORE or _tagged(evidence.rule_kept):
        yield _undone(disabled)


def _flag(
    evidence: Evidence, parts: Collection[str], *, whole: bool, untold: bool
) -> Iterator[Action | Finding]:
    """Lift the stop once nothing is left of it; of the clean-up alone, lower the flag: the record is needed for the rest."""
    stop = evidence.stop
    if stop is None or (stop.halting and CLEANUP not in parts):
        return
    if whole and untold:
        why = (
            "it stays raised until all that it stopped can be told of: `emergency-resume` again lifts it then"
        )
        yield left_alone(f"stop {stop.id}", why, source=state.see(evidence, state.FLAG))
    elif whole or stop.halting:
        stopped = tuple(action_from_json(raw) for raw in stop.parts.values())
        yield _undone(raising(stop.id, halting=stop.halting, reason=stop.reason, parts=stopped, whole=whole))


def _undone(action: Action) -> Action:
    return replace(action, verb=UNDO + action.verb, reason=f"as it was before {_stop_of(action)}")


def _stop_of(action: Action) -> str:
    return str(action.before.get("stop") or action.resource.id)


def _tagged(kept: Fact[Kept | None]) -> bool:
    return isinstance(kept, Known) and kept.value is not None


def _untold(what: str, fact: Unknown, part: str, *, source: str, action: Action | None = None) -> Finding:
    """Say that something does not come back yet, and how it does: the same again, or by hand."""
    again = f"`emergency-resume --only {part}` does it once that can be told, and --timeout 30 waits longer"
    commands = by_hand(_undone(action)) if action else ()
    return left_alone(
        what,
        f"cannot tell how it is: {fact.reason}. {again}",
        evidence={"drawn": [f"by hand: {command}" for command in commands]},
        source=source,
    )


RUNBOOK = Runbook(
    name="emergency-resume",
    title="Emergency resume",
    gather=gather,
    diagnose=state.findings,
    propose=propose,
    existing=existing,
    remedies=remedies,
    outlook=state.findings,
    pace=Pace(failures=len(PARTS) + 1),
    urgent=True,
    page=Page(
        text=__doc__,
        reads=page.READS,
        writes=page.WRITES,
        examples=(
            (
                "emergency-status --env production",
                "say what is stopped, and what resuming would do; changes nothing",
            ),
            ("emergency-resume --env production", "bring all of it back: shows what, asks once, and does it"),
            ("emergency-resume --env production --only router", "bring the EventRouter back alone"),
        ),
        looks=page.LOOKS,
        thresholds=page.THRESHOLDS,
    ),
)
