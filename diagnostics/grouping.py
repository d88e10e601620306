"""Errors of a log, grouped as its lines stream by: only a few samples are held, never all lines. Pure."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from diagnostics.causes import Cause, match
from diagnostics.loglines import ERROR, LogLine, calm, fingerprint, parse
from diagnostics.shapes import Shapes
from sandbox.text import clean

__all__ = ["BINS", "ELSE", "MOST_NAMES", "ErrorGroup", "Event", "grouped"]

BINS = 24
"""How many slices of time a histogram has."""

ELSE = "everything else"
"""The fingerprint of the group that counts what came when there were too many groups already."""

MOST_NAMES = 20
"""Sandboxes, and steps, that a group names."""

_MOST_GROUPS = 200
_SAMPLE = 300  # characters

Event = tuple[datetime, str]
"""A line, and when CloudWatch says it was logged (UTC)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorGroup:
    """Lines that tell of the same error; times are UTC.

    `sample` is the newest line, fit for a terminal, without passwords. `sandboxes` and `steps` are some of those
    concerned. `histogram` counts them in BINS equal slices of the window.
    """

    fingerprint: str
    count: int
    first: datetime
    last: datetime
    sample: str
    component: str | None
    cause: Cause | None
    sandboxes: tuple[str, ...]
    steps: tuple[str, ...]
    histogram: tuple[int, ...]


def grouped(events: Iterable[Event], begin: datetime, end: datetime) -> tuple[ErrorGroup, ...]:
    """Group the errors among lines: the most frequent first, of equals the most recent; ELSE, if needed, last."""
    tallies: dict[str, _Tally] = {}
    shapes: Shapes[_Tally | None] = Shapes()
    width = (end - begin) / BINS or timedelta.resolution
    for at, text in events:
        if calm(text):
            continue
        if known := shapes.find(text):
            tally, ids = known
        else:
            line = parse(at, text)
            key = fingerprint(line) if line.level >= ERROR else ""
            tally, ids = _tally(tallies, key, line, text), line.sandboxes
            shapes.learn(text, tally, ids, kept=key)
        if tally:
            tally.add(at, text, ids, min(BINS - 1, max(0, int((at - begin) / width))))
    rest = tallies.pop(ELSE, None)
    groups = [tally.group(key) for key, tally in tallies.items()]
    groups.sort(key=lambda group: (group.count, group.last), reverse=True)
    return (*groups, *([rest.group(ELSE)] if rest else []))


@dataclass(slots=True)
class _Tally:
    """A group while it grows. Its lines are alike, so the newest one is read once it is known to be."""

    first: datetime
    last: datetime
    newest: str
    count: int = 0
    sandboxes: dict[str, None] = field(default_factory=dict)
    steps: dict[str, None] = field(default_factory=dict)
    histogram: list[int] = field(default_factory=lambda: [0] * BINS)

    def add(self, at: datetime, text: str, sandboxes: Sequence[str], slot: int) -> None:
        self.count += 1
        self.histogram[slot] += 1
        if at < self.first:
            self.first = at
        if at > self.last:
            self.last, self.newest = at, text
        if sandboxes and len(self.sandboxes) < MOST_NAMES:
            self.sandboxes.update(dict.fromkeys(sandboxes))

    def group(self, key: str) -> ErrorGroup:
        other, newest = key == ELSE, parse(self.last, self.newest)
        return ErrorGroup(
            fingerprint=key,
            count=self.count,
            first=self.first,
            last=self.last,
            sample=_sample(newest.text),
            component=None if other else newest.component,
            cause=None if other else match(newest.text),
            sandboxes=tuple(self.sandboxes)[:MOST_NAMES],
            steps=tuple(self.steps),
            histogram=tuple(self.histogram),
        )


def _tally(tallies: dict[str, _Tally], key: str, line: LogLine, text: str) -> _Tally | None:
    """Return the tally that a line belongs to, with the step that it names; None where it is no error."""
    if not key:
        return None
    if key not in tallies:
        key = key if len(tallies) < _MOST_GROUPS else ELSE
    tally = tallies.setdefault(key, _Tally(first=line.at, last=line.at, newest=text))
    if line.step and len(tally.steps) < MOST_NAMES:
        tally.steps[line.step] = None
    return tally


def _sample(text: str) -> str:
    text = clean(re.sub(r"\s+", " ", text))
    return text if len(text) <= _SAMPLE else f"{text[: _SAMPLE - 1]}…"
