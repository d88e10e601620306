"""How far a run is, in a pipe: few lines, an honest rate, and each failure; at a terminal the acceptance tests look."""

import itertools

import pytest

from runbooks.engine.model import Phase
from runbooks.engine.work import Result
from runbooks.reports.meter import Meter
from runbooks.reports.terminal import MANY
from tests.unit.plans import action

DONE, SKIPPED, FAILED = (
    Result(action=action(1), phase=Phase.DONE, reason="well", settled=True),
    Result(action=action(1), phase=Phase.SKIPPED, reason="in use"),
    Result(action=action(1), phase=Phase.FAILED, reason="stuck"),
)


class Time:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def meter(total: int, *moments: tuple[float, int, Result]) -> list[str]:
    """Return what is said where, after so many seconds each, so many more have ended like this."""
    said = list[str]()
    clock = Time()
    told = Meter(said.append, clock=clock)
    ended = itertools.count(1)
    for seconds, count, result in moments:
        clock.now += seconds
        for _ in range(count):
            told(result, next(ended), total)
    told.close()
    return said


def test_of_few_each_is_told() -> None:
    assert meter(MANY, (1, 2, DONE), (1, 1, FAILED)) == [
        "done     flip t1: well",
        "done     flip t1: well",
        "FAILED   flip t1: stuck",
    ]


def test_of_many_a_line_now_and_then_with_rate_and_time_left_and_one_at_the_end() -> None:
    said = meter(1000, (5, 10, DONE), *[(2.5, 10, DONE)] * 40, (0, 590, DONE))
    assert said[0] == "1 of 1000, 0 failed"  # a lot that ends at once is no rate
    assert said[1] == "41 of 1000, 3.1/s, 5 min left, 0 failed"
    assert len(said) == 12
    assert said[-1].startswith("1000 of 1000, ")


def test_the_rate_is_that_of_the_last_minute() -> None:
    fast, slow = [(1, 50, DONE)] * 20, [(1, 1, DONE)] * 300
    said = meter(100_000, *fast, *slow)
    assert "47.5/s, 35 min left" in said[2]  # of the lot that ends just now only one has been told
    assert "1.0/s, 27.4 h left" in said[-1]


@pytest.mark.parametrize(
    ("left", "shown"),
    [(99, "99 s left"), (120, "2 min left"), (5_999, "100 min left"), (7_200, "2.0 h left")],
)
def test_time_left_is_said_as_a_person_says_it(left: int, shown: str) -> None:
    assert shown in meter(11 + left, (1, 1, DONE), *[(1, 1, DONE)] * 10)[-1]


def test_each_failure_is_told_and_of_those_that_are_skipped_the_first() -> None:
    said = meter(5000, (1, 100, SKIPPED), (10, 50, FAILED), (10, 1, DONE))
    assert said.count("FAILED   flip t1: stuck") == 50
    assert said.count("skipped  flip t1: in use") == MANY
    assert said.count("what else is skipped is counted only; `show --run` names it") == 1
    assert said[-1].endswith("50 failed, 100 skipped")


def test_what_happens_on_the_way_is_told_at_once() -> None:
    said = list[str]()
    Meter(said.append).tell("paused: 5 sessions wait for locks")
    assert said == ["paused: 5 sessions wait for locks"]
