"""From the page to the timeline, as an engineer does it and as the webhook does, beside a stand-in for PagerDuty."""

import hashlib
import hmac
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from lab.processes import free_ports
from tests.acceptance.dump import dump
from tests.acceptance.engineer import Answer, Engineer
from tests.conftest import StartLab
from tests.pagerduty_stand_in import StandIn, stand_in
from tests.waiting import eventually

NAME = "arrakis-lab-sandbox-orphaned-resources"
REGION = "eu-central-1"
SECRET = "sietch-tabr-water-of-life"
CANARY = "chani:shai-hulud"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An engineer who is called, and PagerDuty."""

    engineer: Engineer
    account: StandIn

    def opened(self, alarm: str = NAME, **how: object) -> str:
        return self.account.add_incident(alarm, region=REGION, **how)  # type: ignore[arg-type]

    def triaged(self, incident: str, *args: str) -> Answer:
        return self.engineer.call("triage", "--incident", incident, *args)


@pytest.fixture(scope="module")
def account() -> Iterator[StandIn]:
    with stand_in() as made:
        yield made


@pytest.fixture(scope="module")
def call(start_lab: StartLab, account: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Call:
    engineer = Engineer(start_lab(), tmp_path_factory.mktemp("state"), ARRAKIS_ENV="lab", **account.variables)
    return Call(engineer=engineer, account=account)


@pytest.fixture(autouse=True)
def well(account: StandIn) -> Iterator[None]:
    """PagerDuty is well before each test."""
    yield
    account.recover()


def test_the_diagnosis_is_on_the_timeline_once_however_often_it_is_made(call: Call) -> None:
    incident, before = call.opened(), dump(call.engineer.lab)
    page = f"https://acme.pagerduty.com/incidents/{incident}"
    answers = [call.triaged(incident), call.triaged(page)]
    assert [answer.code for answer in answers] == [2, 2], answers[0].said
    assert f"put on the timeline of {incident}" in answers[0].err
    assert "RB-SB-003" in answers[0].out
    [note] = call.account.notes(incident)
    assert note.startswith("RB-SB-003 Orphaned sandbox resources, lab: something is wrong\n")
    assert f"  invoke lab rb-sb-003 --incident {incident} --apply\n" in note
    assert note.endswith("\n-- arrakis-runbooks: lab rb-sb-003 diagnosis")
    assert dump(call.engineer.lab) == before


def test_what_was_applied_is_told_the_incident_resolved_and_the_undoing_told_too(call: Call) -> None:
    incident = call.opened()
    told = ("--incident", incident, "--json")
    applied = call.engineer.call(
        "rb-sb-003", "--apply", "--yes", "--acknowledge", "--resolve-when-healthy", *told
    )
    assert applied.code == 0, applied.said
    run = applied.document["run"]["id"]
    assert call.account.status(incident) == "resolved"
    diagnosis, outcome, healthy = call.account.notes(incident)
    assert "everything is healthy, so the incident is resolved" in healthy
    assert "something is wrong" in diagnosis
    assert "applied: 10 of 10 actions, verified" in outcome
    assert f"invoke lab undo --run {run} --incident {incident}" in outcome
    call.account.set_status(incident, "triggered")
    undone = call.engineer.call("undo", "--run", run, "--yes", *told)
    assert undone.code == 0, undone.said
    assert f"undid {run}: 10 of 10 actions, verified" in call.account.notes(incident)[3]
    assert len(call.account.notes(incident)) == 4
    assert call.account.status(incident) == "triggered"


@pytest.mark.soak
def test_nothing_is_acknowledged_unless_all_was_applied(call: Call) -> None:
    incident = call.opened()
    refused = call.engineer.call(
        "rb-sb-003", "--apply", "--yes", "--max-targets", "1", "--acknowledge", "--incident", incident
    )
    assert refused.code == 4, refused.said
    assert call.account.status(incident) == "triggered"
    assert "rb-sb-003 in lab did not go through: refused by the guard" in call.account.notes(incident)[1]
    alone = call.engineer.call("rb-sb-003", "--apply", "--yes", "--acknowledge")
    assert (alone.code, alone.err.splitlines()[0]) == (1, "--acknowledge needs an incident")
    looking = call.engineer.call("rb-sb-003", "--acknowledge", "--incident", incident)
    assert (looking.code, looking.err.split(":")[0]) == (1, "--acknowledge needs --apply")


def test_the_command_on_the_timeline_proposes_what_was_asked_for_and_no_more(call: Call) -> None:
    incident = call.opened()
    answer = call.engineer.call("mass-cleanup", "--only", "remains", "--limit", "1", "--incident", incident)
    assert answer.code == 2, answer.said
    assert f" --incident {incident}\n" in answer.out
    [note] = call.account.notes(incident)
    assert f"  invoke lab mass-cleanup --only remains --limit 1 --incident {incident} --apply\n" in note


@pytest.mark.soak
def test_an_emergency_tells_what_was_done(call: Call) -> None:
    incident = call.opened()
    stopped = call.engineer.call(
        "emergency-stop", "--only", "cleanup", "--yes", "--json", "--incident", incident
    )
    assert stopped.code == 0, stopped.said
    assert call.engineer.call("emergency-status", "--incident", incident).code == 2
    assert call.engineer.call("emergency-resume", "--yes", "--json", "--incident", incident).code == 0
    done, status, back = call.account.notes(incident)
    assert "EMERGENCY-STOP in lab, applied: 2 of 2 actions, verified" in done
    assert f"  invoke lab emergency-resume --incident {incident}\n" in status
    assert "EMERGENCY-RESUME in lab, applied: 2 of 2 actions, verified" in back


@pytest.mark.parametrize(
    ("trouble", "why"),
    [("refused", "PagerDuty"), pytest.param("hanging", "PagerDuty", marks=pytest.mark.soak), ("key", "key")],
)
def test_whatever_befalls_pagerduty_the_work_is_done_and_the_note_sent_later(
    call: Call, trouble: str, why: str
) -> None:
    incident = call.opened()
    engineer = call.engineer
    if trouble == "key":
        engineer = engineer.but(PAGERDUTY_TOKEN="wrong-key")
    else:
        call.account.trouble(trouble)
    answer = engineer.call("rb-sb-003", "--incident", incident)
    assert answer.code == 2, answer.said
    assert "RB-SB-003" in answer.out
    assert "1 note waits on disk; `invoke lab pagerduty-flush` sends it" in answer.err
    assert why in answer.err
    assert answer.seconds < 25
    assert call.account.notes(incident) == []
    call.account.recover()
    flushed = call.engineer.call("pagerduty-flush", "--json")
    assert (flushed.code, flushed.document) == (0, {"sent": 1, "left": 0, "refused": 0}), flushed.said
    assert len(call.account.notes(incident)) == 1


def test_what_no_runbook_is_for_says_so_and_lists_them(call: Call) -> None:
    incident = call.opened("billing-too-high")
    call.account.add_alert(incident, "arrakis-production-sandbox-count-high")
    answer = call.triaged(incident)
    assert answer.code == 3
    assert "Nothing was run for billing-too-high: no runbook is for it" in answer.out
    assert "it is production's, and lab is asked for; say --env production" in answer.out
    assert "rb-sb-006  The status command is slow" in answer.out
    assert call.account.notes(incident) == []


@pytest.mark.soak
def test_an_alarm_can_be_asked_for_without_any_incident(call: Call) -> None:
    answer = call.engineer.call("triage", "--alarm", NAME, "--json")
    assert answer.code == 2, answer.said
    assert [each["runbook"] for each in answer.document["diagnoses"]] == ["rb-sb-003"]
    assert answer.document["incident"] is None
    neither = call.engineer.call("triage")
    assert (neither.code, neither.err.splitlines()[0]) == (1, "triage takes an incident or an alarm")
    malformed = call.engineer.call("rb-sb-003", "--incident", "../../etc")
    assert malformed.err.startswith("--incident takes an incident's id")
    assert malformed.code == 1
    unknown = call.triaged("Q9NOTHERE")
    assert unknown.code == 1
    assert "Q9NOTHERE" in unknown.err


def send(port: int, incident: str, *, event: str, secret: str = SECRET) -> int:
    """Send a signed webhook, and return the answer's status."""
    body = json.dumps(
        {
            "event": {
                "id": event,
                "event_type": "incident.triggered",
                "resource_type": "incident",
                "occurred_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "agent": None,
                "data": {"id": incident, "type": "incident", "title": "'; DROP SCHEMA public; --"},
            }
        }
    ).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"content-type": "application/json", "x-pagerduty-signature": f"v1={signature}"}
    try:
        with urlopen(Request(f"http://127.0.0.1:{port}/pagerduty", body, headers), timeout=5) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def test_from_a_signed_webhook_to_the_timeline_and_nothing_is_applied(call: Call) -> None:
    incident, before = call.opened(), dump(call.engineer.lab)
    served = call.engineer.but(WEBHOOK_PAGERDUTY_SECRETS=SECRET)
    [port] = free_ports(1)
    with served.calling("webhook", "--port", str(port)) as (program, _):
        assert program.stderr.readline() == f"serving http://127.0.0.1:{port} until Ctrl-C\n"
        assert send(port, incident, event="01FORGED", secret="somebody-elses-secret") == 403
        began = time.monotonic()
        assert [send(port, incident, event="01TRUE") for _ in range(3)] == [202] * 3
        eventually(lambda: bool(call.account.notes(incident)))
        seconds = time.monotonic() - began
        os.kill(program.pid, signal.SIGTERM)
        out, err = program.communicate(20)
    assert program.wait() == 0, err
    assert seconds < 10
    [note] = call.account.notes(incident)
    assert "something is wrong" in note
    assert dump(call.engineer.lab) == before
    secrets = [SECRET, call.account.token, call.engineer.lab.env["DATABASE_URL"], CANARY]
    assert not [each for each in secrets if each in out + err + note]
