"""Events do not reach sandboxes: facts in, findings and actions out."""

import math
import shlex
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.circling import Circling
from diagnostics.routes import Fault, Routes
from runbooks.engine.model import Action, Finding, Phase, Resource, Reversibility, Severity
from runbooks.engine.work import Result
from runbooks.options import one_way
from runbooks.rb_sb_004 import RUNBOOK, diagnose, existing, learn, outlook, propose, try_canary
from runbooks.routing.evidence import Asked, Evidence, Heard, Workers
from sandbox.errors import ArrakisError, Denied, Unreachable
from sandbox.facts import Known, Unknown
from sandbox.model import Status
from sandbox.routes import NOWHERE
from sandbox.streams import from_plain
from tests.unit.evidence import NOW, alarm, group, log, row, service, task, unknown
from tests.unit.routing import (
    EVENTS,
    ROUTER,
    SANDBOX,
    WORKERS,
    cached,
    consumer_state,
    event,
    healthy,
    messaging,
    routes,
    stream_state,
    way,
    wrong,
)

DEAD = Unknown("NATS at n:4222: no TCP connection: ECONNREFUSED", "", Unreachable("refused"))
NARROW = stream_state(replace(SANDBOX, subjects=("sandbox.*.events.guild.>",), replicas=1))
LOOP = Known(
    Circling(
        read=90,
        events=9,
        circling=2,
        copies=30,
        subject="events.x",
        period=timedelta(0, 0.06),
        guilds=frozenset({"9"}),
    )
)
IDLE = consumer_state(ROUTER, pending=9)
NO_TASK = service(running=0, desired=2)


def workers(running: Any = None, *tasks: Any) -> Known[Workers]:
    """Return the worker service with these tasks."""
    return Known(Workers(service=running or service(), tasks=tasks))


def causes(evidence: Evidence) -> list[str]:
    """The causes, which have to come first; nothing after them is critical but the alarm and hops."""
    findings = diagnose(evidence)
    told = [each.summary.removeprefix("cause: ") for each in findings if each.check == "cause"]
    assert [each.check for each in findings[: len(told)]] == ["cause"] * len(told)
    others = {each.check for each in findings[len(told) :] if each.severity is Severity.CRITICAL}
    assert others <= {"alarm", "hop"}
    return told


def verbs(evidence: Evidence) -> list[tuple[str, str]]:
    """What is proposed for what."""
    return [(each.verb, each.resource.id) for each in propose(evidence)[0]]


def left_alone(evidence: Evidence) -> list[str]:
    """Why what is wrong is left alone."""
    return [each.summary for each in propose(evidence)[1]]


def of(check: str, findings: list[Finding]) -> list[Finding]:
    """The findings of a check."""
    return [each for each in findings if each.check == check]


def test_nothing_wrong_is_healthy_and_nothing_is_proposed() -> None:
    findings = diagnose(healthy())
    assert [each for each in findings if each.severity is not Severity.OK] == []
    assert propose(healthy()) == ([], [])
    assert [each.check for each in outlook(healthy())] == ["routing", "routes"]


CASES: list[tuple[dict[str, Any], list[str], list[tuple[str, str]]]] = [
    (
        {"messaging": messaging(SANDBOX=None, WORKERS=None)},
        ["stream SANDBOX is missing"],
        [("create stream", "SANDBOX"), ("create consumer", "sandbox-consumer")],
    ),
    (
        {"messaging": messaging(EVENTS=None, ROUTER=None)},
        ["stream EVENTS is missing"],
        [("create stream", "EVENTS"), ("create consumer", "sandbox-event-router")],
    ),
    (
        {"messaging": messaging(SANDBOX=NARROW)},
        ["stream SANDBOX: it does not take sandbox.>, but sandbox.*.events.guild.>"],
        [("correct stream", "SANDBOX")],
    ),
    (
        {"messaging": messaging(SANDBOX=stream_state(replace(SANDBOX, max_msgs=20, replicas=1)))},
        ["stream SANDBOX: its max_msgs is 20 where 500000 is expected: it throws events away too soon"],
        [("correct stream", "SANDBOX")],
    ),
    (
        {"messaging": messaging(EVENTS=stream_state(replace(EVENTS, retention="workqueue", replicas=1)))},
        [
            "stream EVENTS: its retention is workqueue, expected limits: it throws away what somebody has taken"
        ],
        [],
    ),
    (
        {"messaging": messaging(SANDBOX=stream_state(SANDBOX, messages=500_000, discard="new"))},
        ["stream SANDBOX: it is full (500000 messages) and refuses new ones"],
        [],
    ),
    (
        {
            "messaging": messaging(
                SANDBOX=stream_state(replace(SANDBOX, replicas=3), leader=None, replicas_current=2)
            )
        },
        ["stream SANDBOX: no server leads it"],
        [],
    ),
    (
        {"messaging": messaging(ROUTER=None)},
        ["consumer EVENTS/sandbox-event-router is missing"],
        [("create consumer", "sandbox-event-router")],
    ),
    (
        {
            "messaging": messaging(
                ROUTER=consumer_state(replace(ROUTER, filter_subject="events.a"), waiting_pulls=1)
            )
        },
        ["consumer EVENTS/sandbox-event-router takes events.a, not events.>"],
        [],
    ),
    (
        {"messaging": messaging(ROUTER=IDLE)},
        ["nobody serves sandbox-event-router, though service arrakis-worker runs 2 of 2 tasks"],
        [("restart service", "arrakis-worker")],
    ),
    (
        {"messaging": messaging(ROUTER=IDLE, WORKERS=consumer_state(WORKERS, ack_pending=1))},
        [
            "nobody serves sandbox-event-router and sandbox-consumer, though service arrakis-worker runs 2 of 2 tasks"
        ],
        [("restart service", "arrakis-worker")],
    ),
    (
        {"messaging": messaging(ROUTER=consumer_state(ROUTER, ack_pending=100, waiting_pulls=1))},
        ["sandbox-event-router is stuck: as many events as may be are handed out, and none is acknowledged"],
        [("restart service", "arrakis-worker")],
    ),
    (
        {"workers": workers(NO_TASK), "messaging": messaging(ROUTER=IDLE)},
        ["service arrakis-worker runs none of its 2 tasks"],
        [("restart service", "arrakis-worker")],
    ),
    (
        {"workers": workers(service(running=0, desired=0)), "messaging": messaging(ROUTER=IDLE)},
        ["service arrakis-worker is told to run no task: somebody stopped it"],
        [],
    ),
    (
        {"circling": LOOP},
        ["2 events circle: the EventRouter publishes what belongs to production back into EVENTS"],
        [],
    ),
    (
        {"routes": routes(wrong(1), wrong(2, Fault.NEGATIVE))},
        [
            "the cached routes of 2 guilds are wrong: 1 leads to another sandbox than the table says,"
            " 1 leads to nowhere, though the guild is mapped to a running sandbox"
        ],
        [("delete route", "101"), ("delete route", "102")],
    ),
    (
        {"nats": DEAD, "messaging": DEAD, "circling": DEAD},
        ["NATS cannot be used from here: NATS refuses connections"],
        [],
    ),
]


@pytest.mark.parametrize(("changes", "told", "wanted"), CASES)
def test_the_cause_is_named_first_and_alone_and_mended_where_that_is_safe(
    changes: Mapping[str, Any], told: list[str], wanted: list[tuple[str, str]]
) -> None:
    evidence = healthy(**changes)
    assert causes(evidence) == told
    assert verbs(evidence) == wanted
    assert [each.summary.removeprefix("cause: ") for each in of("cause", outlook(evidence))] == told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"messaging": messaging(SANDBOX=None, WORKERS=None), "routes": routes(wrong(1))},
            ["stream SANDBOX is missing", "the cached routes of 1 guild"],
        ),
        (
            {"messaging": messaging(SANDBOX=NARROW, ROUTER=IDLE), "workers": workers(NO_TASK)},
            ["service arrakis-worker runs none", "stream SANDBOX: it does not take"],
        ),
        (
            {"circling": LOOP, "routes": routes(wrong(1))},
            ["2 events circle", "the cached routes of 1 guild"],
        ),
        (
            {"postgres": Unknown("PostgreSQL at p:5432: connection refused", "", Unreachable("x")), "routes": unknown(),
             "messaging": messaging(ROUTER=consumer_state(ROUTER, ack_pending=100))},
            ["PostgreSQL cannot be used from here"],
        ),
    ],
)  # fmt: skip
def test_of_two_causes_that_which_explains_more_comes_first(
    changes: Mapping[str, Any], told: list[str]
) -> None:
    found = causes(healthy(**changes))
    assert len(found) == len(told)
    assert all(said.startswith(wanted) for said, wanted in zip(found, told, strict=True)), found


def test_a_loop_of_guilds_that_a_negative_route_misleads_is_no_cause_of_its_own() -> None:
    seen = replace(LOOP.value, guilds=frozenset({"101"}))
    misled = healthy(circling=Known(seen), routes=routes(wrong(1, Fault.NEGATIVE)))
    [told] = causes(misled)
    assert "cached routes" in told
    assert "so their events circle in EVENTS: one on events.x came 30 times, every 0.06 s" in str(
        diagnose(misled)[0]
    )
    both = replace(misled, circling=Known(replace(seen, guilds=frozenset({"101", None}))))
    assert len(causes(both)) == 2


def test_a_service_without_a_task_is_no_cause_where_somebody_routes_all_the_same() -> None:
    evidence = healthy(workers=workers(NO_TASK))
    assert causes(evidence) == []
    [found] = of("service", diagnose(evidence))
    assert found.severity is Severity.WARNING
    assert verbs(evidence) == []


def test_a_task_that_keeps_failing_is_not_started_once_more() -> None:
    failed = task(1, stopped_at=NOW - timedelta(seconds=20))
    evidence = healthy(workers=workers(NO_TASK, failed), messaging=messaging(ROUTER=IDLE))
    [cause] = of("cause", diagnose(evidence))
    assert "its last task: sandbox-cleanup exited with 1" in str(cause.evidence["details"])
    assert "arrakis-worker:3" in str(cause.evidence["details"])
    assert verbs(evidence) == []
    assert left_alone(evidence)[0].startswith("arrakis-worker: not restarted: its tasks fail as they start")
    long_ago = replace(failed, stopped_at=NOW - timedelta(minutes=9))
    assert verbs(healthy(workers=workers(NO_TASK, long_ago), messaging=messaging(ROUTER=IDLE))) == [
        ("restart service", "arrakis-worker")
    ]


ROLLING = service(
    deployments=(*service().deployments, replace(service().deployments[0], id="x", status="ACTIVE"))
)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"workers": unknown()}, "nobody can tell what runs it"),
        ({"workers": Known(Workers(service=None, tasks=()))}, "nobody can tell what runs it"),
        ({"workers": workers(service(desired=0, running=0))}, "it is told to run no task"),
        ({"redis": unknown()}, "a server that it needs does not answer"),
        ({"workers": workers(ROLLING)}, "a deployment of it is under way"),
    ],
)
def test_a_service_is_left_alone_where_a_restart_would_not_help(changes: Mapping[str, Any], why: str) -> None:
    evidence = healthy(messaging=messaging(ROUTER=IDLE), **changes)
    assert verbs(evidence) == []
    [told] = left_alone(evidence)
    assert why in told


def test_only_the_routes_are_deleted_that_were_asked_about() -> None:
    here = str(row(1).id)
    seen = healthy(routes=routes(wrong(1), wrong(2), wrong(3, Fault.UNMAPPED, value=here)), way=way())
    assert verbs(seen) == [("delete route", "101")]
    assert left_alone(seen) == [
        "the cached routes of 2 other guilds: nobody asked about them: "
        "rb-sb-004 without --guild or --sandbox proposes to delete them"
    ]
    whole = replace(seen, way=way(whole=True))
    assert verbs(whole) == [("delete route", "101"), ("delete route", "103")]
    assert len(verbs(replace(seen, way=None))) == 3
    assert left_alone(replace(seen, way=None)) == []


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"guild": "1", "sandbox": "box", "canary": False}, "not to be said together"),
        ({"guild": None, "sandbox": None, "canary": True}, "--canary needs a guild or a sandbox"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_read(said: dict[str, Any], why: str) -> None:
    with pytest.raises(ArrakisError, match=why):
        one_way(**said)
    assert one_way(guild="1", sandbox=None, canary=True) == {}


def test_a_consumer_that_is_made_again_says_that_it_hands_out_again_what_its_stream_keeps() -> None:
    [made], _ = propose(healthy(messaging=messaging(ROUTER=None)))
    assert made.reason.startswith(
        "consumer EVENTS/sandbox-event-router is missing; it begins with the oldest"
    )
    assert "what was handed out within the last five minutes is handed out again" in made.reason
    both, _ = propose(healthy(messaging=messaging(EVENTS=None, ROUTER=None)))
    assert [each.reason for each in both] == [
        "stream EVENTS is missing",
        "consumer EVENTS/sandbox-event-router is missing",
    ]


def test_a_stream_is_made_before_a_service_is_restarted() -> None:
    evidence = healthy(messaging=messaging(SANDBOX=None, WORKERS=None, ROUTER=IDLE))
    assert "restart service" not in [verb for verb, _ in verbs(evidence)]
    assert causes(evidence) == ["stream SANDBOX is missing"]


@pytest.mark.parametrize(
    ("looks", "severity"),
    [
        ([consumer_state(ROUTER, push_bound=True)], Severity.OK),
        ([consumer_state(ROUTER, pending=5, delivered=1), consumer_state(ROUTER, pending=4, delivered=2)], Severity.OK),
        ([consumer_state(ROUTER, acknowledged=1), consumer_state(ROUTER, acknowledged=2)], Severity.OK),
        ([consumer_state(ROUTER, waiting_pulls=1), consumer_state(ROUTER)], Severity.OK),
        ([consumer_state(ROUTER, waiting_pulls=1, pending=1_001)], Severity.WARNING),
        ([consumer_state(ROUTER, waiting_pulls=1, ack_pending=20, redelivered=11)], Severity.WARNING),
        ([consumer_state(ROUTER, waiting_pulls=1, ack_pending=0, redelivered=90)], Severity.OK),
        ([consumer_state(replace(ROUTER, max_deliver=9), waiting_pulls=1)], Severity.WARNING),
        (
            [consumer_state(ROUTER, ack_pending=100, acknowledged=1), consumer_state(ROUTER, ack_pending=100, acknowledged=2)],
            Severity.WARNING,
        ),
    ],
)  # fmt: skip
def test_a_consumer_that_moves_is_no_cause_though_it_may_be_slow(
    looks: list[Any], severity: Severity
) -> None:
    evidence = healthy(messaging=messaging(ROUTER=looks))
    assert causes(evidence) == []
    [found, _] = of("consumer", diagnose(evidence))
    assert found.severity is severity
    assert verbs(evidence) == []


def test_nobody_at_the_sandboxes_own_consumer_is_a_cause_once_something_waits() -> None:
    waiting = healthy(messaging=messaging(WORKERS=consumer_state(WORKERS, pending=3)))
    assert causes(waiting) == [
        "nobody serves sandbox-consumer, though service arrakis-worker runs 2 of 2 tasks"
    ]
    assert verbs(waiting) == []
    assert left_alone(waiting) == [
        "sandbox-consumer: it is the sandbox workers' to serve, not the EventRouter's: restart those"
    ]
    nothing = healthy(messaging=messaging(WORKERS=consumer_state(WORKERS)))
    assert causes(nothing) == []
    assert [each.severity for each in of("consumer", diagnose(nothing))] == [Severity.OK, Severity.WARNING]
    assert hops(replace(nothing, way=way()))[5][0] is Severity.WARNING
    assert hops(replace(waiting, way=way()))[5][0] is Severity.CRITICAL


HARMLESS: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"max_msgs": -1}, [("correct stream", "SANDBOX")]),
    ({"max_age": timedelta(minutes=10)}, [("correct stream", "SANDBOX")]),
    ({"subjects": ("sandbox.>", "extra.>")}, [("correct stream", "SANDBOX")]),
    ({"storage": "file"}, []),
]


@pytest.mark.parametrize(("changes", "wanted"), HARMLESS)
def test_drift_that_loses_nothing_is_a_warning(
    changes: dict[str, Any], wanted: list[tuple[str, str]]
) -> None:
    evidence = healthy(messaging=messaging(SANDBOX=stream_state(replace(SANDBOX, replicas=1, **changes))))
    assert causes(evidence) == []
    found = of("stream", diagnose(evidence))[1]
    assert found.severity is Severity.WARNING
    assert f"{next(iter(changes))} is" in found.summary
    assert verbs(evidence) == wanted
    assert bool(left_alone(evidence)) is not bool(wanted)


def test_replicas_count_where_they_are_laid_down() -> None:
    def seen(replicas: int | None, **more: Any) -> Evidence:
        three = messaging(SANDBOX=stream_state(replace(SANDBOX, replicas=3), **more)).value
        first, second = three.streams
        second = replace(second, expected=replace(SANDBOX, replicas=replicas))
        return healthy(messaging=Known(replace(three, streams=(first, second))))

    assert propose(seen(None)) == ([], [])
    assert [each.before["fields"] for each in propose(seen(1))[0]] == [["replicas"]]
    behind = diagnose(seen(3, replicas_current=2))
    assert "1 of its 3 copies are not up to date" in str(of("stream", behind)[1])
    assert causes(seen(3, replicas_current=2)) == []


def test_a_stream_is_made_as_configured_or_as_the_other_one_is() -> None:
    def made(stack_replicas: int | None, others: int) -> Any:
        there = stream_state(replace(EVENTS, replicas=others))
        evidence = healthy(messaging=messaging(SANDBOX=None, EVENTS=there))
        evidence = replace(evidence, stack=replace(evidence.stack, stream_replicas=stack_replicas))
        return from_plain(propose(evidence)[0][0].after["config"])

    assert made(3, 1) == replace(SANDBOX, replicas=3)
    assert made(None, 5) == replace(SANDBOX, replicas=5)
    nothing = healthy(messaging=messaging(SANDBOX=None, EVENTS=None, ROUTER=None, WORKERS=None))
    actions = propose(nothing)[0]
    assert [each.resource.id for each in actions] == [
        "EVENTS",
        "SANDBOX",
        "sandbox-event-router",
        "sandbox-consumer",
    ]
    assert {each.reversibility for each in actions} == {Reversibility.REVERSIBLE}
    assert from_plain(actions[1].after["config"]) == replace(SANDBOX, replicas=1)


@pytest.mark.parametrize(
    ("has", "now", "lost"),
    [
        ({"max_age": timedelta(hours=1)}, {"messages": 3, "oldest": NOW - timedelta(minutes=6)}, True),
        ({"max_age": timedelta(hours=1)}, {"messages": 3, "oldest": NOW - timedelta(minutes=4)}, False),
        ({"max_msgs": -1}, {"messages": 500_001}, True),
        ({"max_msgs": -1}, {"messages": 500_000}, False),
        ({"max_msgs": 7}, {"messages": 7}, False),
    ],
)
def test_what_a_correction_would_throw_away_cannot_be_undone(
    has: dict[str, Any], now: dict[str, Any], lost: bool
) -> None:
    state = stream_state(replace(SANDBOX, replicas=1, **has), **now)
    [action] = propose(healthy(messaging=messaging(SANDBOX=state)))[0]
    assert action.reversibility is (Reversibility.IRREVERSIBLE if lost else Reversibility.REVERSIBLE)
    assert ("thrown away" in action.reason) is lost
    assert from_plain(action.before["config"]) == state.config
    assert from_plain(action.after["config"]) == replace(SANDBOX, replicas=1)


def test_a_route_keeps_what_is_needed_to_put_it_back() -> None:
    evidence = healthy(
        routes=routes(wrong(1, value=NOWHERE, left=12.5), wrong(2, Fault.LASTING, left=math.inf))
    )
    first, second = propose(evidence)[0]
    assert first.before == {"guild": "101", "value": NOWHERE, "seconds_left": 12.5}
    assert first.reason.endswith("it ends by itself in 12 s")
    assert second.before["seconds_left"] is None
    assert [first.id, second.id] == ["a1", "a2"]
    assert first.reversibility is Reversibility.REVERSIBLE


def test_a_route_that_is_right_and_lasts_is_a_warning_and_no_cause() -> None:
    evidence = healthy(routes=routes(wrong(2, Fault.LASTING, left=math.inf)))
    assert causes(evidence) == []
    [found] = of("routes", diagnose(evidence))
    assert found.severity is Severity.WARNING
    assert found.evidence["details"] == ["guild 102 never ends"]
    assert verbs(evidence) == [("delete route", "102")]


def test_missing_routes_are_normal_and_counted() -> None:
    [found] = of("routes", diagnose(healthy()))
    assert found.severity is Severity.OK
    assert (
        found.summary
        == "10 guilds are routed to sandboxes; 9 routes are cached, 1 are cached at the guild's next event"
    )


def test_what_is_beyond_a_full_stream_is_thrown_away_too_soon() -> None:
    full = stream_state(replace(EVENTS, replicas=1), messages=500_000, oldest=NOW - timedelta(minutes=1))
    evidence = healthy(messaging=messaging(EVENTS=full))
    assert causes(evidence) == []
    [found, _] = of("stream", diagnose(evidence))
    assert found.severity is Severity.WARNING
    assert "full: what comes in throws the oldest away, before its 0:05:00 are over" in found.summary


UNKNOWNS = [
    "alarm",
    "nats",
    "postgres",
    "redis",
    "workers",
    "messaging",
    "circling",
    "routes",
    "errors",
    "cache",
]


@pytest.mark.parametrize("name", UNKNOWNS)
def test_what_cannot_be_told_is_unknown_and_nothing_is_done_about_it(name: str) -> None:
    changes: dict[str, Any] = {name: unknown("no answer within 7 s")}
    evidence = healthy(**changes)
    assert Severity.UNKNOWN in {each.severity for each in diagnose(evidence)}
    assert propose(evidence)[0] == []
    assert causes(evidence) == ([] if name not in ("nats", "postgres", "redis") else causes(evidence))


def test_who_listens_besides_is_unknown_where_nats_does_not_say() -> None:
    severity, told = hops(healthy(way=way(heard=unknown())))[5]
    assert severity is Severity.UNKNOWN
    assert "sandbox-consumer is served, nothing waits; cannot tell who listens besides" in told


def test_an_outlook_that_cannot_be_told_says_so() -> None:
    assert [each.severity for each in outlook(healthy(routes=unknown()))] == [Severity.UNKNOWN]


def test_the_alarm_is_as_bad_as_what_is_found() -> None:
    firing = Known(replace(alarm(), state="ALARM"))
    [quiet] = of("alarm", diagnose(healthy(alarm=firing)))
    assert (quiet.severity, "events are routed" in quiet.summary) == (Severity.OK, True)
    for changes in ({"circling": LOOP}, {"messaging": unknown()}):
        [loud] = of("alarm", diagnose(healthy(alarm=firing, **changes)))
        assert loud.severity is Severity.CRITICAL


LINES: list[tuple[str, dict[str, Any], Severity, str]] = [
    ("Failed to route event: NatsError 503: 503", {}, Severity.OK, "ruled out now"),
    (
        "Failed to route event: NatsError 503: 503",
        {"messaging": messaging(SANDBOX=None, WORKERS=None)},
        Severity.WARNING,
        "confirmed: stream SANDBOX is missing",
    ),
    ("Failed to route event: NatsError 503: 503", {"messaging": unknown()}, Severity.WARNING, "cannot tell"),
    ("Failed to route event", {}, Severity.OK, "ruled out now"),
    ("Failed to route event: ECONNREFUSED 10.0.0.1:6379", {}, Severity.OK, "ruled out now"),
    ("TypeError: x is not a function", {}, Severity.WARNING, "no known cause matches"),
]


@pytest.mark.parametrize(("text", "changes", "severity", "why"), LINES)
def test_errors_of_the_log_are_judged_by_what_is_seen(
    text: str, changes: dict[str, Any], severity: Severity, why: str
) -> None:
    [found] = of("log error", diagnose(healthy(errors=log(group(text)), **changes)))
    assert found.severity is severity
    assert why in found.summary


def test_an_error_that_nobody_knows_is_over_when_it_does_not_come_again() -> None:
    old = group("TypeError: x is not a function", ago=timedelta(minutes=11))
    [found] = of("log error", diagnose(healthy(errors=log(old))))
    assert found.severity is Severity.OK


def test_memory_that_the_log_complains_of_is_a_cause_when_redis_is_full() -> None:
    complaint = log(
        group("Failed to route event: ReplyError: OOM command not allowed when used memory > 'maxmemory'")
    )
    cache = healthy().cache
    assert isinstance(cache, Known)
    full = Known(replace(cache.value, memory_used_percent=99.0))
    assert causes(healthy(errors=complaint)) == []
    [told] = causes(healthy(errors=complaint, cache=full))
    assert told.startswith("Redis is out of memory")


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 10 + 4 + 1),
        ({"routes": unknown()}, 5),
        ({"routes": unknown(), "messaging": unknown()}, 1),
        ({"routes": unknown(), "messaging": unknown(), "workers": unknown()}, None),
    ],
)
def test_what_is_known_to_exist_is_what_a_plan_is_measured_by(
    changes: dict[str, Any], count: int | None
) -> None:
    assert existing(healthy(**changes)) == count


def hops(evidence: Evidence) -> list[tuple[Severity, str]]:
    """What is told hop by hop."""
    return [(each.severity, each.summary.partition(": ")[2]) for each in of("hop", diagnose(evidence))]


def test_without_a_question_no_way_is_told() -> None:
    assert hops(healthy()) == []


def test_the_way_is_told_hop_by_hop() -> None:
    found = of("hop", diagnose(healthy(way=way())))
    assert [each.summary.partition(": ")[0] for each in found] == [
        "hop 1, mapping",
        "hop 2, sandbox",
        "hop 3, cached route",
        "hop 4, way in",
        "hop 5, stream",
        "hop 6, consumer",
        "hop 7, canary",
    ]
    assert {each.severity for each in found} == {Severity.OK}
    assert all(each.source for each in found)
    text = [each.summary for each in found]
    assert "101 → box-1" in text[0]
    assert "running until 2026-03-02T12:00Z" in text[1]
    assert "ends by itself in 40 s" in text[2]
    assert "EVENTS takes events.>; sandbox-event-router is served, nothing waits" in text[3]
    assert "no message of the last five minutes" in text[4]
    assert "dev-bot listens to this sandbox in particular" in text[5]
    assert "none was sent; --canary publishes one" in text[6]


def test_each_guild_of_a_sandbox_has_its_route() -> None:
    seen = way(None, "101", "102", cached=Known((cached(1), cached(2, value=NOWHERE, left=math.inf))))
    told = hops(healthy(way=seen))
    assert len(told) == 8
    assert told[3] == (
        Severity.CRITICAL,
        f"102 → {NOWHERE}, never ends; should be {row(1).id}",
    )


BREAKS: list[tuple[dict[str, Any], int, Severity, str]] = [
    ({"way": way(asked=Known(Asked(guilds=("9",), sandbox=None)))}, 0, Severity.CRITICAL, "guild 9 is mapped to no sandbox"),
    ({"way": way(row(1, Status.EXPIRED), cached=Known(()))}, 1, Severity.CRITICAL, "box-1 is expired: only running"),
    ({"way": way(row(1, expires_at=NOW - timedelta(hours=1)))}, 1, Severity.WARNING, "which is over"),
    ({"way": way(cached=Known(()))}, 2, Severity.OK, "none of 101: the EventRouter asks the table"),
    ({"way": way(cached=Known((cached(1, left=math.inf),)))}, 2, Severity.WARNING, "never ends"),
    ({"way": way(cached=unknown())}, 2, Severity.UNKNOWN, "cannot tell"),
    ({"way": way(), "messaging": messaging(ROUTER=IDLE)}, 3, Severity.CRITICAL, "sandbox-event-router is served by nobody, 9 wait"),
    ({"way": way(), "messaging": messaging(SANDBOX=NARROW)}, 4, Severity.CRITICAL, "does not take sandbox.0000"),
    ({"way": way(), "messaging": messaging(SANDBOX=None, WORKERS=None)}, 4, Severity.CRITICAL, "there is no stream SANDBOX"),
    ({"way": way(), "messaging": messaging(WORKERS=None)}, 5, Severity.CRITICAL, "there is no consumer sandbox-consumer"),
    ({"way": way(), "messaging": unknown()}, 3, Severity.UNKNOWN, "cannot tell"),
    ({"way": way(heard=unknown())}, 4, Severity.UNKNOWN, "cannot tell what is on them"),
    ({"way": way(asked=unknown(), heard=unknown())}, 0, Severity.UNKNOWN, "cannot tell"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "place", "severity", "said"), BREAKS)
def test_the_hop_at_which_events_are_lost_says_so(
    changes: dict[str, Any], place: int, severity: Severity, said: str
) -> None:
    told = hops(healthy(**changes))
    assert told[place][0] is severity
    assert said in told[place][1]
    assert all(told[before][0] is Severity.OK for before in range(place))


def test_where_no_guild_is_mapped_there_is_no_route_to_tell_of() -> None:
    told = hops(healthy(way=way(asked=Known(Asked(guilds=(), sandbox=row(1))), cached=unknown())))
    assert [hop for hop in told if hop[0] is Severity.UNKNOWN] == []
    assert told[2][1].endswith("not looked at: no guild, no route")


def test_the_messages_on_a_sandboxs_subjects_are_counted() -> None:
    some = tuple(event(n, f"e{n}", at=-60.0 * (5 - n)) for n in range(1, 4))
    told = hops(healthy(way=way(heard=Known(Heard(messages=some, listeners=())))))
    assert told[4][1].endswith("3 messages are on them, the last read 2 min old")
    assert told[5][1].endswith("nobody listens to this sandbox in particular")


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (Asked(guilds=("9",), sandbox=None), "guild 9 is mapped to no sandbox: its events go to production"),
        (Asked(guilds=(), sandbox=row(1)), "no guild is mapped to box-1: no events go there"),
        (
            Asked(guilds=("9",), sandbox=row(1, Status.DESTROYED)),
            "box-1 is destroyed: events go to running sandboxes only",
        ),
    ],
)
def test_a_way_that_the_table_ends_is_the_cause_of_what_was_asked(seen: Asked, told: str) -> None:
    assert causes(healthy(way=way(asked=Known(seen), cached=Known(())))) == [told]


def result(phase: Phase = Phase.DONE, reason: str = "", **evidence: Any) -> Known[tuple[Result, ...]]:
    """Return what became of a canary."""
    [action] = try_canary(healthy(way=way()))
    return Known(
        (Result(action=action, phase=phase, reason=reason, settled=phase is Phase.DONE, evidence=evidence),)
    )


TAKEN: dict[str, Any] = {"sequence": 7, "stored_ms": 2.2, "taken_ms": 40.0, "acknowledged_ms": 55.4}


@pytest.mark.parametrize(
    ("found", "severity", "said"),
    [
        (
            result(**TAKEN),
            Severity.OK,
            "stored after 2 ms as sequence 7; sandbox-consumer handed it out after 40 ms,"
            " and it was acknowledged after 55 ms",
        ),
        (result(**{**TAKEN, "acknowledged_ms": None}), Severity.WARNING, "and it was not acknowledged within 3 s"),
        (result(**{**TAKEN, "taken_ms": None, "acknowledged_ms": None}), Severity.CRITICAL, "did not hand it out within 3 s"),
        (result(sequence=7), Severity.OK, "stored as sequence 7; how far it came was not watched"),
        (result(Phase.FAILED, "no stream SANDBOX takes x"), Severity.CRITICAL, "not stored: no stream SANDBOX takes x"),
        (result(Phase.SKIPPED, "cannot tell any more"), Severity.UNKNOWN, "none was sent now: cannot tell any more"),
        (Unknown("not confirmed by the operator"), Severity.UNKNOWN, "none was sent: not confirmed by the operator"),
    ],
)  # fmt: skip
def test_what_became_of_a_canary(found: Any, severity: Severity, said: str) -> None:
    told = hops(learn(healthy(way=way()), found))[-1]
    assert told[0] is severity
    assert said in told[1]


def test_a_canary_bears_its_own_id_and_says_that_it_is_one() -> None:
    [action] = try_canary(healthy(way=way()))
    assert (action.verb, action.resource) == ("publish canary", Resource(kind="sandbox", id="box-1"))
    assert action.after["subject"] == f"sandbox.{row(1).id}.events.arrakis.canary"
    payload = action.after["payload"]
    assert payload["event_id"] == action.before["event"]
    assert (payload["guild_id"], payload["event_type"], payload["data"]["canary"]) == (
        "101",
        "arrakis.canary",
        True,
    )
    again: list[Action] = try_canary(replace(healthy(way=way()), now=NOW + timedelta(seconds=1)))
    assert again[0].before["event"] != action.before["event"]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (None, "a canary needs a guild or a sandbox"),
        (way(asked=Unknown("no answer", "", Denied("x"))), "cannot tell where to send a canary: no answer"),
        (way(asked=Known(Asked(guilds=("9",), sandbox=None))), "guild 9 is mapped to no sandbox"),
        (way(row(1, Status.EXPIRED)), "box-1 is expired"),
    ],
)
def test_where_no_canary_can_be_sent_it_says_why(asked: Any, why: str) -> None:
    with pytest.raises(ArrakisError, match=why) as refused:
        try_canary(healthy(way=asked))
    findings = of("hop", diagnose(learn(healthy(way=asked), Unknown(str(refused.value)))))
    assert len(findings) == (7 if asked else 1)
    assert findings[-1].severity is Severity.UNKNOWN
    assert findings[-1].summary.endswith(f"canary: none was sent: {refused.value}")


names = st.text(min_size=1, max_size=12)


@given(names, names)
def test_what_strangers_wrote_cannot_move_the_cursor(guild: str, value: str) -> None:
    odd = wrong(1, Fault.NONSENSE)
    odd = replace(odd, cached=replace(odd.cached, guild=guild, value=value), wanted=value)
    seen = Known(Routes(mapped=(), cached=frozenset({guild}), wrong=(odd,)))
    asked = way(asked=Known(Asked(guilds=(guild,), sandbox=row(1))), cached=Known((odd.cached,)))
    for each in diagnose(healthy(routes=seen, way=asked)):
        assert each.summary.isprintable()
        assert all(str(line).isprintable() for line in each.evidence.get("details", ()))


def test_what_strangers_wrote_is_no_command_where_a_source_is_pasted() -> None:
    evil = "1';reboot;'"
    asked = way(asked=Known(Asked(guilds=(evil,), sandbox=row(1))), cached=Known(()))
    loop = replace(LOOP.value, subject=f"events.{evil}")
    found = diagnose(healthy(way=asked, circling=Known(loop)))
    told = [each.source for each in found if "reboot" in each.source]
    assert len(told) == 2
    for source in told:
        assert any(word.rstrip(";").endswith(evil) for word in shlex.split(source, comments=True))


def test_the_runbook_tries_a_canary_and_knows_its_remedies() -> None:
    assert RUNBOOK.trial is not None
    evidence = healthy(way=way())
    assert RUNBOOK.trial.learn(evidence, result(**TAKEN)).canary == result(**TAKEN)
