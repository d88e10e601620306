"""What the pages show of a document: findings by severity, plots, and of what is many as much as a person reads. Pure.

Documents are JSON's own types, as runbooks.reports.document makes them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from runbooks.engine.model import Phase, Severity
from runbooks.reports.chart import Chart, chart
from runbooks.reports.evidence import points_of
from runbooks.reports.plot import Point
from runbooks.reports.terminal import ORDER, ordered
from runbooks.reports.timeline import ENDS

__all__ = [
    "CHANGES",
    "Amount",
    "Figure",
    "Group",
    "amounts",
    "condensed",
    "counts",
    "ending",
    "figures",
    "groups",
    "name",
    "proposing",
    "sources",
    "tally",
    "told",
    "tone",
]

CHANGES = {
    "new": "New",
    "worse": "Worse",
    "better": "Better",
    "gone": "Gone",
    "untold": "Was wrong, and cannot be told any more",
}
"""What may have changed between two audits, and how a page heads it."""

Json = Mapping[str, Any]

_ALIKE = 6  # actions in a row that ended alike, beyond which a time line counts them
_TONES = {"applied": Severity.OK, "unknown": Severity.UNKNOWN, "error": Severity.CRITICAL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The findings of a severity: `full` with their evidence, `brief` without, as there are too many."""

    severity: Severity
    full: Sequence[Json]
    brief: Sequence[Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A finding's metric: its drawing, and the figures themselves."""

    title: str
    chart: Chart
    points: Sequence[Point]


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """How many actions of a plan are alike, and the first of their targets."""

    group: str
    verb: str
    count: int
    first: Sequence[str]


def name(document: Json) -> str:
    """Return what a document's files are called: after its audit, run or plan, else after its runbook and when it was."""
    if "audit" in document:
        return str(document["audit"])
    if made := document["run"] or document["plan"]:
        return str(made["id"])
    when = f"{datetime.fromisoformat(document['at']):%Y%m%d-%H%M%S}" if document["at"] else "not-done"
    return f"{document['runbook'] or 'runbook'}-{when}"


def tone(document: Json) -> Severity:
    """Return how bad what a document says is, as one severity."""
    if document.get("run") or document.get("error"):
        return _TONES.get(document["outcome"], Severity.WARNING)
    worst = next(map(Severity, counts(document["findings"])), Severity.OK)
    return Severity.WARNING if worst is Severity.OK and document["outcome"] == "proposed" else worst


def counts(findings: Iterable[Json]) -> dict[str, int]:
    """Return how many findings there are of each severity that there is, the worst first."""
    numbers = Counter(finding["severity"] for finding in findings)
    return {severity.value: numbers[severity] for severity in ORDER if numbers[severity]}


def tally(numbers: Mapping[str, int]) -> str:
    """Return how many findings there are of each severity in words, the worst first."""
    told = [f"{numbers[severity]} {severity}" for severity in ORDER if numbers.get(severity)]
    return ", ".join(told) or "none"


def groups(findings: Sequence[Json], *, most: int) -> list[Group]:
    """Return the findings by severity, the worst first, `most` of them in full. A way is told hop by hop, where its worst is."""
    found, left = [], most
    for severity, mine in ordered(findings, lambda each: (each["severity"], each["check"])):
        found.append(Group(severity=severity, full=mine[:left], brief=mine[left:]))
        left = max(0, left - len(mine))
    return found


def figures(findings: Iterable[Json], *, most: int) -> list[Figure]:
    """Return the metrics among the findings' evidence, at `most` so many."""
    found = []
    for finding in findings:
        points = points_of(finding["evidence"])
        drawing = chart(points, finding["evidence"].get("threshold"))
        if drawing:
            found.append(Figure(title=finding["summary"], chart=drawing, points=points))
    return found[:most]


def condensed(timeline: Sequence[Json], *, most: int) -> list[Json]:
    """Return a time line as a person reads it: actions in a row that ended alike are counted; at `most` so many lines."""
    lines: list[Json] = []
    for (kind, _), run in groupby(timeline, key=lambda moment: (moment["kind"], moment["severity"])):
        alike = list(run)
        if kind == "action" and len(alike) > _ALIKE:
            told = f"{len(alike) - 2} more like it, the last of them next"
            lines += [alike[0], {**alike[1], "text": told}, alike[-1]]
        else:
            lines += alike
    if len(lines) > most:
        cut = lines[most // 2 : -(most // 2)]
        told = f"{len(cut)} more, which the JSON file has"
        middle = {**cut[0], "kind": "event", "text": told, "severity": None}
        lines = [*lines[: most // 2], middle, *lines[-(most // 2) :]]
    return lines


def amounts(actions: Iterable[Json]) -> list[Amount]:
    """Return how many actions there are of each kind, for a plan with more of them than a person reads."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for action in actions:
        groups[str(action["before"].get("group", "")), action["verb"]].append(action["resource"]["id"])
    return [
        Amount(group=group, verb=verb, count=len(names), first=names[:2])
        for (group, verb), names in groups.items()
    ]


def told(results: Sequence[Json], *, most: int) -> Sequence[Json]:
    """Return the results that are told one by one: all, or of more than that those that are not as they should be."""
    if len(results) <= most:
        return results
    return [each for each in results if not each["settled"]][:most]


def ending(result: Json) -> Severity:
    """Return how bad what became of an action is."""
    if result["settled"]:
        return Severity.OK
    return ENDS.get(Phase(result["phase"] or Phase.STARTED), Severity.UNKNOWN)


def sources(findings: Iterable[Json]) -> list[str]:
    """Return the commands by which a person sees what is wrong or unknown, each once."""
    wrong = (each["source"] for each in findings if each["severity"] != Severity.OK)
    return list(dict.fromkeys(source for source in wrong if source))


def proposing(procedures: Iterable[Json]) -> list[str]:
    """Return the commands of the procedures that propose something."""
    return [each["command"] for each in procedures if each["actions"]]
