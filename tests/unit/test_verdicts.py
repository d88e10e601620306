"""Which causes the evidence confirms, rules out, or leaves open; and which comes first."""

from datetime import timedelta
from typing import Any

import pytest

from diagnostics.causes import CAUSES, named
from diagnostics.compute import Rule
from diagnostics.servers import Access
from runbooks.engine.model import Severity
from runbooks.overdue.evidence import Evidence
from runbooks.overdue.suspects import probed
from runbooks.overdue.verdicts import confirmed_causes, job_findings, log_findings, server_findings
from runbooks.probing import Answer
from sandbox.facts import Known, Unknown
from tests.unit.evidence import (
    NOW,
    behind,
    blocker,
    database,
    group,
    healthy,
    holder,
    log,
    runs,
    service,
    task,
    unknown,
)

LATE = behind(7)
DISABLED = Known(Rule(name="arrakis-sandbox-cleanup", enabled=False, schedule="rate(15 minutes)", targets=()))
BLOCKED = {"database": database(LATE), "blockers": Known((blocker(LATE),))}
HELD = {"database": database(LATE), "holders": Known((holder(LATE),))}
FAILING = {"database": database(LATE), "tasks": Known((task(1),))}
OLD = runs(last=timedelta(hours=2))
SHUT = Known(Access(allowed=False, how="no rule of sg-db lets sg-task in at port 5432"))
REFUSED = "PostgreSQL at db:5432: connection refused"


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        (
            {"postgres": unknown("PostgreSQL at db:5432: sorry, too many clients already"), "runs": OLD},
            "no connection left",
        ),
        ({"postgres": unknown("no answer within 7 s"), "runs": unknown()}, "PostgreSQL"),
        (
            {"redis": unknown("Redis at redis:6379: connection refused"), "runs": OLD},
            "Redis refuses connections",
        ),
        ({"redis": unknown("Redis at redis:6379: connection refused")}, "Redis refuses connections"),
        ({"postgres_access": SHUT, "tasks": Known(())}, "cannot reach PostgreSQL: no rule of sg-db"),
        ({"rule": DISABLED}, "rule arrakis-sandbox-cleanup is disabled"),
        ({"rule": Known(None)}, "there is no rule"),
        (BLOCKED, "view reporting.overview rests on it"),
        (HELD, "session 4711 of ada (psql, idle in transaction since 2026-03-01T11:39Z)"),
        (FAILING, "the clean-up task fails: sandbox-cleanup exited with 1"),
        (
            {"database": database(LATE), "tasks": Known(()), "runs": runs(last=timedelta(hours=2))},
            "scheduled, but was not started since 2026-03-01T10:00Z",
        ),
        # What explains the others comes first.
        ({**BLOCKED, **FAILING, "database": database(LATE)}, "view reporting.overview rests on it"),
        ({**BLOCKED, "rule": DISABLED}, "is disabled"),
        ({**HELD, "redis": unknown("Redis at redis:6379: connection refused"), "runs": OLD}, "Redis refuses"),
    ],
)
def test_the_right_cause_comes_first(changes: dict[str, Any], first: str) -> None:
    causes = confirmed_causes(healthy(**changes))
    assert first in causes[0].summary
    assert {each.severity for each in causes} == {Severity.CRITICAL}
    assert all(each.check == "cause" for each in causes)


def test_security_groups_that_the_job_gets_round_are_no_cause() -> None:
    evidence = healthy(postgres_access=SHUT)
    assert confirmed_causes(evidence) == []
    assert {each.severity for each in server_findings(evidence)} == {Severity.OK}


def test_what_was_left_behind_for_no_known_reason_is_said_so() -> None:
    (cause,) = confirmed_causes(healthy(database=database(LATE)))
    assert (cause.severity, "cause not found" in cause.summary) == (Severity.WARNING, True)


def test_a_failing_task_is_told_where_the_others_explain_only_some() -> None:
    other = behind(8)
    evidence = healthy(
        database=database(LATE, other), blockers=Known((blocker(LATE),)), tasks=Known((task(1),))
    )
    causes = [each.summary for each in confirmed_causes(evidence)]
    assert ["reporting.overview" in causes[0], "the clean-up task fails" in causes[1]] == [True, True]


def test_a_failing_task_is_no_cause_of_its_own_beside_what_explains_it() -> None:
    causes = confirmed_causes(healthy(**{**BLOCKED, "tasks": Known((task(1),))}))
    assert len(causes) == 1


def test_of_a_failing_task_it_says_what_its_log_says_and_what_answers_here() -> None:
    evidence = healthy(**FAILING, errors=log(group(REFUSED)), runs=runs(last=timedelta(hours=2)))
    details = " ".join(confirmed_causes(evidence)[0].evidence["details"])
    assert REFUSED in details
    assert "ruled out, PostgreSQL answers from here" in details
    assert "the task's own address" in details


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tasks": Known((task(0), task(1)))},  # the last one went well
        {"tasks": Known((task(None, status="RUNNING"),))},
        {"rule": unknown()},
        {"database": unknown()},
        {"errors": log(group(REFUSED))},  # the log names it, no probe confirms it
        {"blockers": Known((blocker(LATE),))},  # of one that is not over
        {"redis": Unknown("the redis probe failed: KeyError", error=KeyError("x"))},
    ],
)
def test_what_no_probe_confirms_is_no_cause(changes: dict[str, Any]) -> None:
    assert confirmed_causes(healthy(**changes)) == []


@pytest.mark.parametrize(
    ("text", "changes", "answer"),
    [
        (REFUSED, {}, Answer.RULED_OUT),
        (REFUSED, {"postgres": unknown(REFUSED)}, Answer.CONFIRMED),
        (REFUSED, {"postgres": unknown("password authentication failed")}, Answer.UNKNOWN),
        ("query_wait_timeout", {"postgres": unknown(REFUSED)}, Answer.UNKNOWN),
        ("SANDBOX_001", {"database": database(LATE)}, Answer.UNKNOWN),
        ("canceling statement due to statement timeout", {}, Answer.UNKNOWN),
        ("Redis key cleanup failed", {"redis": Unknown("no host", error=KeyError("x"))}, Answer.UNKNOWN),
        ("SQLSTATE=53300", {"database": database(used=99)}, Answer.CONFIRMED),
        ("SQLSTATE=53300", {}, Answer.RULED_OUT),
        ("SQLSTATE=53300", {"database": unknown()}, Answer.UNKNOWN),
        ("SQLSTATE=2BP01", BLOCKED, Answer.CONFIRMED),
        ("SQLSTATE=2BP01", {"blockers": unknown()}, Answer.UNKNOWN),
        ("SQLSTATE=55P03", HELD, Answer.CONFIRMED),
        ("SQLSTATE=55P03", {}, Answer.RULED_OUT),
        ("could not extend file", {}, Answer.RULED_OUT),
        ("could not extend file", {"instance": unknown()}, Answer.UNKNOWN),
        ("OOM command not allowed", {}, Answer.RULED_OUT),
        ("OOM command not allowed", {"cache": unknown()}, Answer.UNKNOWN),
        ('relation "sandboxes" does not exist', {}, Answer.UNKNOWN),
        ("READONLY You can't write against a read only replica.", {}, Answer.UNKNOWN),
        ("SQLSTATE=25006", {}, Answer.UNKNOWN),
        ("max number of clients reached", {}, Answer.UNKNOWN),
        ("pgbouncer: query_wait_timeout", {}, Answer.UNKNOWN),
        (
            "NOPERM this user has no permissions",
            {"database": database(not_ours=("sandbox_x",))},
            Answer.UNKNOWN,
        ),
        ("WRONGPASS invalid", {"postgres": unknown(REFUSED)}, Answer.UNKNOWN),
        ("WRONGPASS invalid", {"redis": unknown("WRONGPASS invalid username-password")}, Answer.CONFIRMED),
        ("permission denied for schema x", {}, Answer.UNKNOWN),
        ("permission denied for schema x", {"database": database(not_ours=("sandbox_x",))}, Answer.CONFIRMED),
        ("out of shared memory", {}, Answer.RULED_OUT),
        ("out of shared memory", {"database": database(locks=6000)}, Answer.CONFIRMED),
        ("password authentication failed", {}, Answer.UNKNOWN),
        ("getaddrinfo ENOTFOUND db", {"postgres": unknown("getaddrinfo ENOTFOUND db")}, Answer.CONFIRMED),
        ("getaddrinfo ENOTFOUND db", {"postgres": unknown()}, Answer.UNKNOWN),
        ("SANDBOX_007", {}, Answer.RULED_OUT),
        ("SANDBOX_007", {"database": database(LATE)}, Answer.CONFIRMED),
        ("CannotPullContainerError", {"tasks": Known((task(None),))}, Answer.CONFIRMED),
        ("CannotPullContainerError", {}, Answer.RULED_OUT),
    ],
)
def test_a_cause_is_tested_by_its_probe(text: str, changes: dict[str, Any], answer: Answer) -> None:
    cause = group(text).cause
    assert cause is not None
    assert probed(cause, healthy(**changes))[0] is answer


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.key)
def test_every_cause_has_an_answer_and_a_reason(cause: Any) -> None:
    answer, why = probed(named(cause.key), healthy())
    assert answer in (Answer.RULED_OUT, Answer.UNKNOWN)
    assert why


@pytest.mark.parametrize(
    ("text", "changes", "severity", "said"),
    [
        (REFUSED, {}, Severity.OK, "ruled out now"),
        (REFUSED, {"postgres": unknown(REFUSED)}, Severity.WARNING, "confirmed"),
        ("permission denied for schema x", {"database": database(LATE)}, Severity.WARNING, "cannot tell"),
        ("permission denied for schema x", {}, Severity.OK, "it left no sandbox behind"),
        ("what nobody knows", {"database": database(LATE)}, Severity.WARNING, "no known cause matches"),
    ],
)
def test_an_error_of_the_log_is_as_bad_as_what_is_left_of_it(
    text: str, changes: dict[str, Any], severity: Severity, said: str
) -> None:
    seen = log_findings(healthy(**{"errors": log(group(text)), **changes}))[1]
    assert seen.severity is severity
    assert said in seen.summary
    assert "3 ×, 2026-03-01T11:00Z/2026-03-01T11:55Z" in seen.summary


def test_an_error_that_a_later_run_did_not_meet_is_over() -> None:
    old = group("what nobody knows", ago=timedelta(minutes=30))
    seen = log_findings(healthy(errors=log(old), database=database(LATE)))[1]
    assert (seen.severity, "a later run" in seen.summary) == (Severity.OK, True)
    failed = healthy(errors=log(old), database=database(LATE), runs=runs(failed=1))
    assert log_findings(failed)[1].severity is Severity.WARNING


@pytest.mark.parametrize(
    ("changes", "severity"),
    [
        ({}, Severity.OK),
        ({"errors": log(complete=False)}, Severity.UNKNOWN),
        ({"errors": unknown("AWS logs: ThrottlingException")}, Severity.UNKNOWN),
    ],
)
def test_a_log_that_was_not_read_whole_is_unknown(changes: dict[str, Any], severity: Severity) -> None:
    seen = log_findings(healthy(**changes))[0]
    assert seen.severity is severity
    if "ThrottlingException" in str(changes):
        assert "ThrottlingException" in seen.summary


@pytest.mark.parametrize(
    "name", ["rule", "tasks", "service", "runs", "instance", "cache", "blockers", "holders", "database"]
)
def test_whatever_does_not_answer_is_said_with_its_reason(name: str) -> None:
    evidence: Evidence = healthy(**{name: unknown("AWS: the login has expired")})
    found = [*job_findings(evidence), *server_findings(evidence)]
    assert [each.severity for each in found if "the login has expired" in each.summary] == [Severity.UNKNOWN]


@pytest.mark.parametrize(
    ("seen", "severity", "said"),
    [
        (service(), Severity.OK, "2 of 2 run"),
        (service(running=1), Severity.WARNING, "1 of 2 run"),
        (service(desired=0, running=0), Severity.WARNING, "0 of 0 run"),
        (None, Severity.WARNING, "there is no service arrakis-worker in cluster arrakis"),
    ],
)
def test_the_workers_are_told(seen: Any, severity: Severity, said: str) -> None:
    found = [each for each in job_findings(healthy(service=Known(seen))) if each.check == "service"]
    assert [(each.severity, said in each.summary) for each in found] == [(severity, True)]


def test_a_log_without_starts_is_a_warning_and_one_cut_short_unknown() -> None:
    silent = runs().value.__class__
    for stopped, severity in (("", Severity.WARNING), ("time budget", Severity.UNKNOWN)):
        told = silent(
            log_group="x", begin=NOW, end=NOW, covered_from=NOW, stopped=stopped, starts=(), runs=()
        )
        found = [each for each in job_findings(healthy(runs=Known(told))) if each.check == "runs"]
        assert [each.severity for each in found] == [severity]
