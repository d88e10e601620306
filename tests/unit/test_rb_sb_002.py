"""Clean-ups fail: facts in, findings and actions out."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from runbooks.engine.model import Reversibility, Severity
from runbooks.overdue.cleaning import existing
from runbooks.rb_sb_002 import diagnose, propose
from runbooks.remedies.task import HIDDEN, ORPHANS, TRANSFORMED, danger
from sandbox.errors import ArrakisError
from sandbox.facts import Known
from sandbox.model import Status
from tests.unit.evidence import (
    DEFINITION,
    alarm,
    behind,
    blocker,
    database,
    group,
    healthy,
    holder,
    log,
    runs,
    target,
    unknown,
)
from tests.unit.test_verdicts import DISABLED

LATE = behind(7)
OTHER = behind(8)
BLOCKED = healthy(database=database(LATE, OTHER), blockers=Known((blocker(LATE),)))


def pair(value: str) -> dict[str, Any]:
    """Return what tells a container to clean up orphans, or not to."""
    return {"environment": [{"name": "CLEANUP_ORPHANED", "value": value}]}


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
        (LATE, {}, "not begun: no error of the log names it"),
        (LATE, {"errors": unknown()}, "step not known"),
        (LATE, {"holders": unknown()}, "step not known"),
        (LATE, {"errors": log(complete=False)}, "step not known"),
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
    assert [each.resource.id for each in actions] == ["box-8"]  # nothing is dropped for a sandbox that stays
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


@pytest.mark.parametrize("changes", [{"redis": unknown()}, {"holders": Known((holder(LATE),))}])
def test_nothing_is_dropped_for_a_sandbox_that_cannot_go(changes: dict[str, Any]) -> None:
    actions, _ = propose(
        healthy(database=database(LATE), blockers=Known((blocker(LATE),)), **changes),
        objects=["reporting.overview"],
    )
    assert actions == []


def test_one_that_has_just_ended_and_is_in_trouble_counts_as_failed() -> None:
    fresh, quiet = behind(7, late=timedelta(minutes=10)), behind(8, late=timedelta(minutes=10))
    evidence = healthy(database=database(fresh, quiet), blockers=Known((blocker(fresh),)))
    assert len(failed(evidence)) == 1
    assert evidence.fresh == 1
    logged = healthy(database=database(fresh), errors=log(group("boom", sandboxes=(fresh.row.id.hex[:8],))))
    assert len(failed(logged)) == 1  # by the short id that older lines have


def test_an_alarm_over_a_failed_run_is_not_over() -> None:
    ringing = replace(alarm(), state="ALARM")
    for told, severity in (
        (runs(), Severity.OK),
        (runs(failed=1), Severity.CRITICAL),
        (unknown(), Severity.CRITICAL),
    ):
        found = [each for each in diagnose(healthy(alarm=Known(ringing), runs=told)) if each.check == "alarm"]
        assert [each.severity for each in found] == [severity]


def test_what_this_role_may_not_drop_is_left_alone() -> None:
    actions, left = propose(healthy(database=database(LATE, not_ours=LATE.schemas)))
    assert actions == []
    assert "this role may not drop" in left[0].summary


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"blockers": Known((blocker(OTHER),))}, "its CASCADE would take along view reporting.overview"),
        ({"blockers": unknown("no answer")}, "cannot tell what it would take along: blockers unknown"),
        ({"database": unknown("no answer")}, "cannot tell what it would take along: database unknown"),
        ({"holders": unknown("no answer")}, "cannot tell what it would take along: holders unknown"),
    ],
)
def test_the_deployed_job_is_not_let_loose_on_what_others_need(changes: dict[str, Any], said: str) -> None:
    evidence = healthy(**{"database": database(LATE, OTHER), "rule": DISABLED, **changes})
    for via in ("library", "ecs"):
        actions, left = propose(evidence, via=via)
        assert {each.verb for each in actions} <= {"clean up sandbox"}
        assert any(said in each.summary for each in left)


def test_the_deployed_task_is_not_run_over_those_that_are_left_alone() -> None:
    evidence = healthy(database=database(LATE, OTHER), holders=Known((holder(LATE),)))
    actions, left = propose(evidence, via="ecs")
    assert actions == []
    assert any("it asks nobody, and would try box-7 as well" in each.summary for each in left)


def test_the_deployed_task_counts_for_all_that_is_due() -> None:
    fresh = behind(9, late=timedelta(minutes=10))
    (action,), _ = propose(healthy(database=database(LATE, fresh)), via="ecs")
    assert list(action.before["sandboxes"].values()) == ["box-7", "box-9"]


@pytest.mark.parametrize(
    ("defined", "overriding", "started"),
    [
        ("true", None, False),
        ("false", None, True),
        (None, "TRUE", False),
        ("false", "true", False),
        ("true", "false", True),
        (None, "", True),
    ],
)
def test_a_job_that_takes_orphans_is_told_and_not_let_loose(
    defined: str | None, overriding: str | None, started: bool
) -> None:
    def container(value: str | None) -> dict[str, Any]:
        return {"name": "job", **({} if value is None else pair(value))}

    scheduled = target(overrides={"containerOverrides": [container(overriding)]})
    evidence = healthy(
        database=database(LATE),
        rule=Known(replace(DISABLED.value, targets=(scheduled,))),
        definitions=Known({scheduled.definition: replace(DEFINITION, containers=(container(defined),))}),
    )
    for via in ("ecs", "library"):
        verbs = {each.verb for each in propose(evidence, via=via)[0]}
        assert bool(verbs & {"run clean-up task", "enable rule"}) is started
    told = [each for each in diagnose(evidence) if each.check == "task definition"]
    assert [(each.severity, each.summary) for each in told] == (
        [] if started else [(Severity.WARNING, f"arrakis-sandbox-cleanup:7: {ORPHANS}")]
    )


FILE = {"environmentFiles": [{"type": "s3", "value": "arn:aws:s3:::arrakis/job.env"}]}
SECRET = {"secrets": [{"name": "CLEANUP_ORPHANED", "valueFrom": "arn:aws:ssm:eu-central-1:1:parameter/x"}]}
OTHER_SECRET = {"secrets": [{"name": "DATABASE_URL", "valueFrom": "arn:aws:ssm:eu-central-1:1:parameter/y"}]}


@pytest.mark.parametrize(
    ("defined", "overriding", "told"),
    [
        (FILE, {}, HIDDEN),
        (SECRET, {}, HIDDEN),
        ({}, FILE, HIDDEN),
        (OTHER_SECRET, {}, None),
        (FILE | pair("false"), {}, None),
        (FILE, pair("false"), None),
        (FILE | pair("true"), {}, ORPHANS),
        (SECRET, pair("TRUE"), ORPHANS),
        ({"environmentFiles": None, "secrets": None, "environment": None}, {}, None),
        ({}, {"environment": None}, None),
    ],
)
def test_what_a_file_or_a_secret_may_say_is_unknown_until_the_definition_says_it(
    defined: dict[str, Any], overriding: dict[str, Any], told: str | None
) -> None:
    scheduled = target(overrides={"containerOverrides": [{"name": "job", **overriding}]})
    made = replace(DEFINITION, containers=({"name": "job", **defined},))
    assert danger(scheduled, made) == told
    evidence = healthy(
        rule=Known(replace(DISABLED.value, enabled=True, targets=(scheduled,))),
        definitions=Known({scheduled.definition: made}),
    )
    severities = {None: [], HIDDEN: [Severity.UNKNOWN], ORPHANS: [Severity.CRITICAL]}
    found = [each for each in diagnose(evidence) if each.check == "task definition"]
    assert [each.severity for each in found] == severities[told]


def test_where_live_sandboxes_are_taken_at_every_run_that_is_what_is_told_first() -> None:
    made = replace(DEFINITION, containers=({"name": "job", **pair("true")},))
    evidence = healthy(definitions=Known({target().definition: made}))
    [told] = [each for each in diagnose(evidence) if each.check == "task definition"]
    assert told.severity is Severity.CRITICAL
    assert told.summary == f"arrakis-sandbox-cleanup:7: {ORPHANS}; it is started rate(15 minutes)"
    assert told.evidence["details"] == [
        "stop it before anything else: aws events disable-rule --name arrakis-sandbox-cleanup"
    ]
    assert told.source.startswith(
        "aws ecs describe-task-definition --task-definition arrakis-sandbox-cleanup:7 "
    )


def test_this_toolkits_own_job_takes_none_along() -> None:
    own = ({"name": "runbooks", "command": ["cleanup"], **pair("true"), **FILE},)
    assert danger(target(), replace(DEFINITION, containers=own)) is None


def test_what_is_made_of_an_event_is_not_known() -> None:
    evidence = healthy(
        database=database(LATE),
        rule=Known(replace(DISABLED.value, targets=(target(transformed=True),))),
    )
    actions, left = propose(evidence, via="ecs")
    assert actions == []
    assert [each.summary.partition(": ")[2] for each in left] == [TRANSFORMED] * 2


def test_a_schedule_of_what_ecs_does_not_start_is_a_cause() -> None:
    evidence = healthy(database=database(LATE), definitions=Known({target().definition: None}))
    causes = [each.summary for each in diagnose(evidence) if each.check == "cause"]
    assert causes == [
        "cause: rule arrakis-sandbox-cleanup is to start arrakis-sandbox-cleanup:7, of which ECS starts nothing"
    ]
    actions, left = propose(evidence, via="ecs")
    assert actions == []
    assert left[0].summary == (
        "the deployed task is not run: arrakis-sandbox-cleanup:7 is no task definition that ECS starts"
    )
    assert [each.verb for each in propose(evidence)[0]] == ["clean up sandbox"]


def test_what_one_container_says_tells_nothing_of_another() -> None:
    containers = ({"name": "job", **FILE}, {"name": "sidecar", **pair("false")})
    assert danger(target(), replace(DEFINITION, containers=containers)) == HIDDEN


def test_what_nobody_knows_the_orders_of_is_not_let_loose() -> None:
    rule = Known(replace(DISABLED.value, targets=(target(),)))
    evidence = healthy(database=database(LATE), rule=rule, definitions=unknown("no right"))
    actions, left = propose(evidence, via="ecs")
    assert actions == []
    assert {each.summary for each in left} == {
        "the deployed task is not run: cannot tell what it starts: no right",
        "the schedule stays disabled: cannot tell what it starts: no right",
    }
    actions, _ = propose(evidence)
    assert [each.verb for each in actions] == ["clean up sandbox"]
    [told] = [each for each in diagnose(evidence) if each.check == "task definition"]
    assert (told.severity, "no right" in told.summary) == (Severity.UNKNOWN, True)


def test_of_a_schedule_that_is_not_known_nothing_more_is_told() -> None:
    evidence = healthy(rule=unknown("no answer"), definitions=unknown("no answer"))
    assert [each.check for each in diagnose(evidence) if "no answer" in each.summary] == ["schedule"]


def test_the_deployed_task_is_handed_the_roles_that_its_schedule_hands_it() -> None:
    own = "arn:aws:iam::123456789012:role/own"
    for overrides, roles in (
        ({}, sorted(DEFINITION.roles.values())),
        ({"taskRoleArn": own}, sorted([DEFINITION.roles["executionRoleArn"], own])),
    ):
        rule = Known(replace(DISABLED.value, enabled=True, targets=(target(overrides=overrides),)))
        (action,), _ = propose(healthy(database=database(LATE), rule=rule), via="ecs")
        assert action.before["roles"] == roles


def test_the_schedule_comes_last_and_named_objects_first() -> None:
    evidence = healthy(
        database=database(LATE),
        blockers=Known((blocker(LATE),)),
        rule=Known(replace(DISABLED.value, targets=())),
    )
    actions, _ = propose(evidence, objects=["reporting.overview"])
    assert [each.verb for each in actions] == ["drop object", "clean up sandbox", "enable rule"]


def test_names_are_safe_to_paste() -> None:
    odd = blocker(LATE, 'reporting."$(reboot)"')
    _, left = propose(healthy(database=database(LATE), blockers=Known((odd,))))
    assert "--drop-object 'reporting.\"$(reboot)\"'" in left[0].summary


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
