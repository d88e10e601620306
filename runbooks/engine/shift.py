"""One process' work on one run of the queue: lots taken, done through the gate, and answered once that is in the journal of all."""

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import replace
from datetime import timedelta

from runbooks.engine.apply import wait_for
from runbooks.engine.copies import Arrivals, Copies
from runbooks.engine.distributed import end_run, workers_of
from runbooks.engine.gate import Gate
from runbooks.engine.hand import Hand
from runbooks.engine.journal import Journal, JournalEntry, Record
from runbooks.engine.lease import Lease, holder
from runbooks.engine.model import ENDED, Pace, Phase, Remedy
from runbooks.engine.operate import Operator, TakenUp
from runbooks.engine.runner import at_pace
from runbooks.engine.sorting import Sorted, sort_out
from runbooks.engine.standing import Standing, records_of, refuse_undone, standing
from runbooks.engine.tally import Tally
from runbooks.engine.work import Result, Work
from sandbox.errors import ArrakisError, Busy, Halted, Missing, Unreachable
from sandbox.ports import Parcel, Reply, SqlTransaction, WorkQueue
from sandbox.text import clean

__all__ = ["work_on"]

_WAIT = 1.0  # seconds that work is waited for, and between two tries where a server does not answer


def work_on(
    run: str,
    taken: TakenUp,
    *,
    operator: Operator,
    queue: WorkQueue,
    patience: timedelta,
    workers: int,
    tally: Tally,
) -> None:
    """Work on a run until it is over, or there is nothing to do for us.

    `patience` is the queue's; `workers` lots are in hand at once. Raises Stopped in an emergency, LeaseHeld where another operator
    is at work, Refused where one has undone the run, and KeyboardInterrupt once what is in hand is finished.
    """
    runbook = replace(taken.runbook, pace=replace(taken.runbook.pace, workers=workers))
    gate = operator.runner.gate(runbook)
    sql = gate.write.sql
    with (
        Lease.held(sql, holder=workers_of(run), run=run, shared=True) as lease,
        Hand(queue, patience=patience) as hand,
    ):
        refuse_undone(sql, run)

        def fence(transaction: SqlTransaction) -> None:
            hand.insist()
            lease.fence(transaction)

        with at_pace(replace(gate, fence=fence), runbook, check=lease.check) as guarded:
            journal = copy(operator.journal)
            journal.actor = holder(operator.actor)
            remedies = runbook.remedies(guarded)
            shift = Shift(run, taken, guarded, queue, lease, hand, journal, remedies, runbook.pace, tally)
            shift.work()


class Shift:
    """The workers of this process, at work on a run."""

    def __init__(
        self,
        run: str,
        taken: TakenUp,
        gate: Gate,
        queue: WorkQueue,
        lease: Lease,
        hand: Hand,
        journal: Journal,
        remedies: Mapping[str, Remedy],
        pace: Pace,
        tally: Tally,
    ) -> None:
        """Use `work_on`."""
        self._run, self._plan, self._pace, self._tally = run, taken.plan, pace, tally
        self._actions = {action.id: action for action in taken.plan.actions}
        self._gate, self._queue, self._lease, self._hand = gate, queue, lease, hand
        self._sql, self._journal, self._remedies = gate.write.sql, journal, remedies
        self._copies = Copies(self._sql, journal, run)
        self._taking, self._over = threading.Lock(), threading.Event()
        self._error: BaseException | None = None

    def work(self) -> None:
        """Take lots and do them, several at once."""
        crew = [
            threading.Thread(target=self._toil, daemon=True, name=f"worker {number}")
            for number in range(self._pace.workers)
        ]
        for each in crew:
            each.start()
        try:
            wait_for(crew)
        except KeyboardInterrupt:
            self._leave("interrupted: what is in hand is finished, the rest is given back")
            wait_for(crew)
            raise
        if self._error:
            raise self._error

    def _toil(self) -> None:
        while not self._over.is_set():
            try:
                self._turn()
                self._tally.well()
            except (Unreachable, Busy) as error:
                self._tally.trouble(error)
                if self._tally.idle:
                    self._fail(error)
                self._over.wait(_WAIT)
            except Exception as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        """End the shift with an error; but the lease that is given back and the queue that is gone may only say that all is over."""
        if not (isinstance(error, Halted | Missing) and self._is_over()):
            self._error = self._error or error
        self._over.set()

    def _is_over(self) -> bool:
        with suppress(ArrakisError):
            stands = standing(self._sql, self._run)
            return stands is not None and stands.exit is not None
        return False

    def _leave(self, why: str = "") -> None:
        if why and not self._over.is_set():
            self._gate.tell(f"run {self._run}: {why}")
        self._over.set()

    def _turn(self) -> None:
        """Take a lot and do it; where there is none, look why."""
        with self._taking:
            parcels = None if self._over.is_set() else self._taken()
        if parcels:
            self._tally.came()
            self._do(parcels)
        elif parcels is not None:
            self._look_around()

    def _taken(self) -> list[Parcel] | None:
        """Take a lot, or see that there is none to be taken any more: then the shift ends."""
        self._lease.check()
        self._copies.catch_up()
        stands = self._stands()
        if stands.exit is not None:
            self._leave()
        elif not stands.left:
            self._end()
        elif stands.failed > self._pace.failures:
            self._give_up(stands)
        else:
            return self._hand.take(self._run, self._pace.lot, wait=_WAIT)
        return None

    def _stands(self) -> Standing:
        stands = standing(self._sql, self._run)
        if stands is None:
            raise Missing(f"nobody knows run {self._run} any more", hint="`history` lists the runs")
        return stands

    def _end(self) -> None:
        if end_run(self._run, self._plan, lease=self._lease, sql=self._sql, journal=self._journal):
            self._leave("every action has ended, and so has the run")
            with suppress(ArrakisError):  # whoever comes next takes it away
                self._queue.close(self._run)

    def _give_up(self, stands: Standing) -> None:
        self._tally.spend(self._run, stands.failed)
        self._leave(
            f"{stands.failed} actions failed, more than the {self._pace.failures} that may: no more are taken. "
            f"`show --run {self._run}` says why, `resume --run {self._run}` tries again"
        )

    def _look_around(self) -> None:
        """Nothing waits: others have the rest in hand, or nobody has."""
        queues = [each for each in self._queue.queues() if each.run == self._run]
        left = self._stands().left
        if left and not any(each.waiting or each.in_hand for each in queues):
            self._leave(f"{left} actions are left and not on the queue: `resume --run {self._run}`")
        elif left and self._tally.idle and self._hand.empty:
            self._leave("nothing has come for a while; others have the rest in hand")

    def _do(self, parcels: Sequence[Parcel]) -> None:
        """Do what was taken, lot by lot; whatever has no ending by then is given back."""
        try:
            named = [parcel.action for parcel in parcels if parcel.action]
            past = records_of(self._sql, self._run, named)
            found = sort_out(parcels, self._actions, past)
            self._set_aside(found)
            self._hand.answer(found.ended, Reply.DONE)
            for lot in self._lots(found, past):
                if self._over.is_set():
                    break
                self._work_through(lot, past)
        finally:
            self._hand.answer(parcels, Reply.GIVEN_BACK)

    def _lots(self, found: Sorted, past: Sequence[JournalEntry]) -> list[list[Parcel]]:
        """What kills a worker takes its lot along. So the next lots are smaller, and at the third time it is alone."""
        few = replace(self._pace, lot=max(1, self._pace.lot // 3))
        lots: list[list[Parcel]] = []
        for some, pace in ((found.fresh, self._pace), (found.suspect, few)):
            by_action = {parcel.action: parcel for parcel in some}
            actions = [self._actions[parcel.action or ""] for parcel in some]
            lots += [[by_action[each.id] for each in lot] for lot in self._work(past, pace).lots(actions)]
        return [*lots, *([parcel] for parcel in found.alone)]

    def _work(self, past: Sequence[JournalEntry], pace: Pace) -> Work:
        def check() -> None:
            self._hand.insist()
            self._lease.check()

        return Work(
            self._run,
            journal=self._journal,
            remedies=self._remedies,
            check=check,
            pace=pace,
            past=past,
        )

    def _work_through(self, lot: Sequence[Parcel], past: Sequence[JournalEntry]) -> None:
        actions = [self._actions[parcel.action or ""] for parcel in lot]
        began = time.monotonic()
        with self._copies.awaiting(actions) as arrivals:
            results = self._work(past, self._pace).do(actions)
        self._hand.answer([parcel for parcel in lot if parcel.action in arrivals.ended], Reply.DONE)
        self._hand.give_back_for_later([parcel for parcel in lot if parcel.action in arrivals.unreachable])
        ended = [result for result in results if result.action.id in arrivals.ended]
        self._tally.count(self._run, ended)
        self._tell(ended, time.monotonic() - began)
        self._hand.answer(lot, Reply.GIVEN_BACK)
        if len(ended) < len(results):
            self._explain([result for result in results if result not in ended], arrivals, began)

    def _explain(self, results: Sequence[Result], arrivals: Arrivals, began: float) -> None:
        """Raise what kept some from their end: nobody may go on, or a server does not answer; or nothing can be written down."""
        self._lease.check()
        self._hand.insist_heard(since=began)
        if self._copies.missed:
            raise Unreachable(f"what was done is not in PostgreSQL yet: {self._copies.missed}")
        if arrivals.unreachable:
            raise Unreachable(results[0].reason, hint="it is tried again")
        raise ArrakisError(results[0].reason, hint="what was in hand was given back")

    def _set_aside(self, found: Sorted) -> None:
        """Set aside what nobody can do, with a record that says so."""
        reasons = [f"on the queue lay {_what(parcel)}: set aside" for parcel in found.strangers]
        self._journal.extend(self._run, [Record(phase=Phase.SKIPPED, error=reason) for reason in reasons])
        self._hand.answer(found.strangers, Reply.SET_ASIDE)
        for parcel, why in found.deadly:
            action = self._actions[parcel.action or ""]
            reason = f"set aside: {why}"
            with self._copies.awaiting([action]) as arrivals:
                self._journal.append(self._run, Phase.FAILED, action=action.id, error=reason)
            if action.id in arrivals.ended:
                self._hand.answer([parcel], Reply.SET_ASIDE)
            reasons.append(f"{clean(action.resource.id)}: {reason}")
        for reason in reasons:
            self._tally.set_aside(reason)
            self._gate.tell(f"SET ASIDE  {reason}")

    def _tell(self, results: Sequence[Result], seconds: float) -> None:
        for result in results:
            if result.phase is Phase.FAILED:
                what = f"{result.action.verb} {clean(result.action.resource.id)}"
                self._gate.tell(f"FAILED   {what}: {clean(result.reason)}")
        if results:
            phases = [result.phase for result in results]
            told = ", ".join(f"{phases.count(phase)} {phase}" for phase in ENDED if phase in phases)
            self._gate.tell(f"{self._run}: {told} in {seconds:.1f} s")


def _what(parcel: Parcel) -> str:
    return (
        f"the action {clean(parcel.action)}, which is none of its plan"
        if parcel.action
        else "what is no action"
    )
