"""Applying a plan, taking up an interrupted run, and undoing one: three ways through the same gate."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from runbooks.engine.errors import Exit, LeaseHeld, PlanError, Refused
from runbooks.engine.journal import Journal, JournalEntry
from runbooks.engine.model import (
    Action,
    Finding,
    Observation,
    Phase,
    Plan,
    Remedy,
    Reversibility,
    State,
)
from runbooks.engine.plan import as_json, from_json, seal
from sandbox.errors import ArrakisError

__all__ = ["Outcome", "Result", "execute", "inverse_actions", "plan_of", "started"]

_UNDO = "undo "
_ENDED = (Phase.DONE, Phase.SKIPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one action; phase None: it was not reached. `settled`: the target is as it should be.

    `evidence` is what was seen of the target after it was done.
    """

    action: Action
    phase: Phase | None
    reason: str
    settled: bool = False
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a run, and what was found when its runbook looked once more."""

    run: str
    plan: Plan
    results: tuple[Result, ...]
    outlook: tuple[Finding, ...] = ()

    @property
    def exit(self) -> Exit:
        """0 when every target is as it should be, 5 when some are, 4 when guards refused all, 1 when it failed."""
        settled = sum(result.settled for result in self.results)
        if settled == len(self.results):
            return Exit.HEALTHY
        failed = any(result.phase is Phase.FAILED for result in self.results)
        if settled:
            return Exit.PARTLY
        return Exit.ERROR if failed else Exit.REFUSED


def execute(
    plan: Plan,
    run: str,
    *,
    journal: Journal,
    remedies: Mapping[str, Remedy],
    check: Callable[[], None],
    past: Sequence[JournalEntry] = (),
    progress: Callable[[Result], None] = lambda _: None,
) -> Outcome:
    """Go through the actions in order; stop at the first failure. `past` holds an interrupted run's records.

    `check` is called before each action and raises when we may not go on.
    """
    last = {entry.action: entry for entry in past if entry.action}
    results: list[Result] = []
    stopped = False
    for action in plan.actions:
        before = last.get(action.id)
        if before and before.phase in _ENDED:
            results.append(_remembered(action, before))
        elif stopped:
            results.append(Result(action=action, phase=None, reason="not reached"))
        else:
            results.append(_attempt(action, run, journal, remedies, check, begun=before is not None))
            with suppress(OSError):  # nobody reads along any more; the work goes on
                progress(results[-1])
            stopped = results[-1].phase is Phase.FAILED
    outcome = Outcome(run=run, plan=plan, results=tuple(results))
    with suppress(ArrakisError):
        journal.append(run, Phase.RUN_ENDED, observed={"exit": int(outcome.exit)})
    return outcome


def plan_of(entries: Sequence[JournalEntry]) -> Plan:
    """Return the plan that a run was started with, from its own records."""
    for entry in entries:
        if entry.phase is Phase.RUN_STARTED:
            plan = from_json(entry.observed["plan"])
            if seal(plan) != plan:
                raise Refused(f"the plan of run {entry.run} was edited", hint="run the runbook again")
            return plan
    raise PlanError("this run never started", hint="run the runbook again")


def inverse_actions(entries: Sequence[JournalEntry]) -> list[Action]:
    """Return the actions that take a run back, last one first: all that were begun and can be undone."""
    begun = {e.action for e in entries if e.phase in (Phase.STARTED, Phase.DONE, Phase.FAILED) and e.action}
    plan = plan_of(entries)
    if plan.undoes:
        raise PlanError("this run is itself an undo", hint=f"run {plan.runbook} again instead")
    return [
        replace(action, verb=_UNDO + action.verb, reason=f"undo of {entries[0].run}")
        for action in reversed(plan.actions)
        if action.id in begun and action.reversibility is Reversibility.REVERSIBLE
    ]


def _remembered(action: Action, entry: JournalEntry) -> Result:
    """What an earlier part of this run did to a target."""
    settled = entry.phase is Phase.DONE or entry.observed.get("settled") is True
    return Result(action=action, phase=entry.phase, reason=entry.error or "", settled=settled)


def _attempt(
    action: Action,
    run: str,
    journal: Journal,
    remedies: Mapping[str, Remedy],
    check: Callable[[], None],
    *,
    begun: bool,
) -> Result:
    """Look, ask the guards, write it down, act, look again."""
    try:
        check()
        remedy = _remedy_for(action, remedies)
        seen = remedy.observe(action)
        if refusal := _refusal(action, remedy, seen, begun=begun):
            journal.append(
                run,
                refusal.phase or Phase.SKIPPED,
                action=action.id,
                observed={**seen.evidence, "settled": refusal.settled},
                error=refusal.reason,
            )
            return refusal
        journal.append(run, Phase.STARTED, action=action.id, observed=seen.evidence)
        remedy.apply(action)
        after = remedy.observe(action)
        if after.state is not State.AFTER:
            raise ArrakisError(
                f"done, but it does not look so: {after.reason}", hint="look before you resume"
            )
        journal.append(run, Phase.DONE, action=action.id, observed=after.evidence)
        return Result(
            action=action, phase=Phase.DONE, reason=after.reason, settled=True, evidence=after.evidence
        )
    except Exception as error:  # whatever it was, it is written down and nothing more is done
        reason = str(error) if isinstance(error, ArrakisError) else f"{type(error).__name__}: {error}"
        if not isinstance(error, LeaseHeld):
            with suppress(ArrakisError):  # a full disk: `started` without an ending already says unknown
                journal.append(run, Phase.FAILED, action=action.id, error=reason)
        return Result(action=action, phase=Phase.FAILED, reason=reason)


def _refusal(action: Action, remedy: Remedy, seen: Observation, *, begun: bool) -> Result | None:
    """Return why nothing is to be done for this target, or None."""
    if seen.state is State.AFTER:
        phase = Phase.DONE if begun else Phase.SKIPPED
        return Result(action=action, phase=phase, reason=f"already so: {seen.reason}", settled=True)
    if seen.state is State.CHANGED:
        return Result(action=action, phase=Phase.SKIPPED, reason=seen.reason)
    if user := remedy.in_use(action):
        return Result(action=action, phase=Phase.SKIPPED, reason=f"in use: {user}")
    return None


def _remedy_for(action: Action, remedies: Mapping[str, Remedy]) -> Remedy:
    verb = action.verb.removeprefix(_UNDO)
    if verb not in remedies:
        raise PlanError(
            f"nobody here knows how to {action.verb!r}", hint="use the version that made the plan"
        )
    return _Inverse(remedies[verb]) if verb != action.verb else remedies[verb]


class _Inverse:
    """A remedy run backwards."""

    def __init__(self, remedy: Remedy) -> None:
        self._remedy, self.verb = remedy, _UNDO + remedy.verb

    def observe(self, action: Action) -> Observation:
        seen = self._remedy.observe(action)
        turned = {State.BEFORE: State.AFTER, State.AFTER: State.BEFORE}
        return replace(seen, state=turned.get(seen.state, seen.state))

    def in_use(self, action: Action) -> str | None:
        return None  # giving back what was taken harms nobody; a name taken meanwhile is seen by observe

    def apply(self, action: Action) -> None:
        self._remedy.revert(action)

    def revert(self, action: Action) -> None:
        self._remedy.apply(action)


def started(plan: Plan) -> dict[str, object]:
    """Return what a run's first record holds: the whole plan, so that the journal alone can resume and undo."""
    return {"plan": as_json(plan)}
