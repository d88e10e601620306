"""The terminal: the answer first, then the why, then what to type. Plain text; colour only where it is wanted."""

import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from tabulate import tabulate

from runbooks.engine.apply import Outcome
from runbooks.engine.environment import Environment
from runbooks.engine.errors import Exit
from runbooks.engine.guards import blast_radius
from runbooks.engine.model import Action, Finding, Phase, Plan, Reversibility, Severity
from runbooks.engine.operate import Diagnosis
from runbooks.engine.work import Result
from runbooks.reports.clock import here, local
from runbooks.reports.commands import applying, resuming, reverting
from runbooks.reports.plot import plot, sparkline
from sandbox.text import clean, counted, size

__all__ = [
    "MANY",
    "ORDER",
    "achieved",
    "applied",
    "diagnosis",
    "findings_lines",
    "ordered",
    "plan_lines",
    "progress",
    "undoing",
    "verdict",
    "worded",
    "wrapped",
]

MANY = 30
"""More actions than a person reads: they are told in groups."""

ORDER = (Severity.CRITICAL, Severity.WARNING, Severity.UNKNOWN, Severity.OK)
"""In which order findings are told."""

_Item = TypeVar("_Item")
_FIRST = 2
_INDENT = 9  # columns before a finding's words
_NARROWEST = 20  # columns that a text has at least
_COLOUR = {Severity.CRITICAL: "31;1", Severity.WARNING: "33", Severity.UNKNOWN: "35", Severity.OK: "32"}
_VERDICT = {
    Exit.HEALTHY: "healthy",
    Exit.PROPOSED: "something is wrong",
    Exit.UNKNOWN: "cannot tell: a source did not answer",
}


def diagnosis(found: Diagnosis, *, colour: bool, width: int = 1_000, incident: str = "") -> str:
    """Return a diagnosis: verdict, findings by severity, plan, and the command that applies it.

    `width` is the terminal's; in a pipe a finding stays on one line. The command tells the `incident` too, if one is named.
    """
    marked = "LAB  " if found.environment.lab else ""
    lines = [f"{marked}{found.runbook.name.upper()}  {found.runbook.title}: {verdict(found)}", ""]
    lines += findings_lines(found.findings, colour=colour, width=width)
    lines += ["", *_by_hand(found.findings)]
    if found.plan is None:
        lines.append("Nothing is proposed.")
        return "\n".join(lines)
    lines += plan_lines(found.plan, width=width)
    if not found.runbook.urgent:  # which nothing limits
        radius = blast_radius(found.plan, None).reason
        lines += [*_wrapped(f"Blast radius: {radius}.", width + _INDENT), ""]
    lines.append(f"Apply it before {here(found.plan.expires_at)}:")
    lines.append(f"  {applying(found, incident=incident)}")
    return "\n".join(lines)


def verdict(found: Diagnosis) -> str:
    """Return in a few words what a diagnosis came to."""
    if found.runbook.urgent and found.plan:
        steps = len(found.plan.actions)
        untold = ", not all is known" if found.exit is Exit.UNKNOWN else ""
        return f"{steps} steps to take{untold}"
    if found.runbook.urgent and found.exit is Exit.HEALTHY:
        return "nothing to do"
    if found.exit is Exit.UNKNOWN and any(each.severity is Severity.CRITICAL for each in found.findings):
        return "something is wrong, and not everything could be told"
    return _VERDICT[found.exit]


def plan_lines(plan: Plan, *, width: int = 1_000) -> list[str]:
    """Return a plan as a table: what is done to what, before and after, and whether it can be undone; many, as groups."""
    head = f"Plan {plan.id}: {counted(len(plan.actions), 'action')}, {undoing(plan)}"
    if len(plan.actions) > MANY:
        return [*_wrapped(head, width + _INDENT), *_grouped(plan, width=width), ""]
    rows = [
        [
            action.id,
            clean(action.verb),
            clean(action.resource.id),
            _amount(action.before),
            _told(action.reason),
        ]
        for action in plan.actions
    ]
    if width >= 150:
        return [head, tabulate(rows, headers=["", "action", "target", "has", "why"], tablefmt="simple"), ""]
    lines = [head]
    for number, verb, name, amount, why in rows:
        lines += [f"  {number:>3}  {verb:<18} {amount}".rstrip(), f"       {name}"]
        lines += (f"       {line}" for line in _wrapped(why, width - 2) if line)
    return [*lines, ""]


def _grouped(plan: Plan, *, width: int) -> list[str]:
    """Tell how many targets there are of each kind, and the first ones; `--json` and the saved plan name all."""
    groups: dict[tuple[str, str], list[Action]] = defaultdict(list)
    for action in plan.actions:
        groups[str(action.before.get("group", "")), action.verb].append(action)
    rows = [
        (clean(group), clean(verb), len(alike), [clean(each.resource.id) for each in alike[:_FIRST]])
        for (group, verb), alike in groups.items()
    ]
    if width >= 150:
        told = [[group, verb, count, ", ".join(first)] for group, verb, count, first in rows]
        table = tabulate(told, headers=["", "action", "targets", "the first"], tablefmt="simple")
        return [*table.splitlines(), "`--json` names them all."]
    lines: list[str] = []
    for group, verb, count, first in rows:
        lines += [f"  {count:>6}  {verb:<18} {group}".rstrip(), *(f"          {name}" for name in first)]
    return [*lines, "`--json` names them all."]


def undoing(plan: Plan) -> str:
    """Say how much of a plan can be undone."""
    kinds = [action.reversibility for action in plan.actions]
    if lost := kinds.count(Reversibility.IRREVERSIBLE):
        return f"{lost} CANNOT BE UNDONE"
    if Reversibility.REVERSIBLE not in kinds:
        return "nothing to undo: they lose nothing"
    return "all can be undone" + (", where anything is lost" if Reversibility.NOTHING in kinds else "")


def applied(
    outcome: Outcome,
    *,
    environment: Environment,
    colour: bool = False,
    width: int = 1_000,
    incident: str = "",
) -> str:
    """Return a run's result: the answer first, what was not done and why, what was seen then, and what to type next."""
    marked = "LAB  " if environment.lab else ""
    lines = [f"{marked}{achieved(outcome)}", f"run {outcome.run}"]
    lines += _unsettled(outcome)
    for each in outcome.left:
        lines += [f"  {line}" for line in _finding_lines(each, colour=colour, width=width - 2)]
    if on := resuming(outcome, environment, incident=incident):
        lines.append(f"Go on:  {on}")
    if back := reverting(outcome, environment, incident=incident):
        lines.append(f"Undo:   {back}")
    if outcome.outlook:
        lines += ["", "Measured again:", *findings_lines(outcome.outlook, colour=colour, width=width)]
    return "\n".join(lines)


def achieved(outcome: Outcome) -> str:
    """Return in a few words what a run came to."""
    done, total = sum(result.settled for result in outcome.results), len(outcome.results)
    word = "undone" if outcome.plan.undoes else "applied"
    verified = ", verified" if done == total else ""
    left = f"; {len(outcome.left)} left alone" if outcome.left else ""
    return f"{word}: {done} of {counted(total, 'action')}{verified}{left}"


def _unsettled(outcome: Outcome) -> list[str]:
    """Tell what was not done and why; of many that were not reached, how many."""
    told = [result for result in outcome.results if not result.settled]
    if len(told) > MANY:
        waiting = Counter(result.reason for result in told if result.phase in (None, Phase.STARTED))
        told = [result for result in told if result.phase is Phase.FAILED]  # they matter most
        told += [each for each in outcome.results if each.phase is Phase.SKIPPED and not each.settled]
        more = [f"  {count} were {_told(reason)}" for reason, count in waiting.items()]
        if len(told) > MANY:
            more.append(f"  … and {len(told) - MANY} more: `show --run {outcome.run}` names them")
            told = told[:MANY]
    else:
        more = []
    return [
        *(f"  {_state(each)}  {clean(each.action.resource.id)}: {_told(each.reason)}" for each in told),
        *more,
    ]


def progress(result: Result) -> str:
    """Return one line for an action that has just ended."""
    return (
        f"{_state(result)}  {result.action.verb} {clean(result.action.resource.id)}: {_told(result.reason)}"
    )


def findings_lines(findings: Sequence[Finding], *, colour: bool, width: int) -> list[str]:
    """Return findings as lines, the worst first."""
    groups = ordered(findings, lambda each: (each.severity, each.check))
    found = [each for _, mine in groups for each in mine]
    return [line for each in found for line in _finding_lines(each, colour=colour, width=width)]


def ordered(
    findings: Sequence[_Item], subject: Callable[[_Item], tuple[str, str]]
) -> list[tuple[Severity, list[_Item]]]:
    """Return findings by severity, the worst first; among equals, in the order in which they were found.

    `subject` returns the severity and the check of one. A way is told hop by hop, where its worst is.
    """
    groups: dict[Severity, list[_Item]] = {severity: [] for severity in ORDER}
    hops = [each for each in findings if subject(each)[1] == "hop"]
    for each in findings:
        severity, check = subject(each)
        if check != "hop":
            groups[Severity(severity)].append(each)
    if hops:
        worst = min((Severity(subject(each)[0]) for each in hops), key=ORDER.index)
        groups[worst] += hops
    return [(severity, mine) for severity, mine in groups.items() if mine]


def _finding_lines(finding: Finding, *, colour: bool, width: int) -> list[str]:
    indent = " " * _INDENT
    lines = _wrapped(_told(finding.summary), width)
    if detail := _evidence(finding):
        lines += _wrapped(detail, width)
    if hint := finding.evidence.get("hint"):
        lines += _wrapped(f"next: {_told(hint)}", width)
    for detail in finding.evidence.get("details", ()):
        lines += _wrapped(_told(detail), width)
    # What is drawn is told by its shape: it is not wrapped.
    lines += [clean(line) for line in finding.evidence.get("drawn", ())]
    if histogram := finding.evidence.get("histogram"):
        lines.append(f"[{sparkline(histogram)}] over {_told(finding.evidence['window'])}")
    shown = finding.severity is not Severity.OK or finding.check == "alarm"
    if shown and (points := finding.evidence.get("points")):
        moments = [(moment, value) for moment, value in points]
        lines += plot(moments, finding.evidence.get("threshold"), width=min(width, 100) - len(indent))
    return [f"{worded(finding.severity, colour=colour)} {lines[0]}", *(indent + line for line in lines[1:])]


def worded(severity: Severity, *, colour: bool) -> str:
    """Return a severity's word, all of the same width; the colour only repeats it."""
    word = f"{severity:<8}"
    return f"\x1b[{_COLOUR[severity]}m{word}\x1b[0m" if colour else word


def wrapped(text: str, width: int, *, further: str = "") -> list[str]:
    """Return a text in lines of at most `width` columns, those after the first behind `further`.

    It is cut between words only: a name, or a command, has to survive being copied.
    """
    width = max(_NARROWEST, width)
    lines = textwrap.wrap(
        text, width, subsequent_indent=further, break_long_words=False, break_on_hyphens=False
    )
    return lines or [""]


def _wrapped(text: str, width: int) -> list[str]:
    return wrapped(text, width - _INDENT)


def _by_hand(findings: Sequence[Finding]) -> list[str]:
    wrong = (item for item in findings if item.source and item.severity is not Severity.OK)
    seen = dict.fromkeys(clean(item.source) for item in wrong)
    return ["To see it by hand:", *(f"  {source}" for source in seen), ""] if seen else []


def _evidence(finding: Finding) -> str:
    evidence = finding.evidence
    parts = []
    if evidence.get("keys") is not None:
        parts.append(counted(evidence["keys"], "key"))
    if evidence.get("bytes") is not None:
        parts.append(size(evidence["bytes"]))
    if evidence.get("rows") is not None:
        parts.append(counted(evidence["rows"], "row"))
    for name in ("owner", "last_activity", "was", "holds"):
        if evidence.get(name):
            value = evidence[name]
            parts.append(
                f"{name.replace('_', ' ')} {here(value) if isinstance(value, datetime) else _told(value)}"
            )
    if evidence.get("idle_seconds") is not None:
        parts.append(f"idle {evidence['idle_seconds'] // 60} min")
    return ", ".join(parts)


def _state(result: Result) -> str:
    return {Phase.DONE: "done   ", Phase.SKIPPED: "skipped", Phase.FAILED: "FAILED "}.get(
        result.phase or Phase.STARTED, "not done"
    )


def _amount(before: Any) -> str:
    if "bytes" in before:
        return f"{counted(before['rows'], 'row')}, {size(before['bytes'])}"
    if "sandboxes" in before:
        return counted(len(before["sandboxes"]), "sandbox", "sandboxes")
    return counted(before["keys"], "key") if "keys" in before else ""


def _told(text: object) -> str:
    """Return text fit for the terminal, with the moments in it by this host's clock."""
    return local(clean(text))
