"""Anchors in a log group: when one is put, what it says, and that a log group out of reach holds nobody up."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from diagnostics.stack import Stack
from runbooks.engine import anchors
from runbooks.engine.anchors import Anchors, anchored, anchoring
from runbooks.engine.environment import Environment
from runbooks.engine.journal import Journal, place
from runbooks.engine.model import Phase
from sandbox.adapters.aws import Aws
from sandbox.errors import Missing

GROUP, REGION = "/arrakis/journal", "us-east-1"
EVERY = 100  # records from one anchor to the next, as docs/safety.md has it


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a client of an account with the log group and nothing in it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        client = boto3.client("logs", region_name=REGION)
        client.create_log_group(logGroupName=GROUP)
        yield client


class Desk:
    """A host with a journal that is anchored, and what its operator was told."""

    def __init__(self, folder: Path) -> None:
        self.told: list[str] = []
        self.journal = Journal(folder / "journal.jsonl", actor="chani", clock=lambda: datetime.now(UTC))
        environment = Environment(
            name="staging",
            database_url="",
            redis_url="",
            nats_url="",
            region=REGION,
            stack=Stack(journal_log_group=GROUP),
        )
        self.journal.anchor = anchoring(environment, tell=self.told.append)

    def run(self, name: str, *, records: int = 3, end: bool = True) -> None:
        self.journal.append(name, Phase.RUN_STARTED)
        for _ in range(records - 2):
            self.journal.append(name, Phase.STARTED, action="a1")
        if end:
            self.journal.append(name, Phase.RUN_ENDED)

    @property
    def chain(self) -> str:
        return self.journal.entries()[0].chain


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Return a host; what its journal writes is not synced, which takes most of the time."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    return Desk(tmp_path)


def lines(client: Any, stream: str) -> list[dict[str, Any]]:
    """Return the anchors of a stream as they stand there."""
    found = client.get_log_events(logGroupName=GROUP, logStreamName=stream, startFromHead=True)
    return [json.loads(event["message"]) for event in found["events"]]


def test_a_runs_last_record_is_anchored_and_one_in_so_many(logs: Any, desk: Desk) -> None:
    desk.run("r1", records=2 * EVERY + 50)
    entries = desk.journal.entries()
    assert lines(logs, desk.chain) == [
        {"chain": e.chain, "seq": e.seq, "hash": e.hash, "run": "r1", "at": e.at.isoformat()}
        for e in (entries[EVERY - 1], entries[2 * EVERY - 1], entries[-1])
    ]
    assert desk.chain.startswith(f"{place(desk.journal.path)}-")
    assert socket.gethostname().replace("_", "-") in desk.chain
    assert desk.told == []


def test_what_only_plans_anchors_nothing(logs: Any, desk: Desk) -> None:
    for number in range(EVERY + 5):
        desk.journal.append(f"p{number}", Phase.PLANNED)
    assert logs.describe_log_streams(logGroupName=GROUP)["logStreams"] == []
    desk.run("r1")
    assert [line["seq"] for line in lines(logs, desk.chain)] == [EVERY + 6, EVERY + 8]


def test_where_no_log_group_is_named_nothing_is_asked_of_aws(logs: Any, desk: Desk) -> None:
    desk.journal.anchor = anchoring(
        Environment(name="x", database_url="", redis_url="", nats_url=""), tell=desk.told.append
    )
    desk.run("r1")
    assert logs.describe_log_streams(logGroupName=GROUP)["logStreams"] == []
    assert desk.told == []


def test_a_group_that_is_missing_is_told_and_the_next_run_anchors_all(logs: Any, desk: Desk) -> None:
    logs.delete_log_group(logGroupName=GROUP)
    desk.run("r1", records=3 * EVERY)
    assert [line.split(" is not anchored")[0] for line in desk.told] == [
        f"journal: record {EVERY}",
        f"journal: record {3 * EVERY}",
    ]
    assert "log group" in desk.told[0]
    assert len(desk.journal.entries()) == 3 * EVERY
    logs.create_log_group(logGroupName=GROUP)
    desk.run("r2")
    [anchor] = lines(logs, desk.chain)
    assert (anchor["seq"], anchor["hash"]) == (3 * EVERY + 3, desk.journal.entries()[-1].hash)
    assert len(desk.told) == 2


def test_one_that_does_not_answer_holds_a_run_up_for_a_moment_only(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr(anchors, "_PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        desk.run("r1", records=3 * EVERY)
        took = time.monotonic() - began
    assert [line.split(": ", 2)[2] for line in desk.told] == [
        "CloudWatch Logs gave no answer within 0.2 s"
    ] * 2
    assert took < 10
    assert desk.journal.entries()[-1].phase is Phase.RUN_ENDED


def test_a_time_that_is_not_taken_is_told(logs: Any, desk: Desk, tmp_path: Path) -> None:
    late = Journal(tmp_path / "late.jsonl", actor="chani", clock=lambda: datetime(2020, 1, 1, tzinfo=UTC))
    late.anchor = desk.journal.anchor
    late.append("r1", Phase.RUN_ENDED)
    assert "is this host's clock right?" in desk.told[0]


def test_two_that_make_the_stream_at_once_both_anchor(logs: Any, desk: Desk) -> None:
    class Slow(Aws):
        """Another process makes the stream between our two calls."""

        def write(self, service: str, operation: str, /, **params: object) -> Any:
            if operation == "create_log_stream":
                super().write(service, operation, **params)
            return super().write(service, operation, **params)

    desk.journal.anchor = Anchors(lambda: Slow(region=REGION), GROUP, tell=desk.told.append)
    desk.run("r1")
    assert (len(lines(logs, desk.chain)), desk.told) == (1, [])


def test_an_anchor_may_take_three_seconds_and_so_may_each_call_for_it(
    logs: Any, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[object] = []

    def within(seconds: float, call: Callable[[], None], _: str) -> None:
        waited.append(seconds)
        call()

    class Told(Aws):
        """Tells how it was made."""

        def __init__(self, **how: Any) -> None:
            waited.append(how)
            super().__init__(**how)

    monkeypatch.setattr(anchors, "within", within)
    monkeypatch.setattr("sandbox.adapters.aws.Aws", Told)
    desk.run("r1")
    assert waited == [3.0, {"region": REGION, "timeout": 3.0}]


def test_a_worker_does_not_wait_for_anothers_anchor(logs: Any, desk: Desk) -> None:
    going, over = threading.Event(), threading.Event()

    def slow() -> Aws:
        going.set()
        over.wait(10)
        return Aws(region=REGION)

    desk.run("r1")
    entries, mine = desk.journal.entries(), Anchors(slow, GROUP, tell=desk.told.append)
    worker = threading.Thread(target=mine, args=(entries,))
    worker.start()
    assert going.wait(10)
    mine(entries)
    over.set()
    worker.join(10)
    assert [line["seq"] for line in lines(logs, desk.chain)] == [3, 3]  # the run's own, and the worker's


# Read back


def read_back(desk: Desk) -> anchors.Anchored:
    return anchored(Aws(region=REGION), GROUP, chain=desk.chain, place=place(desk.journal.path))


def test_what_was_anchored_is_read_back_and_what_others_wrote_is_passed_over(logs: Any, desk: Desk) -> None:
    for number in range(5):
        desk.run(f"r{number}")
    first = lines(logs, desk.chain)[0]
    strange = ["no JSON", "[]", "{}", "[" * 100_000]
    strange += [json.dumps({**first, **changed}) for changed in ({"chain": "other"}, {"seq": 0}, {"seq": -1})]
    strange.append(json.dumps({**first, "seq": 1}))  # that one is an anchor
    now = int(time.time() * 1000)
    for name in (desk.chain, f"{place(desk.journal.path)}-before"):
        if name != desk.chain:
            logs.create_log_stream(logGroupName=GROUP, logStreamName=name)
        events = [{"timestamp": now, "message": message} for message in strange]
        logs.put_log_events(logGroupName=GROUP, logStreamName=name, logEvents=events)
    logs.create_log_stream(logGroupName=GROUP, logStreamName="another-host-1")
    found = read_back(desk)
    assert [(anchor.seq, anchor.run) for anchor in found.anchors] == [
        (1, "r0"),
        *((3 * number + 3, f"r{number}") for number in range(5)),
    ]
    assert found.others == (f"{place(desk.journal.path)}-before",)
    assert found.whole


@pytest.mark.parametrize(("pages", "whole"), [(6, True), (3, False)])
def test_so_many_pages_are_read_the_newest_first(
    logs: Any, desk: Desk, monkeypatch: pytest.MonkeyPatch, pages: int, whole: bool
) -> None:
    for number in range(5):
        desk.run(f"r{number}")
    monkeypatch.setattr(anchors, "_PAGE", 1)
    monkeypatch.setattr(anchors, "_PAGES", pages + 1 if whole else pages)
    found = read_back(desk)
    assert found.whole is whole
    assert [anchor.run for anchor in found.anchors] == [f"r{number}" for number in range(5)][-pages:]


def test_twenty_pages_are_read_at_most(logs: Any, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchors, "_PAGE", 1)
    for number in range(22):
        desk.run(f"r{number}")
    found = read_back(desk)
    assert not found.whole
    assert [anchor.run for anchor in found.anchors] == [f"r{number}" for number in range(2, 22)]


def test_the_other_chains_of_a_place_are_all_named(logs: Any, desk: Desk) -> None:
    here = place(desk.journal.path)
    names = [f"{here}-{number:03}" for number in range(120)]  # CloudWatch names fifty at a time
    for name in names:
        logs.create_log_stream(logGroupName=GROUP, logStreamName=name)
    found = anchored(Aws(region=REGION), GROUP, chain=None, place=here)
    assert (found.anchors, list(found.others), found.whole) == ((), names, True)


def test_a_journal_that_was_never_anchored_has_no_anchors(logs: Any, desk: Desk) -> None:
    desk.journal.append("p1", Phase.PLANNED)
    assert read_back(desk) == anchors.Anchored(anchors=(), others=(), whole=True)
    logs.delete_log_group(logGroupName=GROUP)
    with pytest.raises(Missing, match="log group"):
        read_back(desk)
