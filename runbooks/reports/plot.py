"""Small plots for a terminal, of plain blocks: the last hours of a metric with its threshold, and histograms. Pure."""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from statistics import median_low

__all__ = ["Point", "bars", "figure", "plot", "sparkline"]

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ROWS = 5
_WIDEST = 3  # columns that a single point may have

Point = tuple[datetime, float]
Band = tuple[float, float]


def plot(points: Sequence[Point], threshold: float | None, *, width: int) -> list[str]:
    """Return a metric as lines of at most `width` columns: values as bars, nothing where there is no data.

    The points are in the order of time. The threshold is a line of its own between the rows, with its value; the scale below
    it and above it may differ. The first and the last moment stand below, in this host's zone. Where points share a column,
    the highest is shown. No points, or no room for them: no lines.
    """
    if not points:
        return []
    top = max(value for _, value in points)
    bands = _bands(top, threshold)
    margin = max(len(figure(number)) for number in (top, threshold or 0.0))
    room, times = width - margin - 1, _times(points[0][0], points[-1][0])
    if room < max(map(len, times)):
        return []
    columns = _columns(points, room)
    lines = [
        f"{figure(top) if high == top else '':>{margin}}│{''.join(_block(value, low, high) for value in columns)}"
        for low, high in reversed(bands)
    ]
    if threshold is not None:
        above = sum(low >= threshold for low, _ in bands)
        lines.insert(above, f"{figure(threshold):>{margin}}┤{'┈' * len(columns)}")
    return [*(line.rstrip() for line in lines), " " * (margin + 1) + _below(times, len(columns), room)]


def bars(counts: Sequence[tuple[str, int]], *, width: int) -> list[str]:
    """Return counts as lines of at most `width` columns, each with its name, a bar and the count; what is above none is seen."""
    margin = max((len(name) for name, _ in counts), default=0)
    top = max((count for _, count in counts), default=0)
    room = width - margin - len(str(top)) - 2
    return [
        f"{name:>{margin}} {'█' * (max(1, round(count / top * room)) if count else 0)} {count}"
        for name, count in counts
    ]


def sparkline(counts: Sequence[float]) -> str:
    """Return counts as one line of blocks; whatever is above none is seen."""
    top = max(counts, default=0)
    return "".join(_BLOCKS[max(1, round(count / top * 8))] if count else " " for count in counts)


def _bands(top: float, threshold: float | None) -> list[Band]:
    """Cut the range into rows, lowest first, so that the threshold lies between two of them or at an end."""
    if threshold is None or threshold <= 0:
        return _split(0.0, top if top > 0 else 1.0, _ROWS)
    if top <= threshold:
        return _split(0.0, threshold, _ROWS)
    below = min(_ROWS - 1, max(1, round(_ROWS * threshold / top)))
    return _split(0.0, threshold, below) + _split(threshold, top, _ROWS - below)


def _split(low: float, high: float, rows: int) -> list[Band]:
    edges = [low + (high - low) * number / rows for number in range(rows)] + [high]
    return list(pairwise(edges))


def _columns(points: Sequence[Point], most: int) -> list[float | None]:
    """Return the highest value of each equal slice of time; None where there is none."""
    begin, end = points[0][0], points[-1][0]
    steps = [later - earlier for (earlier, _), (later, _) in pairwise(points) if later > earlier]
    slots = min(most, round((end - begin) / median_low(steps)) + 1) if steps else 1
    found: list[float | None] = [None] * slots
    for moment, value in points:
        slot = round((moment - begin) / (end - begin) * (slots - 1)) if steps else 0
        found[slot] = max(value, found[slot] or value)
    return [value for value in found for _ in range(min(_WIDEST, most // slots))]


def _block(value: float | None, low: float, high: float) -> str:
    """Return how far a value fills a row; one that is known is seen in the lowest row, be it zero."""
    if value is None or value <= low > 0:
        return " "
    filled = (min(value, high) - low) / (high - low) if high > low else 1.0
    return _BLOCKS[max(1, round(filled * 8))]


def _times(first: datetime, last: datetime) -> tuple[str, str]:
    """Return both moments in this host's zone, with the day where it is not one alone."""
    begin, end = first.astimezone(), last.astimezone()
    day = "" if begin.date() == end.date() else "%m-%d "
    return f"{begin:{day}%H:%M}", f"{end:{day}%H:%M %z}"


def _below(times: tuple[str, str], columns: int, room: int) -> str:
    """Return the two moments below the ends of the columns, as far as there is room for both."""
    both = max(columns, sum(map(len, times)) + 1)
    return f"{times[0]}{times[1]:>{both - len(times[0])}}" if both <= room else times[1]


def figure(value: float) -> str:
    """Return a value in few characters: 7, 0.25, 1500, 12.5k, 3.2M."""
    for unit in ("", "k", "M", "G"):
        if abs(value) < (1000 if unit else 9999.5):
            return f"{value:.4g}{unit}"
        value /= 1000
    return f"{value:.3g}T"
