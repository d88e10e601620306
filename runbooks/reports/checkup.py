"""What an examination of this machine came to: the answer first, then each system, and as the one document of --json."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from runbooks.engine.environment import Environment
from runbooks.engine.errors import Exit
from runbooks.engine.model import Finding, Severity
from runbooks.engine.plan import as_json
from runbooks.reports.terminal import worded, wrapped
from sandbox.text import clean, counted

__all__ = ["document", "exit_of", "text", "verdict"]

_INDENT = 11  # columns before what is found
_WORDS = {Exit.HEALTHY: "ready", Exit.UNKNOWN: "unknown"}


def verdict(findings: Sequence[Finding]) -> str:
    """Return in one line whether this machine is ready, or what it is not ready for and why. Pure."""
    for takes, words in (("looking", "not ready"), ("changing", "ready to look, not to change")):
        if lost := _taking(findings, takes):
            return f"{words}: {_first(lost)}"
    if unsure := [each for each in findings if each.severity is Severity.UNKNOWN]:
        return f"ready as far as can be told: {_first(unsure)}"
    warned = sum(each.severity is not Severity.OK for each in findings)
    return "ready" + (f", with {counted(warned, 'warning')}" if warned else "")


def exit_of(findings: Sequence[Finding]) -> Exit:
    """Return 0 if it is ready, 2 if something that is needed is missing or wrong, 3 if that cannot be told. Pure."""
    if any(_taking(findings, takes) for takes in ("looking", "changing")):
        return Exit.PROPOSED
    unsure = any(each.severity is Severity.UNKNOWN for each in findings)
    return Exit.UNKNOWN if unsure else Exit.HEALTHY


def text(
    findings: Sequence[Finding], *, environment: Environment | None, colour: bool, width: int = 1_000
) -> str:
    """Return it for a terminal of `width` columns: the answer, then system by system what was found and the next command."""
    lines, system = wrapped(f"{_marked(environment)}{verdict(findings)}", width), ""
    for each in findings:
        if _system(each) != system:
            system = _system(each)
            lines += ["", system]
        lines += _lines(each, colour=colour, width=width)
    return "\n".join(lines)


def document(
    findings: Sequence[Finding], *, environment: Environment | None, at: datetime, by: str
) -> dict[str, Any]:
    """Return it as plain JSON types; docs/schemas/doctor.json describes it."""
    code = exit_of(findings)
    word = "not ready" if _taking(findings, "looking") else "ready to look"
    return {
        "environment": environment.name if environment else None,
        "lab": environment.lab if environment else False,
        "at": at.isoformat(),
        "by": by,
        "outcome": _WORDS.get(code, word),
        "exit": int(code),
        "verdict": verdict(findings),
        "findings": [as_json(each) for each in findings],
    }


def _taking(findings: Sequence[Finding], takes: str) -> list[Finding]:
    return [each for each in findings if each.evidence.get("takes") == takes]


def _first(found: Sequence[Finding]) -> str:
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    system, told = _system(found[0]), clean(found[0].summary)
    return f"{told if told.startswith(system) else f'{system}: {told}'}{more}"


def _system(finding: Finding) -> str:
    return finding.resource.id if finding.resource else ""


def _marked(environment: Environment | None) -> str:
    """Say of which environment this is."""
    if environment is None:
        return ""
    return "LAB  " if environment.lab else f"{environment.name}: "


def _lines(finding: Finding, *, colour: bool, width: int) -> list[str]:
    word = worded(finding.severity, colour=colour)
    indent = " " * _INDENT
    first, *rest = wrapped(f"{finding.check}: {clean(finding.summary)}", width - _INDENT)
    lines = [f"  {word} {first}", *(indent + line for line in rest)]
    for detail in finding.evidence.get("details", ()):
        lines += (indent + line for line in wrapped(clean(detail), width - _INDENT, further="  "))
    if hint := finding.evidence.get("hint"):
        lines += (indent + line for line in wrapped(f"next: {clean(hint)}", width - _INDENT, further="  "))
    return lines
