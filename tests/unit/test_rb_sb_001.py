"""Too many sandboxes: facts in, findings and actions out."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.alarms import Alarm
from runbooks.engine.model import Finding, Reversibility, Severity
from runbooks.overdue.cleaning import existing
from runbooks.overdue.evidence import Behind, Evidence
from runbooks.rb_sb_001 import (
    count_at,
    diagnose,
    growth_per_hour,
    outlook,
    passes_again,
    propose,
    suggested_ttl,
)
from sandbox.facts import Known
from sandbox.model import Sandbox, Status
from tests.unit.evidence import NOW, behind, blocker, database, healthy, live_rows, row, unknown

HOUR = timedelta(hours=1)
FIRING = Alarm(
    name="x", state="ALARM", reason="", since=None, threshold=100, period=300, points=((NOW, 105.0),)
)


def finding(findings: list[Finding], check: str) -> Finding:
    """Return the only finding of a check."""
    (found,) = [each for each in findings if each.check == check]
    return found


def crowded(*late: Behind, **changes: Any) -> Evidence:
    """Return 105 sandboxes, and the alarm that goes with them."""
    fields = {"alarm": Known(FIRING), "database": database(*late, rows=live_rows(105 - len(late)))}
    return healthy(**{**fields, **changes})


def test_nothing_wrong_is_healthy() -> None:
    findings = diagnose(healthy())
    assert {each.severity for each in findings} == {Severity.OK}
    assert propose(healthy()) == ([], [])


def test_with_none_over_it_says_that_they_are_in_use_and_whom_to_call() -> None:
    first = diagnose(crowded())[0]
    assert (first.check, first.severity) == ("cause", Severity.CRITICAL)
    assert "105 are in use, neither over nor destroyed" in first.summary
    assert "Leto" in first.evidence["details"][0]
    assert propose(crowded()) == ([], [])


def test_the_alarm_is_as_bad_as_the_count() -> None:
    assert finding(diagnose(crowded()), "alarm").severity is Severity.CRITICAL
    settled = finding(diagnose(healthy(alarm=Known(FIRING))), "alarm")
    assert settled.severity is Severity.OK
    assert "clears" in settled.summary


def test_each_that_is_over_is_an_action_that_cannot_be_undone() -> None:
    late = [behind(200), behind(201, late=timedelta(hours=26), status=Status.RUNNING)]
    actions, left = propose(crowded(*late))
    assert left == []
    assert [(each.id, each.verb, each.resource.id) for each in actions] == [
        ("a1", "clean up sandbox", "box-200"),
        ("a2", "clean up sandbox", "box-201"),
    ]
    assert {each.reversibility for each in actions} == {Reversibility.IRREVERSIBLE}
    assert actions[1].reason == "it is running, over for 26 h"
    assert finding(diagnose(crowded(*late)), "over").summary.startswith(
        "2 sandboxes are over and not cleaned up, for 2 h to 26 h"
    )


def test_the_deployed_task_is_one_action() -> None:
    actions, left = propose(crowded(behind(200), behind(201)), via="ecs")
    assert left == []
    (action,) = actions
    assert (action.verb, action.resource.id) == ("run clean-up task", "arrakis-sandbox-cleanup")
    assert list(action.before["sandboxes"].values()) == ["box-200", "box-201"]
    assert "box-200, box-201" in action.reason
    assert action.before["token"] == "rb-sb-001-20260301120000000000"


def test_without_a_schedule_nobody_can_tell_how_the_task_is_started() -> None:
    actions, left = propose(crowded(behind(200), rule=unknown(), definitions=unknown()), via="ecs")
    assert actions == []
    assert left[0].severity is Severity.UNKNOWN


@pytest.mark.parametrize(
    ("owners", "severity", "told"),
    [
        ({"ada": 5}, Severity.OK, "no owner has more"),
        ({"ada": 6}, Severity.OK, "over their share of 5: ada 6"),
        ({"ada": 6, "bob": 99}, Severity.WARNING, "over their share of 5: bob 99, ada 6"),
    ],
)
def test_owners_over_their_share_are_named(owners: dict[str, int], severity: Severity, told: str) -> None:
    names = [name for name, number in owners.items() for _ in range(number)]
    rows = tuple(row(number, owner=name) for number, name in enumerate(names, 1))
    seen = finding(diagnose(healthy(database=database(rows=rows))), "owners")
    assert seen.severity is severity
    assert told in seen.summary


def test_the_count_of_a_moment_is_told_by_the_rows_that_are_kept() -> None:
    rows = [
        row(1, created_at=NOW - 3 * HOUR),
        row(2, Status.DESTROYED, created_at=NOW - 3 * HOUR, destroyed_at=NOW - HOUR),
        row(3, created_at=NOW),
        row(4, Status.DESTROYED, created_at=NOW - 9 * HOUR),
    ]
    assert [count_at(rows, NOW - ago * HOUR) for ago in (4, 2, 1, 0)] == [0, 2, 1, 2]


def test_growth_leaves_out_those_that_are_over() -> None:
    grown = tuple(row(number, created_at=NOW - HOUR) for number in range(1, 13))
    seen = database(behind(200, late=timedelta(hours=9)), rows=grown).value
    assert growth_per_hour(seen) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("old", "new", "late", "passes"),
    [
        (90, 6, 0, timedelta(hours=5)),  # 96 now, one an hour: the fifth hour's is the 101st
        (90, 6, 8, timedelta(hours=5)),  # what is over is not counted
        (50, 0, 0, None),
        (101, 0, 0, timedelta(0)),
        (100, 0, 3, None),
    ],
)
def test_when_it_passes_the_threshold_again(old: int, new: int, late: int, passes: timedelta | None) -> None:
    rows = (*live_rows(old), *(row(1000 + number, created_at=NOW - HOUR) for number in range(new)))
    over = (behind(2000 + number, late=timedelta(hours=9)) for number in range(late))
    seen = database(*over, rows=rows).value
    assert passes_again(seen, 100) == passes


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), max_size=60))
def test_a_suggested_lifetime_covers_nine_of_ten_and_may_be_asked_for(spans: list[tuple[int, int]]) -> None:
    rows = [
        row(
            number,
            Status.DESTROYED,
            created_at=NOW - timedelta(minutes=a + b),
            last_activity_at=NOW - timedelta(minutes=a),
            destroyed_at=NOW,
        )
        for number, (a, b) in enumerate(spans, 1)
    ]
    suggestion = suggested_ttl(database(rows=tuple(rows)).value)
    if len(rows) < 20:
        assert suggestion is None
        return
    assert suggestion is not None
    assert HOUR <= suggestion <= 168 * HOUR
    within = sum(row.last_activity_at - row.created_at <= suggestion for row in rows if row.last_activity_at)
    assert within >= 0.9 * len(rows)


def test_a_shorter_default_is_suggested_where_the_data_says_so() -> None:
    ended = {"created_at": NOW - timedelta(days=2), "destroyed_at": NOW - timedelta(days=1)}
    used = tuple(
        row(number, Status.DESTROYED, last_activity_at=NOW - timedelta(hours=44), **ended)
        for number in range(1, 31)
    )
    assert (
        "DEFAULT_TTL_HOURS=4" in finding(diagnose(healthy(database=database(rows=used))), "lifetimes").summary
    )
    young = live_rows(
        109, last_activity_at=NOW - timedelta(hours=23)
    )  # how long these will be used, nobody knows yet
    for rows in (young, live_rows(3)):
        few = finding(diagnose(healthy(database=database(rows=rows))), "lifetimes").summary
        assert "no default can be suggested" in few


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (live_rows(101), "escalate to Leto now"),
        (
            (*live_rows(92), *(row(900 + n, created_at=NOW - HOUR) for n in range(6))),
            "passes 100 again at about 2026-03-01T15:00Z",
        ),
        (live_rows(50), None),
    ],
)
def test_the_outlook_says_when_and_whom_to_call(rows: tuple[Sandbox, ...], told: str | None) -> None:
    summaries = [each.summary for each in outlook(healthy(database=database(rows=rows)))]
    assert summaries[0].startswith(f"{len(rows)} sandboxes are not destroyed")
    assert any(told in each for each in summaries) if told else len(summaries) == 2


def test_what_is_left_of_growth_is_the_same_before_and_after_a_clean_up() -> None:
    old = {"created_at": NOW - timedelta(days=3)}
    new = tuple(row(500 + number, created_at=NOW - HOUR) for number in range(30))
    over = tuple(behind(900 + number, late=timedelta(hours=9), **old) for number in range(40))
    gone = tuple(replace(each.row, status=Status.DESTROYED, destroyed_at=NOW) for each in over)
    stuck = behind(990, late=timedelta(hours=9), status=Status.DESTROYING, expires_at=NOW + HOUR, **old)
    assert (
        growth_per_hour(database(stuck, rows=live_rows(3, **old)).value) == 0.0
    )  # given up, whatever its end says
    before = database(*over, rows=(*live_rows(60, **old), *new)).value
    after = database(rows=(*live_rows(60, **old), *new, *gone)).value
    assert growth_per_hour(before) == growth_per_hour(after) == 5.0
    assert passes_again(before, 100) == passes_again(after, 100) == timedelta(hours=11 / 5)
    assert any("escalate to Leto" in each.summary for each in outlook(healthy(database=Known(after))))


def test_those_in_use_come_before_what_is_left_behind() -> None:
    late = behind(200)
    evidence = healthy(
        alarm=Known(FIRING), database=database(late, rows=live_rows(120)), blockers=Known((blocker(late),))
    )
    causes = [each.summary for each in diagnose(evidence) if each.check == "cause"]
    assert ["120 are in use" in causes[0], "reporting.overview" in causes[1]] == [True, True]


def test_those_that_have_just_ended_are_the_next_runs() -> None:
    fresh = tuple(behind(200 + number, late=timedelta(minutes=10)) for number in range(60))
    evidence = healthy(alarm=Known(FIRING), database=database(*fresh, rows=live_rows(50)))
    assert "60 of them have just ended" in diagnose(evidence)[0].summary
    assert propose(evidence) == ([], [])


def test_an_unreachable_database_is_unknown_and_proposes_nothing() -> None:
    evidence = replace(
        crowded(behind(200)), database=unknown(), postgres=unknown("connection refused"), runs=unknown()
    )
    findings = diagnose(evidence)
    assert findings[0].check == "cause"
    assert "PostgreSQL" in findings[0].summary
    assert finding(findings, "alarm").severity is Severity.CRITICAL  # nobody has counted
    assert Severity.UNKNOWN in {each.severity for each in findings}
    assert propose(evidence) == ([], [])
    assert existing(evidence) is None
    assert [each.severity for each in outlook(evidence)] == [Severity.UNKNOWN]
