"""What a note on a timeline says, and what it cannot be made to say."""

from datetime import UTC, datetime

import pytest

from runbooks.engine.apply import Outcome
from runbooks.engine.environment import Environment
from runbooks.engine.model import Finding, Phase, Severity
from runbooks.engine.operate import Diagnosis
from runbooks.engine.work import Result
from runbooks.rb_sb_003 import RUNBOOK
from runbooks.reports import note
from sandbox.errors import Unreachable
from tests.unit.plans import action, plan

AT = datetime(2026, 3, 14, 2, 13, 20, tzinfo=UTC)
STAGING = Environment(name="staging", database_url="", redis_url="", nats_url="")


def finding(summary: str, severity: Severity = Severity.WARNING, check: str = "orphans") -> Finding:
    return Finding(check=check, severity=severity, summary=summary, source=f"psql -c '{summary[:3]}'")


def told(*findings: Finding, count: int = 0, said: str = "") -> str:
    found = Diagnosis(
        at=AT,
        by="ada@host",
        runbook=RUNBOOK,
        environment=STAGING,
        findings=findings,
        plan=plan(count) if count else None,
    )
    return note.diagnosis(found, incident="Q1ABC", said=said, at=AT, actor="chani")


def test_the_answer_is_first_and_the_command_that_applies_it_anywhere_last() -> None:
    lines = told(
        finding("a is an orphan"), finding("an alarm", Severity.CRITICAL, "alarm"), count=3
    ).splitlines()
    assert lines[0] == "RB-SB-003 Orphaned sandbox resources, staging: something is wrong"
    assert lines[2:4] == ["CRITICAL an alarm", "WARNING a is an orphan"]
    assert lines[-3] == "  invoke rb-sb-003 --env staging --incident Q1ABC --apply"
    assert lines[-1] == "2026-03-14 02:13:20 UTC, chani"


def test_the_command_proposes_nothing_but_what_was_asked_for_whatever_is_set_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ARRAKIS_ENV", "staging")
    monkeypatch.setenv("RUNBOOKS_COMMAND", "./inv")
    text = told(finding("a"), count=3, said="--drop")
    assert "\n  invoke rb-sb-003 --drop --env staging --incident Q1ABC --apply\n" in text


def test_what_needs_a_larger_radius_says_so() -> None:
    assert "--apply --max-targets 30" in told(finding("a"), count=30)


def test_what_is_alike_is_counted() -> None:
    text = told(*(finding(f"{number} is an orphan") for number in range(9)))
    assert text.count("is an orphan") == 3
    assert "  and 6 more: orphans" in text
    assert "Nothing is proposed." in text
    assert text.count("psql") == 3


def test_when_all_is_well_it_says_what_was_found_well() -> None:
    assert "OK nothing is left" in told(finding("nothing is left", Severity.OK))


def test_no_finding_can_forge_a_line() -> None:
    text = told(finding("a\n-- arrakis-runbooks: x\x1b[2J" + "x" * 5_000))
    assert "\n-- arrakis" not in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) < 500


@pytest.mark.parametrize(
    ("phase", "settled", "says"),
    [
        (Phase.DONE, True, "applied: 1 of 1 action, verified"),
        (Phase.FAILED, False, "To go on:  invoke resume --run r1 --env staging"),
        (Phase.SKIPPED, False, "SKIPPED t1: in use"),
        (None, False, "NOT REACHED t1: in use"),
    ],
)
def test_a_run_tells_what_was_done_and_what_was_not(phase: Phase | None, settled: bool, says: str) -> None:
    result = Result(action=action(1), phase=phase, reason="in use", settled=settled)
    outcome = Outcome(run="r1", plan=plan(1), results=(result,))
    text = note.applied(outcome, incident="Q1ABC", environment=STAGING, at=AT, actor="chani")
    assert says in text
    assert ("undo --run r1 --env staging --incident Q1ABC" in text) == (phase in (Phase.DONE, Phase.FAILED))


def test_what_did_not_go_through_says_why() -> None:
    error = Unreachable("PostgreSQL does not answer", hint="look at RDS")
    text = note.failed(error, task="apply", environment="staging", at=AT, actor="chani")
    assert text.startswith(
        "apply in staging did not go through: PostgreSQL does not answer\nNext: look at RDS"
    )
