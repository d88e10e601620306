"""RB-SB-006, pure: evidence in; the right cause first, nothing else called one, and what is proposed."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from diagnostics.indexes import Progress
from diagnostics.load import Metric
from diagnostics.reach import Reach
from runbooks.engine.environment import resolve
from runbooks.engine.model import Finding, Reversibility, Severity
from runbooks.engine.operate import Diagnosis
from runbooks.rb_sb_006 import RUNBOOK, diagnose, existing, outlook, propose
from runbooks.remedies.sessions import Unheeded, Why
from runbooks.reports import terminal
from runbooks.slowness.evidence import Evidence
from sandbox.errors import Busy, Denied, Unreachable
from sandbox.facts import Known, Unknown
from tests.unit.slowness import (
    NOW,
    database,
    healthy,
    indexes,
    latency,
    load,
    node,
    plan,
    session,
    slow_command,
    state,
    table,
    timed,
    waiting,
)

ADDRESSES = {
    "REDIS_URL": "redis://127.0.0.1/0",
    "NATS_URL": "nats://127.0.0.1:4222",
    "AWS_DEFAULT_REGION": "eu-central-1",
}
LOCKED = Unknown("PostgreSQL could not take the lock", "", Busy("PostgreSQL could not take the lock"))
SCRIPT = Unknown("a script blocks it", "", Busy("a script blocks it"))
SILENT = Unknown("no answer within 4 s")
IDLE = session(7, idle=timedelta(minutes=30))
BARRED: dict[str, Any] = {
    "waiting": waiting(IDLE, session(8, 7), locks=((7, True),)),
    "plans": LOCKED,
    "indexes": LOCKED,
}


def scan(condition: str, rows: float = 50_000.0) -> Any:
    return Known((plan(node("Seq Scan", condition=condition, removed=rows), execution=20.0),))


STATUS = "(status = ANY ('…'::sandbox_status[]))"
STALE = table(believed=16.0, modified=199_984)
MISLED = Known((plan(node(planned=150_000.0, seen=12.0), execution=60.0),))


def causes(evidence: Evidence) -> list[str]:
    found = diagnose(evidence)
    named = [each.summary for each in found if each.check == "cause"]
    assert [each.check for each in found[: len(named)]] == ["cause"] * len(named)
    return named


def wrong(evidence: Evidence) -> Mapping[str, Severity]:
    return {each.check: each.severity for each in diagnose(evidence) if each.severity is not Severity.OK}


def proposed(evidence: Evidence) -> list[tuple[str, str, str]]:
    actions, _ = propose(evidence)
    return [(each.id, each.verb, each.resource.id) for each in actions]


def left(evidence: Evidence) -> list[str]:
    return [each.summary for each in propose(evidence)[1]]


def finding(evidence: Evidence, check: str) -> Finding:
    return next(each for each in diagnose(evidence) if each.check == check)


def test_nothing_is_wrong_with_what_is_well() -> None:
    assert wrong(healthy()) == {}
    assert propose(healthy()) == ([], [])
    assert [each.severity for each in outlook(healthy())] == [Severity.OK]
    assert existing(healthy()) == 3 + 12 + 2
    assert all(each.source for each in diagnose(healthy()))


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        (
            BARRED,
            "session 7 of ada (psql), idle in transaction for 30 min, keeps readers from sandboxes: 1 session waits",
        ),
        # A DDL that waits for a reader's transaction stops all others: the reader is to blame.
        (
            {"waiting": waiting(IDLE, session(8, 7), session(9, 8), locks=((7, False), (8, False)))},
            "session 7 of ada (psql), idle in transaction for 30 min, keeps readers from sandboxes: 2 sessions wait",
        ),
        ({"waiting": waiting(locks=((0, True),))}, "a prepared transaction keeps readers from sandboxes"),
        ({"waiting": waiting(locks=((44, True),))}, "process 44 keeps readers from sandboxes"),
        (
            {"latency": latency(*[300.0] * 5), "slow_commands": Known([slow_command()])},
            "Redis keeps its clients waiting: half of the PINGs take over 300 ms, blocked by EVAL",
        ),
        (
            {"latency": latency(*[0.2] * 99, 260.0), "slow_commands": Known([slow_command()])},
            "Redis keeps its clients waiting: a PING took 260 ms, blocked by EVAL",
        ),
        (
            {"latency": latency(*[0.2] * 60, 240.0, 240.0), "slow_commands": Known([slow_command()])},
            "Redis keeps its clients waiting: a PING took 240 ms, blocked by EVAL",
        ),
        (
            {
                "latency": latency(*[300.0] * 5),
                "slow_commands": Known(
                    [replace(slow_command(), command="SCAN", seconds=0.012), slow_command()]
                ),
            },
            "Redis keeps its clients waiting: half of the PINGs take over 300 ms, blocked by EVAL",
        ),
        (
            {
                "latency": latency(*[60.0] * 5),
                "slow_commands": Known([replace(slow_command(), command="SCAN", seconds=0.012)]),
            },
            "Redis keeps its clients waiting: half of the PINGs take over 60 ms, and its SLOWLOG names no command for it",
        ),
        (
            {"latency": latency(*[60.0] * 5)},
            "Redis keeps its clients waiting: half of the PINGs take over 60 ms, and its SLOWLOG names no command for it",
        ),
        # The newest of the slow commands need not be the one that blocks, nor any of them.
        (
            {"latency": latency(*[60.0] * 5), "slow_commands": Known([slow_command(0.011)])},
            "Redis keeps its clients waiting: half of the PINGs take over 60 ms, and its SLOWLOG names no command for it",
        ),
        (
            {
                "latency": latency(*[60.0] * 5),
                "slow_commands": Known([replace(slow_command(0.011), command="GET x"), slow_command(0.9)]),
            },
            "Redis keeps its clients waiting: half of the PINGs take over 60 ms, blocked by EVAL",
        ),
        (
            {"indexes": indexes("idx_sandboxes_status"), "plans": scan(STATUS)},
            f"index idx_sandboxes_status is missing: every look-up reads all 50,001 rows of sandboxes for 1: "
            f"no index is used for {STATUS}",
        ),
        (
            {
                "indexes": indexes(idx_sandboxes_owner={"valid": False}),
                "plans": scan("((owner)::text = '…'::text)"),
            },
            "index idx_sandboxes_owner is invalid: every look-up reads all 50,001 rows of sandboxes for 1: "
            "no index is used for ((owner)::text = '…'::text)",
        ),
        (
            {"tables": Known((STALE,)), "plans": MISLED},
            "the statistics of sandboxes are stale, and mislead the planner",
        ),
        (
            {"database": database(load("db.t2.micro", throttled=True, CPUCreditBalance=0.2))},
            "arrakis has used up its CPU credits: a db.t2.micro gets its baseline and no more",
        ),
        (
            {"nats": Known(Reach(system="NATS", host="n:4222", connected_ms=400, answered_ms=800))},
            "the network: a TCP connection to NATS takes 400 ms from here",
        ),
        (
            {"timed": timed(keys=3.5), "state": state(keys=5_000_000)},
            "Redis has 5,000,000 keys, and the status command goes through all of them to count a sandbox's",
        ),
    ],
)
def test_a_cause_that_was_seen_is_named_first_and_nothing_else_is_called_one(
    changes: dict[str, Any], cause: str
) -> None:
    assert causes(healthy(**changes)) == [f"cause: {cause}"]
    assert outlook(healthy(**changes))[0].summary == f"cause: {cause}"


@pytest.mark.parametrize(
    ("changes", "severity"),
    [
        # A lock that is held for a moment is work, as is a wait for anything but the control tables.
        ({"waiting": waiting(session(7, transaction_since=NOW - timedelta(seconds=1)), locks=((7, True),))}, {}),
        ({"waiting": waiting(session(7), session(8, 7))}, {"waiting": "warning"}),
        ({"waiting": waiting(session(7), session(8, 7, statement_since=NOW))}, {}),
        # A single PING that nothing on the server explains may have been this host's.
        ({"latency": latency(*[0.2] * 99, 400.0)}, {}),
        ({"latency": latency(*[0.2] * 99, 400.0), "slow_commands": Known([slow_command(ago=timedelta(minutes=2))])}, {}),
        ({"slow_commands": Known([slow_command()])}, {}),
        # Nobody feels an index that a small table, or no statement, would use.
        ({"indexes": indexes("idx_sandboxes_status")}, {"index": "warning"}),
        ({"indexes": indexes("idx_sandboxes_status"), "plans": scan(STATUS, 9_000.0)}, {"index": "warning"}),
        ({"indexes": indexes("idx_sandboxes_owner"), "plans": scan(STATUS)}, {"index": "warning"}),
        ({"plans": scan(STATUS)}, {}),
        ({"tables": Known((STALE,))}, {"statistics": "warning"}),
        ({"tables": Known((table(believed=1.0, live=9_000, modified=9_000),))}, {}),
        ({"plans": MISLED}, {}),
        # What had to come from disk came from there whatever the planner believed.
        ({"tables": Known((STALE,)), "plans": Known((plan(node(read=5_000), execution=60.0),))}, {"statistics": "warning"}),
        ({"tables": Known((table(autovacuum_off=True),))}, {"statistics": "warning"}),
        ({"state": state(used_memory=95 * 2**20)}, {"Redis state": "warning"}),
        ({"state": state(clients=950)}, {"Redis state": "warning"}),
        ({"state": state(most_memory=None, most_clients=None)}, {}),
        ({"timed": timed(keys=3.5)}, {"status command": "warning"}),
        ({"timed": timed(keys=6.0)}, {"status command": "critical"}),
        ({"timed": timed(events=None)}, {"status command": "unknown"}),
        ({"postgres": Known(Reach(system="PostgreSQL", host="d:1", connected_ms=2, answered_ms=1600))}, {"PostgreSQL": "warning"}),
        ({"indexes": indexes(sandboxes_name_unique={"definition": "CREATE INDEX sandboxes_name_unique ON public.sandboxes USING hash (name)"})}, {"index": "warning"}),
        ({"indexes": indexes(idx_sandboxes_owner={"bytes": 900 * 2**20, "needed": 100 * 2**20})}, {"index": "warning"}),
        ({"indexes": indexes(idx_sandboxes_owner={"bytes": 40 * 2**20, "needed": 2**20})}, {}),
        ({"indexes": indexes(idx_sandboxes_owner={"name": "by_owner", "definition": "CREATE INDEX by_owner ON sandboxes USING btree (owner)"})}, {}),
        ({"plans": Known((plan(node("Sort", spilled_kb=9), execution=600.0),))}, {"plan": "warning"}),
    ],
)  # fmt: skip
def test_what_is_no_cause_is_told_as_what_it_is(changes: dict[str, Any], severity: dict[str, str]) -> None:
    assert causes(healthy(**changes)) == []
    assert wrong(healthy(**changes)) == severity


def test_credits_that_are_spent_in_unlimited_mode_cost_money_and_no_time() -> None:
    spent = healthy(database=database(load(CPUCreditBalance=0.0)))
    assert causes(spent) == []
    assert finding(spent, "load").severity is Severity.WARNING
    assert "which cost" in finding(spent, "load").summary
    busy = healthy(database=database(load("db.m6g.large", CPUUtilization=97, CPUCreditBalance=0.0)))
    assert finding(busy, "load").severity is Severity.WARNING
    assert "used up" not in finding(busy, "load").summary


def test_a_load_that_cannot_be_read_is_unknown_and_one_that_nobody_publishes_is_said_to_be() -> None:
    unread = finding(healthy(database=database(load())), "load")
    assert (unread.severity, "cannot be read" in unread.summary) == (Severity.UNKNOWN, True)
    silent = replace(load(), metrics={"DBLoad": Metric(name="DBLoad", points=())})
    told = finding(healthy(database=database(silent)), "load")
    assert told.summary == "arrakis is a db.t4g.medium: nobody publishes how hard it works"


def test_a_part_of_the_load_that_cannot_be_read_is_unknown() -> None:
    half = replace(load(CPUUtilization=5), unread=("CPUCreditBalance",))
    seen = finding(healthy(database=database(half)), "load")
    assert seen.severity is Severity.UNKNOWN
    assert seen.summary.endswith("CPU 5 %; CPUCreditBalance cannot be read")


def test_rows_that_were_not_counted_since_a_reset_are_not_called_none() -> None:
    seen = finding(healthy(tables=Known((table(live=5, modified=5, analyzed_at=None),))), "statistics")
    assert seen.severity is Severity.WARNING
    assert "sandboxes was not counted since the statistics were reset" in seen.summary
    emptied = finding(
        healthy(tables=Known((table(live=5, modified=199_995, analyzed_at=None),))), "statistics"
    )
    assert "sandboxes has 5 rows" in emptied.summary


def test_a_strangers_name_is_no_command_where_a_source_is_pasted() -> None:
    odd = replace(timed(keys=3.5).value, sandbox="a;reboot")
    slow = diagnose(healthy(timed=Known(odd), state=state(keys=5_000_000)))
    told = [each.source for each in slow if "reboot" in each.source]
    assert told == ["time gaib sandbox status 'a;reboot'"] * 2


def test_two_causes_at_once_are_both_named_the_deeper_one_first() -> None:
    both = healthy(**BARRED, latency=latency(*[300.0] * 5), slow_commands=Known([slow_command()]))
    first, second = causes(both)
    assert "session 7" in first
    assert "Redis" in second


def test_an_index_and_statistics_are_both_to_blame_only_where_each_is_seen() -> None:
    wide = node(planned=150_000.0, seen=12.0)
    waste = node("Seq Scan", condition=STATUS, removed=50_000.0)
    changes: dict[str, Any] = {"indexes": indexes("idx_sandboxes_status"), "tables": Known((STALE,))}
    one = healthy(**changes, plans=Known((plan(waste, execution=60.0),)))
    both = healthy(**changes, plans=Known((plan(node("Append", children=(waste, wide)), execution=60.0),)))
    assert ["statistics" in each for each in causes(one)] == [False]
    assert ["statistics" in each for each in causes(both)] == [False, True]
    assert proposed(both) == [
        ("a1", "create index", "idx_sandboxes_status"),
        ("a2", "analyze table", "sandboxes"),
    ]


def test_a_script_that_blocks_redis_is_one_cause_and_nothing_of_redis_is_unknown() -> None:
    asked = dict.fromkeys(("latency", "state", "slow_commands", "latency_events"), SCRIPT)
    refused = Unknown("TCP connects, but the question fails", "", Unreachable("x"))
    blocked = healthy(**asked, redis=refused, timed=timed(routes=None, keys=None))
    assert causes(blocked) == ["cause: a script blocks Redis: it answers BUSY to everybody"]
    assert Severity.UNKNOWN not in {each.severity for each in diagnose(blocked)}
    assert propose(blocked) == ([], [])


def test_what_a_lock_hides_is_no_wonder_and_only_the_lock_is_dealt_with() -> None:
    barred = healthy(**BARRED, tables=Known((STALE,)))
    assert wrong(barred)["plans"] == wrong(barred)["indexes"] == Severity.WARNING
    assert proposed(barred) == [("a1", "end session", "7")]
    assert left(barred) == ["left alone: indexes and statistics are for the next run: the tables are locked"]
    [drawn] = [each.evidence["drawn"] for each in diagnose(barred) if each.check == "cause"]
    assert drawn[2:] == ["└─ 8 ada (psql): waits for 5 min", "      SELECT 8"]
    assert wrong(healthy(plans=LOCKED, indexes=LOCKED)) == dict.fromkeys(
        ("plans", "indexes"), Severity.UNKNOWN
    )


@pytest.mark.parametrize(
    ("seen", "verb", "why"),
    [
        ((IDLE, session(8, 7)), "end session", "others wait for it"),
        ((session(7), session(8, 7)), "cancel query", "others wait for it"),
        ((IDLE, session(8, 7, ours=True)), "end session", "idle in transaction for more than 10 minutes"),
    ],
)
def test_the_root_is_cancelled_or_ended(seen: tuple[Any, ...], verb: str, why: str) -> None:
    [action], _ = propose(healthy(waiting=waiting(*seen, locks=((7, True),))))
    assert (action.verb, action.resource.id, action.before["why"]) == (verb, "7", why)
    assert action.reversibility is Reversibility.IRREVERSIBLE


def test_a_statement_that_was_cancelled_in_vain_is_ended_with_its_session() -> None:
    root, run = session(7), "rb-sb-006-20260301-115900-ab12"
    moments: dict[str, Any] = {"backend_start": root.backend_start, "statement_since": root.statement_since}
    told = Unheeded(pid=7, told_at=NOW - timedelta(minutes=1), run=run, **moments)
    seen = healthy(waiting=waiting(root, session(8, 7), locks=((7, True),)), unheeded=Known((told,)))
    [action], _ = propose(seen)
    assert (action.verb, action.before["why"]) == ("end session", Why.UNHEEDED)
    assert action.reason.endswith(f"run {run} cancelled its statement at 2026-03-01T11:59Z, and it runs on")
    another = replace(told, statement_since=NOW - timedelta(minutes=6))
    [action], _ = propose(replace(seen, unheeded=Known((another,))))
    assert action.verb == "cancel query"
    assert action.reason.endswith("if that does not help, run this again to end it")
    [action], _ = propose(replace(seen, unheeded=SILENT))
    assert action.verb == "cancel query"
    assert "whether it was cancelled before cannot be told" in action.reason


@pytest.mark.parametrize(
    ("root", "why"),
    [
        (
            replace(IDLE, superuser=True),
            "ada is a superuser; whoever may ends it: SELECT pg_terminate_backend(7)",
        ),
        (replace(IDLE, ours=True), "it is this toolkit's own"),
        (replace(IDLE, may_signal=False), "this role may signal no session of ada"),
        (replace(IDLE, state="?"), "it is neither at work nor idle in a transaction"),
    ],
)
def test_a_root_that_is_not_ours_to_end_is_left_alone_with_the_reason(root: Any, why: str) -> None:
    barred = healthy(waiting=waiting(root, session(8, 7), locks=((7, True),)))
    assert proposed(barred) == []
    assert why in left(barred)[0]


def test_a_lock_that_nobody_but_this_look_waits_for_is_left_to_a_person() -> None:
    young = session(7, idle=timedelta(minutes=5))
    barred = healthy(waiting=waiting(young, session(8, 7, ours=True), locks=((7, True),)))
    assert causes(barred) == [
        "cause: session 7 of ada (psql), idle in transaction for 5 min, keeps readers from sandboxes"
    ]
    assert proposed(barred) == []
    assert "nobody else waits for it" in left(barred)[0]


def test_nothing_is_proposed_while_it_is_not_known_who_holds_the_tables() -> None:
    blind = healthy(waiting=SILENT, indexes=indexes("idx_sandboxes_status"), tables=Known((STALE,)))
    assert proposed(blind) == []
    assert left(blind) == ["left alone: who holds the control tables is not known"]


def test_missing_indexes_are_made_and_invalid_ones_dropped_before() -> None:
    found = indexes("idx_sandboxes_status", "sandboxes_name_unique", idx_sandboxes_owner={"ready": False})
    actions, told = propose(healthy(indexes=found))
    made = {each.resource.id: each for each in actions}
    assert set(made) == {"idx_sandboxes_status", "sandboxes_name_unique", "idx_sandboxes_owner"}
    assert [each for each, action in made.items() if action.before["leftover"]] == ["idx_sandboxes_owner"]
    assert made["sandboxes_name_unique"].after == {
        "definition": "CREATE UNIQUE INDEX sandboxes_name_unique ON public.sandboxes USING btree (name)"
    }
    assert {each.reversibility for each in actions} == {Reversibility.REVERSIBLE}
    assert told == []


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (indexes("sandboxes_pkey"), "a primary key"),
        (indexes(sandboxes_name_unique={"valid": False}), "REINDEX INDEX CONCURRENTLY public.sandboxes_name_unique"),
        (
            indexes(idx_sandboxes_owner={"valid": False, "definition": "CREATE INDEX idx_sandboxes_owner ON x USING hash (owner)"}),
            "REINDEX INDEX CONCURRENTLY public.idx_sandboxes_owner",
        ),
    ],
)  # fmt: skip
def test_an_index_that_is_not_for_us_to_make_is_left_alone(found: Any, why: str) -> None:
    assert proposed(healthy(indexes=found)) == []
    assert why in left(healthy(indexes=found))[0]


def progress(index: str | None, table: str = "sandboxes") -> Known[tuple[Progress, ...]]:
    made = Progress(table=table, index=index, pid=9, phase="building index", done=4, total=9, waits_for=None)
    return Known((made,))


def test_an_index_that_is_being_made_is_no_leftover() -> None:
    name = "idx_sandboxes_status"
    unready = healthy(indexes=indexes(**{name: {"valid": False}}), building=progress(name))
    told = "session 9 makes it (building index 40 %)"
    felt = replace(unready, plans=scan(STATUS))
    assert causes(felt)[0].startswith(f"cause: index {name} is not ready yet: {told}: every look-up reads")
    assert finding(unready, "index").summary.startswith(f"index {name} is not ready yet: {told}; ")
    for seen in (unready, felt):
        assert proposed(seen) == []
        assert left(seen) == [
            f"left alone: {name}: session 9 makes it at this moment (building index 40 %): wait for it"
        ]


@pytest.mark.parametrize(
    ("building", "told"),
    [
        (progress("by_hand"), "session 9 makes by_hand on its table at this moment"),
        (progress(None), "session 9 makes an index on its table at this moment"),
        (SILENT, "cannot tell whether idx_sandboxes_status is being made just now: no answer within 4 s"),
    ],
)
def test_none_is_made_beside_another_on_its_table(building: Any, told: str) -> None:
    seen = healthy(indexes=indexes("idx_sandboxes_status", "idx_sandbox_audit_log_type"), building=building)
    elsewhere = [] if building is SILENT else [("a1", "create index", "idx_sandbox_audit_log_type")]
    assert proposed(seen) == elsewhere
    assert told in left(seen)[0]
    unknown = Severity.UNKNOWN in {each.severity for each in propose(seen)[1]}
    assert unknown is (building is SILENT)
    assert finding(seen, "index").summary.startswith("index idx_sandboxes_status is missing")


def test_what_somebody_makes_beside_the_migrations_is_not_to_be_dropped() -> None:
    mine = replace(
        indexes().value[0], name="by_hand", definition="CREATE INDEX by_hand", valid=False, constraint=None
    )
    odd = healthy(indexes=Known((*indexes().value, mine)))
    assert "DROP INDEX CONCURRENTLY it" in finding(odd, "index").summary
    assert wrong(replace(odd, building=progress("by_hand"))) == {}


SOURCES = {
    "timed": "status command",
    "plans": "plans",
    "indexes": "indexes",
    "tables": "statistics",
    "waiting": "waiting",
    "latency": "Redis latency",
    "state": "Redis state",
    "slow_commands": "slow commands",
    "latency_events": "latency events",
    "database": "RDS",
    "cache": "ElastiCache",
    "postgres": "PostgreSQL",
    "redis": "Redis",
    "nats": "NATS",
}


@pytest.mark.parametrize(("source", "check"), SOURCES.items())
def test_what_does_not_answer_is_unknown_and_each_for_itself(source: str, check: str) -> None:
    denied = healthy(**{source: Unknown("no permission", "", Denied("no permission"))})
    silent = healthy(**{source: SILENT})
    for seen in (denied, silent):
        assert wrong(seen)[check] is Severity.UNKNOWN
        assert set(wrong(seen)) <= {check, "cause"}
    assert proposed(silent) == []
    assert (existing(silent) is None) is (source == "waiting")


def test_a_server_that_does_not_answer_is_a_cause_and_unknown() -> None:
    for source, name in {"postgres": "PostgreSQL", "redis": "Redis", "nats": "NATS"}.items():
        dead = healthy(
            **{source: Unknown(f"{name} at x: no TCP connection: connection refused", "", Unreachable("x"))}
        )
        [cause] = causes(dead)
        assert name in cause
        assert finding(dead, name).severity is Severity.UNKNOWN


def test_sessions_that_are_hidden_are_said_to_be() -> None:
    hidden = healthy(waiting=waiting(session(1, state="?"), session(2)))
    assert finding(hidden, "waiting").severity is Severity.OK
    assert "what 1 of them do is hidden" in finding(hidden, "waiting").summary
    waits = healthy(waiting=waiting(session(1, state="?"), session(2, 1)))
    assert {each.severity for each in diagnose(waits) if each.check == "waiting"} == {
        Severity.WARNING,
        Severity.UNKNOWN,
    }


def test_each_step_is_told_with_its_share_and_the_slow_one_is_named() -> None:
    seen = finding(healthy(timed=timed(lookup=1.5, keys=None)), "status command")
    assert seen.summary == "the status of box takes 5.50 s, most of it the keys; over 5 s is an incident"
    assert seen.evidence["details"] == [
        "look-up: 1500 ms (27%): well",
        "routes: 10 ms (0%): well",
        "keys: cannot tell: no answer within 4 s",
        "events: 30 ms (1%): well",
    ]


def test_what_is_drawn_keeps_its_shape_on_a_terminal() -> None:
    environment = resolve(None, {"DATABASE_URL": "postgresql://lab@127.0.0.1/x"} | ADDRESSES, Path(), Path())
    found = Diagnosis(
        at=NOW,
        by="ada@host",
        runbook=RUNBOOK,
        environment=environment,
        findings=tuple(diagnose(healthy(**BARRED))),
        plan=None,
    )
    lines = terminal.diagnosis(found, colour=False, width=80).splitlines()
    root = lines.index("         7 ada (psql): idle in transaction for 30 min")
    assert lines[root + 1 : root + 4] == [
        "         │  SELECT 7",
        "         └─ 8 ada (psql): waits for 5 min",
        "               SELECT 8",
    ]


def test_pings_are_drawn_as_a_histogram_within_a_terminal_of_80() -> None:
    seen = finding(healthy(latency=latency(0.2, 0.2, 0.3, 3.0)), "Redis latency")
    lines = seen.evidence["drawn"]
    assert [line.split()[:3] for line in lines] == [[sign, most, "ms"] for sign, most in (("≤", "0.25"), ("≤", "0.5"), ("≤", "1"), ("≤", "2.5"), ("≤", "5"))]  # fmt: skip
    assert [int(line.split()[-1]) for line in lines] == [2, 1, 0, 0, 1]
    assert max(map(len, lines)) == 71
    assert seen.summary == "4 PINGs: p50 0.3, p95 3.0, p99 3.0, max 3.0 ms"


def test_a_slow_ping_that_nothing_at_the_server_explains_is_no_cause() -> None:
    seen = healthy(latency=latency(*[0.2] * 18, 390.0, 400.0), slow_commands=Known([]))
    assert [each for each in diagnose(seen) if each.check == "cause"] == []
    assert finding(seen, "Redis latency").severity is Severity.OK
