"""Curves on two logarithmic axes, as an SVG that can be read on light and on dark, by whoever sees colours and whoever does not."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean

__all__ = ["Curve", "drawn", "power"]

_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 250, 20, 50
_COLOURS = ("#2f7ed8", "#d9822b", "#2e9e5b", "#b455c8", "#c9463d")  # each at least 3:1 on white and on black
_STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #555 }
.grid { stroke: #8884; stroke-width: 1 }
path { fill: none; stroke-width: 2 }
@media (prefers-color-scheme: dark) { text { fill: #bbb } }
</style>"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Values at each place on the axis, all above zero. Memory, unit "MiB", is dashed."""

    name: str
    unit: str
    values: Sequence[float]


def power(places: Sequence[float], values: Sequence[float]) -> float:
    """Return the power of the place with which the values grow, by the least squares of their logarithms."""
    across, up = [math.log(each) for each in places], [math.log(each) for each in values]
    middle, height = fmean(across), fmean(up)
    spread = sum((x - middle) ** 2 for x in across)
    return sum((x - middle) * (y - height) for x, y in zip(across, up, strict=True)) / spread


def drawn(places: Sequence[float], curves: Sequence[Curve], *, across: str) -> str:
    """Return the drawing."""
    low = math.floor(min(math.log10(value) for each in curves for value in each.values))
    high = math.ceil(max(math.log10(value) for each in curves for value in each.values))
    right = _scale((math.log10(places[0]), math.log10(places[-1])), (_LEFT, _WIDTH - _RIGHT))
    up = _scale((low, high), (_HEIGHT - _BOTTOM, _TOP))
    told = "; ".join(
        f"{each.name}: {each.values[0]:.3g} to {each.values[-1]:.3g} {each.unit}" for each in curves
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(told)}</title>",
        _STYLE,
    ]
    for exponent in range(low, high + 1):
        lines += _rule(f"{10**exponent:g}", up(exponent))
    for place in places:
        lines.append(_text(right(math.log10(place)), _HEIGHT - _BOTTOM + 20, f"{place:,}", anchor="middle"))
    lines.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, across, anchor="middle"))
    for number, each in enumerate(curves):
        points = [(right(math.log10(x)), up(math.log10(y))) for x, y in zip(places, each.values, strict=True)]
        lines += _curve(points, each, number)
    return "\n".join([*lines, "</svg>", ""])


def _scale(given: tuple[float, float], drawn_at: tuple[float, float]) -> Callable[[float], float]:
    """Return where on the paper a value lies."""
    (begin, end), (first, last) = given, drawn_at
    return lambda value: first + (value - begin) / ((end - begin) or 1.0) * (last - first)


def _rule(label: str, height: float) -> Iterator[str]:
    yield f'<path class="grid" d="M{_LEFT} {height:.1f}H{_WIDTH - _RIGHT}"/>'
    yield _text(_LEFT - 8, height + 4, label, anchor="end")


def _curve(points: Sequence[tuple[float, float]], curve: Curve, number: int) -> Iterator[str]:
    """Yield a line with its dots, and its name in the legend: colour alone tells nothing to whoever does not see it."""
    colour, dashes = (
        _COLOURS[number % len(_COLOURS)],
        ' stroke-dasharray="6 4"' if curve.unit == "MiB" else "",
    )
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    yield f'<path d="M{path}" stroke="{colour}"{dashes}/>'
    for x, y in points:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>'
    x, y = points[-1]
    key, height = _WIDTH - _RIGHT + 16, _TOP + 14 + 24 * number
    yield f'<path d="M{key} {height - 4}h26" stroke="{colour}"{dashes}/>'
    yield _text(key + 34, height, f"{number + 1} {curve.name}, {curve.unit}")
    yield _text(x + 6, y + 4, str(number + 1))


def _text(x: float, y: float, what: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(what)}</text>'
