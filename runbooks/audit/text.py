"""An audit in the terminal: the verdict, what has changed, what is wrong, and which task shows and mends it."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from runbooks.audit.changes import KINDS
from runbooks.audit.sections import Section
from runbooks.audit.summary import Audit, calling, words
from runbooks.engine.model import Severity
from runbooks.reports.terminal import findings_lines
from sandbox.text import clean, counted

__all__ = ["ended", "text"]

_WORDS = {"untold": "cannot tell any more"}
_MOST = 10  # changes of a kind that are told; the report has all
_ALIKE = 5  # findings of one check and severity that are told


def ended(section: Section) -> str:
    """Return a line for a section that has just been looked at."""
    proposed = f", {counted(len(section.actions), 'change')} proposed" if section.actions else ""
    return f"{section.name:<12} {words(section)}{proposed}"


def text(audit: Audit, changes: Mapping[str, Any] | None, *, colour: bool, width: int) -> str:
    """Return an audit as text: the answer first, then the why, then what to type."""
    marked = "LAB  " if audit.environment.lab else ""
    lines = _wrapped(f"{marked}AUDIT of {audit.environment.name}: {audit.verdict}", width)
    lines += ["", *_changed(changes, width), ""]
    lines += _wrong(audit, colour=colour, width=width)
    well = sum(told.finding.severity is Severity.OK for told in audit.findings)
    lines += [f"{counted(well, 'check is', 'checks are')} well.", ""]
    return "\n".join([*lines, *_procedures(audit, width)])


def _changed(changes: Mapping[str, Any] | None, width: int) -> Iterator[str]:
    if changes is None:
        yield "There is no earlier audit to compare it with."
        return
    counts = [f"{len(changes[kind])} {_WORDS.get(kind, kind)}" for kind in KINDS if changes[kind]]
    yield from _wrapped(f"Since {changes['since']}: {', '.join(counts) or 'nothing has changed'}", width)
    for kind in KINDS:
        for each in changes[kind][:_MOST]:
            was = f" (was {each['was']})" if each["was"] and each["severity"] else ""
            told = f"{kind.upper():<7} {clean(each['summary'])}{was}"
            yield from _wrapped(f"  {told}", width, indent=" " * 10)
        if len(changes[kind]) > _MOST:
            yield f"          … and {len(changes[kind]) - _MOST} more {_WORDS.get(kind, kind)}"


def _wrong(audit: Audit, *, colour: bool, width: int) -> list[str]:
    seen: Counter[tuple[Severity, str]] = Counter()
    shown = []
    for each in (told.finding for told in audit.findings if told.finding.severity is not Severity.OK):
        seen[each.severity, each.check] += 1
        if seen[each.severity, each.check] <= _ALIKE:
            shown.append(each)
    lines = findings_lines(shown, colour=colour, width=width)
    for (severity, check), count in seen.items():
        if count > _ALIKE:
            lines.append(f"{severity:<8} … and {count - _ALIKE} more: {clean(check)}")
    return lines


def _procedures(audit: Audit, width: int) -> Sequence[str]:
    """Tell what each section came to, and the task that shows it and proposes."""
    rows = [
        [each.name, words(each), len(each.actions) or "", calling(each, audit.environment)]
        for each in audit.sections
    ]
    if width < 100:
        rows = [row[:3] for row in rows]
    heads = ["", "", "proposed", "to see it and its plan"]
    table = tabulate(rows, headers=heads[: len(rows[0])], tablefmt="simple").splitlines()
    if width >= 100:
        return table
    todo = [calling(each, audit.environment) for each in audit.sections if each.exit]
    return [*table, *(["", "To see one with its plan:", *(f"  {line}" for line in todo)] if todo else [])]


def _wrapped(line: str, width: int, *, indent: str = "") -> list[str]:
    return textwrap.wrap(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
