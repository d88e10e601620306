"""A metric's drawing: where its line and its threshold are, and what is said of it in words."""

import math
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.reports.chart import HEIGHT, WIDTH, Chart, chart

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def drawn(*values: float | None, threshold: float | None = None) -> Chart:
    """Return the drawing of a value every five minutes, but for the gaps."""
    points = [
        (NOW + timedelta(minutes=5) * number, value)
        for number, value in enumerate(values)
        if value is not None
    ]
    made = chart(points, threshold)
    assert made
    return made


def places(path: str) -> list[tuple[float, float]]:
    """Return the points of a path."""
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.-]+) ([\d.-]+)", path)]


def test_the_first_point_is_at_the_left_the_last_at_the_right_and_more_is_higher() -> None:
    (first, low), (middle, high), (last, _) = places(drawn(1, 3, 2).line)
    assert (first, middle, last) == (0, WIDTH / 2, WIDTH)
    assert high < low < HEIGHT


def test_the_threshold_is_as_high_as_a_value_like_it() -> None:
    made = drawn(0, 10, 20, threshold=10)
    assert made.level == places(made.line)[1][1]
    assert (made.threshold, made.top) == ("10", "20")


@pytest.mark.parametrize(
    ("values", "threshold", "base"),
    [
        ((60, 165), 100, "0"),
        ((93, 105), 100, "87"),
        ((93, 105), None, "87"),
        ((105, 105), None, "0"),
        ((93, 105), 0, "0"),
        ((-5, 5), None, "-5"),
        ((0, 0), None, "0"),
    ],
)
def test_the_axis_begins_at_zero_unless_all_is_far_from_it(
    values: tuple[float, ...], threshold: float | None, base: str
) -> None:
    made = drawn(*values, threshold=threshold)
    assert made.base == base


def test_a_change_that_is_small_beside_the_values_can_be_seen() -> None:
    (_, first), (_, last) = places(drawn(93, 105, threshold=100).line)
    assert first - last > HEIGHT / 2


def test_what_is_above_the_threshold_is_marked_and_what_is_at_it_is_not() -> None:
    made = drawn(9, 10, 11, 12, threshold=10)
    assert places(made.above) == places(made.line)[2:]
    assert drawn(9, 10, 11).above == ""


def test_no_line_is_drawn_across_a_time_without_data_and_a_point_alone_is_a_dot() -> None:
    made = drawn(1, 2, 3, None, None, 4, None, None, 5, 6)
    assert re.sub(r"[\d. -]+", "", made.line.replace("h0", "h")) == "MhLLMhMhL"


@pytest.mark.parametrize(
    ("values", "threshold", "told"),
    [
        (
            (1, 3, 2),
            None,
            "3 values, 2026-03-01T12:00Z/2026-03-01T12:10Z: lowest 1, highest 3, last 2.",
        ),
        (
            (7,),
            5,
            "1 value, 2026-03-01T12:00Z: lowest 7, highest 7, last 7. Threshold 5: 1 value is above it.",
        ),
    ],
)
def test_it_is_told_in_words(values: tuple[float, ...], threshold: float | None, told: str) -> None:
    assert drawn(*values, threshold=threshold).told == told


@pytest.mark.parametrize(
    ("hours", "labels"),
    [(2, ("12:00", "13:00", "14:00 UTC")), (24, ("03-01 12:00", "03-02 00:00", "03-02 12:00 UTC"))],
)
def test_the_ends_and_the_middle_are_named_with_the_day_where_there_are_two(
    hours: int, labels: tuple[str, ...]
) -> None:
    made = chart([(NOW, 1.0), (NOW + timedelta(hours=hours), 2.0)], None)
    assert made
    assert made.labels == labels


def test_what_is_no_number_is_not_drawn() -> None:
    assert chart([], 5) is None
    assert chart([(NOW, math.nan), (NOW, math.inf)], 5) is None
    made = chart([(NOW, math.nan), (NOW + timedelta(minutes=5), 2.0)], math.inf)
    assert made
    assert (len(places(made.line)), made.level) == (1, None)


NUMBERS = st.floats(-1e12, 1e12)


@given(st.lists(NUMBERS, min_size=1, max_size=50), st.one_of(st.none(), NUMBERS))
def test_whatever_the_values_are_they_are_within_the_drawing(
    values: list[float], threshold: float | None
) -> None:
    made = drawn(*values, threshold=threshold)
    found = places(made.line)
    assert len(found) == len(values)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in found)
    assert made.level is None or 0 <= made.level <= HEIGHT
