"""What a worker process has done: counted by runs, told once, and over when nothing has come for long enough."""

from types import SimpleNamespace

import pytest

from runbooks.engine import tally as module
from runbooks.engine.errors import Exit
from runbooks.engine.model import Phase
from runbooks.engine.tally import Tally
from runbooks.engine.work import Result
from sandbox.errors import Busy, Unreachable
from tests.unit.plans import action

D, K, F = Phase.DONE, Phase.SKIPPED, Phase.FAILED


class Clock(SimpleNamespace):
    """Time, as the tally is told it."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def results(*phases: Phase | None) -> list[Result]:
    return [Result(action=action(number), phase=phase, reason="") for number, phase in enumerate(phases)]


def quiet(*, idle_after: float = 0) -> Tally:
    return Tally(idle_after=idle_after, tell=lambda _: None)


@pytest.mark.parametrize(
    ("idle_after", "waited", "idle"), [(10, 9.9, False), (10, 10, True), (0.5, 0.5, True), (0, 1e9, False)]
)
def test_it_is_idle_when_nothing_has_come_for_so_long_and_with_0_never(
    clock: Clock, idle_after: float, waited: float, idle: bool
) -> None:
    for come in (Tally.came, lambda tally: tally.count("r", ())):
        tally = quiet(idle_after=idle_after)
        clock.now += waited
        assert tally.idle is idle
        come(tally)
        assert not tally.idle
        clock.now += waited
        assert tally.idle is idle


@pytest.mark.parametrize(
    ("phases", "aside", "spent", "code"),
    [
        ((), False, False, Exit.HEALTHY),
        ((D, K, None), False, False, Exit.HEALTHY),
        ((D, F, K), False, False, Exit.PARTLY),
        ((D,), True, False, Exit.PARTLY),
        ((D,), False, True, Exit.PARTLY),
    ],
)
def test_it_ends_partly_where_something_failed_was_set_aside_or_given_up(
    phases: tuple[Phase | None, ...], aside: bool, spent: bool, code: Exit
) -> None:
    tally = quiet()
    tally.count("r1", results(D))
    tally.count("r2", results(*phases))
    if aside:
        tally.set_aside("a stranger")
    if spent:
        tally.spend("r1", 1)
    assert tally.exit is code
    assert tally.document()["exit"] == code


def test_it_counts_by_runs_and_says_all_in_a_line() -> None:
    tally = quiet()
    assert str(tally) == "0 done, 0 skipped, 0 failed, 0 set aside"
    tally.count("r1", results(D, D, K, None))
    tally.count("r1", results(D, F))
    tally.count("r2", results(K))
    tally.set_aside("a stranger")
    assert str(tally) == "3 done, 2 skipped, 1 failed, 1 set aside"
    assert tally.document() == {
        "runs": {"r1": {"done": 3, "skipped": 1, "failed": 1}, "r2": {"done": 0, "skipped": 1, "failed": 0}},
        "set_aside": ["a stranger"],
        "exit": 5,
    }


def test_a_run_that_spent_its_failures_goes_on_once_it_has_fewer() -> None:
    tally = quiet()
    assert tally.may_go_on("r1", 99)
    tally.spend("r1", 3)
    assert [tally.may_go_on("r1", failed) for failed in (2, 3, 4)] == [True, False, False]
    assert tally.may_go_on("r2", 3)


def test_trouble_is_told_once_and_so_is_its_end() -> None:
    told = list[str]()
    tally = Tally(idle_after=0, tell=told.append)
    assert vars(tally)["troubled"] is None
    tally.well()
    assert told == []
    for error, lines in (
        (Unreachable("no answer"), 1),
        (Unreachable("no answer"), 1),
        (Busy("somebody is at it"), 2),
    ):
        tally.trouble(error)
        assert tally.troubled is error
        assert len(told) == lines
    for _ in range(2):
        tally.well()
    assert vars(tally)["troubled"] is None
    assert told == ["waiting: no answer", "waiting: somebody is at it", "goes on"]
