"""A finding's evidence, which has other members for each check, as a person reads it. Pure; JSON's own types."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from runbooks.reports.chart import chart
from runbooks.reports.plot import Point
from sandbox.text import counted, moment, size

__all__ = ["folds", "is_listing", "plotted", "points_of", "rest", "shown"]

Json = Mapping[str, Any]

_FOLDED = ("details", "drawn", "hint", "histogram")
_TOLD = (*_FOLDED, "moments", "points", "threshold", "window")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+\d\d:\d\d|Z)$")
_LONGEST, _MOST_ITEMS = 4_000, 50  # characters of a text and items of a list that are shown


def points_of(evidence: Json) -> list[Point]:
    """Return a metric's points, none where the evidence has none."""
    return [(datetime.fromisoformat(at), float(value)) for at, value in evidence.get("points", ())]


def plotted(evidence: Json) -> str:
    """Return a metric in words; empty where the evidence has none."""
    drawing = chart(points_of(evidence), evidence.get("threshold"))
    return drawing.told if drawing else ""


def rest(evidence: Json) -> dict[str, Any]:
    """Return the evidence that no other part of a page tells, without what is empty."""
    left = {
        key: value for key, value in evidence.items() if key not in _TOLD and value not in (None, "", [], {})
    }
    return {**left, "bytes": size(left["bytes"])} if isinstance(left.get("bytes"), int) else left


def folds(finding: Json) -> bool:
    """Whether there is something to fold under a finding."""
    evidence = finding["evidence"]
    return bool(finding["source"] or rest(evidence) or any(evidence.get(key) for key in _FOLDED))


def is_listing(value: Any) -> bool:
    """Whether a value is a few things, each with members of its own, so that each has a line of its own."""
    return isinstance(value, list) and 0 < len(value) <= _MOST_ITEMS and isinstance(value[0], dict)


def shown(value: Any) -> str:
    """Return any value of JSON as a person reads it, cut where it is too long."""
    told = _words(value)
    more = len(told) - _LONGEST
    return told if more <= 0 else f"{told[:_LONGEST]}… ({counted(more, 'more character')})"


def _words(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case str():
            return _moment(value)
        case float():
            return f"{value:.12g}"
        case list():
            more = len(value) - _MOST_ITEMS
            told = ", ".join(map(_words, value[:_MOST_ITEMS]))
            return told if more <= 0 else f"{told}, and {more} more"
        case {"bytes": int() as count, **others}:
            return _words({**others, "size": size(count)})
        case dict():
            there = {key: each for key, each in value.items() if each not in ("", [], {})}
            return "; ".join(f"{key.replace('_', ' ')} {_words(each)}" for key, each in there.items())
        case _:
            return str(value)


def _moment(text: str) -> str:
    """Return a moment of JSON as texts have it; a text that is none, though it may look like one, as it is."""
    if not _MOMENT.match(text):
        return text
    try:
        return moment(datetime.fromisoformat(text), exact=True)
    except (ValueError, OverflowError):
        return text
