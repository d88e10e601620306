"""Running a plan: the lease taken, the plan used up, the journal mirrored, each target behind the gate."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime

from runbooks.engine.apply import Outcome, Progress, execute, started
from runbooks.engine.budget import Budget
from runbooks.engine.environment import Environment
from runbooks.engine.errors import Exit, Refused
from runbooks.engine.gate import Gate
from runbooks.engine.journal import Journal, JournalEntry
from runbooks.engine.lease import Lease, Mirror, holder
from runbooks.engine.model import LEFT_ALONE, Phase, Plan, Runbook
from runbooks.engine.standing import refuse_undone
from runbooks.engine.systems import readers, writers
from runbooks.engine.throttle import Throttle
from sandbox.deadline import within
from sandbox.errors import Unreachable
from sandbox.ports import SqlTransaction

__all__ = ["Runner", "at_pace", "new_run"]

_BESIDE = 3  # sessions beside the workers': two that drop have a second one, and the throttle has its own

_INTERRUPTED = "each finishes its step, and `resume` takes up the rest; Ctrl-C again does not wait for them"
_MIRRORED = 1.0  # seconds that an emergency's records may take to PostgreSQL, which may be the patient


def new_run(plan: Plan) -> str:
    """Return an id for a run of a plan."""
    return f"{plan.runbook}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


class Runner:
    """Runs plans in one environment."""

    def __init__(
        self,
        environment: Environment,
        journal: Journal,
        *,
        timeout: float,
        progress: Progress,
        tell: Callable[[str], None],
    ) -> None:
        """Take the target, its journal, the time-out of each call in seconds, and who is told what happens."""
        self._environment, self._journal, self._timeout = environment, journal, timeout
        self._progress, self._tell = progress, tell

    def run(self, plan: Plan, run: str, runbook: Runbook, *, past: Sequence[JournalEntry] = ()) -> Outcome:
        """Run a plan, or what the records of an interrupted run left of it. Raises LeaseHeld, or Refused for a used plan."""
        gate = self.gate(runbook)
        if runbook.urgent:
            return self._run_urgently(plan, run, runbook, gate, past=past)
        with Lease.held(gate.write.sql, holder=holder(gate.write.actor), run=run) as lease:
            self.begin(plan, run, lease, gate, past=past)
            budget = Budget(runbook.pace.failures)

            def check() -> None:  # also while the throttle lets nobody work
                budget.insist()
                lease.check()

            with at_pace(replace(gate, fence=lease.fence), runbook, check=check) as guarded:
                return self._execute(plan, run, runbook, guarded, budget, check=lease.check, past=past)

    def gate(self, runbook: Runbook) -> Gate:
        """Return a gate to the systems, which nothing guards yet."""
        tag = f"arrakis-runbooks:{runbook.name}"
        return Gate(
            read=readers(self._environment, tag=tag, timeout=self._timeout),
            write=writers(self._environment, tag=tag, actor=self._journal.actor, timeout=self._timeout),
            fence=_no_fence,
            tell=self._tell,
        )

    def begin(
        self, plan: Plan, run: str, lease: Lease, gate: Gate, *, past: Sequence[JournalEntry] = ()
    ) -> None:
        """Begin a run: on disk first, so that it is known whatever happens next; then the plan is used up.

        A run that has a past is only mirrored from now on. Raises Refused if the plan was used, or the run undone meanwhile.
        """
        if past:
            refuse_undone(gate.read.sql, run)
        else:
            self.refuse_used(plan)
            self._journal.append(run, Phase.RUN_STARTED, observed=started(plan))
            with gate.write.sql.transaction() as transaction:
                lease.fence(transaction)
                used = not transaction.execute("write/runs/use_plan", plan=plan.id, run=run)
            if used:
                self._journal.append(run, Phase.RUN_ENDED, observed={"exit": int(Exit.REFUSED)})
                raise _used(plan, "on another host")
        self._journal.mirror = mirror = Mirror(gate.write.sql)
        mirror.catch_up(self._journal.entries())

    def refuse_used(self, plan: Plan) -> None:
        """Raise Refused if this host ran the plan already."""
        for entry in self._journal.entries():
            if entry.phase is Phase.RUN_STARTED and entry.observed["plan"]["id"] == plan.id:
                raise _used(plan, f"by run {entry.run}")

    def _run_urgently(
        self, plan: Plan, run: str, runbook: Runbook, gate: Gate, *, past: Sequence[JournalEntry]
    ) -> Outcome:
        """Without lease or database: the journal on disk has to do, and is mirrored at the end, if it can be."""
        if not past:
            self.refuse_used(plan)
            self._journal.append(run, Phase.RUN_STARTED, observed=started(plan))
        budget = Budget(runbook.pace.failures)
        outcome = self._execute(plan, run, runbook, gate, budget, check=lambda: None, past=past)
        with suppress(Unreachable):  # the next run mirrors it
            entries = self._journal.entries()
            within(_MIRRORED, lambda: Mirror(gate.write.sql).catch_up(entries), "PostgreSQL")
        return outcome

    def _execute(
        self,
        plan: Plan,
        run: str,
        runbook: Runbook,
        gate: Gate,
        budget: Budget,
        *,
        check: Callable[[], None],
        past: Sequence[JournalEntry],
    ) -> Outcome:
        in_order = replace(runbook.pace, workers=1)  # an undo: the last first

        def pause() -> None:
            budget.insist()
            gate.pause()

        return execute(
            plan,
            run,
            journal=self._journal,
            remedies=runbook.remedies(replace(gate, pause=pause, failed=budget.fail)),
            check=check,
            past=past,
            progress=self._progress,
            pace=in_order if plan.undoes else runbook.pace,
            budget=budget,
            alone=gate.alone,
            interrupted=lambda: self._tell(_INTERRUPTED),
            left=[each for each in plan.findings if runbook.urgent and each.check == LEFT_ALONE],
        )


@contextmanager
def at_pace(gate: Gate, runbook: Runbook, *, check: Callable[[], None]) -> Iterator[Gate]:
    """Yield the gate for a runbook's pace: with connections kept for its workers, and throttled, if it is to be."""
    pace = runbook.pace
    if not pace.throttled:
        yield gate
        return
    read, write = gate.read.sql, gate.write.sql
    with (
        read.keeping(pace.workers),
        write.keeping(pace.workers + _BESIDE),
        Throttle(write, tell=gate.tell, check=check) as throttle,
    ):
        yield replace(gate, pause=throttle.pause, alone=throttle.alone)


def _no_fence(_: SqlTransaction) -> None:
    """Nothing: there is no lease to hold."""


def _used(plan: Plan, where: str) -> Refused:
    return Refused(
        f"plan {plan.id} was used already, {where}", hint="a plan is used once: run the runbook again"
    )
