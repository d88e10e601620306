"""database-maintenance: facts in, findings and actions out."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from diagnostics.indexes import TABLES
from diagnostics.storage import Holder
from diagnostics.upkeep import COLUMNS, Kept, Log, Upkeep, Worker
from runbooks.database_maintenance import (
    KEEP,
    Database,
    Facts,
    diagnose,
    existing,
    gather,
    outlook,
    propose,
)
from runbooks.engine import guards
from runbooks.engine import plan as plans
from runbooks.engine.errors import Refused
from runbooks.engine.model import Action, Finding, Plan, Resource, Reversibility, Severity
from runbooks.options import duration
from runbooks.remedies.trimming import Archive
from sandbox.errors import ArrakisError
from sandbox.facts import Known, Unknown
from sandbox.model import Status
from tests.unit.plans import TARGET

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CUTOFF = NOW - KEEP
AN_HOUR_AGO = NOW - timedelta(hours=1)
AUDIT = "sandbox_audit_log"
UNSEEN = "nobody is seen any more who needs them"
SILENT = Unknown("no answer within 10 s", "is the server up?")


def table(name: str, **changes: Any) -> Upkeep:
    """Return a table that autovacuum looks after, and that this role owns."""
    fields: dict[str, Any] = {
        "name": name,
        "bytes": 60 * 2**20,
        "live": 400_000,
        "dead": 12,
        "vacuumed_at": None,
        "autovacuumed_at": AN_HOUR_AGO,
        "analyzed_at": AN_HOUR_AGO,
        "off_here": False,
        "off_everywhere": False,
        "owner": "arrakis",
        "may_vacuum": True,
        "lacks": [],
        "columns": list(COLUMNS),
    }
    return Upkeep(**{**fields, **changes})


def facts(*, audit: dict[str, Any] | None = None, rows: int = 300_000, **changes: Any) -> Facts:
    """Return what is seen of tables that are well, with old audit rows; `audit` are changes to that table."""
    tables = {name: table(name, **(audit or {}) if name == AUDIT else {}) for name in TABLES}
    oldest = CUTOFF - timedelta(days=20) if rows else None
    fields: dict[str, Any] = {
        "now": NOW,
        "environment": "staging",
        "keep": KEEP,
        "address": None,
        "database": Known(Database(tables=tables, relations=450, fingerprint="f1")),
        "log": Known(Log(cutoff=CUTOFF, rows=rows, oldest=oldest, kept=())),
        "workers": Known(()),
        "holders": Known(()),
        "depot": Known(None),
    }
    return Facts(**{**fields, **changes})


def worker(table: str, **changes: Any) -> Worker:
    """Return an autovacuum at work, seen by who may see it."""
    fields: dict[str, Any] = {
        "table": table,
        "pid": 4711,
        "user": "",
        "application": "",
        "kind": "autovacuum worker",
        "since": AN_HOUR_AGO,
        "phase": "scanning heap",
        "scanned": 46,
        "total": 100,
    }
    return Worker(**{**fields, **changes})


def verbs(seen: Facts) -> list[str]:
    """Return what is proposed to whom."""
    return [f"{each.verb} {each.resource.id}" for each in propose(seen)[0]]


def left(seen: Facts) -> list[str]:
    """Return what is left alone, and why."""
    return [each.summary for each in propose(seen)[1]]


def found(findings: list[Finding], check: str, name: str = "") -> Finding:
    """Return the one finding of a check, of a table where it is named."""
    [one] = [
        each
        for each in findings
        if each.check == check and (not name or (each.resource and each.resource.id == name))
    ]
    return one


VACUUMS = [f"vacuum table {name}" for name in TABLES]


# ---- what is proposed


def test_the_trim_goes_first_and_every_table_is_vacuumed() -> None:
    actions, told = propose(facts())
    assert [each.verb for each in actions] == ["trim audit log", *["vacuum table"] * 3]
    assert [each.id for each in actions] == ["a1", "a2", "a3", "a4"]
    assert told == []
    trim = actions[0]
    assert trim.reversibility is Reversibility.IRREVERSIBLE
    assert trim.reason == "older than 90 d; not archived: --archive keeps them"
    assert trim.before == {
        "rows": 300_000,
        "bytes": 45 * 2**20,
        "cutoff": "2025-12-01T12:00:00+00:00",
        "kept": [],
        "archive": None,
    }


def test_where_nothing_is_old_nothing_is_trimmed() -> None:
    seen = facts(rows=0)
    assert verbs(seen) == VACUUMS
    assert found(diagnose(seen), "audit log").severity is Severity.OK


def test_an_archive_makes_it_reversible_and_is_named_after_what_it_holds() -> None:
    trim = propose(facts(address="s3://bucket/x", environment="a b/../c"))[0][0]
    assert trim.reversibility is Reversibility.REVERSIBLE
    assert trim.reason == "older than 90 d; into s3://bucket/x at first"
    assert Archive(**trim.before["archive"]) == Archive(
        address="s3://bucket/x",
        name="sandbox_audit_log-a-b-..-c-before-20251201T120000Z-database-maintenance-20260301-120000.jsonl.gz",
        header={
            "archive": "public.sandbox_audit_log",
            "environment": "a b/../c",
            "database": "f1",
            "before": "2025-12-01T12:00:00+00:00",
            "plan": "database-maintenance-20260301-120000",
        },
    )


def made(*actions: Action) -> Plan:
    return plans.make(
        runbook="database-maintenance",
        environment=TARGET,
        now=NOW,
        findings=(),
        actions=actions,
        existing=existing(facts()),
    )


def test_what_is_typed_says_how_many_rows_are_lost_and_one_target_is_one() -> None:
    lost = made(*propose(facts())[0])
    assert guards.phrases(lost) == ("trim 300000", AUDIT)
    assert guards.phrases(made(*propose(facts(address="/archive"))[0])) == ()
    assert guards.blast_radius(lost, None).reason == "4 targets, 1% of the 450 sandbox resources that exist"
    assert guards.blast_radius(lost, None).allowed
    other = replace(
        lost.actions[1],
        verb="end session",
        reversibility=Reversibility.IRREVERSIBLE,
        resource=Resource(kind="session", id="1"),
    )
    assert guards.phrases(made(lost.actions[0], other)) == ("trim 300000 and end 1",)


@pytest.mark.parametrize(
    ("seen", "proposed", "told"),
    [
        (facts(log=SILENT), VACUUMS, []),
        (
            facts(database=SILENT),
            [],
            [f"{AUDIT}: cannot tell whether it may be trimmed"],
        ),
        (
            facts(audit={"lacks": ["INSERT", "DELETE"]}),
            VACUUMS,
            [f"{AUDIT}: it is not trimmed: this role lacks INSERT, DELETE; arrakis may GRANT it"],
        ),
        (
            facts(address="s3://b", depot=SILENT),
            VACUUMS,
            [f"{AUDIT}: cannot tell whether an archive can be put there: no answer within 10 s"],
        ),
        (
            facts(address="/archive", audit={"columns": [*COLUMNS, "ip"]}),
            VACUUMS,
            [f"{AUDIT}: it is not trimmed: no archive is known of its columns (ip)"],
        ),
        (facts(audit={"columns": [*COLUMNS, "ip"]}), [f"trim audit log {AUDIT}", *VACUUMS], []),
        (
            facts(rows=0, workers=SILENT),
            [],
            [f"{name}: cannot tell who is at work on it" for name in TABLES],
        ),
        (
            facts(rows=0, audit={"may_vacuum": False}),
            VACUUMS[:2],
            [f"{AUDIT}: this role may not vacuum it: arrakis may, or a role with MAINTAIN"],
        ),
        (
            facts(rows=0, workers=Known((worker("sandboxes"),))),
            VACUUMS[1:],
            [
                "sandboxes: somebody is at work on it: session 4711 (autovacuum worker) since "
                "2026-03-01T11:00Z: VACUUM, scanning heap 40 %"
            ],
        ),
        (
            facts(rows=0, database=Known(Database(tables={}, relations=400, fingerprint="f1"))),
            [],
            [f"{name}: there is no such table in the schema public" for name in TABLES],
        ),
    ],
)
def test_what_is_left_alone_has_its_reason(seen: Facts, proposed: list[str], told: list[str]) -> None:
    assert verbs(seen) == proposed
    assert left(seen) == told


def test_what_cannot_be_told_is_unknown() -> None:
    seen = facts(log=SILENT, database=SILENT, workers=SILENT)
    unknown = [each.check for each in diagnose(seen) if each.severity is Severity.UNKNOWN]
    assert unknown == ["audit log", "tables", "workers"]
    assert existing(seen) is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "session 4711 (autovacuum worker) since 2026-03-01T11:00Z: VACUUM, scanning heap 40 %"),
        ({"kind": "", "since": None, "phase": ""}, "session 4711"),
        (
            {"user": "ada", "application": "psql\n", "kind": "client backend", "phase": "", "since": None},
            "session 4711 (ada, psql\\n)",
        ),
        ({"pid": 0, "kind": "", "since": None, "phase": ""}, "a prepared transaction"),
        (
            {"scanned": None, "total": None, "phase": "initializing"},
            "session 4711 (autovacuum worker) since 2026-03-01T11:00Z: VACUUM, initializing",
        ),
    ],
)
def test_who_is_at_work_is_told_as_far_as_it_may_be_seen(changes: dict[str, Any], told: str) -> None:
    assert worker("sandboxes", **changes).told == told


# ---- what is found


def test_what_is_old_is_counted_and_what_stays_has_its_reason() -> None:
    kept = (
        Kept(id=UUID(int=1), sandbox="box", status=Status.RUNNING),
        Kept(id=UUID(int=2), sandbox="gone", status=Status.DESTROYED),
    )
    log = Log(cutoff=CUTOFF, rows=300_000, oldest=CUTOFF - timedelta(days=20), kept=kept)
    findings = diagnose(facts(log=Known(log)))
    old, stays = found(findings, "audit log"), found(findings, "kept")
    assert old.summary == (
        "300,000 audit rows are older than 90 d (2025-12-01T12:00Z), the oldest of 2025-11-11T12:00Z"
    )
    assert old.severity is Severity.WARNING
    assert stays.summary == "old audit rows that stay, as something still rests on them: 2"
    assert stays.evidence["details"] == [
        "box: its last one, and the sandbox is running",
        "gone: it says that keys were left, which the clean-up has still to delete",
    ]
    assert propose(facts(log=Known(log)))[0][0].before["kept"] == [str(each.id) for each in kept]


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, []),
        ({"dead": 999, "live": 1}, []),
        ({"dead": 50_000}, []),
        ({"dead": 200_000}, [f"33% of its rows are dead: VACUUM (ANALYZE) public.{AUDIT}"]),
        (
            {"dead": 200_000, "autovacuumed_at": None},
            [f"it was never vacuumed: VACUUM (ANALYZE) public.{AUDIT}"],
        ),
        (
            {"off_here": True},
            [f"its autovacuum is off: ALTER TABLE public.{AUDIT} RESET (autovacuum_enabled)"],
        ),
        (
            {"off_everywhere": True},
            [
                "autovacuum is off for the whole server: ALTER SYSTEM SET autovacuum = on, or its parameter group"
            ],
        ),
    ],
)
def test_a_table_that_is_not_looked_after_is_said_with_what_mends_it(
    changes: dict[str, Any], wrong: list[str]
) -> None:
    told = found(diagnose(facts(audit=changes)), "table", AUDIT)
    assert told.evidence["details"] == wrong
    assert told.severity is (Severity.WARNING if wrong else Severity.OK)


def test_a_table_says_when_it_was_last_looked_after() -> None:
    told = found(diagnose(facts(audit={"analyzed_at": None})), "table", AUDIT)
    assert told.summary == (
        f"{AUDIT}: 12 dead rows; last VACUUM: never, autovacuum: 2026-03-01T11:00Z, ANALYZE: never"
    )


# ---- what is seen afterwards


def holder(kind: str, since: datetime | None) -> Holder:
    return Holder(kind=kind, name="4711", age=300, since=since)


@pytest.mark.parametrize(
    ("holders", "told"),
    [
        (
            Known((holder("session", NOW - timedelta(hours=3)), holder("session", NOW))),
            ["session 4711, since 2026-03-01T09:00:00Z, 300 transactions old"],
        ),
        (
            Known((holder("replication slot", None),)),
            ["replication slot 4711, 300 transactions old"],
        ),
        (Known((holder("session", NOW),)), [UNSEEN]),
        (Known((holder("replication slot (catalogs only)", None),)), [UNSEEN]),
        (SILENT, ["cannot tell who needs them: no answer within 10 s"]),
    ],
)
def test_dead_rows_that_stay_are_said_with_who_keeps_them(holders: Any, told: list[str]) -> None:
    seen = facts(audit={"dead": 300_000, "vacuumed_at": NOW - timedelta(minutes=1)}, holders=holders)
    stuck = found(outlook(seen), "stuck")
    assert (stuck.severity, stuck.evidence["details"]) == (Severity.WARNING, told)
    assert stuck.summary.startswith(f"{AUDIT}: 300,000 dead rows stay")


def test_what_is_well_afterwards_is_told_table_by_table() -> None:
    assert [(each.check, each.severity) for each in outlook(facts())] == [("table", Severity.OK)] * 3
    assert [each.severity for each in outlook(facts(database=SILENT))] == [Severity.UNKNOWN]
    long_ago = facts(audit={"dead": 300_000, "vacuumed_at": AN_HOUR_AGO})
    assert [each.check for each in outlook(long_ago)] == ["table"] * 3  # it was not vacuumed now


# ---- what is asked for


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("90d", timedelta(days=90)),
        (" 12w ", timedelta(weeks=12)),
        ("36h", timedelta(hours=36)),
        ("036h", timedelta(hours=36)),
    ],
)
def test_durations(text: str, read: timedelta) -> None:
    assert duration("--keep", text) == read


@pytest.mark.parametrize("text", ["", "90", "d", "90 d", "-9d", "9.5d", "0d", "9m", "90D", "999999w", "٩d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ArrakisError, match="--keep takes hours, days or weeks"):
        duration("--keep", text)


def test_rows_are_kept_for_a_week_at_the_least() -> None:
    with pytest.raises(Refused, match="kept for 7 days at the least"):
        gather(None, now=NOW, deadline=1, stack=None, keep=timedelta(hours=167))  # type: ignore[arg-type]
