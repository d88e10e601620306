"""A metric as a line with its threshold: the coordinates of a drawing that may be stretched to any width. Pure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median_low

from runbooks.reports.plot import Point, figure
from sandbox.text import counted, period

__all__ = ["HEIGHT", "WIDTH", "Chart", "chart"]

WIDTH, HEIGHT = 1000, 150
"""The units of the drawing's coordinates; its height is in pixels, its width is whatever there is."""

_ROOM = 1.1  # how much higher than the highest value the drawing is
_GAP = 2.5  # usual steps between two points, beyond which no line joins them


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """`line` and `above` are paths: of all values, and dots for those above the threshold, whose height is `level`.

    `top` is the highest value, `base` where the axis begins, `labels` are the first moment, the one in the middle and the last; `told` says all of it in words, for who cannot see it.
    """

    line: str
    above: str
    level: float | None
    threshold: str
    top: str
    base: str
    labels: tuple[str, str, str]
    told: str


def chart(points: Sequence[Point], threshold: float | None) -> Chart | None:
    """Return the drawing of points that are in the order of time; None where none has a value that can be drawn."""
    drawn = [(at, value) for at, value in points if math.isfinite(value)]
    if not drawn:
        return None
    limit = threshold if threshold is not None and math.isfinite(threshold) else None
    values = [value for _, value in drawn]
    seen = values if limit is None else [*values, limit]
    base = _base(seen)
    down = _scale(base, max(seen))
    places = [(_across(at, drawn), down(value)) for at, value in drawn]
    above = [
        place for place, value in zip(places, values, strict=True) if limit is not None and value > limit
    ]
    return Chart(
        line=_line(places, [at for at, _ in drawn]),
        above="".join(map(_dot, above)),
        level=None if limit is None else round(down(limit), 1),
        threshold="" if limit is None else figure(limit),
        top=figure(max(values)),
        base=figure(base),
        labels=_labels(drawn[0][0], drawn[-1][0]),
        told=_told(drawn, limit, len(above)),
    )


def _base(values: Sequence[float]) -> float:
    """Return where the axis begins: at zero, but for values that would all be far from it, as their changes could not be seen."""
    low, high = min(values), max(values)
    return low - (high - low) / 2 if high / 2 < low < high else min(0.0, low)


def _scale(base: float, high: float) -> Callable[[float], float]:
    """Return how far down a value is drawn."""
    return lambda value: HEIGHT - (value - base) / (high - base or 1.0) * HEIGHT / _ROOM


def _across(at: datetime, points: Sequence[Point]) -> float:
    begin, end = points[0][0], points[-1][0]
    return (at - begin) / (end - begin) * WIDTH if end > begin else WIDTH / 2


def _line(places: Sequence[tuple[float, float]], moments: Sequence[datetime]) -> str:
    """Join the points, but not across a time without data; one that stands alone is a dot."""
    steps = [later - earlier for earlier, later in pairwise(moments) if later > earlier]
    longest = median_low(steps) * _GAP if steps else timedelta.max
    path = ""
    for number, (x, y) in enumerate(places):
        joined = number > 0 and moments[number] - moments[number - 1] <= longest
        path += f"L{x:.1f} {y:.1f}" if joined else _dot((x, y))
    return path


def _dot(place: tuple[float, float]) -> str:
    return f"M{place[0]:.1f} {place[1]:.1f}h0"


def _labels(begin: datetime, end: datetime) -> tuple[str, str, str]:
    begin, end = begin.astimezone(UTC), end.astimezone(UTC)
    day = "" if begin.date() == end.date() else "%m-%d "
    middle = begin + (end - begin) / 2
    return f"{begin:{day}%H:%M}", f"{middle:{day}%H:%M}", f"{end:{day}%H:%M} UTC"


def _told(points: Sequence[Point], threshold: float | None, above: int) -> str:
    (begin, _), (end, last) = points[0], points[-1]
    values = [value for _, value in points]
    told = (
        f"{counted(len(points), 'value')}, {period(begin, end)}:"
        f" lowest {figure(min(values))}, highest {figure(max(values))}, last {figure(last)}."
    )
    return (
        told
        if threshold is None
        else f"{told} Threshold {figure(threshold)}: {counted(above, 'value is', 'values are')} above it."
    )
