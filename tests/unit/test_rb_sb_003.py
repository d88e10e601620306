"""Facts in, findings and actions out."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.alarms import Alarm
from runbooks.engine.model import Action, Finding, Resource, Reversibility, Severity
from runbooks.orphaned.evidence import ALARM, Database, Facts, Use, existing
from runbooks.orphaned.proposals import propose
from runbooks.rb_sb_003 import diagnose
from sandbox.facts import Known, Unknown
from sandbox.keyspace import FamilyUse, Survey
from sandbox.model import Sandbox, Schema, Status
from sandbox.orphans import Roster
from sandbox.ports import Subscription
from sandbox.schemas import SchemaUser
from tests.unit.worlds import NOW, namings, row, worlds

ID = UUID("83963dd9-82b6-49b7-a7f6-d86f86e45136")
GONE = UUID("11111111-2222-4333-8444-555555555555")
SCHEMA = f"sandbox_{GONE}"
OK_ALARM = Alarm(name=ALARM, state="OK", reason="", since=None, threshold=5, period=900, points=((NOW, 0.0),))


def _schema(name: str) -> Schema:
    return Schema(name=name, oid=16385, owner="app", tables=3, bytes=8192, rows_estimate=10, writes=4)


def _session(schema: str) -> SchemaUser:
    return SchemaUser(
        schema_name=schema, pid=42, user_name="ada", application="psql", state="active", how="reads it"
    )


def _facts(
    rows: list[Sandbox] | None = None,
    schemas: tuple[str, ...] = (),
    counts: dict[str, int] | None = None,
    **changes: Any,
) -> Facts:
    roster = Roster([row(ID, Status.RUNNING)] if rows is None else rows)
    facts = Facts(
        now=NOW,
        alarm=Known(OK_ALARM),
        database=Known(Database(roster=roster, schemas=tuple(_schema(name) for name in schemas))),
        keys=Known(Survey(families=counts or {}, parked={})),
        listeners=Known([]),
        uses=Known(Use(sessions=(), activity={})),
        families=Known({}),
    )
    return replace(facts, **changes)


def _orphaned(**changes: Any) -> Facts:
    return _facts(schemas=(SCHEMA,), counts={str(GONE): 12}, **changes)


def _of(findings: list[Finding], check: str) -> list[Finding]:
    return [finding for finding in findings if finding.check == check]


def _targets(actions: list[Action]) -> list[Resource]:
    return [action.resource for action in actions]


def test_a_healthy_world_has_only_good_findings_and_no_actions() -> None:
    facts = _facts(schemas=(f"sandbox_{ID}",), counts={str(ID): 3})
    assert {finding.severity for finding in diagnose(facts)} == {Severity.OK}
    assert "1 live sandboxes" in _of(diagnose(facts), "orphans")[0].summary
    assert propose(facts) == ([], [])
    assert existing(facts) == 3


def test_orphans_are_found_and_put_into_quarantine() -> None:
    facts = _orphaned()
    findings = diagnose(facts)
    assert [found.resource for found in findings if found.check.startswith("orphan")] == [
        Resource(kind="schema", id=SCHEMA),
        Resource(kind="keys", id=str(GONE)),
    ]
    actions, left = propose(facts)
    assert left == []
    assert [(a.id, a.verb, a.reversibility) for a in actions] == [
        ("a1", "quarantine schema", Reversibility.REVERSIBLE),
        ("a2", "quarantine keys", Reversibility.REVERSIBLE),
    ]
    assert actions[0].before == {"name": SCHEMA, "oid": 16385, "bytes": 8192, "rows": 10, "writes": 4}
    assert actions[0].after == {"name": f"quarantine_20260301120000_{GONE}"}
    assert actions[1].before == {"token": str(GONE), "keys": 12}
    assert actions[1].after == {"stamp": "20260301120000"}


def test_drop_is_irreversible_and_leaves_nothing() -> None:
    actions, _ = propose(_orphaned(), drop=True)
    assert [(a.verb, a.after, a.reversibility) for a in actions] == [
        ("drop schema", {}, Reversibility.IRREVERSIBLE),
        ("delete keys", {}, Reversibility.IRREVERSIBLE),
    ]


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"uses": Known(Use(sessions=(_session(SCHEMA),), activity={}))}, "pid 42) reads it"),
        ({"families": Known({str(GONE): FamilyUse(keys=1, bytes=1, idle_seconds=899)})}, "used 899 s ago"),
        ({"families": Known({str(GONE): FamilyUse(keys=1, bytes=1, idle_seconds=0)})}, "used 0 s ago"),
        (
            {"listeners": Known([Subscription(client="bot", subject=f"sandbox.{GONE}.events.>")])},
            "bot listens",
        ),
        (
            {"listeners": Known([Subscription(client="bot", subject=f"sandbox.{GONE.hex[:8]}.events.>")])},
            "bot listens",
        ),
    ],
)
def test_what_is_in_use_is_left_alone_and_says_why(changes: dict[str, Any], why: str, drop: bool) -> None:
    actions, left = propose(_orphaned(**changes), drop=drop)
    assert actions == []
    assert [found.severity for found in left] == [Severity.WARNING] * 2
    assert all("in use" in found.summary and why in found.summary for found in left)


@pytest.mark.parametrize(
    "changes",
    [
        {"uses": Known(Use(sessions=(_session(f"sandbox_{ID}"),), activity={}))},
        {"families": Known({str(GONE): FamilyUse(keys=1, bytes=1, idle_seconds=900)})},
        {"families": Known({str(GONE): FamilyUse(keys=0, bytes=0, idle_seconds=None)})},
        {"listeners": Known([Subscription(client="all", subject="sandbox.>")])},
        {"listeners": Known([Subscription(client="all", subject="sandbox.*.events.>")])},
        {"listeners": Known([Subscription(client="other", subject=f"sandbox.{ID}.events.>")])},
    ],
)
def test_others_uses_and_old_ones_protect_nothing(changes: dict[str, Any]) -> None:
    assert len(propose(_orphaned(**changes))[0]) == 2


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("source", ["database", "keys", "listeners", "uses", "families"])
def test_an_unknown_source_means_no_action_and_an_unknown_finding(source: str, drop: bool) -> None:
    facts = _orphaned(**{source: Unknown("no answer", "look at it")})
    actions, left = propose(facts, drop=drop)
    assert actions == []
    assert {found.severity for found in left} <= {Severity.UNKNOWN}
    (finding,) = _of(diagnose(facts), source)
    assert finding.severity is Severity.UNKNOWN
    assert finding.evidence == {"hint": "look at it"}
    assert _of(diagnose(facts), "orphans") == []
    assert (existing(facts) is None) is (source in ("database", "keys"))


def test_a_world_without_orphans_is_not_called_healthy_when_a_source_is_unknown() -> None:
    facts = _facts(keys=Unknown("no answer"))
    assert _of(diagnose(facts), "orphans") == []


@pytest.mark.parametrize(
    ("alarm", "severity", "words"),
    [
        (Known(OK_ALARM), Severity.OK, "last value 0"),
        (Known(replace(OK_ALARM, state="ALARM")), Severity.CRITICAL, "is ALARM"),
        (Known(replace(OK_ALARM, points=())), Severity.WARNING, "blind"),
        (Known(None), Severity.WARNING, "there is no alarm"),
        (Unknown("AWS is down"), Severity.UNKNOWN, "AWS is down"),
    ],
)
def test_the_alarm_is_reported_but_decides_nothing(alarm: Any, severity: Severity, words: str) -> None:
    facts = _orphaned(alarm=alarm)
    finding = diagnose(facts)[0]
    assert (finding.check, finding.severity) == ("alarm", severity)
    assert words in finding.summary
    assert len(propose(facts)[0]) == 2


@pytest.mark.parametrize(
    ("status", "age", "stuck"),
    [
        (Status.PENDING, timedelta(minutes=61), True),
        (Status.CREATING, timedelta(minutes=61), True),
        (Status.DESTROYING, timedelta(days=3), True),
        (Status.CREATING, timedelta(minutes=60), False),
        (Status.RUNNING, timedelta(days=3), False),
        (Status.EXPIRED, timedelta(days=3), False),
        (Status.DESTROYED, timedelta(days=3), False),
    ],
)
def test_stuck_sandboxes_are_found_with_what_they_hold(status: Status, age: timedelta, stuck: bool) -> None:
    facts = _facts([row(ID, status, created_at=NOW - age)], schemas=(f"sandbox_{ID}",), counts={str(ID): 1})
    found = _of(diagnose(facts), "stuck")
    assert bool(found) is stuck
    assert all(one.evidence["holds"] == [f"sandbox_{ID}", str(ID)] for one in found)


def test_an_alarm_over_nothing_found_is_no_worse_than_well() -> None:
    firing = Known(replace(OK_ALARM, state="ALARM"))
    assert diagnose(_facts(alarm=firing))[0].severity is Severity.OK
    unsure = _facts(alarm=firing, keys=Unknown("no answer"))
    assert diagnose(unsure)[0].severity is Severity.CRITICAL


def test_recent_activity_is_not_stuck() -> None:
    old = row(ID, Status.DESTROYING, created_at=NOW - timedelta(days=3), last_activity_at=NOW)
    assert _of(diagnose(_facts([old])), "stuck") == []


def test_the_remains_of_a_destroyed_sandbox_name_it() -> None:
    gone = row(GONE, Status.DESTROYED, name="lab-7")
    (finding,) = _of(
        diagnose(_orphaned(database=_facts([gone], (SCHEMA,)).database)), "destroyed with remains"
    )
    assert finding.resource == Resource(kind="sandbox", id="lab-7")
    assert f"schema {SCHEMA}" in finding.summary
    assert f"keys {GONE}" in finding.summary


@pytest.mark.parametrize("name", ["sandboxes", "sandbox-tools", "sandbox_shared_fixtures", "sandbox_cafe"])
def test_schemas_that_are_no_sandboxes_are_reported_and_left(name: str) -> None:
    facts = _facts(schemas=(name,), counts={"cafe": 1})
    assert [found.resource for found in _of(diagnose(facts), "unclassifiable")] == [
        Resource(kind="schema", id=name),
        Resource(kind="keys", id="cafe"),
    ]
    assert propose(facts) == ([], [])


@pytest.mark.parametrize("name", [f"quarantine_20260203040506_{GONE}", f"pending_{GONE}"])
def test_what_is_parked_or_pending_is_not_looked_at(name: str) -> None:
    facts = _facts(schemas=(name,))
    assert propose(facts, drop=True) == ([], [])
    assert all(found.resource is None for found in diagnose(facts) if found.check != "alarm")
    assert existing(facts) == 1


@given(worlds(), st.lists(st.uuids(), max_size=3), st.booleans())
def test_no_proposal_ever_names_a_live_sandbox(
    world: list[Sandbox], strangers: list[UUID], drop: bool
) -> None:
    ids = [*strangers, *(owner.id for owner in world)]
    tokens = [*dict.fromkeys(token for id_ in ids for token in namings(id_))]
    columns = {owner.schema_name for owner in world if owner.schema_name}
    names = tuple(dict.fromkeys([f"sandbox_{token}" for token in tokens] + sorted(columns)))
    actions, left = propose(_facts(world, names, dict.fromkeys(tokens, 1)), drop=drop)

    live = [owner for owner in world if owner.live]
    taken = {token for owner in live for token in namings(owner.id)}
    forbidden = taken | {f"sandbox_{token}" for token in taken} | {owner.schema_name for owner in live}
    named = {resource.id for resource in _targets(actions)}
    assert not named & forbidden
    assert left == []
    claimed = {str(column).lower() for column in forbidden}
    expected = {
        str(id_) for id_ in ids if f"sandbox_{id_}".lower() not in claimed and str(id_) not in claimed
    }
    assert expected <= named
