"""An audit in the terminal: the verdict, what has changed, what is wrong, and which task shows and mends it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tabulate import tabulate

from runbooks.audit.changes import KINDS
from runbooks.audit.sections import Section
from runbooks.audit.summary import Audit, Told, calling, words
from runbooks.engine.model import Finding, Severity
from runbooks.findings import CANNOT_TELL
from runbooks.reports.clock import local
from runbooks.reports.terminal import findings_lines, wrapped
from sandbox.text import clean, counted

__all__ = ["progress", "text"]

_WORDS = {"untold": "cannot be compared"}
_MOST = 10  # changes of a kind that are told; the report has all
_ALIKE = 5  # findings of one check and severity that are told


def progress(section: Section) -> str:
    """Return a line for a section that has just been looked at."""
    proposed = f", {counted(len(section.actions), 'change')} proposed" if section.actions else ""
    return f"{section.name:<12} {words(section)}{proposed}"


def text(audit: Audit, changes: Mapping[str, Any] | None, *, colour: bool, width: int) -> str:
    """Return an audit as text: the answer first, then the why, then what to type."""
    marked = "LAB  " if audit.environment.lab else ""
    lines = wrapped(f"{marked}AUDIT of {audit.environment.name}: {audit.verdict}", width)
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
    yield from wrapped(
        f"Since {clean(changes['since'])}: {', '.join(counts) or 'nothing has changed'}", width
    )
    for kind in KINDS:
        for each in changes[kind][:_MOST]:
            was = f" (was {clean(each['was'])})" if each["was"] and each["severity"] else ""
            told = f"{kind.upper():<7} {local(clean(each['summary']))}{was}"
            yield from wrapped(f"  {told}", width, further=" " * 10)
        if len(changes[kind]) > _MOST:
            yield f"          … and {len(changes[kind]) - _MOST} more {_WORDS.get(kind, kind)}"


def _wrong(audit: Audit, *, colour: bool, width: int) -> list[str]:
    """Tell what is not well, of those that are alike the first ones; and once why a source could not tell, with all that it hides."""
    seen: Counter[tuple[Severity, str]] = Counter()
    shown: list[Finding] = []
    for told in _once([told for told in audit.findings if told.finding.severity is not Severity.OK]):
        each = told.finding
        seen[each.severity, each.check] += 1
        if seen[each.severity, each.check] <= _ALIKE:
            shown.append(replace(each, summary=f"{each.summary} ({', '.join(told.sections)})"))
    lines = findings_lines(shown, colour=colour, width=width)
    for (severity, check), count in seen.items():
        if count > _ALIKE:
            lines.append(f"{severity:<8} … and {count - _ALIKE} more: {clean(check)}")
    return lines


def _once(found: Sequence[Told]) -> list[Told]:
    """Return the findings, those together that cannot tell for the same reason."""
    alike: dict[str, list[Told]] = {}
    for told in found:
        _, cannot, reason = told.finding.summary.partition(CANNOT_TELL)
        unknown = cannot and told.finding.severity is Severity.UNKNOWN
        alike.setdefault(reason if unknown else f"{len(alike)} {told.finding.summary}", []).append(told)
    return [several[0] if len(several) == 1 else _together(several) for several in alike.values()]


def _together(several: Sequence[Told]) -> Told:
    first = several[0].finding
    reason = first.summary.partition(CANNOT_TELL)[2]
    checks = dict.fromkeys(told.finding.check for told in several)
    summary = f"{', '.join(checks)}{CANNOT_TELL}{reason}"
    sections = dict.fromkeys(name for told in several for name in told.sections)
    return Told(finding=replace(first, summary=summary), sections=tuple(sections))


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
