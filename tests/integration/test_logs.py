"""Errors and runs are read out of CloudWatch Logs as AWS serves them: in pages, some empty, some refused."""

import gc
import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.server import ThreadedMotoServer

from diagnostics.causes import named
from diagnostics.logs import read_errors, read_runs
from lab import moto_shims
from lab.processes import HOST, free_ports
from sandbox.adapters.aws import Aws
from sandbox.errors import Denied, Missing, Throttled, Unreachable
from sandbox.metrics import emf

GROUP = "/ecs/arrakis-sandbox-cleanup"
REGION = "us-east-1"
END = datetime.now(UTC).replace(microsecond=0)
BEGIN = END - timedelta(hours=1)
OPERATION = "FilterLogEvents"
PLENTY = 60.0  # seconds: the budget is not what these tests are about


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a client of an account of the test's own that has the log group and nothing in it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    moto_shims.install()
    with mock_aws():
        client = boto3.client("logs", region_name=REGION)
        _lay_out(client)
        yield client
        moto_shims.refuse(OPERATION, "", times=0)


def _lay_out(client: Any) -> None:
    client.create_log_group(logGroupName=GROUP)
    for stream in ("a", "b"):
        client.create_log_stream(logGroupName=GROUP, logStreamName=stream)


def put(client: Any, lines: list[tuple[datetime, str]], *, stream: str = "a") -> None:
    for start in range(0, len(lines), 10_000):
        events = [
            {"timestamp": int(at.timestamp() * 1000), "message": text}
            for at, text in lines[start : start + 10_000]
        ]
        answer = client.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=events)
        assert not answer.get("rejectedLogEventsInfo")


def pino(message: str, *, level: int = 50, **more: Any) -> str:
    return json.dumps({"level": level, "component": "CleanupProvider", "msg": message, **more})


def at(minutes: float) -> datetime:
    return BEGIN + timedelta(minutes=minutes)


def test_errors_of_both_formats_and_of_all_streams(logs: Any) -> None:
    id = "3f2b8c1e-82b6-49b7-a7f6-d86f86e45136"
    refused = {"code": "ECONNREFUSED", "syscall": "connect", "address": "10.0.1.5", "port": 6379}
    put(
        logs,
        [
            (BEGIN - timedelta(seconds=1), "ERROR before the window"),
            (at(0), pino("Redis key cleanup failed", error=refused, sandboxId=id)),
            (at(10), pino("Sandbox cleaned up", level=30, error="no Error")),
            (at(20), "INFO all is well, 0 Errors"),
            (
                at(59),
                "\x1b[31mERROR\x1b[0m cannot drop schema x because other objects depend on it\n    at y",
            ),
            (at(60), pino("Redis key cleanup failed", error={**refused, "address": "10.0.9.9"})),
            (at(60.1), "ERROR after the window"),
        ],
    )
    put(logs, [(at(30), "ERROR cannot drop schema x because other objects depend on it")], stream="b")
    put(
        logs,
        [(at(31), emf({"CleanupFailures": 1, "Errors": 2}, units={}, environment="x", at=END))],
        stream="b",
    )
    told = read_errors(Aws(region=REGION), GROUP, begin=BEGIN, end=END, budget=PLENTY)
    assert told.coverage.endswith("complete")
    assert (told.errors, told.log_group) == (4, GROUP)
    redis, *others = told.groups
    assert redis.cause == named("redis-refused")
    assert [group.cause for group in others] == [named("blockers")] * 2  # one of them has a stack
    assert others[0].sample.startswith("ERROR cannot drop schema x")
    assert (redis.first, redis.last, redis.sandboxes) == (at(0), at(60), (id,))
    assert (redis.histogram[0], redis.histogram[-1]) == (1, 1)


@pytest.mark.parametrize("word", ["error", "fatal", "critical", "panic", "ERROR", "Fatal"])
def test_errors_whose_level_is_a_word_are_found_once(logs: Any, word: str) -> None:
    lines = [{"level": word, "msg": msg} for msg in ("no route", "TypeError: no route")]
    lines += [{"level": "info", "msg": msg} for msg in ("routed", "no Error")]
    put(logs, [(at(50 + minute), json.dumps(line)) for minute, line in enumerate(lines)])
    assert read_errors(Aws(region=REGION), GROUP, begin=BEGIN, end=END, budget=PLENTY).errors == 2


def test_pages_that_are_empty_are_passed_over(logs: Any) -> None:
    calm = [(at(50 + number / 1000), pino("Event routed", level=30)) for number in range(5500)]
    put(logs, [*calm, (at(58), pino("Failed"))])
    first = logs.filter_log_events(logGroupName=GROUP, filterPattern="{ $.level >= 50 }")
    assert (first["events"], bool(first["nextToken"])) == ([], True)
    told = read_errors(Aws(region=REGION), GROUP, begin=BEGIN, end=END, budget=PLENTY)
    assert (told.complete, told.lines, told.errors) == (True, 1, 1)


@pytest.mark.soak
def test_a_hundred_thousand_lines_come_in_pages(logs: Any) -> None:
    texts = (
        pino("Failed to cleanup sandbox", error="connect ECONNREFUSED 10.0.1.5:5432"),
        "ERROR sorry, too many clients already",
    )
    gc.disable()  # or it looks through all that moto holds, page after page, which takes as long as the rest
    try:
        put(logs, [(BEGIN + timedelta(milliseconds=36 * n), texts[n % 2]) for n in range(100_000)])
        told = read_errors(Aws(region=REGION), GROUP, begin=BEGIN, end=END, budget=PLENTY)
    finally:
        gc.enable()
    assert told.coverage.endswith("complete")
    assert (told.lines, told.errors) == (100_000, 100_000)
    assert {group.cause.key: group.count for group in told.groups if group.cause} == {
        "postgres-refused": 50_000,
        "too-many-connections": 50_000,
    }
    assert all(sum(group.histogram) == 50_000 for group in told.groups)


def test_a_page_that_is_throttled_is_asked_for_again(logs: Any) -> None:
    put(logs, [(at(30), "ERROR x")])
    moto_shims.refuse(OPERATION, "ThrottlingException", times=2)  # boto3 itself asks twice
    slept: list[float] = []
    told = read_errors(Aws(region=REGION), GROUP, begin=BEGIN, end=END, budget=PLENTY, sleep=slept.append)
    assert (told.complete, told.errors, slept) == (True, 1, [0.25])


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        ("AccessDeniedException", Denied, "logs:filter_log_events: AccessDenied"),
        ("ExpiredTokenException", Denied, "login has expired"),
        ("ThrottlingException", Throttled, "more slowly"),
    ],
)
def test_what_aws_refuses_is_no_empty_report(
    logs: Any, code: str, error: type[Exception], words: str
) -> None:
    put(logs, [(at(30), "ERROR x")])
    moto_shims.refuse(OPERATION, code, times=100)
    ticks = iter([0, 0, PLENTY])  # the budget is used up when it comes to waiting
    with pytest.raises(error, match=words):
        read_errors(Aws(region=REGION), GROUP, begin=BEGIN, end=END, budget=PLENTY, clock=lambda: next(ticks))


def test_a_log_group_that_does_not_exist_is_named(logs: Any) -> None:
    with pytest.raises(Missing, match="there is no log group /ecs/none") as told:
        read_errors(Aws(region=REGION), "/ecs/none", begin=BEGIN, end=END, budget=PLENTY)
    assert "/ecs/none" in told.value.hint


def test_an_account_that_does_not_answer_costs_the_budget_and_no_more(
    logs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(logs, [(at(59), "ERROR x")])
    over = threading.Event()
    monkeypatch.setattr(moto_shims.FilterPattern, "matches", lambda *_: over.wait(30))
    began = time.monotonic()
    try:
        with pytest.raises(Unreachable, match="gave no answer within"):
            read_errors(Aws(region=REGION), GROUP, begin=BEGIN, end=END, budget=1)
        assert time.monotonic() - began < 10
    finally:
        over.set()


def test_the_job_s_starts_and_runs(logs: Any) -> None:
    def ended(failed: int) -> str:
        values = {"SandboxesCleanedUp": 3, "CleanupFailures": failed, "CleanupDurationMs": 1500}
        return emf(values, units={}, environment="x", at=END)

    put(
        logs,
        [
            (at(0), pino("Starting sandbox cleanup job", level=30)),
            (at(1), ended(0)),
            (at(15), "INFO Starting sandbox cleanup job"),
            (at(16), ended(2)),
            (at(30), pino("Starting sandbox cleanup job", level=30)),
            (at(31), '{"CleanupDurationMs": 7}'),
        ],
    )
    told = read_runs(Aws(region=REGION), GROUP, begin=BEGIN, end=END, budget=PLENTY)
    assert told.complete
    assert told.starts == (at(0), at(15), at(30))
    assert [(run.at, run.cleaned, run.failed, run.seconds) for run in told.runs] == [
        (at(1), 3, 0, 1.5),
        (at(16), 3, 2, 1.5),
    ]


def test_a_server_in_another_process_is_told_what_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    moto_shims.install()
    [port] = free_ports(1)
    server, endpoint = ThreadedMotoServer(HOST, port, verbose=False), f"http://{HOST}:{port}"
    server.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        _lay_out(boto3.client("logs", region_name=REGION))
        wanted = f"{endpoint}/moto-api/faults?operation={OPERATION}&code=ExpiredTokenException&times=1"
        with urllib.request.urlopen(wanted, data=b"") as answer:
            assert answer.status == 200
        with pytest.raises(Denied, match="login has expired"):
            read_errors(Aws(region=REGION), GROUP, begin=BEGIN, end=END, budget=PLENTY)
        assert read_errors(Aws(region=REGION), GROUP, begin=BEGIN, end=END, budget=PLENTY).complete
    finally:
        server.stop()
