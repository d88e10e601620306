"""Past runs are told by the operator's clock; JSON has them in UTC."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from runbooks.engine.journal import JournalEntry
from runbooks.engine.model import Phase
from runbooks.reports.note import unmatched
from runbooks.reports.runs import history, show
from tests.unit.goldens import here

__all__ = ["here"]

AT = datetime(2026, 3, 1, 23, 30, 5, tzinfo=UTC)
BEGUN = JournalEntry(
    chain="c",
    seq=1,
    run="r1",
    action=None,
    phase=Phase.RUN_STARTED,
    at=AT,
    actor="jane@host",
    observed={"plan": {"undoes": None}},
    error=None,
    previous="",
)
FAILED = replace(BEGUN, seq=2, action="a1", phase=Phase.FAILED, error="changed at 2026-03-01T23:30Z")


@pytest.mark.usefixtures("here")
def test_runs_and_their_records_are_told_by_this_host_s_clock() -> None:
    runs, records = history([BEGUN]), show([BEGUN, FAILED])
    assert "r1     2026-03-02 00:30 +0100  jane@host" in runs[0]
    assert "2026-03-02 00:30:05 +0100  failed" in records[0]
    assert "changed at 2026-03-02 00:30 +0100" in records[0]
    assert "UTC" not in runs[0] + records[0]
    assert runs[1][0]["at"] == "2026-03-01 23:30:05 UTC"
    assert [each["at"] for each in records[1]] == [AT.isoformat()] * 2


@pytest.mark.usefixtures("here")
def test_a_note_is_in_utc_as_its_readers_are_anywhere() -> None:
    told = unmatched([("alarm", FAILED.error or "")], at=AT, actor="jane@host")
    assert "changed at 2026-03-01 23:30 UTC" in told
    assert told.endswith("2026-03-01 23:30:05 UTC, jane@host")
