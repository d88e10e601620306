"""An audit in the terminal: as it was looked at, narrow and wide, and no longer than a person reads."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from runbooks.audit.changes import KINDS
from runbooks.audit.sections import SECTIONS, Section
from runbooks.audit.summary import Audit
from runbooks.audit.text import progress, text
from runbooks.engine.environment import Environment
from runbooks.engine.errors import Exit
from runbooks.engine.model import Finding, Severity
from runbooks.findings import CANNOT_TELL
from tests.unit import postmortem
from tests.unit.goldens import golden, here
from tests.unit.plans import action

__all__ = ["here"]

AT = datetime(2026, 11, 26, 18, 5, tzinfo=UTC)
LAB = Environment(name="lab", database_url="", redis_url="", nats_url="")
UNSEEN = f"{CANNOT_TELL}Redis does not answer"


def finding(severity: Severity, check: str, summary: str) -> Finding:
    return Finding(check=check, severity=severity, summary=summary)


def section(name: str, *findings: Finding, actions: int = 0) -> Section:
    made = tuple(action(number) for number in range(1, actions + 1))
    return Section(name=name, runbook=SECTIONS[name], findings=findings, actions=made)


def audit(*sections: Section) -> Audit:
    return Audit(
        id="audit-20261126-180500-ab12",
        environment=LAB,
        at=AT,
        by="jane@host",
        seconds=8.4,
        sections=sections,
    )


def changes(**found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what has changed since yesterday."""
    none: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    return {"since": "audit-20261125-180500-cd34", "at": AT.isoformat(), **none, **found}


def change(summary: str, severity: str | None = "critical", was: str | None = None) -> dict[str, Any]:
    return {
        "severity": severity,
        "was": was,
        "check": "alarm",
        "summary": summary,
        "procedures": ["rb-sb-001"],
    }


LOOKED = audit(
    section("rb-sb-001", *postmortem.diagnosis().findings, actions=3),
    section("rb-sb-002", finding(Severity.UNKNOWN, "keys", f"keys{UNSEEN}")),
    section(
        "rb-sb-003",
        finding(Severity.UNKNOWN, "orphaned keys", f"orphaned keys{UNSEEN}"),
        *(
            finding(Severity.WARNING, "orphaned schema", f"schema sandbox_{number:08x} has no sandbox")
            for number in range(7)
        ),
    ),
    section("rb-sb-006", finding(Severity.OK, "indexes", "all indexes are there")),
    section("maintenance", finding(Severity.OK, "audit log", "no audit rows are old"), actions=2),
)
CHANGED = changes(
    new=[change(f"alarm number {number} fires") for number in range(12)],
    worse=[change("\x1b[2Jthe alarm fires since 2026-11-26T17:05Z", was="warning")],
    gone=[change("sandbox old is overdue", severity=None, was="warning")],
)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("width", [80, 200])
def test_the_audit_is_told_as_it_was_looked_at(width: int) -> None:
    golden(f"audit-{width}.txt", text(LOOKED, CHANGED, colour=False, width=width) + "\n")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("width", "beside"), [(99, False), (100, True)])
def test_the_commands_stand_beside_what_they_show_where_there_is_room(width: int, beside: bool) -> None:
    told = text(LOOKED, None, colour=False, width=width)
    assert ("To see one with its plan:" in told) is not beside
    assert ("to see it and its plan" in told) is beside
    assert "./inv lab rb-sb-003" in told
    assert ("./inv lab rb-sb-006" in told) is beside  # where it is well, there is nothing to see


def test_of_many_changes_the_first_ten_are_told() -> None:
    lines = text(LOOKED, CHANGED, colour=False, width=200).splitlines()
    assert sum(line.startswith("  NEW     alarm number") for line in lines) == 10
    assert "          … and 2 more new" in lines
    ten = changes(new=CHANGED["new"][:10])
    assert "more new" not in text(LOOKED, ten, colour=False, width=200)


def test_of_findings_that_are_alike_the_first_five_are_told() -> None:
    lines = text(LOOKED, None, colour=False, width=200).splitlines()
    assert sum("has no sandbox (rb-sb-003)" in line for line in lines) == 5
    assert "warning  … and 2 more: orphaned schema" in lines


def test_why_a_source_cannot_tell_is_told_once_with_all_that_it_hides() -> None:
    told = text(LOOKED, None, colour=False, width=200)
    assert f"unknown  keys, orphaned keys{UNSEEN} (rb-sb-002, rb-sb-003)" in told.splitlines()
    assert told.count("Redis does not answer") == 1


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (None, "There is no earlier audit to compare it with."),
        (changes(), "Since audit-20261125-180500-cd34: nothing has changed"),
    ],
)
def test_nothing_to_compare_with_and_nothing_changed_are_said(found: dict[str, Any], told: str) -> None:
    assert told in text(LOOKED, found, colour=False, width=80).splitlines()


def test_what_is_done_by_the_calendar_is_proposed_but_not_due() -> None:
    well = finding(Severity.OK, "audit log", "no audit rows are old")
    periodic, called = section("maintenance", well, actions=2), section("rb-sb-001", well, actions=2)
    assert (periodic.due, periodic.exit) == ((), Exit.HEALTHY)
    assert (called.due, called.exit) == (called.actions, Exit.PROPOSED)
    assert audit(periodic).verdict == "healthy"
    assert audit(called).verdict == "2 changes proposed"
    schedule = periodic.runbook.page.schedule
    assert progress(periodic) == f"maintenance  healthy; done {schedule}, 2 changes proposed"
    assert progress(called) == "rb-sb-001    something to do, 2 changes proposed"


def test_only_the_lab_is_marked() -> None:
    there = replace(LOOKED, environment=postmortem.PRODUCTION)
    assert text(LOOKED, None, colour=False, width=200).startswith("LAB  AUDIT of lab: ")
    assert text(there, None, colour=False, width=200).startswith("AUDIT of production: ")
