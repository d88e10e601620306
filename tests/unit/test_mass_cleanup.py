"""The mass clean-up, pure: what could go, in which group, what the operator chose of it, and what nobody can tell."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from diagnostics.postgres import AuditEntry
from runbooks.engine.environment import Environment
from runbooks.engine.model import Action, Finding, Reversibility, Severity
from runbooks.engine.operate import Diagnosis
from runbooks.engine.plan import from_json
from runbooks.mass.candidates import AT_WORK, EXPIRED, GROUPS, ORPHANS, REMAINS, STUCK, Choice
from runbooks.mass.evidence import Due, Evidence, existing
from runbooks.mass_cleanup import LOT, RUNBOOK, diagnose, propose
from runbooks.orphaned.evidence import Database, Facts, Use
from runbooks.overdue.evidence import Behind
from runbooks.reports import document
from runbooks.reports.terminal import diagnosis
from sandbox.errors import ArrakisError
from sandbox.facts import Known
from sandbox.keyspace import FamilyUse, Survey
from sandbox.model import Sandbox, Schema, Status
from sandbox.orphans import Roster
from sandbox.ports import Subscription
from sandbox.schemas import SchemaUser
from tests.unit.evidence import NOW, behind, row, unknown
from tests.unit.plans import plan

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
STRANGER = UUID("83963dd9-82b6-49b7-a7f6-d86f86e45136")
DOWN = unknown("no answer within 7 s")
QUARANTINES = {"quarantine schema", "quarantine keys"}


def gone(number: int, *, ago: timedelta = DAY, **changes: Any) -> Sandbox:
    """Return a sandbox that was destroyed so long ago."""
    return row(number, **{"status": Status.DESTROYED, "destroyed_at": NOW - ago, **changes})


def begun(number: int, *, ago: timedelta, late: timedelta = DAY) -> Behind:
    """Return a sandbox that somebody began to take away so long ago."""
    found = behind(number, late=late, status=Status.DESTROYING)
    entry = AuditEntry(
        sandbox_id=found.row.id, name=found.row.name, event="sandbox_destroying", actor="liet", at=NOW - ago
    )
    return replace(found, last=entry)


def keyed(number: int, **changes: Any) -> Behind:
    """Return a destroyed sandbox whose keys were left when Redis did not answer, and which has a schema again."""
    found = gone(number, **changes)
    names = (f"sandbox_{found.id}",)
    return Behind(row=found, since=found.destroyed_at or NOW, late=True, schemas=names, last=None)


def facts(
    *rows: Sandbox, schemas: tuple[str, ...] = (), families: dict[str, int] | None = None, **changes: Any
) -> Facts:
    """Return what is known of orphans: these rows, schemas of 8 kB, families."""
    told = tuple(
        Schema(name=name, oid=16385, owner="app", tables=3, bytes=8192, rows_estimate=10, writes=4)
        for name in schemas
    )
    seen = Facts(
        now=NOW,
        alarm=DOWN,
        database=Known(Database(roster=Roster(rows), schemas=told)),
        keys=Known(Survey(families=families or {}, parked={})),
        listeners=Known([]),
        uses=Known(Use(sessions=(), activity={})),
        families=Known({}),
    )
    return replace(seen, **changes)


def evidence(*over: Behind, orphans: Facts | None = None, **changes: Any) -> Evidence:
    """Return evidence of these sandboxes being over, beside these orphans."""
    due = Due(now=NOW, over=over, not_ours=frozenset(), resting={}, sizes={})
    about = orphans or facts(*(each.row for each in over), schemas=tuple(s for e in over for s in e.schemas))
    seen = Evidence(now=NOW, due=Known(due), orphans=Known(about), scanned=Known(1000))
    return replace(seen, **changes)


def crowd() -> Evidence:
    """Return two of each group; the oldest of all is stuck, then one that is expired, then what destroyed ones left."""
    over = (
        begun(3, ago=9 * DAY, late=9 * DAY),
        behind(1, late=8 * DAY, owner="ada"),
        behind(2, late=2 * HOUR),
        begun(4, ago=HOUR, late=HOUR),
    )
    left = (gone(5, ago=7 * DAY, owner="ada"), gone(6, ago=DAY))
    rows = (*(each.row for each in over), *left, row(9))
    names = tuple(f"sandbox_{each.id}" for each in rows)
    orphans = facts(
        *rows,
        schemas=(*names, f"sandbox_{STRANGER}", "sandbox_shared_fixtures"),
        families={str(STRANGER): 7, str(rows[0].id): 5, rows[1].hex: 3, str(rows[6].id): 11},
    )
    return evidence(*over, orphans=orphans)


def targets(actions: list[Action]) -> list[str]:
    return [action.resource.id for action in actions]


def chosen(seen: Evidence, **choice: Any) -> list[str]:
    return targets(propose(seen, choice=Choice(**choice))[0])


def of(findings: list[Finding], check: str) -> list[str]:
    return [finding.summary for finding in findings if finding.check == check]


SCHEMA = {number: f"sandbox_{UUID(int=number)}" for number in range(10)}


def test_all_that_is_over_is_planned_in_groups_and_nothing_that_is_live() -> None:
    actions, _ = propose(crowd())
    told = [(action.id, action.before["group"], action.verb, action.resource.id) for action in actions]
    assert told == [
        ("a1", EXPIRED, "clean up sandbox", "box-1"),
        ("a2", EXPIRED, "clean up sandbox", "box-2"),
        ("a3", STUCK, "clean up sandbox", "box-3"),
        ("a4", STUCK, "clean up sandbox", "box-4"),
        ("a5", REMAINS, "quarantine schema", SCHEMA[5]),
        ("a6", REMAINS, "quarantine schema", SCHEMA[6]),
        ("a7", ORPHANS, "quarantine keys", str(STRANGER)),
        ("a8", ORPHANS, "quarantine schema", f"sandbox_{STRANGER}"),
    ]
    lost = {action.verb for action in actions if action.reversibility is Reversibility.IRREVERSIBLE}
    assert lost == {"clean up sandbox"}
    assert existing(crowd()) == 5 + 9 + 4


def test_each_group_is_told_with_counts_sizes_owners_and_age() -> None:
    told = {finding.check: finding.summary for finding in diagnose(crowd())}
    assert told == {
        EXPIRED: "expired: 2, of 2 owners, 1 of them ada's, 16 kB of schemas, 3 keys, the oldest over for 8 d",
        STUCK: "stuck: 2, of 2 owners, 1 of them owner-3's, 16 kB of schemas, 5 keys, the oldest over for 9 d",
        REMAINS: "remains: 2, of 2 owners, 1 of them ada's, 16 kB of schemas, 0 keys, the oldest over for 7 d",
        ORPHANS: "orphans: 2, 8 kB of schemas, 7 keys",
    }


def test_where_nothing_is_over_all_is_well() -> None:
    seen = evidence(orphans=facts(row(9), schemas=(SCHEMA[9],), families={str(UUID(int=9)): 3}))
    assert {finding.severity for finding in diagnose(seen)} == {Severity.OK}
    assert propose(seen) == ([], [])


@pytest.mark.parametrize(
    ("choice", "names", "why"),
    [
        ({"groups": (STUCK,)}, ["box-3", "box-4"], "not chosen: 2: expired were not asked for"),
        ({"owner": "ada"}, ["box-1", SCHEMA[5]], "not chosen: 6: not ada's"),
        ({"owner": "nobody"}, [], "not chosen: 8: not nobody's"),
        ({"older_than": 3 * DAY}, ["box-1", "box-3", SCHEMA[5]], "not chosen: 3: over for less than 3 d"),
        (
            {"older_than": 3 * DAY},
            ["box-1", "box-3", SCHEMA[5]],
            "not chosen: 2: nobody can tell for how long they are over",
        ),
        ({"groups": (EXPIRED,), "spared": ("box-1",)}, ["box-2"], "not chosen: 1: excepted by name"),
        (
            {"groups": (EXPIRED,), "spared": (str(UUID(int=2)),)},
            ["box-1"],
            "not chosen: 1: excepted by name",
        ),
        ({"groups": (EXPIRED,), "spared": (SCHEMA[1],)}, ["box-2"], "not chosen: 1: excepted by name"),
        ({"groups": (REMAINS,), "spared": ("box-5",)}, [SCHEMA[6]], "not chosen: 1: excepted by name"),
        (
            {"groups": (ORPHANS,), "spared": (str(STRANGER),)},
            [f"sandbox_{STRANGER}"],
            "not chosen: 1: excepted by name",
        ),
        ({"limit": 1}, ["box-3"], "not chosen: 7: the limit is 1, the oldest first"),
        ({"limit": 3}, ["box-1", "box-3", SCHEMA[5]], "not chosen: 5: the limit is 3, the oldest first"),
        ({"limit": 6, "groups": (REMAINS, ORPHANS)}, [SCHEMA[5], SCHEMA[6], str(STRANGER), f"sandbox_{STRANGER}"], ""),
        (
            {"owner": "ada", "older_than": 3 * DAY, "limit": 1, "spared": ("box-2",)},
            ["box-1"],
            "not chosen: 1: the limit is 1, the oldest first",
        ),
    ],
)  # fmt: skip
def test_the_operator_chooses_among_it_and_is_told_what_is_left(
    choice: dict[str, Any], names: list[str], why: str
) -> None:
    actions, left = propose(crowd(), choice=Choice(**choice))
    assert targets(actions) == names
    assert why in [*of(left, "not chosen"), ""]
    assert [action.id for action in actions] == [f"a{number}" for number in range(1, len(names) + 1)]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("box-l", "did you mean box-"), (SCHEMA[1][:-1] + "2x", "sandbox_"), ("???", "leave it out"), ("box-9", "did")],
)  # fmt: skip
def test_a_name_that_is_spared_and_is_none_of_theirs_is_refused(name: str, hint: str) -> None:
    with pytest.raises(ArrakisError, match="nothing that is to be taken away is called") as refused:
        propose(crowd(), choice=Choice(spared=("box-1", name)))
    assert hint in refused.value.hint


@pytest.mark.parametrize("source", ["database", "keys", "listeners", "uses", "families"])
def test_what_no_sandbox_owns_rests_on_all_that_was_asked(source: str) -> None:
    seen = crowd()
    assert isinstance(seen.orphans, Known)
    changes: dict[str, Any] = {source: DOWN}
    seen = replace(seen, orphans=Known(replace(seen.orphans.value, **changes)))
    actions, left = propose(seen)
    assert not QUARANTINES & {action.verb for action in actions}
    assert len(actions) == (0 if source == "keys" else 4)  # without Redis no sandbox can go whole
    assert f"{source}: cannot tell: {DOWN.reason}" in of(diagnose(seen), source)
    severities = {finding.severity for finding in left if finding.check == "left alone"}
    assert severities == ({Severity.UNKNOWN} if source != "database" else set())


@pytest.mark.parametrize(
    ("changes", "verbs", "untold"),
    [
        ({"due": DOWN}, QUARANTINES, {"sandboxes", EXPIRED, STUCK}),
        ({"orphans": DOWN}, set(), set(GROUPS)),
        ({"scanned": DOWN}, {"clean up sandbox", *QUARANTINES}, set()),
        ({"due": DOWN, "orphans": DOWN}, set(), {"sandboxes", *GROUPS}),
    ],
)
def test_an_unknown_source_proposes_nothing_that_rests_on_it_and_says_so(
    changes: dict[str, Any], verbs: set[str], untold: set[str]
) -> None:
    seen = replace(crowd(), **changes)
    actions, _ = propose(seen)
    assert {action.verb for action in actions} == verbs
    told = [finding for finding in diagnose(seen) if finding.severity is Severity.UNKNOWN]
    assert sorted(finding.check for finding in told) == sorted(untold)
    said = [finding.check for finding in told if DOWN.reason in finding.summary]
    assert len(said) == len(changes.keys() - {"scanned"})  # the reason is told once for each source
    if "orphans" in changes:
        assert existing(seen) is None


def test_of_nothing_that_is_over_none_could_go_whatever_redis_says() -> None:
    told = {each.check: each.severity for each in diagnose(evidence(orphans=facts(keys=DOWN)))}
    assert {name: told[name] for name in GROUPS} == {
        EXPIRED: Severity.OK,
        STUCK: Severity.OK,
        REMAINS: Severity.UNKNOWN,
        ORPHANS: Severity.UNKNOWN,
    }


def test_keys_that_were_left_and_the_orphan_that_they_are_are_planned_once() -> None:
    left = keyed(5)
    token, short = str(left.row.id), left.row.hex[:12]
    orphans = facts(left.row, schemas=(SCHEMA[5],), families={token: 4, short: 2})
    actions, _ = propose(evidence(left, orphans=orphans))
    assert [(action.verb, action.resource.id) for action in actions] == [("clean up sandbox", "box-5")]
    [told] = of(diagnose(evidence(left, orphans=orphans)), REMAINS)
    assert "8 kB of schemas, 6 keys" in told


def test_keys_that_were_left_and_are_in_use_stay_and_are_told_of_once() -> None:
    left = keyed(5)
    used = Known({str(left.row.id): FamilyUse(keys=1, bytes=None, idle_seconds=12)})
    orphans = replace(facts(left.row, families={str(left.row.id): 4}), families=used)
    actions, told = propose(evidence(left, orphans=orphans))
    assert actions == []
    assert of(told, "left alone") == ["1 left alone: in use"]
    assert told[0].evidence["names"] == [
        f"keys {left.row.id}: a key of sandbox:{left.row.id} was used 12 s ago"
    ]


def test_a_sandbox_that_is_called_like_an_orphan_hides_it_not() -> None:
    over = behind(1, name=str(STRANGER))
    actions, _ = propose(evidence(over, orphans=facts(over.row, families={str(STRANGER): 1})))
    assert [action.verb for action in actions] == ["clean up sandbox", "quarantine keys"]


def test_of_what_two_destroyed_ones_may_have_left_nobody_is_the_owner() -> None:
    token = UUID(int=0x1234567800000000000000000000000).hex[:8]
    twins = [
        gone(1, id=UUID(hex=token + "0" * 24), owner="ada", ago=DAY, schema_name=None),
        gone(2, id=UUID(hex=token + "1" * 24), owner="leto", ago=5 * DAY, schema_name=None),
    ]
    seen = evidence(orphans=facts(*twins, families={token: 3}))
    assert chosen(seen) == [token]
    assert chosen(seen, owner="ada") == []
    assert chosen(seen, older_than=2 * DAY) == []  # the younger one counts
    assert chosen(seen, older_than=12 * HOUR) == [token]


@pytest.mark.parametrize(("ago", "goes"), [(AT_WORK - timedelta(seconds=1), False), (AT_WORK, True)])
def test_one_that_somebody_is_taking_away_just_now_is_left_to_them(ago: timedelta, goes: bool) -> None:
    actions, left = propose(evidence(begun(1, ago=ago)))
    assert bool(actions) is goes
    assert of(left, "left alone") == (
        []
        if goes
        else [
            "1 left alone: they are being taken away, or `resume` takes a run up that was interrupted at it"
        ]
    )


def test_what_may_not_be_dropped_or_carries_something_else_is_left_with_its_reason() -> None:
    many = [behind(number, late=number * HOUR) for number in range(1, 9)]
    due = Due(
        now=NOW,
        over=many,
        not_ours=frozenset({SCHEMA[1]}),
        resting={SCHEMA[n]: [f"view reporting.v{n}"] for n in range(2, 9)},
        sizes={},
    )
    actions, left = propose(evidence(*many, due=Known(due)))
    assert actions == []
    assert of(left, "left alone") == [
        "1 left alone: this role may not drop them: use their owner's DATABASE_URL",
        "7 left alone: something elsewhere rests on them; rb-sb-002 says how it is cleared",
    ]
    details = left[1].evidence["details"]
    assert details[0] == "box-2: view reporting.v2"
    assert (len(details), details[-1]) == (6, "and 2 more: `--json` names them")
    assert len(left[1].evidence["names"]) == 7


def test_orphans_in_use_and_what_nobody_can_place_are_told_together() -> None:
    session = SchemaUser(
        schema_name=SCHEMA[5], pid=42, user_name="ada", application="psql", state="active", how="reads it"
    )
    heard = Known([Subscription(client="bot", subject=f"sandbox.{STRANGER}.events.>")])
    seen = facts(
        gone(5),
        schemas=(SCHEMA[5], f"sandbox_{STRANGER}", "sandbox_shared_fixtures"),
        uses=Known(Use(sessions=(session,), activity={})),
        listeners=heard,
    )
    actions, left = propose(evidence(orphans=seen))
    assert actions == []
    assert of(left, "left alone") == ["2 left alone: in use"]
    assert left[0].evidence["details"] == [
        f"schema {SCHEMA[5]}: ada (psql, pid 42) reads it",
        f"schema sandbox_{STRANGER}: bot listens to its subjects",
    ]
    assert of(left, "unclassifiable") == ["1 left alone: nobody can tell whose they are"]


def spread(number: int) -> UUID:
    """Return an id that begins like no other's, as random ones do."""
    return UUID(int=number << 96)


def test_a_plan_of_thousands_is_told_in_groups_within_80_columns_and_named_whole_in_json() -> None:
    over = [behind(number, id=spread(number), late=number * HOUR) for number in range(1, 2001)]
    strangers = [spread(number) for number in range(10_000, 12_000)]
    orphans = facts(
        *(each.row for each in over),
        schemas=tuple(f"sandbox_{each}" for each in strangers),
        families={str(each): 20 for each in strangers},
    )
    seen = evidence(*over, orphans=orphans)
    actions, left = propose(seen)
    assert len(actions) == 6000
    made = plan(runbook=RUNBOOK.name, actions=actions, findings=[*diagnose(seen), *left], existing=8000)
    found = Diagnosis(
        at=NOW,
        by="ada@host",
        runbook=RUNBOOK,
        environment=Environment(name="staging", database_url="", redis_url="", nats_url=""),
        findings=made.findings,
        plan=made,
    )
    text = diagnosis(found, colour=False, width=80)
    assert f"Plan {made.id}: 6000 actions, 2000 CANNOT BE UNDONE" in " ".join(text.split())
    assert len(text.splitlines()) < 40
    wide = [
        line for line in text.splitlines() if len(line) > 80 and "psql" not in line and "apply" not in line
    ]
    assert wide == []
    assert from_json(document.diagnosed(found)["plan"]) == made


@pytest.mark.parametrize(
    ("count", "scanned", "took"),
    [(20, 1_000, "a minute or two"), (LOT * 200, 1_000, " min "), (LOT * 200, 50_000_000, " h ")],
)
def test_the_estimate_grows_with_the_targets_and_with_what_redis_holds(
    count: int, scanned: int, took: str
) -> None:
    over = [behind(number, id=spread(number)) for number in range(1, count + 1)]
    _, left = propose(evidence(*over, scanned=Known(scanned)))
    [told] = of(left, "estimate")
    assert told.startswith(f"{count:,} targets, ")
    assert took in told


def test_groups_are_those_that_can_be_asked_for() -> None:
    assert GROUPS == (EXPIRED, STUCK, REMAINS, ORPHANS)
