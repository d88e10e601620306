"""A run past one machine: its plan's actions are laid on a work queue, and workers on any hosts take them.

The plan itself travels by the mirrored journal, sealed; what lies on the queue only names an action of it, so that nobody can add
anything there. The guards and the operator are asked once, here; each worker asks the guards again before its first action. All
workers of a run hold the lease in common, in the run's name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from runbooks.engine.apply import Outcome, plan_of, remembered
from runbooks.engine.environment import Environment
from runbooks.engine.errors import PlanError
from runbooks.engine.gate import Gate
from runbooks.engine.journal import Journal, JournalEntry
from runbooks.engine.lease import Lease, Mirror, records
from runbooks.engine.model import ENDED, SETTLED, Action, Phase, Plan, Runbook
from runbooks.engine.operate import Ask, Operator, TakenUp
from runbooks.engine.permission import HANDING_OVER
from runbooks.engine.runner import new_run
from runbooks.engine.standing import standing_in
from runbooks.engine.work import Result
from sandbox.errors import ArrakisError, Unreachable
from sandbox.ports import SqlWriter, WorkQueue

__all__ = [
    "PATIENCE",
    "Coordinator",
    "distributed",
    "end_run",
    "outcome_of",
    "work_queue",
    "workers_of",
]

PATIENCE = timedelta(seconds=30)
"""How long a worker may be silent before what it has in hand is given to another."""


def work_queue(environment: Environment, *, timeout: float) -> WorkQueue:
    """Return an environment's work queue. Nothing is connected yet. Raises ArrakisError on a malformed address."""
    from sandbox.adapters.workqueue import JetStreamQueue

    return JetStreamQueue(environment.nats_url, timeout=timeout, tls_ca=environment.nats_tls_ca)


def workers_of(run: str) -> str:
    """Return who holds the lease while a run is worked on past one machine."""
    return f"workers of {run}"


def distributed(past: Sequence[JournalEntry]) -> bool:
    """Whether a run was put on the work queue, by its records."""
    return any(entry.phase is Phase.PLANNED for entry in past)


class Coordinator:
    """Hands runs over to workers."""

    def __init__(self, operator: Operator, queue: WorkQueue, *, patience: timedelta = PATIENCE) -> None:
        """Take who asks for it, the queue, and how long a worker may be silent."""
        self._operator, self._queue, self._patience = operator, queue, patience

    def start(self, plan: Plan, runbook: Runbook, *, ask: Ask, max_targets: int | None) -> str:
        """Begin a plan's run, once, with all its actions on the queue; return the run.

        Guards, confirmation, lease and journal are those of an apply. Raises as that does, and PlanError for what only one may do.
        Where it is cut short after the run was begun, `resume` goes on.
        """
        _insist_on_any_order(plan, runbook)
        self._operator.confirm(plan, runbook, ask=ask, max_targets=max_targets, also=HANDING_OVER)
        self._prepare()  # before the plan is used up
        run = new_run(plan)
        self._hand_over(TakenUp(plan=plan, runbook=runbook, past=()), run)
        return run

    def resume(self, run: str, runbooks: Mapping[str, Runbook], *, ask: Ask) -> str:
        """Put on the queue what is left of a run and not there; what failed is tried again. Return the run."""
        taken = self._operator.taken_up(run, runbooks, also=HANDING_OVER)
        _insist_on_any_order(taken.plan, taken.runbook)
        left, whole = len(taken.left), len(taken.plan.actions)
        ask(self._operator.environment, taken.plan, f"{left} of {whole} actions are left")
        self._prepare()
        self._hand_over(taken, run)
        return run

    def outcome(self, run: str, runbook: Runbook) -> Outcome:
        """Return what became of a run by now, by its records on every host, and look once more at what it was to mend."""
        past = self._operator.records(run)
        return self._operator.looked_again(outcome_of(run, plan_of(past), past), runbook)

    def _prepare(self) -> None:
        self._queue.prepare(replicas=self._operator.environment.stack.stream_replicas or 1)

    def _hand_over(self, taken: TakenUp, run: str) -> None:
        gate = self._operator.runner.gate(taken.runbook)
        with Lease.held(gate.write.sql, holder=workers_of(run), run=run, shared=True) as lease:
            self._operator.runner.begin(taken.plan, run, lease, gate, past=taken.past)
            try:
                self._lay_out(taken, run, gate)
            except ArrakisError as error:
                raise Unreachable(
                    f"run {run} is begun, and not all of it is on the queue: {error}",
                    hint=f"`resume --run {run}` puts the rest there",
                ) from error
            if not taken.left and end_run(
                run, taken.plan, lease=lease, sql=gate.write.sql, journal=self._operator.journal
            ):
                self._queue.close(run)

    def _lay_out(self, taken: TakenUp, run: str, gate: Gate) -> None:
        """Make sure that every host can read the plan, and that the run is on the queue; then lay it there."""
        mirror, journal = Mirror(gate.write.sql), self._operator.journal
        mirror.copy([*taken.past, *(entry for entry in journal.entries() if entry.run == run)])
        said = {"actions": len(taken.plan.actions), "left": len(taken.left)}
        mirror.copy([journal.append(run, Phase.PLANNED, observed=said)])
        self._queue.open(run, patience=self._patience)
        laid = self._queue.put(run, [action.id for action in taken.left])
        gate.tell(f"run {run}: {laid} actions laid on the queue at {self._queue.host}")


def end_run(run: str, plan: Plan, *, lease: Lease, sql: SqlWriter, journal: Journal) -> bool:
    """End a run of which every action has ended, and give its lease back. Only one of all who see that does it.

    Return whether it is over. Raises as a transaction does, and then it is not.
    """
    held = {"token": lease.token, "holder": workers_of(run)}
    with sql.transaction() as transaction:
        ours = transaction.rows("write/runs/last_out", _Held, **held)
        stands = standing_in(transaction, run)
        if stands is None or stands.exit is not None or not ours:
            return stands is not None and stands.exit is not None
        if stands.left:
            return False
        # Not read sooner: what had failed by then may have been tried again, and done.
        outcome = outcome_of(run, plan, records(sql, run))
        Mirror(sql).copy([journal.append(run, Phase.RUN_ENDED, observed={"exit": int(outcome.exit)})])
        transaction.execute("write/runs/release_lease", **held)
    return True


def outcome_of(run: str, plan: Plan, past: Sequence[JournalEntry]) -> Outcome:
    """Return what became of a run's actions by its records, oldest first: the last ending counts, but what is done stays so."""
    last: dict[str, JournalEntry] = {}
    for entry in past:
        before = last.get(entry.action or "")
        if entry.action and entry.phase in ENDED and not (before and before.phase in SETTLED):
            last[entry.action] = entry
    return Outcome(
        run=run, plan=plan, results=tuple(_result(each, last.get(each.id)) for each in plan.actions)
    )


def _result(action: Action, ending: JournalEntry | None) -> Result:
    return remembered(action, ending) if ending else Result(action=action, phase=None, reason="not reached")


def _insist_on_any_order(plan: Plan, runbook: Runbook) -> None:
    if plan.undoes or runbook.urgent or runbook.pace.workers == 1:
        raise PlanError(
            f"the actions of {plan.id} are done in their order, by one", hint="apply it without --distributed"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    token: int
