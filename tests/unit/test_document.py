"""Every document that --json prints is as docs/schemas/outcome.json says."""

import json
from dataclasses import replace
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from runbooks.engine.apply import Outcome
from runbooks.engine.environment import Environment
from runbooks.engine.errors import Exit, LeaseHeld, PlanError, Refused
from runbooks.engine.model import Finding, Phase, Plan, Severity
from runbooks.engine.operate import Diagnosis
from runbooks.engine.work import Result
from runbooks.rb_sb_003 import RUNBOOK
from runbooks.reports import document, terminal
from sandbox.errors import ArrakisError, Busy, Denied, Missing, Unreachable
from tests.unit import postmortem
from tests.unit.plans import FINDING, NOW, plan

SCHEMAS = Path(__file__).parents[2] / "docs/schemas"
SCHEMA = json.loads((SCHEMAS / "outcome.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)
STAGING = Environment(name="staging", database_url="", redis_url="", nats_url="")
WELL = Finding(check="orphans", severity=Severity.OK, summary="no orphans")
UNKNOWN = replace(WELL, severity=Severity.UNKNOWN)


def _found(*findings: Finding, plan: Plan | None = None) -> dict[str, Any]:
    found = Diagnosis(
        at=NOW, by="ada@host", runbook=RUNBOOK, environment=STAGING, findings=findings, plan=plan
    )
    return document.diagnosed(found)


def _ran(*ends: tuple[Phase | None, bool]) -> dict[str, Any]:
    made = plan(len(ends))
    results = tuple(
        Result(action=action, phase=phase, reason="so", settled=settled)
        for action, (phase, settled) in zip(made.actions, ends, strict=True)
    )
    outcome = Outcome(run="r1", plan=made, results=results)
    return document.applied(outcome, environment=STAGING, title="A test", at=NOW, by="ada@host")


def _failed(error: ArrakisError) -> dict[str, Any]:
    return document.failed(error, runbook=None, environment=None)


DONE, SKIPPED, FAILED = (Phase.DONE, True), (Phase.SKIPPED, False), (Phase.FAILED, False)
DOCUMENTS = [
    (_found(), "healthy", Exit.HEALTHY),
    (_found(WELL), "healthy", Exit.HEALTHY),
    (_found(FINDING), "proposed", Exit.PROPOSED),
    (_found(FINDING, WELL, plan=plan()), "proposed", Exit.PROPOSED),
    (_found(UNKNOWN, FINDING), "unknown", Exit.UNKNOWN),
    (_found(UNKNOWN, plan=plan(existing=None)), "unknown", Exit.UNKNOWN),
    (_ran(DONE, (Phase.SKIPPED, True)), "applied", Exit.HEALTHY),
    (_ran(DONE, SKIPPED), "partly applied", Exit.PARTLY),
    (_ran(DONE, FAILED, (None, False)), "partly applied", Exit.PARTLY),
    (_ran(SKIPPED, SKIPPED), "refused", Exit.REFUSED),
    (_ran(FAILED, (None, False)), "error", Exit.ERROR),
    (_failed(Refused("no", hint="think")), "refused", Exit.REFUSED),
    (_failed(LeaseHeld("ada is at work")), "held", Exit.HELD),
    (_failed(Unreachable("no answer")), "unknown", Exit.UNKNOWN),
    (_failed(Denied("no right")), "error", Exit.ERROR),
    (_failed(Missing("no table")), "error", Exit.ERROR),
    (_failed(Busy("a lock")), "error", Exit.ERROR),
    (_failed(PlanError("no plan")), "error", Exit.ERROR),
    (postmortem.diagnosed(), "unknown", Exit.UNKNOWN),
    (postmortem.ran(), "partly applied", Exit.PARTLY),
]


def test_the_schema_is_one_and_its_outcomes_are_those_of_the_tests() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["properties"]["outcome"]["enum"]) == {word for _, word, _ in DOCUMENTS}


@pytest.mark.parametrize(("made", "outcome", "code"), DOCUMENTS)
def test_every_document_fits_the_schema(made: dict[str, Any], outcome: str, code: Exit) -> None:
    read = json.loads(json.dumps(made))
    VALIDATOR.validate(read)
    assert (read["outcome"], read["exit"]) == (outcome, int(code))


@pytest.mark.parametrize(
    "change",
    [
        {"outcome": "fine"},
        {"exit": 3},
        {"extra": 1},
        {"findings": [{"check": "x"}]},
        {"run": {"id": "r1", "results": []}},
        {"error": {"message": "no", "hint": ""}},
        {"plan": {}},
        {"next": {"apply": None}},
        {"timeline": [{"at": "2026-03-01T12:00:00+00:00", "kind": "rumour", "text": "x", "severity": None}]},
    ],
)
def test_the_schema_refuses_what_does_not_fit(change: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid({**_found(WELL), **change})


def test_the_audit_that_pages_are_made_of_in_tests_is_one() -> None:
    registry = Registry[Any]().with_resource("outcome.json", Resource.from_contents(SCHEMA))
    schema = json.loads((SCHEMAS / "audit.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema, registry=registry).validate(postmortem.audit())


@pytest.mark.parametrize("missing", SCHEMA["required"])
def test_every_member_is_always_there(missing: str) -> None:
    made = {key: value for key, value in _found(WELL).items() if key != missing}
    assert not VALIDATOR.is_valid(made)


def test_an_error_carries_its_next_step() -> None:
    made = document.failed(Refused("no", hint="think"), runbook="rb-sb-003", environment="staging")
    assert made["error"] == {"message": "no", "hint": "think"}
    assert (made["runbook"], made["environment"]) == ("rb-sb-003", "staging")


def test_a_run_says_what_became_of_each_target() -> None:
    results = _ran(DONE, (None, False))["run"]["results"]
    assert [(one["action"], one["resource"]["id"], one["phase"], one["settled"]) for one in results] == [
        ("a1", "t1", "done", True),
        ("a2", "t2", None, False),
    ]


def test_a_document_says_what_of_when_by_whom_and_what_it_came_to() -> None:
    made = _found(FINDING)
    assert (made["title"], made["at"], made["by"]) == (RUNBOOK.title, "2026-03-01T12:00:00+00:00", "ada@host")
    assert (made["verdict"], made["lab"]) == ("something is wrong", False)
    assert _ran(DONE, FAILED)["verdict"] == "applied: 1 of 2 actions"


def test_a_moment_is_told_in_utc_wherever_it_was_taken() -> None:
    found = Diagnosis(at=NOW, by="ada@host", runbook=RUNBOOK, environment=STAGING, findings=(), plan=None)
    there = NOW.astimezone(timezone(timedelta(hours=9)))
    assert document.diagnosed(replace(found, at=there))["at"] == "2026-03-01T12:00:00+00:00"


def test_the_lab_is_marked() -> None:
    lab = replace(STAGING, name="lab")
    found = Diagnosis(at=NOW, by="ada@host", runbook=RUNBOOK, environment=lab, findings=(), plan=None)
    assert document.diagnosed(found)["lab"] is True
    assert document.failed(Refused("no"), runbook="rb-sb-003", environment="lab")["lab"] is True


@pytest.mark.parametrize("count", [3, 30])
def test_the_command_that_applies_it_is_the_terminals(count: int) -> None:
    found = Diagnosis(
        at=NOW, by="ada@host", runbook=RUNBOOK, environment=STAGING, findings=(FINDING,), plan=plan(count)
    )
    made = document.diagnosed(found, incident="P1")
    assert (
        made["next"]["apply"]
        == terminal.diagnosis(found, colour=False, incident="P1").splitlines()[-1].strip()
    )
    assert (made["next"]["resume"], made["next"]["undo"]) == (None, None)


def test_the_commands_after_a_run_are_the_terminals() -> None:
    told = terminal.applied(postmortem.outcome(), environment=STAGING, incident="P1")
    made = document.applied(
        postmortem.outcome(), environment=STAGING, title="", at=NOW, by="ada@host", incident="P1"
    )["next"]
    assert f"Go on:  {made['resume']}\nUndo:   {made['undo']}" in told
    assert made["apply"] is None


@pytest.mark.parametrize(
    ("ends", "there"),
    [
        ((DONE, (Phase.SKIPPED, True)), {"undo"}),
        ((SKIPPED, SKIPPED), set()),
        ((FAILED, SKIPPED), {"resume", "undo"}),
    ],
)
def test_nothing_is_to_be_taken_up_or_undone_where_nothing_failed_or_was_done(
    ends: tuple[tuple[Phase | None, bool], ...], there: set[str]
) -> None:
    assert {name for name, command in _ran(*ends)["next"].items() if command} == there


def test_what_is_not_needed_is_not_offered_where_nothing_is_proposed() -> None:
    assert set(_found(WELL)["next"].values()) == {None}
    assert set(_failed(Refused("no"))["next"].values()) == {None}
