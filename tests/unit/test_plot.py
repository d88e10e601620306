"""A metric in a terminal."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.reports.plot import plot, sparkline

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def series(*values: float | None) -> list[tuple[datetime, float]]:
    """Return a point every five minutes, but for the gaps."""
    return [
        (NOW + timedelta(minutes=5) * number, value)
        for number, value in enumerate(values)
        if value is not None
    ]


def marks(lines: list[str]) -> list[int]:
    """Return which lines are the threshold."""
    return [number for number, line in enumerate(lines) if "┈" in line]


def test_the_threshold_is_a_line_with_its_value_and_only_what_breaches_is_above_it() -> None:
    lines = plot(series(20, 90, 110, 120, None, 100), 100, width=40)
    (mark,) = marks(lines)
    assert lines[mark].startswith("100┤┈")
    above = lines[:mark]
    assert above
    assert [
        any(line[4 + 3 * slot :].strip()[:1] and line[4 + 3 * slot] != " " for line in above)
        for slot in range(6)
        if slot != 4
    ] == [
        False,
        False,
        True,
        True,
        False,
    ]


def test_a_gap_is_blank_and_a_zero_is_not() -> None:
    lines = plot(series(5, None, 0, 5), 10, width=40)
    bottom = lines[-2]
    body = bottom.partition("│")[2]
    assert body[3:6] == "   "
    assert body[6:9] == "▁▁▁"


@pytest.mark.parametrize(
    ("values", "threshold", "mark"),
    [
        ((1.0, 2.0), 5.0, 0),  # all is below: the line is on top
        ((1.0, 10.0), 0.0, 5),  # anything is too much: the line is at the bottom
        ((10.0, 20.0), 10.0, 3),
    ],
)
def test_where_the_threshold_lies(values: tuple[float, ...], threshold: float, mark: int) -> None:
    assert marks(plot(series(*values), threshold, width=60)) == [mark]


def test_without_a_threshold_there_is_no_line_and_without_points_nothing() -> None:
    assert marks(plot(series(1, 2), None, width=60)) == []
    assert plot([], 5, width=60) == []


@pytest.mark.parametrize(
    ("hours", "below"),
    [(1, "13:00     14:00 +0100"), (0, "13:00 13:00 +0100"), (30, "03-01 13:00  03-02 19:00 +0100")],
)
def test_the_ends_stand_below_in_the_operators_zone(
    hours: int, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [(NOW + timedelta(minutes=10) * number, 1.0) for number in range(6 * hours + 1)]
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        lines = plot(points, None, width=32)
    time.tzset()
    assert lines[-1] == "  " + below


def test_one_point_too_many_does_not_tear_the_others_apart() -> None:
    points = series(*[5.0] * 12)
    points.append((points[-1][0] + timedelta(seconds=1), 5.0))
    assert " " not in plot(points, None, width=60)[-2].partition("│")[2]


def test_what_shares_a_column_shows_its_peak() -> None:
    lines = plot(series(*[0.0] * 500, 7.0, *[0.0] * 500), 5, width=40)
    assert "█" in lines[0]
    assert lines[0].startswith("7│")


def test_where_there_is_no_room_there_is_no_plot() -> None:
    assert plot(series(1, 2), 5, width=8) == []


@given(
    st.lists(st.one_of(st.none(), st.floats(0, 1e12)), min_size=1, max_size=300).filter(
        lambda values: any(value is not None for value in values)
    ),
    st.one_of(st.none(), st.floats(0, 1e12)),
    st.integers(1, 200),
)
def test_it_fits_the_width_and_tells_what_breaches(
    values: list[float | None], threshold: float | None, width: int
) -> None:
    lines = plot(series(*values), threshold, width=width)
    assert all(len(line) <= width for line in lines)
    assert len(lines) in (0, 6 + (threshold is not None))
    if lines and threshold:
        (mark,) = marks(lines)
        breached = any(value is not None and value > threshold for value in values)
        assert any(line.partition("│")[2].strip() for line in lines[:mark]) is breached


@pytest.mark.parametrize(
    ("counts", "line"),
    [((), ""), ((0, 0), "  "), ((0, 1, 8), " ▁█"), ((1, 1000), "▁█")],
)
def test_a_histogram_in_one_line(counts: tuple[int, ...], line: str) -> None:
    assert sparkline(counts) == line
