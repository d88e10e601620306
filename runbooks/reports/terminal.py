"""The terminal: the answer first, then the why, then what to type. Plain text; colour only where it is wanted."""

import textwrap
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tabulate import tabulate

from runbooks.engine.apply import Outcome, Result
from runbooks.engine.environment import command
from runbooks.engine.errors import Exit
from runbooks.engine.guards import blast_radius, targets
from runbooks.engine.model import Finding, Phase, Plan, Reversibility, Severity
from runbooks.engine.operate import Diagnosis
from runbooks.reports.plot import plot, sparkline
from sandbox.text import clean

__all__ = ["applied", "diagnosis", "plan_lines", "progress"]

_ORDER = (Severity.CRITICAL, Severity.WARNING, Severity.UNKNOWN, Severity.OK)
_COLOUR = {Severity.CRITICAL: "31;1", Severity.WARNING: "33", Severity.UNKNOWN: "35", Severity.OK: "32"}
_VERDICT = {
    Exit.HEALTHY: "healthy",
    Exit.PROPOSED: "something is wrong",
    Exit.UNKNOWN: "cannot tell: a source did not answer",
}


def diagnosis(found: Diagnosis, *, colour: bool, width: int = 1_000) -> str:
    """Return a diagnosis: verdict, findings by severity, plan, and the command that applies it.

    `width` is the terminal's; in a pipe a finding stays on one line.
    """
    marked = "LAB  " if found.environment.lab else ""
    lines = [f"{marked}{found.runbook.name.upper()}  {found.runbook.title}: {_verdict(found)}", ""]
    lines += _findings(found.findings, colour=colour, width=width)
    lines += ["", *_by_hand(found.findings)]
    if found.plan is None:
        lines.append("Nothing is proposed.")
        return "\n".join(lines)
    verdict = blast_radius(found.plan, None)
    raised = "" if verdict.allowed else f" --max-targets {targets(found.plan.actions)}"
    lines += plan_lines(found.plan, width=width)
    lines += [f"Blast radius: {verdict.reason}.", "", f"Apply it before {_local(found.plan.expires_at)}:"]
    lines.append(f"  {command(found.environment)} apply --plan {found.plan.id}{raised}")
    return "\n".join(lines)


def _verdict(found: Diagnosis) -> str:
    if found.exit is Exit.UNKNOWN and any(each.severity is Severity.CRITICAL for each in found.findings):
        return "something is wrong, and not everything could be told"
    return _VERDICT[found.exit]


def plan_lines(plan: Plan, *, width: int = 1_000) -> list[str]:
    """Return a plan as a table: what is done to what, before and after, and whether it can be undone."""
    rows = [
        [
            action.id,
            clean(action.verb),
            clean(action.resource.id),
            _amount(action.before),
            clean(action.reason),
        ]
        for action in plan.actions
    ]
    lost = sum(action.reversibility is Reversibility.IRREVERSIBLE for action in plan.actions)
    head = f"Plan {plan.id}: {len(rows)} actions, " + (
        f"{lost} CANNOT BE UNDONE" if lost else "all can be undone"
    )
    if width >= 150:
        return [head, tabulate(rows, headers=["", "action", "target", "has", "why"], tablefmt="simple"), ""]
    lines = [head]
    for number, verb, name, amount, _ in rows:
        lines += [f"  {number:>3}  {verb:<18} {amount}", f"       {name}"]
    return [*lines, ""]


def applied(outcome: Outcome, *, lab: bool, base: str, colour: bool = False, width: int = 1_000) -> str:
    """Return a run's result: the answer first, what was not done and why, what was seen then, and what to type next."""
    done = sum(result.settled for result in outcome.results)
    total = len(outcome.results)
    word = "undone" if outcome.plan.undoes else "applied"
    marked = "LAB  " if lab else ""
    answer = f"{marked}{word}: {done} of {total} actions" + (", verified" if done == total else "")
    lines = [answer, f"run {outcome.run}"]
    lines += [
        f"  {_state(result)}  {clean(result.action.resource.id)}: {clean(result.reason)}"
        for result in outcome.results
        if not result.settled
    ]
    if any(result.phase is Phase.FAILED for result in outcome.results):
        lines.append(f"Go on:  {base} resume --run {outcome.run}")
    undoable = any(result.action.reversibility is Reversibility.REVERSIBLE for result in outcome.results)
    if undoable and not outcome.plan.undoes:
        lines.append(f"Undo:   {base} undo --run {outcome.run}")
    if outcome.outlook:
        lines += ["", "Measured again:", *_findings(outcome.outlook, colour=colour, width=width)]
    return "\n".join(lines)


def progress(result: Result) -> str:
    """Return one line for an action that has just ended."""
    return (
        f"{_state(result)}  {result.action.verb} {clean(result.action.resource.id)}: {clean(result.reason)}"
    )


def _findings(findings: Sequence[Finding], *, colour: bool, width: int) -> list[str]:
    """The worst first; among equals, in the order in which they were found."""
    ordered = (item for severity in _ORDER for item in findings if item.severity is severity)
    return [line for item in ordered for line in _finding_lines(item, colour=colour, width=width)]


def _finding_lines(finding: Finding, *, colour: bool, width: int) -> list[str]:
    indent = " " * 9
    lines = _wrapped(clean(finding.summary), width)
    if detail := _evidence(finding):
        lines += _wrapped(detail, width)
    for detail in finding.evidence.get("details", ()):
        lines += _wrapped(clean(detail), width)
    # What is drawn is told by its shape: it is not wrapped.
    lines += [clean(line) for line in finding.evidence.get("drawn", ())]
    if histogram := finding.evidence.get("histogram"):
        lines.append(f"[{sparkline(histogram)}] over {finding.evidence['window']}")
    shown = finding.severity is not Severity.OK or finding.check == "alarm"
    if shown and (points := finding.evidence.get("points")):
        moments = [(moment, value) for moment, value in points]
        lines += plot(moments, finding.evidence.get("threshold"), width=min(width, 100) - len(indent))
    word = f"{finding.severity:<8}"
    if colour:
        word = f"\x1b[{_COLOUR[finding.severity]}m{word}\x1b[0m"
    return [f"{word} {lines[0]}", *(indent + line for line in lines[1:])]


def _wrapped(text: str, width: int) -> list[str]:
    """Cut between words only: a name has to survive being copied."""
    return textwrap.wrap(text, max(20, width - 9), break_long_words=False, break_on_hyphens=False) or [""]


def _by_hand(findings: Sequence[Finding]) -> list[str]:
    wrong = (item for item in findings if item.source and item.severity is not Severity.OK)
    seen = dict.fromkeys(clean(item.source) for item in wrong)
    return ["To see it by hand:", *(f"  {source}" for source in seen), ""] if seen else []


def _evidence(finding: Finding) -> str:
    evidence = finding.evidence
    parts = []
    if evidence.get("keys") is not None:
        parts.append(f"{evidence['keys']} keys")
    if evidence.get("bytes") is not None:
        parts.append(_size(evidence["bytes"]))
    if evidence.get("rows") is not None:
        parts.append(f"{evidence['rows']} rows")
    for name in ("owner", "last_activity", "was", "holds", "hint"):
        if evidence.get(name):
            value = evidence[name]
            parts.append(
                f"{name.replace('_', ' ')} {_local(value) if isinstance(value, datetime) else clean(value)}"
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
        return f"{before['rows']} rows, {_size(before['bytes'])}"
    if "sandboxes" in before:
        return f"{len(before['sandboxes'])} sandboxes"
    return f"{before['keys']} keys" if "keys" in before else ""


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"


def _local(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %z}"
