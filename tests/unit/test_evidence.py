"""A finding's evidence as a person reads it, whatever it is."""

from typing import Any

import pytest

from runbooks.reports import evidence
from tests.unit import postmortem


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "none"),
        (True, "yes"),
        (7, "7"),
        (0.1, "0.1"),
        (1234567.0, "1234567"),
        ("as it is", "as it is"),
        ("2026-03-01T13:00:00.5+01:00", "2026-03-01T12:00:00Z"),
        ("2026-99-99T99:99:99Z", "2026-99-99T99:99:99Z"),
        ("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+14:00"),
        (["a", 1, None], "a, 1, none"),
        ({"last_seen": "x", "bytes": 1024}, "last seen x; size 1 kB"),
        ([{"a": [1, 2], "b": [], "c": None}], "a 1, 2; c none"),
        ([], ""),
        (list(range(60)), ", ".join(map(str, range(50))) + ", and 10 more"),
        ("x" * 4_001, "x" * 4_000 + "… (1 more character)"),
    ],
)
def test_any_value_is_told_as_a_person_reads_it(value: object, told: str) -> None:
    assert evidence.shown(value) == told


def test_evidence_is_told_once_and_only_where_there_is_some() -> None:
    found = {
        "details": ["x"],
        "points": [],
        "moments": [],
        "owner": None,
        "rows": 0,
        "bytes": 2048,
        "holds": [],
    }
    assert evidence.rest(found) == {"rows": 0, "bytes": "2 kB"}


@pytest.mark.parametrize(
    ("found", "source", "folds"),
    [
        ({}, "", False),
        (
            {"points": [["2026-03-01T12:00:00+00:00", 1]], "threshold": 5, "moments": [], "details": []},
            "",
            False,
        ),
        ({}, "psql", True),
        ({"hint": "look"}, "", True),
        ({"histogram": [1]}, "", True),
        ({"owner": "lea"}, "", True),
    ],
)
def test_there_is_something_to_unfold_only_where_there_is(
    found: dict[str, Any], source: str, folds: bool
) -> None:
    assert evidence.folds({"evidence": found, "source": source}) is folds


def test_a_metric_is_told_in_words_where_there_is_one() -> None:
    alarm = next(each for each in postmortem.diagnosed()["findings"] if each["check"] == "alarm")
    assert "lowest 60, highest 165, last 165. Threshold 100: 22 values" in evidence.plotted(alarm["evidence"])
    assert evidence.plotted({}) == ""
