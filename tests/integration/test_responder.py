"""What came over the network is answered for the right incidents, or tried again; nothing here gets as far as a diagnosis."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest

from runbooks.pagerduty.responder import Responder
from runbooks.pagerduty.webhook.delivery import Delivery
from sandbox.errors import ArrakisError, Denied, Unreachable
from tests.pagerduty_stand_in import StandIn, stand_in

ALARM = "arrakis-lab-sandbox-orphaned-resources"


@pytest.fixture(scope="module")
def account() -> Iterator[StandIn]:
    with stand_in() as made:
        yield made


class Desk:
    """Somebody who answers, and what was said meanwhile."""

    def __init__(self, account: StandIn, state: Path, **changes: str) -> None:
        self.told: list[str] = []
        variables = {**account.variables, "RUNBOOKS_STATE_DIR": str(state), **changes}
        self.responder = Responder("lab", timeout=2, tell=self.told.append, variables=variables)

    def answer(self, kind: Literal["incident", "alarm"], subject: str, key: str = "pagerduty:1") -> None:
        at = datetime(2026, 3, 14, tzinfo=UTC)
        self.responder.answer(Delivery(key=key, kind=kind, subject=subject, received=at))


@pytest.fixture
def desk(account: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    for name, value in account.variables.items():
        monkeypatch.setenv(name, value)
    return Desk(account, tmp_path)


def test_an_alarm_s_namesake_in_another_region_is_not_told(account: StandIn, desk: Desk) -> None:
    incident = account.add_incident(ALARM, region="us-east-1")
    with pytest.raises(Unreachable, match="no open incident is about"):
        desk.answer("alarm", f"123456789012/eu-central-1/{ALARM}")
    with pytest.raises(Unreachable, match="no open incident is about"):
        desk.answer("alarm", f"000000000000/us-east-1/{ALARM}")
    assert account.notes(incident) == []
    account.remove(incident)


def test_whoever_pressed_the_button_hears_that_nothing_was_run(account: StandIn, desk: Desk) -> None:
    incident = account.add_incident("billing-too-high")
    desk.answer("incident", incident)
    assert account.notes(incident) == []
    assert desk.told == ["nothing was run for billing-too-high: no runbook is for it"]
    desk.answer("incident", incident, key="action:1")
    [note] = account.notes(incident)
    assert note.startswith("Nothing was run for billing-too-high: no runbook is for it\n")


def test_an_environment_that_cannot_be_had_is_told_and_tried_again(account: StandIn, desk: Desk) -> None:
    incident = account.add_incident(ALARM, region="eu-central-1")
    with pytest.raises(ArrakisError):  # the lab's addresses are not set
        desk.responder.check()
    desk.answer("incident", incident)
    [note] = account.notes(incident)
    assert note.startswith(f"Nothing was run for {ALARM}: DATABASE_URL is not set")


def test_what_cannot_be_put_on_the_timeline_is_tried_again(account: StandIn, desk: Desk) -> None:
    incident = account.add_incident("billing-too-high")
    account.trouble("refused", method="POST", status=503, times=1)
    with pytest.raises(Unreachable, match="not all of it is on the timeline yet"):
        desk.answer("incident", incident, key="action:2")
    desk.answer("incident", incident, key="action:2")
    assert len(account.notes(incident)) == 1


def test_a_resolved_incident_is_left_alone(account: StandIn, desk: Desk) -> None:
    incident = account.add_incident("billing-too-high", status="resolved")
    desk.answer("incident", incident, key="action:3")
    assert (account.notes(incident), desk.told) == ([], [])


def test_an_alarm_s_name_cannot_command_the_terminal(account: StandIn, desk: Desk) -> None:
    made_up = {"AlarmName": f"\x1b[2J\nFAKE-{ALARM}"}
    incident = account.add_incident("17 orphans", details=made_up)
    desk.answer("incident", incident, key="action:4")
    assert "\x1b" not in "".join([*desk.told, *account.notes(incident)])


@pytest.mark.usefixtures("desk")  # whose authority is trusted
def test_a_key_that_is_refused_or_missing_is_an_error(account: StandIn, tmp_path: Path) -> None:
    incident = account.add_incident(ALARM)
    with pytest.raises(Denied, match="does not accept the key"):
        Desk(account, tmp_path, PAGERDUTY_TOKEN="wrong").answer("incident", incident)
    with pytest.raises(ArrakisError, match="PAGERDUTY_TOKEN is not set"):
        Desk(account, tmp_path, PAGERDUTY_TOKEN="").responder.check()
