"""What a triage answers: every diagnosis, what nothing was run for, and one document as docs/schemas/triage.json says."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from runbooks.engine.environment import Environment
from runbooks.engine.model import Finding, Severity
from runbooks.engine.operate import Diagnosis
from runbooks.pagerduty import answer
from runbooks.pagerduty.incident import Alarm, Incident
from runbooks.pagerduty.triage import Triaged, Unmatched
from runbooks.rb_sb_003 import RUNBOOK
from sandbox.errors import ArrakisError
from tests.unit.plans import FINDING, NOW, plan

SCHEMAS = [
    json.loads(file.read_text(encoding="utf-8"))
    for file in sorted((Path(__file__).parents[2] / "docs/schemas").glob("*.json"))
]
REGISTRY = Registry().with_resources((each["$id"], Resource.from_contents(each)) for each in SCHEMAS)
VALIDATOR = Draft202012Validator(
    next(each for each in SCHEMAS if each["$id"] == "triage.json"), registry=REGISTRY
)
STAGING = Environment(name="staging", database_url="", redis_url="", nats_url="")
ALARM = Alarm(name="x-sandbox-orphaned-resources", account="123456789012", region="eu-central-1")
INCIDENT = Incident(id="Q1", number=4711, title="17 \x1b[2Jresources", status="triggered", alarms=(ALARM,))
WRONG = Diagnosis(
    at=NOW, by="ada@host", runbook=RUNBOOK, environment=STAGING, findings=(FINDING,), plan=plan(3)
)
WELL = Finding(check="orphans", severity=Severity.OK, summary="no orphans")
HEALTHY = Diagnosis(at=NOW, by="ada@host", runbook=RUNBOOK, environment=STAGING, findings=(WELL,), plan=None)
ALONE = Unmatched(alarm=Alarm(name="billing\n"), error=ArrakisError("no runbook is for it"))


@pytest.mark.parametrize(
    ("incident", "triaged", "code"),
    [
        (INCIDENT, Triaged(diagnoses=(WRONG,), unmatched=()), 2),
        (INCIDENT, Triaged(diagnoses=(HEALTHY, WRONG), unmatched=(ALONE,)), 3),
        (None, Triaged(diagnoses=(HEALTHY,), unmatched=()), 0),
        (INCIDENT, Triaged(diagnoses=(), unmatched=()), 3),
    ],
)
def test_the_document_is_as_published(incident: Incident | None, triaged: Triaged, code: int) -> None:
    document = json.loads(json.dumps(answer.document(incident, triaged)))
    VALIDATOR.validate(document)
    assert document["exit"] == code == triaged.exit
    assert len(document["diagnoses"]) == len(triaged.diagnoses)
    assert not list(VALIDATOR.iter_errors(document))
    assert list(VALIDATOR.iter_errors({**document, "more": 1}))


def test_the_text_names_the_incident_and_what_nothing_was_run_for() -> None:
    text = answer.text(INCIDENT, Triaged(diagnoses=(WRONG,), unmatched=(ALONE,)), colour=False, width=80)
    assert text.startswith("incident Q1 #4711, triggered: 17 \\x1b[2Jresources\n\nRB-SB-003")
    assert "Nothing was run for billing\\n: no runbook is for it" in text
    assert "  rb-sb-006  The status command is slow" in text
    assert "\x1b" not in text


def test_an_incident_without_an_alarm_says_so() -> None:
    bare = Incident(id="Q1", number=None, title="?", status="triggered", alarms=())
    text = answer.text(bare, Triaged(diagnoses=(), unmatched=()), colour=False)
    assert text.startswith("incident Q1, triggered: ?\n\nIt names no alarm, so nothing was run.")
