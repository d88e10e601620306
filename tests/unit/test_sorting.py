"""What a worker was handed, by what has become of it; and how fast a run goes."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from runbooks.engine.following import Speed
from runbooks.engine.journal import JournalEntry
from runbooks.engine.model import Phase
from runbooks.engine.sorting import Sorted, sort_out
from sandbox.ports import Parcel

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def parcel(action: str | None = "a1", delivered: int = 1) -> Parcel:
    return Parcel(action=action, delivered=delivered, receipt=f"receipt-{action}")


def past(*phases: Phase, action: str = "a1") -> list[JournalEntry]:
    return [
        JournalEntry(
            chain="c",
            seq=number,
            run="r",
            action=action,
            phase=phase,
            at=NOW,
            actor="chani",
            observed={},
            error=None,
            previous="",
        )
        for number, phase in enumerate(phases)
    ]


S, D, F, K = Phase.STARTED, Phase.DONE, Phase.FAILED, Phase.SKIPPED


@pytest.mark.parametrize(
    ("phases", "delivered", "field"),
    [
        ((), 1, "fresh"),
        ((), 20, "fresh"),  # given back again and again: nobody was killed by it
        ((S,), 2, "suspect"),
        ((S, S), 9, "alone"),
        ((S, F), 1, "fresh"),  # it failed as it should, and was laid out again
        ((S, S, F, S), 4, "suspect"),
        ((S, F, S, S), 4, "alone"),
        ((S, D), 2, "ended"),
        ((S, F, S, D), 2, "ended"),
        ((K,), 2, "ended"),
        ((S, S, S, D), 30, "ended"),
    ],
)
def test_what_is_handed_out_is_sorted_by_its_past(
    phases: Sequence[Phase], delivered: int, field: str
) -> None:
    given = parcel(delivered=delivered)
    found = sort_out([given], {"a1"}, past(*phases))
    assert {name: getattr(found, name) for name in Sorted.__slots__ if getattr(found, name)} == {
        field: (given,)
    }


@pytest.mark.parametrize(
    ("phases", "delivered", "why"),
    [
        ((S, S, S), 1, "begun 3 times, and whoever began it came to no end"),
        ((F, S, S, S, S), 4, "begun 4 times, and whoever began it came to no end"),
        ((), 21, "handed out 21 times, and nobody came to an end"),
        ((S,), 22, "handed out 22 times, and nobody came to an end"),
    ],
)
def test_what_kills_its_workers_is_told_from_what_was_given_back(
    phases: Sequence[Phase], delivered: int, why: str
) -> None:
    given = parcel(delivered=delivered)
    assert sort_out([given], {"a1"}, past(*phases)).deadly == ((given, why),)


def test_what_is_none_of_the_plans_actions_is_a_stranger_whatever_its_past() -> None:
    strangers = (parcel(None), parcel("a2", delivered=50))
    assert sort_out(strangers, {"a1"}, past(S, S, S, action="a2")).strangers == strangers


def test_each_is_judged_by_its_own_records() -> None:
    given = [parcel("a1"), parcel("a2"), parcel("a3")]
    found = sort_out(given, {"a1", "a2", "a3"}, [*past(S, D), *past(S, action="a2")])
    assert (found.ended, found.suspect, found.fresh) == ((given[0],), (given[1],), (given[2],))


def test_the_rate_is_that_of_the_last_half_minute() -> None:
    speed = Speed()
    assert speed.take(NOW, 100) is None
    seen = [speed.take(NOW + timedelta(seconds=second), 100 + 10 * second) for second in range(1, 41)]
    assert seen == [10.0] * 40
    slower = [speed.take(NOW + timedelta(seconds=second), 500) for second in range(41, 72)]
    assert slower == sorted([rate for rate in slower if rate is not None], reverse=True)
    assert slower[-1] == 0
