"""Many actions at once: in lots, by several workers, within a budget of failures; and what halts them."""

import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from runbooks.engine.apply import Outcome, execute, started
from runbooks.engine.errors import Exit, LeaseHeld, Stopped
from runbooks.engine.journal import Journal
from runbooks.engine.model import Action, Bulk, Observation, Pace, Phase, State
from runbooks.engine.page import Rights
from sandbox.errors import ArrakisError
from tests.unit.plans import NOW, plan


class Lights:
    """Things that are lit, many together. Satisfies Bulk; one at a time it is never asked."""

    verb = "flip"
    rights = Rights()

    def __init__(self) -> None:
        self.lit = set[str]()
        self.lots = list[list[str]]()
        self.broken: dict[str, Exception] = {}
        self.users: dict[str, str] = {}
        self.gone = set[str]()
        self.meanwhile: Callable[[], object] = lambda: None
        self._one = threading.Lock()

    def observe_all(self, actions: Sequence[Action]) -> Mapping[str, Observation]:
        return {action.id: self._seen(action) for action in actions}

    def in_use_all(self, actions: Sequence[Action]) -> Mapping[str, str]:
        return {each.id: self.users[each.id] for each in actions if each.id in self.users}

    def apply_all(self, actions: Sequence[Action]) -> Mapping[str, Exception]:
        with self._one:
            self.lots.append([action.id for action in actions])
        self.meanwhile()
        if "all" in self.broken:
            raise self.broken["all"]
        for action in actions:
            if action.id not in self.broken:
                self.lit.add(action.id)
        return {each.id: self.broken[each.id] for each in actions if each.id in self.broken}

    def _seen(self, action: Action) -> Observation:
        if action.id in self.gone:
            return Observation(state=State.CHANGED, reason="it is gone")
        return Observation(state=State.AFTER if action.id in self.lit else State.BEFORE, reason="looked at")

    def observe(self, action: Action) -> Observation:
        raise AssertionError("one at a time")

    def in_use(self, action: Action) -> str | None:
        raise AssertionError("one at a time")

    def apply(self, action: Action) -> None:
        raise AssertionError("one at a time")

    def revert(self, action: Action) -> None:
        raise AssertionError("one at a time")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl", actor="ada", clock=lambda: NOW)


def run(journal: Journal, lights: Lights, pace: Pace, *, count: int = 20, run: str = "r1") -> Outcome:
    made = plan(count)
    journal.append(run, Phase.RUN_STARTED, observed=started(made))
    return execute(made, run, journal=journal, remedies={"flip": lights}, check=lambda: None, pace=pace)


def ends(journal: Journal) -> dict[str, list[Phase]]:
    found: dict[str, list[Phase]] = {}
    for entry in journal.entries():
        if entry.action:
            found.setdefault(entry.action, []).append(entry.phase)
    return found


def test_a_remedy_that_takes_many_is_given_lots_and_each_action_has_its_records(journal: Journal) -> None:
    lights = Lights()
    assert isinstance(lights, Bulk)
    outcome = run(journal, lights, Pace(lot=8))
    assert [len(lot) for lot in lights.lots] == [8, 8, 4]
    assert outcome.exit is Exit.HEALTHY
    assert ends(journal) == {f"a{n}": [Phase.STARTED, Phase.DONE] for n in range(1, 21)}


def test_verbs_that_take_one_at_a_time_are_never_joined(journal: Journal) -> None:
    lights = Lights()
    made = plan(4)
    journal.append("r1", Phase.RUN_STARTED, observed=started(made))
    execute(
        made,
        "r1",
        journal=journal,
        remedies={"flip": lights},
        check=lambda: None,
        pace=Pace(lot=1, ample=15),
        alone=lambda: True,
    )
    assert [len(lot) for lot in lights.lots] == [1] * 4


def test_several_work_at_once_and_each_action_is_done_once(journal: Journal) -> None:
    lights, together = Lights(), threading.Barrier(4, timeout=20)
    lights.meanwhile = together.wait  # it would not end if fewer than four were at it
    outcome = run(journal, lights, Pace(workers=4, lot=5))
    assert sorted(name for lot in lights.lots for name in lot) == sorted(f"a{n}" for n in range(1, 21))
    assert outcome.exit is Exit.HEALTHY
    assert [result.action.id for result in outcome.results] == [f"a{n}" for n in range(1, 21)]


def test_what_is_in_use_gone_or_done_already_is_skipped_and_the_rest_of_its_lot_is_done(
    journal: Journal,
) -> None:
    lights = Lights()
    lights.users, lights.gone, lights.lit = {"a2": "ada"}, {"a3"}, {"a4"}
    outcome = run(journal, lights, Pace(lot=5), count=5)
    told = {result.action.id: (result.phase, result.settled, result.reason) for result in outcome.results}
    assert told["a2"] == (Phase.SKIPPED, False, "in use: ada")
    assert told["a3"] == (Phase.SKIPPED, False, "it is gone")
    assert told["a4"] == (Phase.SKIPPED, True, "already so: looked at")
    assert lights.lots == [["a1", "a5"]]
    assert outcome.exit is Exit.PARTLY


@pytest.mark.parametrize(("allowed", "lots"), [(0, 1), (1, 2), (2, 4)])
def test_failures_within_the_budget_do_not_stop_the_rest(journal: Journal, allowed: int, lots: int) -> None:
    lights = Lights()
    lights.broken = {"a1": ArrakisError("stuck"), "a6": ArrakisError("stuck, too")}
    outcome = run(journal, lights, Pace(lot=5, failures=allowed))
    assert len(lights.lots) == lots
    assert ends(journal)["a1"] == [Phase.STARTED, Phase.FAILED]
    assert ends(journal)["a2"] == [Phase.STARTED, Phase.DONE]
    waiting = [result.action.id for result in outcome.results if result.phase is None]
    assert waiting == [f"a{n}" for n in range(5 * lots + 1, 21)]
    assert outcome.exit is Exit.PARTLY


@pytest.mark.parametrize("error", [LeaseHeld("taken over"), Stopped("halt")])
def test_a_lost_lease_or_a_stop_ends_all_whatever_the_budget_and_says_nothing_of_the_targets(
    journal: Journal, error: ArrakisError
) -> None:
    lights = Lights()
    lights.broken = {"all": error}
    outcome = run(journal, lights, Pace(lot=5, failures=99))
    assert lights.lots == [["a1", "a2", "a3", "a4", "a5"]]
    assert ends(journal) == {f"a{n}": [Phase.STARTED] for n in range(1, 6)}
    assert outcome.exit is Exit.ERROR


def test_ctrl_c_lets_each_finish_what_it_has_in_hand_and_the_rest_is_left_for_a_resume(
    journal: Journal,
) -> None:
    lights, at_work = Lights(), threading.Barrier(3, timeout=20)
    told = list[str]()
    released = threading.Event()

    def meanwhile() -> None:
        at_work.wait()
        assert released.wait(20)

    def interrupt() -> None:
        at_work.wait()
        os.kill(os.getpid(), signal.SIGINT)

    lights.meanwhile = meanwhile
    made = plan(20)
    journal.append("r1", Phase.RUN_STARTED, observed=started(made))
    threading.Thread(target=interrupt, daemon=True).start()

    def interrupted() -> None:
        told.append("finishing")
        released.set()

    outcome = execute(
        made,
        "r1",
        journal=journal,
        remedies={"flip": lights},
        check=lambda: None,
        pace=Pace(workers=2, lot=4),
        interrupted=interrupted,
    )
    assert told == ["finishing"]
    done = [result.action.id for result in outcome.results if result.phase is Phase.DONE]
    assert done == [f"a{n}" for n in range(1, 9)]
    assert [result.phase for result in outcome.results[8:]] == [None] * 12
    lights.meanwhile = lambda: None
    again = execute(
        made,
        "r1",
        journal=journal,
        remedies={"flip": lights},
        check=lambda: None,
        past=journal.entries(),
        pace=Pace(),
    )
    assert again.exit is Exit.HEALTHY
    assert ends(journal) == {f"a{n}": [Phase.STARTED, Phase.DONE] for n in range(1, 21)}


def test_records_that_are_longer_than_what_is_read_of_the_journals_end_are_found(journal: Journal) -> None:
    for length in (10, 300_000, 10, 70_000, 1_500_000):
        journal.append("r1", Phase.STARTED, action="a1", observed={"text": "x" * length})
    journal.append("r1", Phase.DONE, action="a1")
    assert [entry.seq for entry in journal.entries()] == [1, 2, 3, 4, 5, 6]
