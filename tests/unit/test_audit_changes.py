"""What has changed between two audits."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.audit.changes import KINDS, changes


def finding(
    severity: str, check: str = "orphaned schema", *, named: str = "", said: str = "", by: str = "rb-sb-003"
) -> dict[str, Any]:
    resource = {"kind": "schema", "id": named} if named else None
    return {
        "check": check,
        "severity": severity,
        "summary": said or f"{check} {named}",
        "resource": resource,
        "evidence": {},
        "source": "",
        "procedures": [by],
    }


def audit(
    *findings: dict[str, Any], name: str = "audit-1", looked: tuple[str, ...] = ("rb-sb-003",)
) -> dict[str, Any]:
    procedures = []
    for each in looked:
        mine = [one["severity"] for one in findings if each in one["procedures"]]
        counts = {severity: mine.count(severity) for severity in ("critical", "warning", "unknown", "ok")}
        procedures.append({"name": each, "counts": counts})
    return {
        "audit": name,
        "at": "2026-11-26T17:00:00+00:00",
        "findings": list(findings),
        "procedures": procedures,
    }


def kinds(before: dict[str, Any], now: dict[str, Any]) -> dict[str, list[str]]:
    found = changes(before, now)
    return {kind: [each["summary"] for each in found[kind]] for kind in KINDS if found[kind]}


A, B = "sandbox_a", "sandbox_b"


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ([], [], {}),
        ([], [finding("warning", named=A)], {"new": ["orphaned schema sandbox_a"]}),
        ([finding("ok", named=A)], [finding("warning", named=A)], {"new": ["orphaned schema sandbox_a"]}),
        (
            [finding("warning", named=A)],
            [finding("critical", named=A)],
            {"worse": ["orphaned schema sandbox_a"]},
        ),
        (
            [finding("critical", named=A)],
            [finding("warning", named=A)],
            {"better": ["orphaned schema sandbox_a"]},
        ),
        ([finding("critical", named=A)], [finding("ok", named=A)], {"gone": ["orphaned schema sandbox_a"]}),
        ([finding("critical", named=A)], [], {"gone": ["orphaned schema sandbox_a"]}),
        ([finding("critical", named=A)], [finding("critical", named=A)], {}),
        (
            [finding("warning", named=A)],
            [finding("warning", named=B)],
            {"new": ["orphaned schema sandbox_b"], "gone": ["orphaned schema sandbox_a"]},
        ),
        ([], [finding("unknown", "keys")], {"new": ["keys "]}),
        ([finding("unknown", "keys")], [], {"gone": ["keys "]}),
        ([finding("unknown", "keys")], [finding("warning", "keys")], {"untold": ["keys "]}),
        ([finding("unknown", "keys")], [finding("ok", "keys")], {"gone": ["keys "]}),
        ([finding("ok", "keys")], [finding("unknown", "keys")], {"new": ["keys "]}),
        ([finding("warning", "keys")], [finding("unknown", "keys")], {"untold": ["keys "]}),
    ],
)
def test_each_kind(before: list[Any], now: list[Any], expected: dict[str, list[str]]) -> None:
    assert kinds(audit(*before), audit(*now)) == expected


def test_what_cannot_be_told_any_more_is_not_gone() -> None:
    now = audit(finding("unknown", "database"))
    assert kinds(audit(finding("warning", named=A)), now) == {
        "new": ["database "],
        "untold": ["orphaned schema sandbox_a"],
    }


def test_what_was_hidden_by_an_outage_is_not_new_after_it() -> None:
    before = audit(finding("unknown", "database"))
    now = audit(finding("warning", named=A))
    assert kinds(before, now) == {"gone": ["database "], "untold": ["orphaned schema sandbox_a"]}


@pytest.mark.parametrize("check", ["cause", "left alone", "log", "log error"])
def test_one_cause_in_the_place_of_another_is_another(check: str) -> None:
    before, now = (
        finding("critical", check, said="Redis is gone"),
        finding("critical", check, said="a right is missing"),
    )
    assert kinds(audit(before), audit(now)) == {"new": ["a right is missing"], "gone": ["Redis is gone"]}


def test_what_is_gone_is_told_in_the_words_that_it_had() -> None:
    before, now = (
        finding("critical", named=A, said="it is an orphan"),
        finding("ok", named=A, said="all is well"),
    )
    assert kinds(audit(before), audit(now)) == {"gone": ["it is an orphan"]}


def test_another_section_that_cannot_tell_hides_nothing_of_this_one() -> None:
    looked = ("rb-sb-003", "rb-sb-006")
    before = audit(finding("warning", named=A), looked=looked)
    now = audit(finding("unknown", "timed", by="rb-sb-006"), looked=looked)
    assert kinds(before, now)["gone"] == ["orphaned schema sandbox_a"]


def test_only_what_both_looked_at_is_compared() -> None:
    both = ("rb-sb-003", "rb-sb-001")
    other = finding("critical", "count", by="rb-sb-001")
    assert kinds(audit(other, looked=both), audit()) == {}
    assert kinds(audit(), audit(other, looked=both)) == {}


def test_figures_in_the_words_make_no_other_finding_of_it() -> None:
    before = [
        finding("warning", "count", said="12 of 40 are late"),
        finding("warning", "count", said="3,000 rows are dead"),
    ]
    now = [
        finding("warning", "count", said="13 of 41 are late"),
        finding("warning", "count", said="2,900 rows are dead"),
    ]
    assert kinds(audit(*before), audit(*now)) == {}


def test_a_check_with_one_finding_is_the_same_whatever_it_says() -> None:
    before, now = (
        finding("ok", "alarm", said="alarm is OK"),
        finding("critical", "alarm", said="alarm is ALARM"),
    )
    assert kinds(audit(before), audit(now)) == {"new": ["alarm is ALARM"]}


SEVERITIES = st.sampled_from(["ok", "warning", "critical", "unknown"])
FINDINGS = st.dictionaries(st.sampled_from("abcde"), SEVERITIES).map(
    lambda found: audit(*(finding(severity, named=name) for name, severity in found.items()))
)


@given(FINDINGS)
def test_nothing_has_changed_where_nothing_has(same: dict[str, Any]) -> None:
    assert kinds(same, same) == {}


@given(FINDINGS, FINDINGS)
def test_a_finding_changes_in_one_way_at_most_and_its_way_back_is_told_as_well(
    before: dict[str, Any], now: dict[str, Any]
) -> None:
    there, back = kinds(before, now), kinds(now, before)
    told = [each for found in there.values() for each in found]
    assert len(told) == len(set(told))
    assert set(told) == {each for found in back.values() for each in found}
