"""One incident, always the same: too many sandboxes, as the documents of its diagnosis, its run and an audit tell it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from diagnostics.alarms import Alarm, Change
from diagnostics.causes import match
from diagnostics.grouping import BINS, ErrorGroup
from diagnostics.logs import LogReport
from runbooks.engine import plan as plans
from runbooks.engine.apply import Outcome
from runbooks.engine.environment import Environment
from runbooks.engine.journal import JournalEntry
from runbooks.engine.model import Action, Finding, Phase, Plan, Resource, Reversibility, Severity, Target
from runbooks.engine.operate import Diagnosis
from runbooks.engine.work import Result
from runbooks.findings import alarm_finding, cause
from runbooks.logged import log_findings
from runbooks.rb_sb_001 import RUNBOOK
from runbooks.reports import document
from sandbox.facts import Known

__all__ = [
    "AT",
    "BY",
    "NOTES",
    "PRODUCTION",
    "audit",
    "diagnosed",
    "diagnosis",
    "logged",
    "many",
    "outcome",
    "ran",
]

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
BY = "jane@oncall-1"
PRODUCTION = Environment(name="production", database_url="", redis_url="", nats_url="")
TARGET = Target(
    name="production",
    account="123456789012",
    region="eu-west-1",
    database="arrakis.cluster-abc.eu-west-1:5432/arrakis",
    fingerprint="7301",
    redis="arrakis-redis:6379/0",
    nats="arrakis-nats:4222",
)
NOTES = [(AT - timedelta(minutes=21), "Mo", "The nightly job looks stuck.\nI am on it: <b>@jane</b>")]


def _ago(minutes: float) -> datetime:
    return AT - timedelta(minutes=minutes)


def _alarm() -> Alarm:
    climb = [60 + 3 * number for number in range(36)]
    points = [(_ago(5 * (36 - number)), float(value)) for number, value in enumerate(climb)]
    return Alarm(
        name="production-ActiveSandboxCount-High",
        state="ALARM",
        reason="Threshold crossed: 3 datapoints were greater than 100.0",
        since=_ago(100),
        threshold=100.0,
        period=300,
        points=tuple(points[:9] + points[14:]),
        metric="ActiveSandboxCount",
        changes=(Change(at=_ago(100), old="OK", new="ALARM"), Change(at=_ago(700), old="ALARM", new="OK")),
    )


def logged() -> LogReport:
    """Return what the clean-up's log has."""
    sample = "error: could not drop schema sandbox_83963dd9: cannot drop because other objects depend on it"
    histogram = [0] * BINS
    histogram[3:7] = [1, 4, 7, 2]
    group = ErrorGroup(
        fingerprint="9f3c",
        count=14,
        first=_ago(95),
        last=_ago(12),
        sample=sample,
        component="cleanup",
        cause=match(sample),
        sandboxes=("83963dd9",),
        steps=("schema",),
        histogram=tuple(histogram),
    )
    return LogReport(
        log_group="/ecs/sandbox-cleanup",
        begin=_ago(120),
        end=AT,
        covered_from=_ago(120),
        stopped="",
        lines=220,
        errors=14,
        groups=(group,),
    )


def _findings() -> list[Finding]:
    stuck = [
        Finding(
            check="overdue",
            severity=Severity.WARNING,
            summary=f"sandbox load-test-{number} is {number + 2} h overdue",
            resource=Resource(kind="sandbox", id=f"load-test-{number}"),
            evidence={"owner": "lea", "bytes": 52_428_800 * number, "since": _ago(60 * (number + 2))},
            source="SELECT name, expires_at FROM sandboxes WHERE status = 'expired' ORDER BY expires_at",
        )
        for number in (1, 2, 3)
    ]
    return [
        cause(
            "a view of another schema rests on sandbox_83963dd9, so the clean-up fails at it every time",
            details=["public.active_guilds rests on it", "escalate to platform-team"],
            source="SELECT * FROM pg_depend WHERE refobjid = 'sandbox_83963dd9'::regnamespace",
            resource=Resource(kind="schema", id="sandbox_83963dd9"),
        ),
        alarm_finding(Known(_alarm()), suffix="ActiveSandboxCount-High", confirmed=True, cleared=""),
        *stuck,
        *log_findings(
            Known(logged()), "/ecs/sandbox-cleanup", lambda _: (Severity.WARNING, "it still holds")
        ),
        Finding(
            check="streams", severity=Severity.UNKNOWN, summary="streams: cannot tell: no answer in 10 s"
        ),
        Finding(
            check="plan",
            severity=Severity.OK,
            summary="SELECT FROM sandboxes takes 0.4 ms: nothing is wrong with it",
            evidence={
                "drawn": [
                    "Index Scan using sandboxes_expires_at",
                    "  └ rows 12, 0.4 ms  Index Cond: (expires_at < now())  Filter: (status <> 'destroyed'::text)",
                ]
            },
            source="EXPLAIN (ANALYZE) SELECT …",
        ),
        Finding(check="schedule", severity=Severity.OK, summary="rule cleanup is enabled, rate(15 minutes)"),
    ]


def _plan() -> Plan:
    schemas = ("sandbox_83963dd9", "sandbox_0b5e1f77", "sandbox_c2d4a901")
    actions = [
        Action(
            id=f"a{number}",
            verb="quarantine schema",
            resource=Resource(kind="schema", id=name),
            before={"name": name, "rows": 1_200 * number, "bytes": 7_340_032 * number},
            after={"name": f"quarantine_20260301_{name}"},
            reason="no sandbox owns it",
            reversibility=Reversibility.REVERSIBLE,
        )
        for number, name in enumerate(schemas, 1)
    ]
    return plans.make(
        runbook=RUNBOOK.name,
        environment=TARGET,
        now=AT,
        findings=_findings(),
        actions=actions,
        existing=140,
    )


def diagnosis() -> Diagnosis:
    """Return the diagnosis."""
    made = _plan()
    return Diagnosis(at=AT, by=BY, runbook=RUNBOOK, environment=PRODUCTION, findings=made.findings, plan=made)


def diagnosed() -> dict[str, Any]:
    """Return the document of the diagnosis."""
    return document.diagnosed(diagnosis(), notes=NOTES)


def outcome() -> Outcome:
    """Return what became of the plan: one done, one failed, one not reached."""
    first, second, third = _plan().actions
    results = (
        Result(action=first, phase=Phase.DONE, reason="it is in quarantine", settled=True),
        Result(action=second, phase=Phase.FAILED, reason="a lock was not to be had within 2 s"),
        Result(action=third, phase=None, reason="not reached: one failed"),
    )
    better = Finding(check="count", severity=Severity.WARNING, summary="139 sandboxes are not destroyed")
    return Outcome(
        run=f"{RUNBOOK.name}-20260301-120400-ab12", plan=_plan(), results=results, outlook=(better,)
    )


def ran() -> dict[str, Any]:
    """Return the document of the run."""
    return document.applied(
        outcome(),
        environment=PRODUCTION,
        title=RUNBOOK.title,
        at=AT + timedelta(minutes=6),
        by=BY,
        records=_records(),
        notes=NOTES,
    )


def _records() -> list[JournalEntry]:
    told: list[tuple[float, Phase, str | None, str | None]] = [
        (4, Phase.RUN_STARTED, None, None),
        (4.1, Phase.STARTED, "a1", None),
        (4.2, Phase.DONE, "a1", None),
        (4.3, Phase.STARTED, "a2", None),
        (4.5, Phase.FAILED, "a2", "a lock was not to be had within 2 s"),
        (4.6, Phase.RUN_ENDED, None, None),
    ]
    return [
        JournalEntry(
            chain="c",
            seq=number,
            run=outcome().run,
            action=action,
            phase=phase,
            at=AT + timedelta(minutes=minutes),
            actor=BY,
            observed={"exit": 5} if phase is Phase.RUN_ENDED else {},
            error=error,
            previous="",
        )
        for number, (minutes, phase, action, error) in enumerate(told, 1)
    ]


def audit() -> dict[str, Any]:
    """Return the document of an audit that finds the same."""
    looked = diagnosed()
    findings = [{**finding, "procedures": [RUNBOOK.name]} for finding in looked["findings"]]
    change = {"check": "overdue", "procedures": [RUNBOOK.name]}
    return {
        "audit": "audit-20260301-120000-ab12",
        "environment": "production",
        "lab": False,
        "at": looked["at"],
        "by": BY,
        "seconds": 8.4,
        "outcome": "unknown",
        "exit": 3,
        "verdict": "something is wrong, and not everything could be told",
        "findings": findings,
        "procedures": [
            {
                "name": RUNBOOK.name,
                "title": RUNBOOK.title,
                "outcome": "unknown",
                "exit": 3,
                "verdict": looked["verdict"],
                "command": "./inv rb-sb-001 --env production",
                "actions": looked["plan"]["actions"],
                "counts": {"critical": 2, "warning": 4, "unknown": 1, "ok": 3},
            },
            {
                "name": "rb-sb-006",
                "title": "Slow queries",
                "outcome": "healthy",
                "exit": 0,
                "verdict": "healthy",
                "command": "./inv rb-sb-006 --env production",
                "actions": [],
                "counts": {"critical": 0, "warning": 0, "unknown": 0, "ok": 9},
            },
        ],
        "changes": {
            "since": "audit-20260228-120000-cd34",
            "at": (AT - timedelta(days=1)).isoformat(),
            "new": [{**change, "severity": "critical", "was": None, "summary": "cause: a view rests on it"}],
            "worse": [{**change, "severity": "critical", "was": "warning", "summary": "the alarm fires"}],
            "better": [],
            "gone": [{**change, "severity": None, "was": "warning", "summary": "sandbox old is overdue"}],
            "untold": [{**change, "severity": "unknown", "was": "critical", "summary": "streams"}],
        },
        "timeline": looked["timeline"],
    }


def many(number: int) -> dict[str, Any]:
    """Return the document of a diagnosis with so many findings, each as orphans have them."""
    looked = diagnosed()
    orphans = [
        {
            "check": "orphaned schema",
            "severity": ("warning", "ok", "unknown", "critical")[each % 4],
            "summary": f"schema sandbox_{each:08x} has no sandbox, 12 kB and 40 rows are in it",
            "resource": {"kind": "schema", "id": f"sandbox_{each:08x}"},
            "evidence": {
                "rows": 40,
                "bytes": 12_288,
                "owner": "lea",
                "was": "load-test of lea, destroyed 2026-02-01",
            },
            "source": f"SELECT count(*) FROM pg_class WHERE relnamespace = 'sandbox_{each:08x}'::regnamespace",
        }
        for each in range(number)
    ]
    return {**looked, "findings": orphans}
