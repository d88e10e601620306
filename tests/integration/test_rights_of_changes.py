"""The rights that a procedure's page names are enough to apply what it proposes, and to undo it: the servers refuse all others."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lab import control
from runbooks.catalogue import RUNBOOKS
from runbooks.engine.apply import Outcome
from runbooks.engine.errors import Exit
from runbooks.engine.permission import ASKING
from tests.conftest import StartLab, follow
from tests.integration.desk import Desk
from tests.integration.logins import aged, limited, prepared
from tests.integration.needs import beyond, used
from tests.wires import recording


@pytest.fixture(scope="module")
def lab(start_lab: StartLab) -> control.Lab:
    """Return a lab with orphans, and an audit row that is old."""
    return aged(prepared(start_lab()))


def apply(lab: control.Lab, name: str, state: Path, *, undo: bool = False, **about: str) -> Outcome:
    """Diagnose, apply and undo, with logins that have the rights of this procedure's page and no others."""
    runbook = RUNBOOKS[name]
    rights = runbook.page.reads | runbook.page.writes | ASKING
    with limited(lab.env, rights, state, nats=False) as env, recording(env, asking=lab.env) as wires:
        desk = Desk(wires.env, state)
        outcome = desk.apply(desk.diagnose(runbook, **about))
        assert [each.reason for each in outcome.results if not each.settled] == []
        if undo:
            assert desk.undo(outcome).exit is Exit.HEALTHY
        assert wires.changes()
        assert beyond(used(wires), rights) == []
    return outcome


def verbs(outcome: Outcome) -> set[str]:
    return {each.action.verb for each in outcome.results}


@pytest.mark.soak
def test_orphans_go_into_quarantine_and_come_back(lab: control.Lab, tmp_path: Path) -> None:
    outcome = apply(lab, "rb-sb-003", tmp_path, undo=True)
    assert verbs(outcome) == {"quarantine schema", "quarantine keys"}


def test_an_emergency_stop_and_what_resumes(lab: control.Lab, tmp_path: Path) -> None:
    stopped = apply(lab, "emergency-stop", tmp_path / "stop")
    assert verbs(stopped) == {"raise stop", "disable rule", "stop service", "mark sandboxes"}
    resumed = apply(lab, "emergency-resume", tmp_path / "resume")
    assert all(each.startswith("undo ") for each in verbs(resumed))
    assert len(verbs(resumed)) == 4


@pytest.mark.soak
def test_old_audit_rows_go_and_come_back(lab: control.Lab, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    outcome = apply(lab, "database-maintenance", tmp_path, undo=True, archive=str(shelf))
    assert verbs(outcome) == {"trim audit log", "vacuum table"}


def of_mass_cleanup(lab: control.Lab, tmp_path: Path) -> None:
    outcome = apply(lab, "mass-cleanup", tmp_path)
    assert "quarantine schema" in verbs(outcome)


def of_purging(lab: control.Lab, tmp_path: Path) -> None:
    outcome = apply(lab, "purge-quarantine", tmp_path)
    assert verbs(outcome) == {"drop schema"}


@pytest.mark.soak
@pytest.mark.parametrize("change", [of_purging, of_mass_cleanup])
def test_what_takes_more_away(
    lab: control.Lab, tmp_path: Path, change: Callable[[control.Lab, Path], None]
) -> None:
    change(lab, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("incidents", "runbook", "wanted"),
    [
        (["rule-disabled"], "rb-sb-001", {"enable rule", "clean up sandbox"}),
        (["rule-disabled"], "rb-sb-002", {"enable rule", "clean up sandbox"}),
        (["routes-stale", "stream-missing", "stream-drifted", "consumer-unserved"], "rb-sb-004", {"delete route", "create stream", "create consumer", "correct stream", "restart service"}),
        (["create-denied", "function-missing", "idle-in-transaction"], "rb-sb-005", {"end session", "grant right", "migrate"}),
        (["index-dropped", "statistics-stale"], "rb-sb-006", {"create index", "analyze table"}),
    ],
)  # fmt: skip
def test_incidents_are_mended(
    start_lab: StartLab, tmp_path: Path, incidents: list[str], runbook: str, wanted: set[str]
) -> None:
    lab, seen = prepared(start_lab(incidents[0])), set[str]()
    for incident in incidents:
        lab = follow(lab, incident)
        seen |= verbs(apply(lab, runbook, tmp_path / incident))
    assert wanted <= seen
