"""What a report's pages show of a document, and how much of what is many."""

from datetime import timedelta
from typing import Any

import pytest

from runbooks.engine.errors import Refused
from runbooks.reports import document, view
from sandbox.errors import ArrakisError, Busy, Unreachable
from tests.unit import postmortem
from tests.unit.plans import NOW


def finding(severity: str, check: str = "check", summary: str = "so") -> dict[str, Any]:
    """Return a finding without evidence, as JSON's own types."""
    return {
        "severity": severity,
        "check": check,
        "summary": summary,
        "source": "",
        "resource": None,
        "evidence": {},
    }


def moment(number: int, kind: str = "action", severity: str | None = "ok") -> dict[str, Any]:
    """Return a moment of a time line."""
    at = (NOW + timedelta(seconds=number)).isoformat()
    return {"at": at, "kind": kind, "text": f"{kind} {number}", "severity": severity}


def test_the_worst_findings_come_first_and_only_so_many_are_told_in_full() -> None:
    found = view.groups(
        [finding(each) for each in ("ok", "warning", "critical", "warning", "unknown")], most=2
    )
    assert [(each.severity, len(each.full), len(each.brief)) for each in found] == [
        ("critical", 1, 0),
        ("warning", 1, 1),
        ("unknown", 0, 1),
        ("ok", 0, 1),
    ]


def test_a_way_is_told_hop_by_hop_where_its_worst_is() -> None:
    hops = [finding(severity, "hop", severity) for severity in ("ok", "warning", "ok")]
    found = view.groups([finding("critical"), *hops, finding("ok")], most=10)
    assert [[each["check"] for each in group.full] for group in found] == [
        ["check"],
        ["hop"] * 3,
        ["check"],
    ]


@pytest.mark.parametrize(
    ("found", "outcome", "tone"),
    [
        ([], "healthy", "ok"),
        ([finding("ok")], "proposed", "warning"),
        ([finding("warning")], "proposed", "warning"),
        ([finding("unknown"), finding("critical")], "unknown", "critical"),
        ([finding("unknown"), finding("ok")], "unknown", "unknown"),
    ],
)
def test_a_diagnosis_is_as_bad_as_its_worst_finding(found: list[Any], outcome: str, tone: str) -> None:
    assert view.tone({**postmortem.diagnosed(), "findings": found, "outcome": outcome}) == tone


@pytest.mark.parametrize(
    ("outcome", "tone"),
    [("applied", "ok"), ("partly applied", "warning"), ("refused", "warning"), ("error", "critical")],
)
def test_a_run_is_as_bad_as_what_became_of_it(outcome: str, tone: str) -> None:
    assert view.tone({**postmortem.ran(), "outcome": outcome}) == tone


@pytest.mark.parametrize(
    ("error", "tone"), [(Refused("no"), "warning"), (Busy("no"), "critical"), (Unreachable("no"), "unknown")]
)
def test_an_error_has_a_tone_too(error: ArrakisError, tone: str) -> None:
    assert view.tone(document.failed(error, runbook=None, environment=None)) == tone


def test_actions_that_ended_alike_are_counted_and_what_failed_among_them_is_told() -> None:
    line = [*map(moment, range(100)), moment(100, severity="critical"), *map(moment, range(101, 104))]
    assert [each["text"] for each in view.condensed(line, most=200)] == [
        "action 0",
        "98 more like it, the last of them next",
        "action 99",
        "action 100",
        "action 101",
        "action 102",
        "action 103",
    ]


def test_a_time_line_that_is_too_long_keeps_its_begin_and_its_end() -> None:
    line = [moment(number, "alarm") for number in range(1_000)]
    found = view.condensed(line, most=10)
    assert [each["text"] for each in found[:5]] == [f"alarm {number}" for number in range(5)]
    assert found[5]["text"] == "990 more, which the JSON file has"
    assert [each["text"] for each in found[6:]] == [f"alarm {number}" for number in range(995, 1_000)]


def test_of_many_results_those_are_told_that_are_not_as_they_should_be() -> None:
    results = [{"settled": number % 10 > 0} for number in range(100)]
    assert view.told(results, most=100) == results
    assert view.told(results, most=50) == [{"settled": False}] * 10
    assert view.told(results, most=5) == [{"settled": False}] * 5


def test_the_commands_for_a_person_are_those_of_what_is_wrong_each_once() -> None:
    sources = [("critical", "a"), ("ok", "b"), ("warning", "a"), ("unknown", "c"), ("warning", "")]
    found = [{**finding(severity), "source": source} for severity, source in sources]
    assert view.sources(found) == ["a", "c"]


def test_a_documents_files_are_called_after_what_it_is_about() -> None:
    looked, ran = postmortem.diagnosed(), postmortem.ran()
    assert view.name(postmortem.audit()) == "audit-20260301-120000-ab12"
    assert view.name(ran) == ran["run"]["id"]
    assert view.name(looked) == looked["plan"]["id"]
    assert view.name({**looked, "plan": None}) == "rb-sb-001-20260301-120000"
    assert (
        view.name(document.failed(Refused("no"), runbook="rb-sb-001", environment=None))
        == "rb-sb-001-not-done"
    )
