"""Applying a plan, taking up an interrupted run, and undoing one: three ways through the same gate."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil

from runbooks.engine.budget import Budget
from runbooks.engine.errors import Exit, PlanError, Refused
from runbooks.engine.journal import Journal, JournalEntry
from runbooks.engine.model import ENDED, SETTLED, Action, Finding, Pace, Phase, Plan, Remedy, Reversibility
from runbooks.engine.plan import as_json, from_json, seal
from runbooks.engine.work import UNDO, Result, Work
from sandbox.errors import ArrakisError

__all__ = [
    "Outcome",
    "Progress",
    "execute",
    "inverse_actions",
    "plan_of",
    "remembered",
    "started",
    "wait_for",
]

_GLANCE = 0.05  # seconds between two looks at whether all have ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a run, and what was found when its runbook looked once more.

    `left` is what should have been in the plan and could not be, where that makes a run one of a part.
    """

    run: str
    plan: Plan
    results: tuple[Result, ...]
    outlook: tuple[Finding, ...] = ()
    left: tuple[Finding, ...] = ()

    @property
    def exit(self) -> Exit:
        """0 when every target is as it should be, 5 when some are, 4 when guards refused all, 1 when it failed."""
        settled = sum(result.settled for result in self.results)
        if settled == len(self.results):
            return Exit.PARTLY if self.left else Exit.HEALTHY
        if settled:
            return Exit.PARTLY
        refused = all(result.phase is Phase.SKIPPED for result in self.results)
        return Exit.REFUSED if refused else Exit.ERROR


Progress = Callable[[Result, int, int], None]
"""Takes what became of an action, how many have ended by now, and how many there are."""


def execute(
    plan: Plan,
    run: str,
    *,
    journal: Journal,
    remedies: Mapping[str, Remedy],
    check: Callable[[], None],
    past: Sequence[JournalEntry] = (),
    progress: Progress = lambda *_: None,
    pace: Pace | None = None,
    budget: Budget | None = None,
    interrupted: Callable[[], None] = lambda: None,
    alone: Callable[[], bool] = lambda: False,
    left: Sequence[Finding] = (),
) -> Outcome:
    """Work through the actions in order, at the runbook's pace; stop where more failed than its budget allows.

    `past` holds an interrupted run's records, `left` is told in the outcome. `check` is called before each lot and raises when we
    may not go on. Where several work at once, or long, Ctrl-C halts the budget: each finishes the step that it has in hand, and
    `interrupted` is called. `alone` says whether nobody else is at work, so that lots may be ample.
    """
    pace = pace or Pace()
    work = Work(run, journal=journal, remedies=remedies, check=check, past=past, pace=pace, budget=budget)
    ended_before = {entry.action: entry for entry in past if entry.action and entry.phase in SETTLED}
    results = {
        action.id: remembered(action, ended_before[action.id])
        for action in plan.actions
        if action.id in ended_before
    }

    midway: dict[str, Result] = {}

    def tell(some: Sequence[Result]) -> None:
        for result in some:
            if result.phase not in ENDED:
                midway[result.action.id] = result
                continue
            results[result.action.id] = result
            with suppress(OSError):  # nobody reads along any more; the work goes on
                progress(result, len(results), len(plan.actions))

    waiting = [action for action in plan.actions if action.id not in ended_before]
    most = min(pace.ample, ceil(len(waiting) / pace.workers))
    lots = _Lots(work.lots(waiting), lambda: most if alone() else 0)
    _go_through(lots, work, tell, pace=pace, interrupted=interrupted)
    unreached = f"not reached: {work.budget.halted}" if work.budget.halted else "not reached"
    outcome = Outcome(
        run=run,
        plan=plan,
        results=tuple(
            results.get(action.id)
            or midway.get(action.id)
            or Result(action=action, phase=None, reason=unreached)
            for action in plan.actions
        ),
        left=tuple(left),
    )
    with suppress(ArrakisError):
        journal.append(run, Phase.RUN_ENDED, observed={"exit": int(outcome.exit)})
    return outcome


class _Lots:
    """Lots that wait. Whoever takes the next one is given those behind it as well, of the same verb, as far as there is room."""

    def __init__(self, lots: Sequence[Sequence[Action]], room: Callable[[], int]) -> None:
        self._lots, self._room, self._taking = deque(lots), room, threading.Lock()

    def take(self) -> Sequence[Action]:
        """Return some actions of one verb; none when there are no more."""
        room = self._room() if self._lots else 0
        with self._taking:
            taken = [*self._lots.popleft()] if self._lots else []
            while self._lots and len(taken) + len(self._lots[0]) <= room and _alike(taken, self._lots[0]):
                taken += self._lots.popleft()
        return taken


def _alike(some: Sequence[Action], others: Sequence[Action]) -> bool:
    """Whether two lots can be one: of a verb that is done one at a time each lot is one action, and stays so."""
    return len(some) > 1 and some[0].verb == others[0].verb


def _go_through(
    lots: _Lots,
    work: Work,
    tell: Callable[[Sequence[Result]], None],
    *,
    pace: Pace,
    interrupted: Callable[[], None],
) -> None:
    telling = threading.Lock()

    def go() -> None:
        while not work.budget.halted:
            lot = lots.take()
            if not lot:
                return
            ended = work.do(lot)
            with telling:
                tell(ended)

    if pace.workers == 1 and not pace.throttled:  # it is soon over, and Ctrl-C ends it at once
        go()
        return
    # Daemons, because a thread pool would hold up the process' exit when somebody insists on it.
    crew = [
        threading.Thread(target=go, daemon=True, name=f"worker {number}") for number in range(pace.workers)
    ]
    for each in crew:
        each.start()
    try:
        wait_for(crew)
    except KeyboardInterrupt:
        if not work.budget.halted:
            work.budget.halt("interrupted")
        interrupted()
        wait_for(crew)


def wait_for(crew: Sequence[threading.Thread]) -> None:
    """Wait until all have ended. Not by join: one that Ctrl-C interrupts takes its thread for ended (CPython 3.11)."""
    while any(each.is_alive() for each in crew):
        time.sleep(_GLANCE)


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
    if plan.undoes or any(action.verb.startswith(UNDO) for action in plan.actions):
        raise PlanError("this run is itself an undo", hint="run what it undid again instead")
    return [
        replace(action, verb=UNDO + action.verb, reason=f"undo of {entries[0].run}")
        for action in reversed(plan.actions)
        if action.id in begun and action.reversibility is Reversibility.REVERSIBLE
    ]


def remembered(action: Action, entry: JournalEntry) -> Result:
    """Return what an earlier part of a run did to a target."""
    settled = entry.phase is Phase.DONE or entry.observed.get("settled") is True
    return Result(action=action, phase=entry.phase, reason=entry.error or "", settled=settled)


def started(plan: Plan) -> dict[str, object]:
    """Return what a run's first record holds: the whole plan, so that the journal alone can resume and undo."""
    return {"plan": as_json(plan)}
