"""RB-SB-005 as a table: what was seen in, the cause and what is proposed out."""

import re
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.causes import match
from diagnostics.migration import MIGRATION, Fault, What, parts
from diagnostics.postgres import Connections, LockTable, Quota
from diagnostics.storage import Holder, Slot, runs_out
from runbooks import quarantined
from runbooks.creation.evidence import Facts
from runbooks.creation.obstacles import confirmed_causes
from runbooks.engine.model import Action, Finding, Phase, Severity
from runbooks.engine.permission import needed
from runbooks.probing import Answer, by_connections
from runbooks.quarantined import Quarantine
from runbooks.rb_sb_005 import RUNBOOK, diagnose, existing, outlook, propose
from runbooks.remedies.storage import enlarged
from sandbox.errors import ArrakisError, Denied, Unreachable
from sandbox.facts import Known, Unknown
from sandbox.keyspace import Survey
from sandbox.model import Schema
from sql import load
from tests.unit import evidence
from tests.unit.creation import (
    APP,
    CREATE,
    alarm,
    database,
    facts,
    instance,
    missing,
    pool,
    right,
    rights,
    session,
    tried,
)
from tests.unit.evidence import NOW, behind, group, healthy, log, unknown
from tests.unit.test_verdicts import DISABLED

DENIED = "Failed to create schema: permission denied for database arrakis"
NO_ROOM = "Failed to create schema: could not extend file: No space left on device"
TOO_MANY = 'Failed to create schema: too many connections for role "arrakis_app"'
LOCKED = "Failed to create sandbox schema: canceling statement due to lock timeout"
QUOTA = Quota(kind="role", name=APP, most=30, used=30)
NO_GATE: Any = None  # nothing is done
FULL = instance(storage_left=0.5 * 2**30)


def causes(seen: Facts) -> list[str]:
    """Return what is called a cause."""
    return [
        finding.summary.removeprefix("cause: ")
        for finding in diagnose(seen)
        if finding.check == "cause" and finding.severity is Severity.CRITICAL
    ]


def found(seen: Facts, check: str) -> Finding:
    """Return the one finding of a check."""
    [finding] = [each for each in diagnose(seen) if each.check == check]
    return finding


def told(actions: list[Action]) -> list[str]:
    """Return what actions do, to what."""
    return [f"{action.verb} {action.resource.id}" for action in actions]


def test_where_all_is_well_nothing_is_said_to_be_wrong() -> None:
    seen = facts()
    assert {finding.severity for finding in diagnose(seen)} == {Severity.OK}
    assert propose(seen) == ([], [])
    assert [finding.severity for finding in outlook(seen)] == [Severity.OK]
    assert all(finding.source for finding in diagnose(seen))


CAUSES: dict[str, tuple[Facts, str]] = {
    "refused": (
        facts(postgres=Unknown("PostgreSQL at db:5432: connection refused", "", Unreachable("x"))),
        "PostgreSQL cannot be used from here: PostgreSQL refuses connections",
    ),
    "replica": (
        facts(rights=rights(recovering=True)),
        "PostgreSQL takes no writes: this server is a replica",
    ),
    "read only": (
        facts(rights=rights(read_only=True)),
        "PostgreSQL takes no writes: the server, or this role, is set to read only",
    ),
    "storage-full": (
        facts(instance=instance(status="storage-full", storage_left=0.0)),
        "the database's storage is full: 0.0 of 100 GiB are left",
    ),
    "storage-full, how much is not known": (
        facts(instance=instance(status="storage-full", storage_left=None)),
        "the database's storage is full: storage-full, and how much of 100 GiB is left is not known",
    ),
    "no space": (
        facts(instance=FULL, api=log(group(NO_ROOM))),
        "the database's storage is full: 0.5 of 100 GiB are left",
    ),
    "connections": (
        facts(database=database(used=97)),
        "no connections are left: 97 of 100 are used, and 3 are kept for superusers",
    ),
    "the role's connections": (
        facts(database=database(session(1, idle=30), session(2, idle=11), used=30, quotas=(QUOTA,))),
        f"no connections are left: role {APP} has all 30 that it may have; 2 are idle in a transaction, "
        "for 11 min to 30 min",
    ),
    "pool": (
        facts(pooler=pool(waiting=4, idle=0, busy=20, longest_wait=timedelta(seconds=9))),
        f"PgBouncer's pool of {APP} on arrakis is used up: 20 of 20 connections are busy, 4 clients wait, "
        "the first for 9 s",
    ),
    "a lock": (
        facts(database=database(session(1, idle=4, user="ada"), session(2, blocked_by=(1,)))),
        "session 1 of ada (arrakis-api, idle in transaction for 4 min) holds what 1 other waits for",
    ),
    "function": (
        facts(objects=missing(CREATE)),
        f"what creating a schema takes is missing: function public.{CREATE}",
    ),
    "right": (facts(rights=rights(right())), f"{APP} lacks CREATE on database arrakis"),
    "locks": (
        facts(
            database=database(locks=LockTable(used=6000, room=6400)),
            worker=log(group("Failed to create sandbox schema: out of shared memory")),
        ),
        "PostgreSQL's table of locks is full: 6000 of 6400 locks are held",
    ),
    "the trial": (
        facts(tried=tried("PostgreSQL refused: permission denied for language plpgsql", Phase.FAILED)),
        "creating a schema fails: the role lacks a right",
    ),
    "the trial alone": (
        facts(tried=tried("create_sandbox_schema said nothing, and made no schema", Phase.FAILED)),
        "creating a schema fails: the function makes no schema of the name that is looked for",
    ),
}


@pytest.mark.parametrize(("seen", "cause"), CAUSES.values(), ids=CAUSES)
def test_the_cause_is_named_and_no_other(seen: Facts, cause: str) -> None:
    assert causes(seen) == [cause]
    assert diagnose(seen)[0].summary == f"cause: {cause}"
    assert outlook(seen)[0].summary == f"cause: {cause}"


TWO: dict[str, tuple[Facts, list[str]]] = {
    "no right, and somebody holds a lock": (
        facts(database=database(session(1, idle=12), session(2, blocked_by=(1,))), rights=rights(right())),
        ["session 1", f"{APP} lacks"],
    ),
    "no room and no function": (
        facts(instance=FULL, api=log(group(NO_ROOM)), objects=missing(CREATE)),
        ["the database's storage", "what creating"],
    ),
    "what the trial met is another": (
        facts(rights=rights(right()), tried=tried(NO_ROOM, Phase.FAILED)),
        ["creating a schema fails: the database's storage is full", f"{APP} lacks"],
    ),
}


@pytest.mark.parametrize(("seen", "starts"), TWO.values(), ids=TWO)
def test_two_causes_are_both_named(seen: Facts, starts: list[str]) -> None:
    named = causes(seen)
    assert [cause.startswith(start) for cause, start in zip(named, starts, strict=True)] == [True, True]


INNOCENT = {
    "somebody idles, and nobody minds": facts(database=database(session(1, idle=47))),
    "a lock that has nothing to do with sandboxes": facts(
        database=database(
            session(1, idle=47), session(2, blocked_by=(1,), query="UPDATE orders SET paid = $1")
        )
    ),
    "a lock that is held for a moment": facts(
        database=database(session(1), session(2, blocked_by=(1,), query="UPDATE public.sandboxes SET x = $1"))
    ),
    "another role has no connection left": facts(database=database(quotas=(replace(QUOTA, name="reports"),))),
    "little storage, and nothing has failed": facts(instance=instance(storage_left=8.0 * 2**30)),
    "short of connections explains the queue": facts(
        database=database(used=40, quotas=(replace(QUOTA, used=29),)), pooler=pool(waiting=1, idle=1)
    ),
    "another's pool is used up": facts(pooler=pool(waiting=4, idle=0, busy=20, user="reports")),
    "another database's pool is used up": facts(pooler=pool(waiting=4, idle=0, busy=20, database="reports")),
    "a pool that is making its first connection": facts(
        pooler=pool(waiting=1, busy=0, idle=0, longest_wait=timedelta(milliseconds=4))
    ),
    "a missing index": facts(objects=missing("idx_sandboxes_owner")),
    "many locks, and nothing has failed": facts(database=database(locks=LockTable(used=6000, room=6400))),
    "an error of another part": facts(api=log(group("Failed to route event: permission denied"))),
}


@pytest.mark.parametrize("seen", INNOCENT.values(), ids=INNOCENT)
def test_nothing_else_is_called_a_cause(seen: Facts) -> None:
    assert [finding for finding in diagnose(seen) if finding.check == "cause"] == []
    assert propose(seen) == ([], [])


def test_a_queue_in_the_pool_is_a_symptom_where_connections_are_short() -> None:
    seen = facts(database=database(used=97), pooler=pool(waiting=4, idle=0, busy=20))
    assert len(causes(seen)) == 1
    assert causes(seen)[0].startswith("no connections are left")


def test_what_a_trial_meets_again_is_not_told_twice() -> None:
    seen = facts(rights=rights(right()), tried=tried(DENIED, Phase.FAILED))
    assert causes(seen) == [f"{APP} lacks CREATE on database arrakis"]
    assert found(seen, "trial").severity is Severity.CRITICAL


def test_a_failure_without_a_cause_says_so() -> None:
    [cause] = [each for each in diagnose(facts(api=log(group("SANDBOX_005")))) if each.check == "cause"]
    assert cause.severity is Severity.WARNING
    assert cause.summary.startswith("cause not found: 3 errors were logged")


# ---- what is logged, and what became of it


SETTLED: dict[str, tuple[str, dict[str, Any], Severity]] = {
    "the right is there": (DENIED, {}, Severity.OK),
    "the right is not there": (DENIED, {"rights": rights(right())}, Severity.WARNING),
    "rights unknown": (DENIED, {"rights": unknown()}, Severity.WARNING),
    "room": (NO_ROOM, {}, Severity.OK),
    "no room": (NO_ROOM, {"instance": FULL}, Severity.WARNING),
    "connections": (TOO_MANY, {}, Severity.OK),
    "no connections": (TOO_MANY, {"database": database(quotas=(QUOTA,))}, Severity.WARNING),
    "no connections, and a trial that had one": (
        TOO_MANY,
        {"database": database(quotas=(QUOTA,)), "tried": tried("created")},
        Severity.WARNING,
    ),
    "a step": ("Failed to create sandbox schema", {}, Severity.WARNING),
    "a step, and a trial": ("Failed to create sandbox schema", {"tried": tried("created")}, Severity.OK),
    "a step, and a sandbox since": (
        "Failed to create sandbox schema",
        {"created": Known(NOW - timedelta(minutes=1))},
        Severity.OK,
    ),
    "a step, and a sandbox before": (
        "Failed to create sandbox schema",
        {"created": Known(NOW - timedelta(hours=1))},
        Severity.WARNING,
    ),
    "a lock that is gone": (LOCKED, {}, Severity.WARNING),
    "PgBouncer is free": (
        "Failed to create sandbox schema: no more connections allowed",
        {"pooler": pool()},
        Severity.OK,
    ),
    "PgBouncer does not tell": (
        "Failed to create sandbox schema: no more connections allowed",
        {"pooler": unknown()},
        Severity.WARNING,
    ),
}


@pytest.mark.parametrize(("text", "changes", "severity"), SETTLED.values(), ids=SETTLED)
def test_a_logged_error_is_judged_by_its_probe(
    text: str, changes: dict[str, Any], severity: Severity
) -> None:
    assert found(facts(api=log(group(text)), **changes), "log error").severity is severity


def test_a_line_that_names_a_step_only_is_judged_by_its_neighbour() -> None:
    both = log(group(DENIED), group("Sandbox creation failed, cleaning up"))
    alone = log(group(DENIED, ago=timedelta(minutes=30)), group("Sandbox creation failed, cleaning up"))
    assert {each.severity for each in diagnose(facts(api=both))} == {Severity.OK}
    assert Severity.WARNING in {each.severity for each in diagnose(facts(api=alone))}


def test_errors_of_others_are_counted_and_not_told() -> None:
    seen = facts(api=log(group("Failed to route event"), group(DENIED)))
    assert found(seen, "log error").summary.startswith("log: the role lacks a right")
    first = next(each for each in diagnose(seen) if each.check == "log")
    assert first.summary.endswith("3 errors of 1 kind about schemas, 3 about other things")


def test_a_limit_of_one_role_is_no_less_a_limit() -> None:
    cause = match(TOO_MANY)
    assert cause is not None
    for used, answer in ((29, Answer.RULED_OUT), (30, Answer.CONFIRMED)):
        seen = Connections(used=40, limit=100, reserved=3, groups=(), quotas=(replace(QUOTA, used=used),))
        assert by_connections(cause, Known(seen), facts().postgres)[0] is answer


def test_all_of_the_migration_is_read() -> None:
    rest = load(MIGRATION)
    for part in parts():
        assert part.statement in rest
        rest = rest.replace(part.statement, "")
    assert not re.search(r"^ *(CREATE|ALTER|GRANT|INSERT|COMMENT)\b", rest, re.MULTILINE)


# ---- what is unknown


@pytest.mark.parametrize(
    "name",
    [
        "alarm",
        "instance",
        "api",
        "worker",
        "postgres",
        "database",
        "rights",
        "objects",
        "pooler",
        "sizes",
        "dead",
        "wal",
        "slots",
        "holders",
        "tried",
    ],
)
def test_what_is_unknown_is_said_and_nothing_is_proposed_for_it(name: str) -> None:
    lost = Unknown("the probe failed", "", ArrakisError("the probe failed"))
    seen = facts(**{name: lost})
    assert Severity.UNKNOWN in {finding.severity for finding in diagnose(seen)}
    assert propose(seen)[0] == []


def test_that_postgresql_does_not_answer_is_said_once_with_what_rests_on_it() -> None:
    dead: Any = Unknown("no answer within 5 s", "is it up?", Unreachable("no answer"))
    denied: Any = Unknown("no permission", "", Denied("no permission"))
    asked = ("postgres", "database", "rights", "objects", "created", "sizes", "dead", "slots", "holders")
    seen = diagnose(facts(**dict.fromkeys(asked, dead), wal=denied))
    assert [each.summary for each in seen if each.severity is Severity.UNKNOWN] == [
        "PostgreSQL: cannot tell: no answer within 5 s; so nothing is known of "
        "rights, objects, database, sizes, dead rows, replication slots, vacuum",
        "WAL: cannot tell: no permission",
    ]


def test_sessions_that_are_hidden_are_not_said_to_be_well() -> None:
    def severity(**changes: Any) -> Severity:
        return found(facts(database=database(session(1, state="?", **changes))), "connections").severity

    assert severity() is Severity.UNKNOWN
    assert severity(superuser=True) is Severity.OK  # RDS hides its own from everybody


def test_what_a_refusal_means_is_told_where_the_login_fails() -> None:
    seen = facts(postgres=Unknown("password authentication failed", "", Denied("no")))
    assert causes(seen) == ["PostgreSQL cannot be used from here: PostgreSQL does not accept the login"]


# ---- what is proposed


def idle(*sessions: Any) -> Facts:
    """Return facts in which these sessions take the connections that are short."""
    return facts(database=database(*sessions, used=97))


def test_a_server_that_its_full_storage_stopped_is_explained_by_that_and_can_be_helped_by_hand() -> None:
    dead: Any = Unknown("no answer within 5 s", "", Unreachable("no answer"))
    full = instance(status="storage-full", storage_left=0.0)
    found = confirmed_causes(facts(postgres=dead, instance=full))
    assert [each.summary.split(":")[1].strip() for each in found] == [
        "the database's storage is full",
        "PostgreSQL does not answer",
    ]
    by_hand = "aws rds modify-db-instance --db-instance-identifier arrakis-lab --allocated-storage 125 --apply-immediately"
    assert by_hand in found[0].evidence["drawn"]
    underway = confirmed_causes(
        facts(instance=instance(status="storage-full", storage_left=0.0, pending_gib=125))
    )
    assert "drawn" not in underway[0].evidence


def test_only_those_idle_beyond_ten_minutes_are_ended() -> None:
    seen = idle(session(1, idle=10), session(2, idle=10.1), session(3, idle=0), session(4, idle=600))
    actions, left = propose(seen)
    assert (told(actions), left) == (["end session 2", "end session 4"], [])
    assert [action.id for action in actions] == ["a1", "a2"]
    assert actions[1].reason == (
        "arrakis_app (arrakis-api), connected since 2026-03-01T01:59Z, idle in a transaction for 10 h; "
        "it takes one of the connections that are short"
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"superuser": True}, f"{APP} is a superuser"),
        ({"ours": True}, "it is this toolkit's own"),
        (
            {"may_signal": False},
            f"this role may signal no session of {APP}: GRANT pg_signal_backend or {APP}",
        ),
        (
            {"backend_start": None},
            "since when it is connected is hidden from this role: GRANT pg_read_all_stats",
        ),
    ],
)
def test_those_that_are_not_for_us_to_end_are_named(changes: dict[str, Any], why: str) -> None:
    actions, [left] = propose(idle(session(1, idle=47, **changes)))
    assert actions == []
    assert left.summary == f"session 1 of {APP} is left alone: {why}"


HELD: dict[str, tuple[Facts, bool]] = {
    "nothing": (facts(database=database(session(1, idle=47))), False),
    "a lock": (facts(database=database(session(1, idle=47), session(2, blocked_by=(1,)))), True),
    "its role's limit": (facts(database=database(session(1, idle=47), quotas=(QUOTA,))), True),
    "another role's limit": (
        facts(database=database(session(1, idle=47, user="ada"), quotas=(QUOTA,))),
        False,
    ),
    "the database's limit": (
        facts(
            database=database(
                session(1, idle=47), quotas=(Quota(kind="database", name="arrakis", most=5, used=5),)
            )
        ),
        True,
    ),
    "the pool": (
        facts(database=database(session(1, idle=47)), pooler=pool(waiting=2, idle=0, busy=20)),
        True,
    ),
    "another's pool": (
        facts(database=database(session(1, idle=47)), pooler=pool(waiting=2, idle=0, busy=20, user="ada")),
        False,
    ),
    "dead rows": (
        facts(
            database=database(session(1, idle=47)),
            instance=FULL,
            holders=Known((Holder(kind="session", name="1", age=2_000_000, since=None),)),
        ),
        True,
    ),
    "dead rows, and room": (
        facts(
            database=database(session(1, idle=47)),
            holders=Known((Holder(kind="session", name="1", age=2_000_000, since=None),)),
        ),
        False,
    ),
}


@pytest.mark.parametrize(("seen", "ended"), HELD.values(), ids=HELD)
def test_an_idle_session_is_ended_only_if_it_keeps_others_from_something(seen: Facts, ended: bool) -> None:
    assert told(propose(seen)[0]) == (["end session 1"] if ended else [])
    idle_finding = found(seen, "idle in transaction")
    assert idle_finding.severity is (Severity.WARNING if ended else Severity.OK)


def test_exactly_what_is_lacking_is_granted_by_who_may() -> None:
    actions, left = propose(facts(rights=rights(right(), right(held=True, role="other"))))
    assert (told(actions), left) == ([f"grant right CREATE ON DATABASE arrakis TO {APP}"], [])
    assert actions[0].before["taking"] == f"REVOKE CREATE ON DATABASE arrakis FROM {APP}"
    actions, [alone] = propose(facts(rights=rights(right(may_grant=False))))
    assert actions == []
    assert alone.summary == (
        f"GRANT CREATE ON DATABASE arrakis TO {APP} is left alone: only lab, or who may pass it on, can grant it"
    )


def test_of_a_role_that_is_not_there_it_is_said() -> None:
    seen = facts(rights=rights(right(role="lab"), deployed_exists=False))
    assert causes(seen) == ["lab lacks CREATE on database arrakis"]
    assert (
        f"there is no role {APP}: what is said is of lab, which is used here"
        in found(seen, "rights").evidence["details"]
    )


def test_what_is_missing_is_made_by_who_may() -> None:
    actions, left = propose(facts(objects=missing(CREATE, "drop_sandbox_schema(p_sandbox_id text)")))
    assert told(actions) == [
        f"migrate public.{CREATE}",
        "migrate public.drop_sandbox_schema(p_sandbox_id text)",
    ]
    assert left == []
    assert (
        actions[0].before["statement"].startswith("CREATE OR REPLACE FUNCTION public.create_sandbox_schema(")
    )
    actions, [alone] = propose(facts(objects=missing(CREATE), rights=rights(may_migrate=False)))
    assert actions == []
    assert "lab may not create in the schema public" in alone.summary
    actions, [alone] = propose(facts(objects=missing(CREATE), rights=unknown()))
    assert (actions, alone.severity) == ([], Severity.UNKNOWN)


def test_an_index_is_made_with_its_table_only() -> None:
    with_table = propose(facts(objects=missing("sandbox_audit_log", "idx_sandbox_audit_log_type")))[0]
    assert told(with_table) == [
        "migrate public.sandbox_audit_log",
        "migrate public.idx_sandbox_audit_log_type",
    ]
    assert propose(facts(objects=missing("idx_sandbox_audit_log_type")))[0] == []


def test_a_column_that_is_missing_has_no_statement_of_its_own() -> None:
    fault = Fault(kind="column", name="sandboxes.owner", what=What.MISSING, told="no varchar(64) NOT NULL")
    actions, [left] = propose(facts(objects=Known((fault,))))
    assert actions == []
    assert "the migration has no statement that mends it alone" in left.summary


BODY = Fault(kind="function", name=CREATE, what=What.DIFFERENT, told="its text is not the migration's")


def test_a_function_with_a_text_of_its_own_is_suspected_only_where_something_fails() -> None:
    quiet, failing = (
        facts(objects=Known((BODY,))),
        facts(objects=Known((BODY,)), api=log(group("SANDBOX_005"))),
    )
    assert found(quiet, "objects").severity is Severity.OK
    assert found(failing, "objects").severity is Severity.WARNING
    after = facts(objects=Known((BODY,)), tried=tried("P0001: no more of these", Phase.FAILED))
    details = diagnose(after)[0].evidence["details"]
    assert f"function public.{CREATE}: its text is not the migration's" in details


ENLARGED = "Finished applying modification to allocated storage"
STORAGE: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a fifth more": ({"storage_left": 0.0}, ["enlarge storage arrakis-lab"]),
    "under way": ({"storage_left": 0.0, "pending_gib": 125}, []),
    "settling": (
        {"storage_left": 0.0, "events": ((NOW - timedelta(hours=5), ENLARGED),)},
        [],
    ),
    "settled": (
        {"storage_left": 0.0, "events": ((NOW - timedelta(hours=7), ENLARGED),)},
        ["enlarge storage arrakis-lab"],
    ),
    "unknown": ({"storage_left": None, "status": "storage-full"}, []),
}


@pytest.mark.parametrize(("changes", "proposed"), STORAGE.values(), ids=STORAGE)
def test_storage_is_enlarged_where_rds_takes_it(changes: dict[str, Any], proposed: list[str]) -> None:
    actions, left = propose(facts(instance=instance(**changes), api=log(group(NO_ROOM))))
    assert told(actions) == proposed
    assert len(left) == (0 if proposed else 1)
    if proposed:
        assert (actions[0].before["gib"], actions[0].before["to_gib"]) == (100, 125)
        assert "can never be made less" in actions[0].reason


@given(st.integers(20, 65536), st.floats(0, 1))
def test_what_is_enlarged_grows_by_a_fifth_and_leaves_a_fifth(gib: int, left: float) -> None:
    to_gib = enlarged(gib, left * gib * 2**30)
    assert to_gib >= gib * 1.2 - 1e-6
    assert to_gib - gib + left * gib >= 0.2 * to_gib - 1e-6
    assert to_gib <= gib * 1.25 + 1


def test_room_is_made_where_it_is_short() -> None:
    quarantine = Quarantine(
        now=NOW,
        database=Known(
            quarantined.Database(
                schemas=tuple(
                    Schema(
                        name=f"quarantine_{stamp}_3f2b8c1e",
                        oid=16385,
                        owner="lab",
                        tables=3,
                        bytes=1,
                        rows_estimate=0,
                        writes=4,
                    )
                    for stamp in ("20260201000000", "20260301000000")
                ),
                live=3,
            )
        ),
        keys=Known(Survey(families={}, parked={})),
    )
    over = healthy(database=evidence.database(behind(7)))
    short = facts(database=database(used=97), overdue=over, quarantine=quarantine)
    assert told(propose(short)[0]) == ["clean up sandbox box-7"]  # what is in quarantine has no connections
    assert propose(replace(short, database=database())) == ([], [])
    full = replace(short, database=database(), instance=instance(status="storage-full", storage_left=0.0))
    assert told(propose(full)[0]) == [
        "enlarge storage arrakis-lab",
        "clean up sandbox box-7",
        "drop schema quarantine_20260201000000_3f2b8c1e",
    ]
    lost = replace(full, quarantine=replace(quarantine, database=unknown()))
    assert told(propose(lost)[0])[1:] == ["clean up sandbox box-7"]
    assert [finding.severity for finding in propose(lost)[1]] == [Severity.UNKNOWN]
    asleep = replace(over, rule=Known(replace(DISABLED.value, targets=(evidence.target(),))))
    actions = propose(replace(short, overdue=asleep))[0]
    assert told(actions) == ["clean up sandbox box-7", "enable rule arrakis-sandbox-cleanup"]
    assert needed(actions, RUNBOOK.remedies(NO_GATE)).aws <= RUNBOOK.page.writes.aws


def test_the_trial_works_as_the_systems_role_where_it_may() -> None:
    assert RUNBOOK.trial
    for changes, role, acting in (
        ({}, APP, True),
        ({"may_act": False}, "lab", False),
        ({"name": APP}, APP, False),
    ):
        [action] = RUNBOOK.trial.propose(facts(rights=rights(**changes)))
        assert (action.before["role"], action.before["acting"]) == (role, acting)
        assert action.before["schema"] == "sandbox_00000000-0000-0000-0000-000000000007"
    with pytest.raises(ArrakisError, match="as whom"):
        RUNBOOK.trial.propose(facts(rights=unknown()))


@pytest.mark.parametrize(
    ("result", "severity"),
    [
        (tried("created in 41 ms, dropped in 12 ms as arrakis_app"), Severity.OK),
        (tried("permission denied", Phase.FAILED), Severity.CRITICAL),
        (tried("a sandbox has that id", Phase.SKIPPED), Severity.UNKNOWN),
        (unknown("another operator holds the lease"), Severity.UNKNOWN),
    ],
)
def test_what_became_of_the_trial_is_told(result: Any, severity: Severity) -> None:
    assert RUNBOOK.trial
    learnt = Known((result.value,)) if isinstance(result, Known) else result
    assert found(RUNBOOK.trial.learn(facts(), learnt), "trial").severity is severity


def test_how_many_things_there_are() -> None:
    assert existing(facts(database=database(session(1), session(2)))) == 2 + 12 + 15
    assert existing(facts(database=unknown())) is None


# ---- how much room there is


def test_a_slot_that_nobody_reads_is_told() -> None:
    slot = Slot(name="old", kind="logical", active=False, status="extended", retained=5 * 2**30)
    assert found(facts(slots=Known((slot,))), "replication slots").severity is Severity.WARNING
    for fine in (replace(slot, active=True), replace(slot, retained=2**20), replace(slot, retained=None)):
        assert found(facts(slots=Known((fine,))), "replication slots").severity is Severity.OK


def test_the_day_on_which_storage_runs_out_is_told() -> None:
    hours = [(NOW - timedelta(hours=6 - hour), (50.0 - hour) * 2**30) for hour in range(7)]
    trend = found(facts(instance=instance(free=tuple(hours))), "storage trend")
    assert "runs out on 2026-03-03, in 44 h" in trend.summary
    assert trend.severity is Severity.WARNING
    spent = [(moment, free - 44 * 2**30) for moment, free in hours]
    over = found(facts(instance=instance(free=tuple(spent))), "storage trend")
    assert (over.summary.endswith("it has run out"), over.severity) == (True, Severity.WARNING)
    steady = [(moment, 50.0 * 2**30) for moment, _ in hours]
    assert found(facts(instance=instance(free=tuple(steady))), "storage trend").severity is Severity.OK


SLOPES = st.floats(-1e10, -1e3)


@given(SLOPES, st.floats(0, 1e12), st.lists(st.integers(1, 10_000), min_size=1, max_size=30, unique=True))
def test_a_straight_line_runs_out_where_it_comes_to_nothing(
    a_day: float, left: float, ages: list[int]
) -> None:
    points = [(NOW - timedelta(minutes=age), left - a_day * age / 1440) for age in [0, *ages]]
    end = runs_out(points, gain=1.0)
    days = left / -a_day
    if days < 365 * 100:
        assert end is not None
        assert abs((end - NOW) / timedelta(days=1) - days) < 0.01 + days * 1e-3
    assert runs_out(points[::-1], gain=1.0) == end


@given(
    st.lists(
        st.tuples(st.datetimes(datetime(2026, 1, 1), datetime(2026, 2, 1)), st.floats(0, 1e13)), max_size=20
    )
)
def test_whatever_the_points_are_it_runs_out_after_the_last_or_never(
    points: list[tuple[datetime, float]],
) -> None:
    end = runs_out(points, gain=1e9)
    assert end is None or end >= max(moment for moment, _ in points)


def test_what_was_before_storage_was_gained_says_nothing() -> None:
    before = [(NOW - timedelta(hours=9 - hour), float(90 - 10 * hour)) for hour in range(9)]
    after = [(NOW, 200.0), (NOW + timedelta(hours=1), 200.0)]
    assert runs_out(before, gain=5) is not None
    assert runs_out([*before, *after], gain=5) is None
    assert runs_out([*before, *after[:1]], gain=5) is None


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('schema "sandbox_1" already exists', "schema-exists"),
        ("Schema creation succeeded but schema not found", "schema-lost"),
    ],
)
def test_what_creating_a_schema_may_meet_is_known(text: str, key: str) -> None:
    cause = match(text)
    assert cause is not None
    assert cause.key == key


def test_the_alarm_that_fires_over_nothing_is_told_calmly() -> None:
    assert found(facts(alarm=alarm("ALARM")), "alarm").severity is Severity.OK
    assert found(facts(alarm=alarm("ALARM"), objects=missing(CREATE)), "alarm").severity is Severity.CRITICAL
