"""An incident's time line: what happened when, from the findings' evidence, a run's journal and notes."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from diagnostics.servers import Cache, Instance
from runbooks.engine.journal import JournalEntry
from runbooks.engine.model import Phase, Severity
from runbooks.engine.plan import as_json
from runbooks.findings import cache_finding, instance_finding
from runbooks.logged import log_findings
from runbooks.reports.timeline import timeline
from sandbox.facts import Known
from tests.unit import postmortem
from tests.unit.plans import NOW, plan


def finding(*moments: list[Any]) -> dict[str, Any]:
    """Return a finding as JSON's own types, with moments among its evidence."""
    return {"evidence": {"moments": list(moments)}}


def entry(
    phase: Phase, *, action: str | None = None, error: str | None = None, **observed: Any
) -> JournalEntry:
    """Return a record of the run r1."""
    return JournalEntry(
        chain="c",
        seq=1,
        run="r1",
        action=action,
        phase=phase,
        at=NOW,
        actor="ada@host",
        observed=observed,
        error=error,
        previous="",
    )


def test_what_happened_first_is_told_first_and_in_utc() -> None:
    there = (NOW + timedelta(minutes=1)).astimezone(timezone(timedelta(hours=9)))
    told = timeline(
        [
            finding([there.isoformat(), "log", "later", "warning"]),
            finding([NOW.isoformat(), "alarm", "first", "ok"]),
        ],
        notes=[(NOW - timedelta(minutes=1), "Mo", "before it all")],
    )
    assert told == [
        {"at": "2026-03-01T11:59:00+00:00", "kind": "note", "text": "Mo: before it all", "severity": None},
        {"at": "2026-03-01T12:00:00+00:00", "kind": "alarm", "text": "first", "severity": "ok"},
        {"at": "2026-03-01T12:01:00+00:00", "kind": "log", "text": "later", "severity": "warning"},
    ]


def test_what_two_findings_tell_alike_is_told_once() -> None:
    same = [NOW.isoformat(), "alarm", "it fires", "critical"]
    assert len(timeline([finding(same), finding(same)])) == 1


def test_a_finding_without_moments_tells_none() -> None:
    assert timeline([{"evidence": {}}]) == []


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (entry(Phase.RUN_STARTED), ("event", "run r1 begun by ada@host", None)),
        (entry(Phase.DONE, action="a1"), ("action", "flip t1: done", "ok")),
        (
            entry(Phase.SKIPPED, action="a2", error="in use: Mo"),
            ("action", "flip t2: skipped: in use: Mo", "warning"),
        ),
        (entry(Phase.FAILED, action="a3", error="no"), ("action", "flip t3: failed: no", "critical")),
        (entry(Phase.RUN_ENDED, exit=5), ("event", "run r1 ended with exit code 5", None)),
    ],
)
def test_a_runs_records_are_told_by_what_they_did(record: JournalEntry, told: tuple[Any, ...]) -> None:
    (moment,) = timeline([], records=[record], plan=plan())
    assert (moment["kind"], moment["text"], moment["severity"]) == told


@pytest.mark.parametrize("phase", [Phase.PLANNED, Phase.STARTED])
def test_what_was_only_begun_is_told_by_how_it_ended(phase: Phase) -> None:
    assert timeline([], records=[entry(phase, action="a1")], plan=plan()) == []


def test_an_error_that_came_once_and_is_settled_is_told_once_and_is_not_called_well() -> None:
    report = postmortem.logged()
    once = replace(report, groups=(replace(report.groups[0], count=1, last=report.groups[0].first),))
    found = log_findings(Known(once), "/ecs/sandbox-cleanup", lambda _: (Severity.OK, "settled"))
    (moment,) = timeline(map(as_json, found))
    assert moment["text"] == "log: objects elsewhere depend on a sandbox's schema: once"
    assert moment["severity"] is None


def test_what_rds_and_elasticache_said_lately_is_an_event() -> None:
    database = Instance(
        identifier="db-1",
        status="available",
        engine="postgres",
        version="15.4",
        address=None,
        port=None,
        storage_gib=100,
        security_groups=(),
        events=((NOW, "Multi-AZ failover completed"),),
    )
    cache = Cache(
        identifier="redis-1",
        status="available",
        members=("redis-1-001",),
        address=None,
        port=None,
        events=((NOW, "Failover to redis-1-002"),),
    )
    found = [as_json(instance_finding(Known(database))), as_json(cache_finding(Known(cache)))]
    assert [(each["kind"], each["text"], each["severity"]) for each in timeline(found)] == [
        ("event", "RDS instance db-1: Multi-AZ failover completed", None),
        ("event", "ElastiCache redis-1: Failover to redis-1-002", None),
    ]


def test_an_alarm_tells_when_it_changed_and_a_log_when_its_errors_came_first_and_last() -> None:
    found = [
        (moment["at"], moment["kind"], moment["text"], moment["severity"])
        for moment in postmortem.diagnosed()["timeline"]
        if moment["kind"] in ("alarm", "log")
    ]
    name, error = (
        "alarm production-ActiveSandboxCount-High",
        "log: objects elsewhere depend on a sandbox's schema",
    )
    assert found == [
        ("2026-03-01T00:20:00+00:00", "alarm", f"{name}: ALARM → OK", "ok"),
        ("2026-03-01T10:20:00+00:00", "alarm", f"{name}: OK → ALARM", "critical"),
        ("2026-03-01T10:25:00+00:00", "log", f"{error}: the first of 14", "warning"),
        ("2026-03-01T11:48:00+00:00", "log", f"{error}: the last of 14", "warning"),
    ]
    assert datetime.fromisoformat(found[0][0]).utcoffset() == timedelta(0)
