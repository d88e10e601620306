"""What an operator asks for: a diagnosis with a plan, its application, taking up an interrupted run, and undoing one."""

import getpass
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from runbooks.engine import guards
from runbooks.engine import plan as plans
from runbooks.engine.apply import Outcome, Result, execute, inverse_actions, plan_of, started
from runbooks.engine.environment import Environment
from runbooks.engine.errors import Exit, PlanError, Refused
from runbooks.engine.journal import Journal, JournalEntry
from runbooks.engine.lease import Lease, Mirror, holder, records
from runbooks.engine.model import Finding, Phase, Plan, Runbook, Severity, Trial, Verdict
from runbooks.engine.systems import Readers, readers, target, writers
from sandbox.errors import ArrakisError
from sandbox.facts import Fact, Known, Unknown

__all__ = ["Ask", "Diagnosis", "Operator"]

Ask = Callable[[Environment, Plan, str], None]
"""Confirms a plan with whoever is asked; the text says where and how much. Raises Refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What a runbook found, and the plan that it proposes; None when there is nothing to do."""

    runbook: Runbook
    environment: Environment
    findings: tuple[Finding, ...]
    plan: Plan | None

    @property
    def exit(self) -> Exit:
        """0 healthy, 2 something is wrong, 3 something could not be told."""
        worst = {finding.severity for finding in self.findings}
        if Severity.UNKNOWN in worst:
            return Exit.UNKNOWN
        wrong = self.plan is not None or worst & {Severity.WARNING, Severity.CRITICAL}
        return Exit.PROPOSED if wrong else Exit.HEALTHY


RESUMABLE = timedelta(hours=24)  # after its plan's expiry; well below the quarantine's grace


class Operator:
    """Somebody at work on one environment."""

    def __init__(
        self,
        environment: Environment,
        *,
        timeout: float,
        progress: Callable[[Any], None],
        tell: Callable[[str], None],
    ) -> None:
        """Take the target, the deadline of a diagnosis and of each call in seconds, and who is told what happens."""
        self.environment, self._timeout = environment, timeout
        self._progress, self._tell = progress, tell
        self.actor = os.environ.get("SANDBOX_OWNER") or getpass.getuser()
        self.journal = Journal(environment.state / "journal.jsonl", actor=self.actor, clock=_now)

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
        end = time.monotonic() + self._timeout
        facts = runbook.gather(read, now=now, deadline=self._timeout, stack=self.environment.stack, **about)
        if trial is not None and runbook.trial is not None:
            facts = runbook.trial.learn(facts, self._tried(runbook, runbook.trial, facts, read, trial))
        findings = list(runbook.diagnose(facts))
        actions, left = runbook.propose(facts, **options)
        findings += left
        plan = None
        if actions:
            plan = plans.make(
                runbook=runbook.name,
                environment=target(self.environment, read, deadline=max(1.0, end - time.monotonic())),
                now=now,
                findings=findings,
                actions=actions,
                existing=runbook.existing(facts),
            )
            self._keep(plan)
        return Diagnosis(runbook=runbook, environment=self.environment, findings=tuple(findings), plan=plan)

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
        self._refuse_used(plan)
        read = self._readers(plan.runbook)
        self._guarded(plan, read, max_targets=max_targets, fresh=True)
        verdict = guards.blast_radius(plan, max_targets)
        ask(self.environment, plan, verdict.reason)
        run = f"{plan.runbook}-{_now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        outcome = self._run(plan, run, runbook, read, past=())
        return replace(outcome, outlook=self._outlook(outcome, runbook, read) if look_again else ())

    def resume(self, run: str, runbooks: Mapping[str, Runbook], *, ask: Ask) -> Outcome:
        """Take up an interrupted run: what was begun is looked at, what was done is left, the rest is done."""
        past = self.records(run)
        plan = plan_of(past)
        self._refuse_stale(plan, run)
        read = self._readers(plan.runbook)
        self._guarded(plan, read, max_targets=guards.targets(plan.actions), fresh=False)
        ended = {entry.action for entry in past if entry.phase in (Phase.DONE, Phase.SKIPPED)}
        ask(
            self.environment,
            plan,
            f"{len(plan.actions) - len(ended)} of {len(plan.actions)} actions are left",
        )
        outcome = self._run(plan, run, runbooks[plan.runbook], read, past=past)
        return replace(outcome, outlook=self._outlook(outcome, runbooks[plan.runbook], read))

    def undo(self, run: str, runbooks: Mapping[str, Runbook], *, ask: Ask) -> Outcome:
        """Undo a run by a plan made from its journal, through the same gate."""
        past = self.records(run)
        before = plan_of(past)
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
        return self.apply(plan, runbooks[plan.runbook], ask=ask, max_targets=None)

    def records(self, run: str) -> Sequence[JournalEntry]:
        """Return a run's records: this host's, and the mirrored ones of the host where it was started."""
        here = [entry for entry in self.journal.entries() if entry.run == run]
        known = {(entry.chain, entry.seq) for entry in here}
        elsewhere = records(self._readers("history").sql, run)
        here += [entry for entry in elsewhere if (entry.chain, entry.seq) not in known]
        if not here:
            raise PlanError(f"there is no run {run} in this environment", hint="`history` lists them")
        return sorted(here, key=lambda entry: (entry.at, entry.seq))

    def _run(
        self, plan: Plan, run: str, runbook: Runbook, read: Readers, *, past: Sequence[JournalEntry]
    ) -> Outcome:
        write = writers(self.environment, tag=read.tag, actor=self.actor, timeout=self._timeout)
        with Lease.held(write.sql, holder=holder(self.actor), run=run) as lease:
            mirror = Mirror(write.sql)
            if not past:
                self._use(plan, run, lease, write.sql)
            self.journal.mirror = mirror
            mirror.catch_up(self.journal.entries())
            return execute(
                plan,
                run,
                journal=self.journal,
                remedies=runbook.remedies(read, write, lease.fence, self._tell),
                check=lease.check,
                past=past,
                progress=self._progress,
            )

    def _outlook(self, outcome: Outcome, runbook: Runbook, read: Readers) -> tuple[Finding, ...]:
        """Look once more, after a run that did something, at what it was meant to mend."""
        if runbook.outlook is None or not any(result.phase for result in outcome.results):
            return ()
        facts = runbook.gather(read, now=_now(), deadline=self._timeout, stack=self.environment.stack)
        return tuple(runbook.outlook(facts))

    def _use(self, plan: Plan, run: str, lease: Lease, sql: Any) -> None:
        """Begin the run: on disk first, so that it is known whatever happens next; then the plan is used up."""
        self._refuse_used(plan)
        self.journal.append(run, Phase.RUN_STARTED, observed=started(plan))
        with sql.transaction() as transaction:
            lease.fence(transaction)
            if transaction.execute("write/runs/use_plan", plan=plan.id, run=run):
                return
        self.journal.append(run, Phase.RUN_ENDED, observed={"exit": int(Exit.REFUSED)})
        raise _used(plan, "on another host")

    def _refuse_used(self, plan: Plan) -> None:
        for entry in self.journal.entries():
            if entry.phase is Phase.RUN_STARTED and entry.observed["plan"]["id"] == plan.id:
                raise _used(plan, f"by run {entry.run}")

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

    def _guarded(self, plan: Plan, read: Readers, *, max_targets: int | None, fresh: bool) -> None:
        verdicts = [
            guards.same_target(plan, target(self.environment, read, deadline=self._timeout)),
            self._account_as_configured(plan),
            guards.blast_radius(plan, max_targets),
        ]
        if fresh:
            verdicts.insert(0, guards.still_fresh(plan, _now()))
        if refusal := guards.first_refusal(verdicts):
            raise Refused(
                f"refused by the guard {refusal.guard!r}: {refusal.reason}", hint="nothing was changed"
            )

    def _account_as_configured(self, plan: Plan) -> Verdict:
        wanted = self.environment.account
        allowed = wanted is None or wanted == plan.environment.account
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

    def _readers(self, name: str) -> Readers:
        return readers(self.environment, tag=f"arrakis-runbooks:{name}", timeout=self._timeout)


def _used(plan: Plan, where: str) -> Refused:
    return Refused(
        f"plan {plan.id} was used already, {where}", hint="a plan is used once: run the runbook again"
    )


def _now() -> datetime:
    return datetime.now(UTC)
