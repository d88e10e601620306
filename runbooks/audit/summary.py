"""An audit as a whole: its findings, each told once, what it came to, and its document. Pure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runbooks.audit.sections import Section
from runbooks.engine.environment import Environment, command, naming
from runbooks.engine.errors import Exit
from runbooks.engine.model import Finding, Severity
from runbooks.engine.operate import ended
from runbooks.engine.plan import as_json
from runbooks.reports.document import WORDS
from runbooks.reports.terminal import ORDER
from runbooks.reports.timeline import timeline
from sandbox.text import counted

__all__ = ["Audit", "Told", "calling", "document", "words"]

_NOUNS = {
    Severity.CRITICAL: ("critical finding", ""),
    Severity.WARNING: ("warning", ""),
    Severity.UNKNOWN: ("thing unknown", "things unknown"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A finding, and the names of the sections that have it."""

    finding: Finding
    sections: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What all sections found: when, by whom, and how many seconds it took. `fail_on` is what ends it with 2."""

    id: str
    environment: Environment
    at: datetime
    by: str
    seconds: float
    sections: tuple[Section, ...]
    fail_on: Severity = Severity.WARNING

    @property
    def findings(self) -> list[Told]:
        """Return all findings, the worst first; what several sections found alike is told once."""
        alike: dict[str, Told] = {}
        for section in self.sections:
            for each in section.findings:
                key = f"{each.severity} {each.check} {each.resource} {each.summary}"
                before = alike.get(key, Told(finding=each, sections=()))
                names = tuple(dict.fromkeys((*before.sections, section.name)))
                alike[key] = Told(finding=before.finding, sections=names)
        return sorted(alike.values(), key=lambda told: ORDER.index(told.finding.severity))

    @property
    def proposed(self) -> int:
        """Return how many changes something calls for; the same target may be among those of several sections."""
        return sum(len(section.due) for section in self.sections)

    @property
    def outcome(self) -> Exit:
        """Return what it came to: healthy, something is wrong or calls for a change, or something could not be told."""
        return ended([told.finding for told in self.findings], proposed=bool(self.proposed))

    @property
    def exit(self) -> Exit:
        """Return what the process ends with: the outcome or, where only what is critical is to fail, 2 for that, and 3 or 0."""
        if self.fail_on is not Severity.CRITICAL:
            return self.outcome
        if any(told.finding.severity is Severity.CRITICAL for told in self.findings):
            return Exit.PROPOSED
        return Exit.UNKNOWN if self.outcome is Exit.UNKNOWN else Exit.HEALTHY

    @property
    def verdict(self) -> str:
        """Return in a few words what it came to."""
        counts = Counter(told.finding.severity for told in self.findings)
        wrong = [counted(counts[each], *_NOUNS[each]) for each in ORDER if each in _NOUNS and counts[each]]
        if self.proposed:
            wrong.append(f"{counted(self.proposed, 'change')} proposed")
        return ", ".join(wrong) or "healthy"


def document(audit: Audit, changes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return an audit as JSON's own types; docs/schemas/audit.json describes it. `changes` are those since an earlier one."""
    findings = [as_json(told.finding) | {"procedures": list(told.sections)} for told in audit.findings]
    return {
        "audit": audit.id,
        "environment": audit.environment.name,
        "lab": audit.environment.lab,
        "at": audit.at.isoformat(),
        "by": audit.by,
        "seconds": round(audit.seconds, 2),
        "outcome": WORDS[audit.outcome],
        "exit": int(audit.exit),
        "verdict": audit.verdict,
        "findings": findings,
        "procedures": [_procedure(each, audit.environment) for each in audit.sections],
        "changes": changes,
        "timeline": timeline(findings),
    }


def _procedure(section: Section, environment: Environment) -> dict[str, Any]:
    counts = Counter(each.severity for each in section.findings)
    return {
        "name": section.name,
        "title": section.title,
        "outcome": WORDS[section.exit],
        "exit": int(section.exit),
        "verdict": words(section),
        "command": calling(section, environment),
        "actions": [as_json(action) for action in section.actions],
        "counts": {severity.value: counts[severity] for severity in ORDER},
    }


def words(section: Section) -> str:
    """Return what a section came to, in a few words."""
    match section.exit:
        case Exit.UNKNOWN:
            return "cannot tell everything"
        case Exit.PROPOSED:
            return "something is wrong" if _wrong(section) else "something to do"
        case _:
            return f"healthy; done {section.runbook.page.schedule}" if section.actions else "healthy"


def calling(section: Section, environment: Environment) -> str:
    """Return the command that shows a section alone, with its plan."""
    return f"{command(environment)} {section.task}{naming(environment)}"


def _wrong(section: Section) -> bool:
    return any(each.severity in (Severity.WARNING, Severity.CRITICAL) for each in section.findings)
