"""What an operator asks for: a diagnosis with a plan, its application, taking up an interrupted run, and undoing one."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from runbooks.engine import guards, permission, stops
from runbooks.engine import plan as plans
from runbooks.engine.anchors import anchoring
from runbooks.engine.apply import Outcome, Progress, inverse_actions, plan_of
from runbooks.engine.environment import Environment
from runbooks.engine.errors import Exit, PlanError, Refused
from runbooks.engine.journal import Journal, JournalEntry
from runbooks.engine.lease import actor, records
from runbooks.engine.model import (
    SETTLED,
    Action,
    Finding,
    Phase,
    Plan,
    Runbook,
    Severity,
    Target,
    Trial,
    Verdict,
)
from runbooks.engine.page import Rights
from runbooks.engine.runner import Runner, new_run
from runbooks.engine.standing import refuse_undone
from runbooks.engine.systems import Readers, readers, target
from runbooks.engine.work import Result
from sandbox.deadline import beside
from sandbox.errors import ArrakisError, Unreachable
from sandbox.facts import Fact, Known, Unknown
from sandbox.ports import SqlReader
from sandbox.text import counted

__all__ = ["Ask", "Diagnosis", "Operator", "TakenUp", "ended"]

Ask = Callable[[Environment, Plan, str], None]
"""Confirms a plan with whoever is asked; the text says where and how much. Raises Refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What a runbook found when somebody looked, and the plan that it proposes; None when there is nothing to do."""

    at: datetime
    by: str
    runbook: Runbook
    environment: Environment
    findings: tuple[Finding, ...]
    plan: Plan | None

    @property
    def exit(self) -> Exit:
        """0 healthy, 2 something is wrong, 3 something could not be told."""
        return ended(self.findings, proposed=self.plan is not None)


def ended(findings: Sequence[Finding], *, proposed: bool) -> Exit:
    """Return how a look ends: 0 healthy, 2 something is wrong or proposed; 3 if anything is unknown, which is never well."""
    seen = {each.severity for each in findings}
    if Severity.UNKNOWN in seen:
        return Exit.UNKNOWN
    return Exit.PROPOSED if proposed or seen - {Severity.OK} else Exit.HEALTHY


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenUp:
    """A run that may be taken up: its plan, its runbook, and its records so far."""

    plan: Plan
    runbook: Runbook
    past: Sequence[JournalEntry]

    @property
    def left(self) -> tuple[Action, ...]:
        """Return the actions that are neither done nor skipped."""
        ended = {entry.action for entry in self.past if entry.phase in SETTLED}
        return tuple(action for action in self.plan.actions if action.id not in ended)


RESUMABLE = timedelta(hours=24)  # after its plan's expiry; well below the quarantine's grace


class Operator:
    """Somebody at work on one environment."""

    def __init__(
        self,
        environment: Environment,
        *,
        timeout: float,
        progress: Progress,
        tell: Callable[[str], None],
    ) -> None:
        """Take the target, the deadline of a diagnosis and of each call in seconds, and who is told what happens."""
        self.environment, self._timeout, self._tell = environment, timeout, tell
        self.actor = actor()
        self.journal = Journal(environment.state / "journal.jsonl", actor=self.actor, clock=_now)
        self.journal.anchor = anchoring(environment, tell=tell)
        self.runner = Runner(environment, self.journal, timeout=timeout, progress=progress, tell=tell)

    def diagnose(
        self,
        runbook: Runbook,
        *,
        about: Mapping[str, Any] = MappingProxyType({}),
        trial: Ask | None = None,
        **options: Any,
    ) -> Diagnosis:
        """Gather, diagnose, propose; save the plan, if there is one. Nothing is changed anywhere but on this disk.

        With `trial`, which confirms it, the runbook's trial is made first, and that is a run of its own. `about` is what the
        operator asks about, as the runbook's `gather` takes it; `options` what they asked for, as its `propose` does.
        """
        read = self._readers(runbook.name)
        now = _now()
        place = self._place(read, at_once=runbook.urgent)
        unseen = beside(lambda: permission.unseen(self.environment, read, runbook, timeout=self._timeout))
        facts = runbook.gather(read, now=now, deadline=self._timeout, stack=self.environment.stack, **about)
        if trial is not None and runbook.trial is not None:
            facts = runbook.trial.learn(facts, self._tried(runbook, runbook.trial, facts, read, trial))
        findings = list(runbook.diagnose(facts))
        actions, left = runbook.propose(facts, **options)
        findings += [*left, *unseen()]
        plan = None
        if actions:
            plan = plans.make(
                runbook=runbook.name,
                environment=place(),
                now=now,
                findings=findings,
                actions=actions,
                existing=runbook.existing(facts),
            )
            self._keep(plan)
        return Diagnosis(
            at=now,
            by=self.actor,
            runbook=runbook,
            environment=self.environment,
            findings=tuple(findings),
            plan=plan,
        )

    def _place(self, read: Readers, *, at_once: bool) -> Callable[[], Target]:
        """Return how to get the target: by what the diagnosis leaves of the time, or looked up beside it, in half of the time."""
        if at_once:
            return beside(lambda: target(self.environment, read, deadline=self._timeout / 2))
        end = time.monotonic() + self._timeout
        return lambda: target(self.environment, read, deadline=max(1.0, end - time.monotonic()))

    def _tried(
        self, runbook: Runbook, trial: Trial, facts: Any, read: Readers, ask: Ask
    ) -> Fact[tuple[Result, ...]]:
        """Make a runbook's trial through the gate, and return what became of it; unknown where it could not be made."""
        try:
            actions = trial.propose(facts)
            plan = plans.make(
                runbook=runbook.name,
                environment=target(self.environment, read, deadline=self._timeout),
                now=_now(),
                findings=(),
                actions=actions,
                existing=runbook.existing(facts),
            )
            self._keep(plan)
            outcome = self.apply(plan, runbook, ask=ask, max_targets=len(actions), look_again=False)
        except ArrakisError as error:
            return Unknown(str(error), error.hint, error)
        return Known(outcome.results)

    def saved(self, plan_id: str) -> Plan:
        """Return a saved plan. Raises PlanError if there is none, Refused if it is not as it was made."""
        plan = plans.load(plan_id, self.environment.state / "plans")
        made = [e for e in self.journal.entries() if e.phase is Phase.PLANNED and e.run == plan.id]
        if not made or made[-1].observed.get("digest") != plan.digest:
            raise Refused(f"plan {plan.id} was not made here", hint="run the runbook again")
        return plan

    def apply(
        self,
        plan: Plan,
        runbook: Runbook,
        *,
        ask: Ask,
        max_targets: int | None,
        look_again: bool = True,
    ) -> Outcome:
        """Apply a plan, once: guards, confirmation, lease, journal, act, look again. Raises Refused or LeaseHeld.

        Without `look_again` each target is still looked at, but not the whole that the runbook is about.
        """
        self.confirm(plan, runbook, ask=ask, max_targets=max_targets)
        outcome = self.runner.run(plan, new_run(plan), runbook)
        return self.looked_again(outcome, runbook) if look_again else outcome

    def confirm(
        self, plan: Plan, runbook: Runbook, *, ask: Ask, max_targets: int | None, also: Rights | None = None
    ) -> None:
        """Ask the guards, then whoever confirms it; `also` are rights that the way it is applied takes besides. Raises Refused."""
        self.runner.refuse_used(plan)
        verdicts = self._verdicts(plan, runbook, plan.actions, also, max_targets=max_targets)
        self._insist([guards.still_fresh(plan, _now()), *verdicts])
        ask(self.environment, plan, verdicts[-1].reason)

    def resume(self, run: str, runbooks: Mapping[str, Runbook], *, ask: Ask) -> Outcome:
        """Take up an interrupted run: what was begun is looked at, what was done is left, the rest is done."""
        taken = self.taken_up(run, runbooks)
        left, whole = len(taken.left), len(taken.plan.actions)
        told = f"{left} of {counted(whole, 'action is', 'actions are')} left"
        if taken.runbook.urgent:
            told += f": {guards.named(taken.left)}"
        ask(self.environment, taken.plan, told)
        outcome = self.runner.run(taken.plan, run, taken.runbook, past=taken.past)
        return self.looked_again(outcome, taken.runbook)

    def taken_up(self, run: str, runbooks: Mapping[str, Runbook], *, also: Rights | None = None) -> "TakenUp":
        """Return what is needed to take up a run; `also` as in `confirm`. Raises Refused where the guards are against it, or it is too old."""
        past = self.records(run)
        plan = plan_of(past)
        self._refuse_stale(plan, run)
        runbook, count = _known(plan, runbooks), guards.targets(plan.actions)
        if runbook.urgent:
            begun = [each for each in self.journal.entries() if each.phase is Phase.RUN_STARTED]
            named = [(each.run, str(each.observed["plan"]["runbook"])) for each in begun]
            urgent = [name for name, each in runbooks.items() if each.urgent]
            self._insist([guards.not_overtaken(run, named, urgent)])
        else:
            refuse_undone(self.sql, run)
        taken = TakenUp(plan=plan, runbook=runbook, past=past)
        self._insist(self._verdicts(plan, runbook, taken.left, also, max_targets=count))
        return taken

    def undo(self, run: str, runbooks: Mapping[str, Runbook], *, ask: Ask) -> Outcome:
        """Undo a run by a plan made from its journal, through the same gate."""
        past = self.records(run)
        before = plan_of(past)
        runbook = _known(before, runbooks)
        actions = inverse_actions(past)
        if not actions:
            raise PlanError(
                f"run {run} did nothing that can be undone", hint=f"`show --run {run}` says what it did"
            )
        plan = plans.make(
            runbook=before.runbook,
            environment=before.environment,
            now=_now(),
            findings=(),
            actions=actions,
            existing=before.existing,
            undoes=run,
        )
        self._keep(plan)
        return self.apply(plan, runbook, ask=ask, max_targets=None)

    def records(self, run: str) -> Sequence[JournalEntry]:
        """Return a run's records: this host's, and the mirrored ones of the host where it was started."""
        here = [entry for entry in self.journal.entries() if entry.run == run]
        known = {(entry.chain, entry.seq) for entry in here}
        try:
            elsewhere = records(self.sql, run)
        except Unreachable:  # what is known here has to do
            if not here:
                raise
            elsewhere = []
        here += [entry for entry in elsewhere if (entry.chain, entry.seq) not in known]
        if not here:
            raise PlanError(f"there is no run {run} in this environment", hint="`history` lists them")
        return sorted(here, key=lambda entry: (entry.at, entry.seq))

    def looked_again(self, outcome: Outcome, runbook: Runbook) -> Outcome:
        """Look once more, after a run that did something, at what it was meant to mend."""
        if runbook.outlook is None or not any(result.phase for result in outcome.results):
            return outcome
        read, stack = self._readers(runbook.name), self.environment.stack
        deadline = self._timeout / 2 if runbook.urgent else self._timeout
        facts = runbook.gather(read, now=_now(), deadline=deadline, stack=stack)
        return replace(outcome, outlook=tuple(runbook.outlook(facts)))

    def _refuse_stale(self, plan: Plan, run: str) -> None:
        """An old run, or one that was undone, is not taken up: too much has changed since its plan was made."""
        hint = f"`undo --run {run}` gives back what it took; then run {plan.runbook} again"
        if _now() > plan.expires_at + RESUMABLE:
            raise Refused(
                f"run {run} is too old to take up: its plan is of {plan.created_at:%Y-%m-%d %H:%M} UTC",
                hint=hint,
            )
        for entry in self.journal.entries():
            if entry.phase is Phase.RUN_STARTED and entry.observed["plan"]["undoes"] == run:
                raise Refused(f"run {run} was undone by {entry.run}", hint=f"run {plan.runbook} again")

    def _verdicts(
        self,
        plan: Plan,
        runbook: Runbook,
        actions: Sequence[Action],
        also: Rights | None,
        *,
        max_targets: int | None,
    ) -> list[Verdict]:
        """What the guards say, the blast radius last. In an emergency what cannot be told refuses nothing, nor does a right."""
        if runbook.urgent:
            return [self._account_as_configured(plan, or_unknown=True), guards.urgent(plan)]
        read = self._readers(plan.runbook)
        lacking = beside(lambda: self._lacking(runbook, actions, also or Rights(), read))
        where = [
            guards.same_target(plan, target(self.environment, read, deadline=self._timeout)),
            self._account_as_configured(plan),
        ]
        self._insist([*where, guards.permitted(plan, lacking())])  # what follows takes some of the rights
        return [guards.not_stopped(stops.raised(read.sql)), guards.blast_radius(plan, max_targets)]

    def _lacking(
        self, runbook: Runbook, actions: Sequence[Action], also: Rights, read: Readers
    ) -> Mapping[str, Sequence[str]]:
        """Which rights this login lacks for some actions; what cannot be told is, and what is done will say."""
        remedies = runbook.remedies(self.runner.gate(runbook))
        rights = permission.needed(actions, remedies) | also
        found = permission.ask(self.environment, read, rights, timeout=self._timeout)
        for system, words in found.untold.items():
            self._tell(f"cannot tell before it is tried whether this login may at {system}: {words}")
        return found.lacking

    def _insist(self, verdicts: Sequence[Verdict]) -> None:
        if refusal := guards.first_refusal(verdicts):
            raise Refused(
                f"refused by the guard {refusal.guard!r}: {refusal.reason}", hint="nothing was changed"
            )

    def _account_as_configured(self, plan: Plan, *, or_unknown: bool = False) -> Verdict:
        wanted = self.environment.account
        allowed = wanted is None or wanted == plan.environment.account
        allowed = allowed or (or_unknown and plan.environment.account is None)
        reason = (
            f"{self.environment.name} is account {wanted}, the credentials are for {plan.environment.account}"
        )
        return Verdict(guard="account", allowed=allowed, reason=reason)

    def _keep(self, plan: Plan) -> None:
        try:
            plans.save(plan, self.environment.state / "plans")
        except OSError as error:
            raise ArrakisError(
                f"the plan cannot be saved: {error.strerror}",
                hint="set RUNBOOKS_STATE_DIR to a folder you can write",
            ) from error
        self.journal.append(plan.id, Phase.PLANNED, observed={"digest": plan.digest})

    @property
    def sql(self) -> SqlReader:
        """The database, to look at what runs have done."""
        return self._readers("history").sql

    def _readers(self, name: str) -> Readers:
        return readers(self.environment, tag=f"arrakis-runbooks:{name}", timeout=self._timeout)


def _known(plan: Plan, runbooks: Mapping[str, Runbook]) -> Runbook:
    if plan.runbook not in runbooks:
        raise PlanError(f"nobody here knows {plan.runbook}", hint="use the version that made the plan")
    return runbooks[plan.runbook]


def _now() -> datetime:
    return datetime.now(UTC)
