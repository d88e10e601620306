"""Every document that --json prints is as docs/schemas/outcome.json says."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from runbooks.engine.apply import Outcome
from runbooks.engine.environment import Environment
from runbooks.engine.errors import Exit, LeaseHeld, PlanError, Refused
from runbooks.engine.model import Finding, Phase, Plan, Severity
from runbooks.engine.operate import Diagnosis
from runbooks.engine.work import Result
from runbooks.rb_sb_003 import RUNBOOK
from runbooks.reports import document
from sandbox.errors import ArrakisError, Busy, Denied, Missing, Unreachable
from tests.unit.plans import FINDING, plan

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/schemas/outcome.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)
STAGING = Environment(name="staging", database_url="", redis_url="", nats_url="")
WELL = Finding(check="orphans", severity=Severity.OK, summary="no orphans")
UNKNOWN = replace(WELL, severity=Severity.UNKNOWN)


def _found(*findings: Finding, plan: Plan | None = None) -> dict[str, Any]:
    return document.diagnosed(Diagnosis(runbook=RUNBOOK, environment=STAGING, findings=findings, plan=plan))


def _ran(*ends: tuple[Phase | None, bool]) -> dict[str, Any]:
    made = plan(len(ends))
    results = tuple(
        Result(action=action, phase=phase, reason="so", settled=settled)
        for action, (phase, settled) in zip(made.actions, ends, strict=True)
    )
    return document.applied(Outcome(run="r1", plan=made, results=results))


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
    ],
)
def test_the_schema_refuses_what_does_not_fit(change: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid({**_found(WELL), **change})


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
