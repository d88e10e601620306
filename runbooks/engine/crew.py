"""A worker process: finds the runs of its own environment on the queue, and works on one after the other.

A queue is known by its run, and only a run that is in this environment's own PostgreSQL is one of ours: others may share the
server. So no message, and no queue that somebody made, has anything done that was not confirmed here.
"""

import time
from collections.abc import Callable, Mapping

from runbooks.engine import stops
from runbooks.engine.errors import LeaseHeld, PlanError, Refused, Stopped
from runbooks.engine.lease import stopped
from runbooks.engine.model import Runbook
from runbooks.engine.operate import Operator, TakenUp
from runbooks.engine.shift import work_on
from runbooks.engine.standing import standing
from runbooks.engine.systems import readers
from runbooks.engine.tally import Tally
from sandbox.errors import ArrakisError, Busy, Unreachable
from sandbox.ports import QueueState, WorkQueue

__all__ = ["Crew"]

_GLANCE = 1.0  # seconds between two looks for a run
_ANSWER = 5.0  # seconds for a look


class Crew:
    """The workers of one process."""

    def __init__(
        self,
        operator: Operator,
        queue: WorkQueue,
        runbooks: Mapping[str, Runbook],
        *,
        tell: Callable[[str], None],
        idle: float,
        workers: int | None = None,
    ) -> None:
        """Take who works where, the queue, and the runbooks that are known by name.

        It ends when nothing has come for `idle` seconds, with 0 never. `workers` lots are in hand at once, by default as many
        as the runbook says.
        """
        self._operator, self._queue, self._runbooks = operator, queue, runbooks
        self._tell, self._workers = tell, workers
        self._sql = readers(operator.environment, tag="arrakis-runbooks:cleanup-worker", timeout=_ANSWER).sql
        self._taken: dict[str, TakenUp] = {}
        self._refused: dict[str, ArrakisError] = {}
        self.tally = Tally(idle_after=idle, tell=tell)

    def work(self) -> Tally:
        """Work until nothing has come for long enough, or Ctrl-C; return what was done.

        Raises Stopped in an emergency; what kept it from working to its end, such as LeaseHeld; and at once what goes wrong
        at the first look.
        """
        try:
            self._next()
            self._tell(f"waiting for work at {self._queue.host}")
            self.tally.came()
            while not self.tally.idle:
                self._look()
        except KeyboardInterrupt:
            return self.tally
        if self.tally.troubled:
            raise self.tally.troubled
        if self._refused:
            raise next(iter(self._refused.values()))
        return self.tally

    def _look(self) -> None:
        """Look for a run, and work on it. Whoever is in the way is waited for."""
        try:
            found = self._next()
            if found:
                self._work_on(found)
            self.tally.well()
        except (Unreachable, Busy, LeaseHeld) as error:
            self.tally.trouble(error)
            found = None
        if not found:
            time.sleep(_GLANCE)

    def _work_on(self, queue: QueueState) -> None:
        """Work on a run, if the guards are not against it."""
        if (stop := stops.raised(self._sql)) and stop.halting:
            raise stopped(stop.by)
        if not (taken := self._taken.get(queue.run) or self._taken_up(queue.run)):
            return
        try:
            work_on(
                queue.run,
                taken,
                operator=self._operator,
                queue=self._queue,
                patience=queue.patience,
                workers=self._workers or taken.runbook.pace.workers,
                tally=self.tally,
            )
        except Stopped:
            raise
        except Refused as error:
            self._refuse(queue.run, error)

    def _taken_up(self, run: str) -> TakenUp | None:
        """Ask the guards about a run, once."""
        try:
            taken = self._operator.taken_up(run, self._runbooks)
        except (Refused, PlanError) as error:
            self._refuse(run, error)
            return None
        self._tell(f"run {run}: {len(taken.left)} of {len(taken.plan.actions)} actions are left")
        self._taken[run] = taken
        return taken

    def _refuse(self, run: str, error: ArrakisError) -> None:
        self._tell(f"run {run}: {error}")
        self._refused[run] = error

    def _next(self) -> QueueState | None:
        """Return a queue of ours that has something to do; one that is left over from a run that is over is taken away."""
        for queue in self._queue.queues():
            stands = standing(self._sql, queue.run) if queue.run not in self._refused else None
            if stands is None or not stands.queued:
                continue  # another environment's
            if stands.exit is not None:
                self._queue.close(queue.run)
            elif (queue.waiting or queue.in_hand or not stands.left) and self.tally.may_go_on(
                queue.run, stands.failed
            ):
                return queue
        return None
