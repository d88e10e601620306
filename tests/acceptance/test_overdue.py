"""RB-SB-001 and RB-SB-002 on every cause that the lab can make: named first, and healthy once it is gone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import control
from tests.acceptance.engineer import Answer, Engineer

CAUSES = {
    "rule-disabled": "rule arrakis-sandbox-cleanup is disabled",
    "task-failing": "the clean-up task fails: sandbox-cleanup exited with 1",
    "connections-exhausted": "PostgreSQL has no connection left",
    "foreign-view": "cannot be dropped: view reporting.",
    "lock-held": " is held: session ",
    "redis-stopped": "Redis refuses connections",
}
RUNBOOKS = ("rb-sb-001", "rb-sb-002")


@pytest.fixture(params=CAUSES)
def incident(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Engineer]]:
    """Return an engineer at a lab of their own, which has an incident."""
    name: str = request.param
    lab = control.lay_out(control.start(tmp_path / "home", watch_parent=True), name)
    yield name, Engineer(lab, tmp_path / "state")
    control.reset(lab.home)


def first(answer: Answer) -> dict[str, Any]:
    """Return the finding that is told first."""
    found: dict[str, Any] = answer.document["findings"][0]
    return found


def test_the_right_cause_is_named_first_and_with_it_gone_all_is_healthy(
    incident: tuple[str, Engineer],
) -> None:
    name, engineer = incident
    for runbook in RUNBOOKS:
        answer = engineer.call(runbook, "--json")
        assert answer.code in (2, 3), answer.said
        cause = first(answer)
        assert (cause["check"], cause["severity"]) == ("cause", "critical"), answer.out
        assert CAUSES[name] in cause["summary"]
    control.relieve(engineer.lab, name)
    for runbook in RUNBOOKS:
        answer = engineer.call(runbook, "--json")
        wrong = [each for each in answer.document["findings"] if each["severity"] != "ok"]
        assert (answer.code, answer.document["outcome"], wrong) == (0, "healthy", [])
