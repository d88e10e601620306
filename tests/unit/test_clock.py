"""Moments as people read them, wherever they are."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.reports.clock import beside, both, here, local, universal, utc
from sandbox.text import moment
from tests.unit.hostile import TEXTS

ROOT = Path(__file__).parents[2]
LATE = datetime(2026, 11, 26, 20, 5, 7, tzinfo=UTC)


@pytest.fixture
def kolkata(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An operator in India, where it is half an hour past what it is elsewhere."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("kolkata")
@pytest.mark.parametrize(
    ("text", "ours", "theirs", "all_of_it"),
    [
        (
            "2026-11-26T18:05Z OK → ALARM",
            "2026-11-26 23:35 +0530 OK → ALARM",
            "2026-11-26 18:05 UTC OK → ALARM",
            "2026-11-26 18:05 UTC (23:35 +0530) OK → ALARM",
        ),
        (
            "(3 ×, 2026-11-26T18:05Z/2026-11-26T20:05Z)",
            "(3 ×, 2026-11-26 23:35–2026-11-27 01:35 +0530)",
            "(3 ×, 2026-11-26 18:05–20:05 UTC)",
            "(3 ×, 2026-11-26 18:05–20:05 UTC (23:35–2026-11-27 01:35 +0530))",
        ),
        (
            "at 2026-11-26T20:05:07Z.",
            "at 2026-11-27 01:35:07 +0530.",
            "at 2026-11-26 20:05:07 UTC.",
            "at 2026-11-26 20:05:07 UTC (2026-11-27 01:35:07 +0530).",
        ),
    ],
)
def test_a_moment_in_a_text_is_told_by_each_clock(text: str, ours: str, theirs: str, all_of_it: str) -> None:
    assert local(text) == ours
    assert universal(text) == theirs
    assert both(text) == all_of_it


@pytest.mark.usefixtures("kolkata")
def test_a_moment_by_itself_is_told_alike() -> None:
    assert here(LATE) == local(moment(LATE))
    assert (utc(LATE), beside(LATE)) == ("2026-11-26 20:05:07 UTC", "2026-11-27 01:35:07 +0530")


def test_where_the_clock_is_utc_nothing_stands_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        assert both(moment(LATE)) == "2026-11-26 20:05 UTC"
        assert local(moment(LATE)) == "2026-11-26 20:05 +0000"
    time.tzset()


@pytest.mark.usefixtures("kolkata")
@pytest.mark.parametrize(
    "text",
    [
        "2026-99-99T99:99Z",
        "export-2026-03-01T12:00Z",
        "2026-03-01T12:00Zulu",
        "2026-03-01T12:00:00.5Z",
        "2026-03-01T12:00:00+00:00",
    ],
)
def test_what_only_looks_like_a_moment_stays(text: str) -> None:
    assert local(text) == universal(text) == both(text) == text


@pytest.mark.usefixtures("kolkata")
def test_a_moment_that_no_clock_here_can_tell_stays() -> None:
    assert local("9999-12-31T23:59Z") == "9999-12-31T23:59Z"


@given(TEXTS, st.datetimes(datetime(1900, 1, 1), datetime(2999, 1, 1), timezones=st.just(UTC)), TEXTS)
def test_what_stands_around_a_moment_stays(before: str, at: datetime, after: str) -> None:
    for tell in (local, universal, both):
        assert tell(f"{before} {moment(at)} {after}") == f"{before} {tell(moment(at))} {after}"


def test_nobody_but_the_clock_writes_moments_for_people() -> None:
    """What is found, and what is in its words, has them as sandbox.text writes them."""
    pure = [*(ROOT / "diagnostics").rglob("*.py"), *(ROOT / "runbooks").glob("*.py")]
    for each in ("creation", "mass", "orphaned", "overdue", "routing", "slowness", "emergency"):
        pure += (ROOT / "runbooks" / each).rglob("*.py")
    texts = {file: file.read_text(encoding="utf-8") for file in pure}
    assert texts
    assert [str(file) for file, text in texts.items() if re.search(r"%H:%M|\} UTC", text)] == []
