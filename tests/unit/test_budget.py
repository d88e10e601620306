"""What may fail before nothing more is begun."""

import pytest

from runbooks.engine.budget import Budget
from sandbox.errors import ArrakisError, Halted


def stuck() -> ArrakisError:
    return ArrakisError("stuck")


@pytest.mark.parametrize(
    ("most", "failures", "halted"),
    [
        (0, 0, ""),
        (0, 1, "one failed"),
        (1, 1, ""),
        (1, 2, "more failed than the 1 that may"),
        (20, 23, "more failed than the 20 that may"),
    ],
)
def test_so_many_may_fail(most: int, failures: int, halted: str) -> None:
    budget = Budget(most)
    budget.spend([stuck() for _ in range(failures)])
    assert budget.halted == halted


def test_what_was_told_in_the_midst_of_a_lot_is_counted_once_and_one_error_of_many_for_each() -> None:
    budget, told, also_told, of_all = Budget(6), stuck(), stuck(), stuck()
    budget.fail(told)
    budget.fail(also_told)
    budget.spend([told, also_told, stuck()])
    budget.spend([of_all] * 3)
    assert budget.halted == ""
    budget.spend([stuck()])
    assert budget.halted == "more failed than the 6 that may"


def test_one_too_many_in_the_midst_of_a_lot_halts_at_once() -> None:
    budget = Budget(1)
    budget.fail(stuck())
    budget.insist()
    with pytest.raises(Halted, match=r"^more failed than the 1 that may$"):
        budget.fail(stuck())
    with pytest.raises(Halted, match=r"^more failed"):
        budget.insist()


def test_who_may_not_go_on_found_nothing_wrong_and_begins_nothing_more() -> None:
    budget = Budget(0)
    budget.spend([Halted("an emergency stop is raised")] * 3)
    assert budget.halted == "an emergency stop is raised"
    budget.spend([stuck()])
    assert budget.halted == "an emergency stop is raised"


@pytest.mark.parametrize("failures", [0, 1])
def test_the_first_who_says_why_is_heard_before_the_count_of_what_failed(failures: int) -> None:
    budget = Budget(0)
    budget.spend([stuck() for _ in range(failures)])
    budget.halt("another took over")
    budget.halt("and again")
    assert budget.halted == "another took over"
