"""Clean-ups fail: facts in, findings and actions out."""

from dataclasses import replace
from typing import Any

import pytest

from runbooks.cleaning import existing
from runbooks.engine.model import Reversibility, Severity
from runbooks.rb_sb_002 import diagnose, propose
from sandbox.errors import ArrakisError
from sandbox.facts import Known
from sandbox.model import Status
from tests.unit.evidence import behind, blocker, database, group, healthy, holder, log, unknown
from tests.unit.test_verdicts import DISABLED

LATE = behind(7)
OTHER = behind(8)
BLOCKED = healthy(database=database(LATE, OTHER), blockers=Known((blocker(LATE),)))


def failed(evidence: Any) -> list[str]:
    """Return what is said of the sandboxes that failed."""
    return [each.summary for each in diagnose(evidence) if each.check == "failed"]


def test_nothing_wrong_is_healthy() -> None:
    assert {each.severity for each in diagnose(healthy())} == {Severity.OK}
    assert propose(healthy()) == ([], [])
    assert existing(healthy()) == 3


@pytest.mark.parametrize(
    ("late", "changes", "said"),
    [
        (LATE, {"blockers": Known((blocker(LATE),))}, "drop schema: view reporting.overview rests on it"),
        (LATE, {"holders": Known((holder(LATE),))}, "drop schema: session 4711 of ada holds AccessShareLock"),
        (behind(7, status=Status.DESTROYED), {}, "delete keys: Redis did not answer"),
        (behind(7, status=Status.DESTROYING), {}, "begun, and not ended"),
        (LATE, {}, "not begun: no run of the job took it"),
        (
            LATE,
            {"errors": log(group("boom", sandboxes=(str(LATE.row.id),), steps=("delete_redis_keys",)))},
            "delete_redis_keys: as the log says",
        ),
    ],
)
def test_each_that_failed_is_named_with_its_step_and_why(
    late: Any, changes: dict[str, Any], said: str
) -> None:
    (summary,) = failed(healthy(database=database(late), **changes))
    assert summary.startswith("sandbox box-7 of owner-7 is")
    assert said in summary


def test_the_log_and_the_audit_are_quoted() -> None:
    evidence = healthy(
        database=database(LATE), errors=log(group("it went wrong", sandboxes=(str(LATE.row.id),)))
    )
    (finding,) = [each for each in diagnose(evidence) if each.check == "failed"]
    assert "the log says: it went wrong" in finding.evidence["details"]


def test_one_that_is_blocked_is_left_alone_with_the_statement_that_clears_it() -> None:
    actions, left = propose(BLOCKED)
    assert [each.resource.id for each in actions] == ["box-8"]
    assert [each.severity for each in left] == [Severity.WARNING]
    assert "DROP VIEW reporting.overview; or rb-sb-002 --drop-object reporting.overview" in left[0].summary


def test_what_was_named_goes_first_and_keeps_its_definition() -> None:
    actions, left = propose(BLOCKED, objects=["reporting.overview"])
    assert left == []
    assert [(each.verb, each.resource.id) for each in actions] == [
        ("drop object", "reporting.overview"),
        ("clean up sandbox", "box-7"),
        ("clean up sandbox", "box-8"),
    ]
    assert actions[0].before["definition"].startswith("CREATE VIEW")
    assert {each.reversibility for each in actions} == {Reversibility.IRREVERSIBLE}


def test_of_two_objects_in_the_way_both_have_to_be_named() -> None:
    second = blocker(LATE, "reporting.second")
    evidence = replace(BLOCKED, blockers=Known((blocker(LATE), second)))
    actions, left = propose(evidence, objects=["reporting.overview"])
    assert [each.resource.id for each in actions] == ["reporting.overview", "box-8"]
    assert "reporting.second" in left[0].summary


@pytest.mark.parametrize(
    ("evidence", "name", "said"),
    [
        (BLOCKED, "reporting.overvew", "did you mean reporting.overview?"),
        (healthy(), "reporting.overview", "nothing is in the way"),
        (healthy(blockers=unknown("no answer")), "reporting.overview", ""),
        (replace(BLOCKED, blockers=Known((blocker(LATE, statement=""),))), "reporting.overview", "by hand"),
    ],
)
def test_an_object_that_is_in_nobodys_way_is_refused(evidence: Any, name: str, said: str) -> None:
    with pytest.raises(ArrakisError) as refused:
        propose(evidence, objects=[name])
    assert said in refused.value.hint


def test_a_session_is_named_and_not_ended() -> None:
    actions, left = propose(healthy(database=database(LATE), holders=Known((holder(LATE),))))
    assert actions == []
    assert "SELECT pg_terminate_backend(4711)" in left[0].summary


@pytest.mark.parametrize("name", ["blockers", "holders", "redis"])
def test_nothing_is_proposed_that_rests_on_an_unknown(name: str) -> None:
    actions, left = propose(healthy(database=database(LATE), **{name: unknown("no answer")}))
    assert actions == []
    assert [each.severity for each in left] == [Severity.UNKNOWN]
    assert "no answer" in left[0].summary


def test_a_disabled_schedule_is_enabled_and_that_can_be_undone() -> None:
    actions, _ = propose(healthy(rule=DISABLED))
    assert [(each.verb, each.reversibility) for each in actions] == [
        ("enable rule", Reversibility.REVERSIBLE)
    ]
