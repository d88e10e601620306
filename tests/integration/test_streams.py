"""Streams on real servers, today's and Debian's: made, compared, read without a trace, and never changed."""

import asyncio
import contextlib
import shutil
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext, api

from lab import control
from lab.incidents import streams as incident
from sandbox.adapters.nats import Nats
from sandbox.errors import ArrakisError, Missing, Unreachable
from sandbox.model import ConsumerConfig, ConsumerState, StreamConfig
from sandbox.streams import (
    Condition,
    check,
    drift,
    ensure,
    expected_consumers,
    expected_streams,
    publish,
    read,
    subject_of,
)
from tests.integration.messaging import by_hand

T = TypeVar("T")
SANDBOX, EVENTS = expected_streams()
WORKERS, ROUTER = expected_consumers()
ALL = (SANDBOX, EVENTS, WORKERS, ROUTER)
SOON = 1.5  # seconds; without a deadline of its own the adapter would wait for ten


@contextlib.contextmanager
def running_lab(home: Path) -> Iterator[control.Lab]:
    try:
        yield control.start(home, watch_parent=True)
    finally:
        control.reset(home)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[control.Lab]:
    with running_lab(tmp_path_factory.mktemp("lab") / "home") as lab:
        yield lab


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[control.Lab]:
    program = shutil.which("nats-server", path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin")
    assert program, "nats-server is not installed: run .ci/run, or install it"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_NATS_BIN", program)
        with running_lab(tmp_path_factory.mktemp("older") / "home") as lab:
            yield lab


@pytest.fixture(params=["embedded", "debian"])
def url(request: pytest.FixtureRequest) -> str:
    """The address of an empty server, once of each kind."""
    lab: control.Lab = request.getfixturevalue(request.param)
    return emptied(lab.env["NATS_URL"])


@pytest.fixture
def newest(embedded: control.Lab) -> str:
    """The address of an empty server that knows "create only"."""
    return emptied(embedded.env["NATS_URL"])


def in_jetstream(url: str, work: Callable[[JetStreamContext], Awaitable[T]]) -> T:
    return by_hand(url, lambda client: work(client.jetstream()))


def emptied(url: str) -> str:
    async def empty(jetstream: JetStreamContext) -> None:
        for stream in await jetstream.streams_info():
            await jetstream.delete_stream(stream.config.name or "")

    in_jetstream(url, empty)
    return url


def dump(url: str) -> dict[str, Any]:
    """All that nats-py tells about the streams, their consumers and what is in them, since when."""

    async def look(jetstream: JetStreamContext) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for stream in await jetstream.streams_info():
            name = stream.config.name or ""
            found[name] = asdict(stream)
            for consumer in await jetstream.consumers_info(name):
                found[f"{name}/{consumer.name}"] = asdict(consumer)
        return found

    return in_jetstream(url, look)


def made(url: str) -> Nats:
    writer = Nats(url)
    assert ensure(writer, ALL).made == ALL
    return writer


def test_two_generations_of_servers_are_tested(embedded: control.Lab, debian: control.Lab) -> None:
    assert embedded.versions["nats"] != debian.versions["nats"]


def test_what_is_missing_is_made_just_as_the_deployed_system_makes_it(url: str) -> None:
    writer = Nats(url)
    assert {each.condition for each in check(writer, ALL)} == {Condition.MISSING}
    done = ensure(writer, [ROUTER, WORKERS, EVENTS, SANDBOX])
    assert set(done.made) == set(ALL)
    assert {each.condition for each in done.checked} == {Condition.AS_EXPECTED}
    assert {each.condition for each in check(writer, ALL)} == {Condition.AS_EXPECTED}

    found = dump(url)
    assert set(found) == {
        "SANDBOX",
        "EVENTS",
        "SANDBOX/sandbox-consumer",
        "EVENTS/sandbox-event-router",
    }
    for name, subject in (("SANDBOX", "sandbox.>"), ("EVENTS", "events.>")):
        config = found[name]["config"]
        assert config["subjects"] == [subject]
        assert (config["retention"], config["storage"]) == ("limits", "memory")
        assert (config["max_age"], config["max_msgs"], config["num_replicas"]) == (300, 500_000, 1)
    router = found["EVENTS/sandbox-event-router"]["config"]
    assert router["durable_name"] == "sandbox-event-router"
    assert (router["ack_policy"], router["filter_subject"]) == ("explicit", "events.>")
    assert (router["max_ack_pending"], router["ack_wait"], router["max_deliver"]) == (100, 15, 5)
    assert router["deliver_policy"] == "all"
    workers = found["SANDBOX/sandbox-consumer"]["config"]
    assert (workers["durable_name"], workers["ack_policy"]) == ("sandbox-consumer", "explicit")


def test_the_lab_lays_out_what_is_expected(url: str) -> None:
    incident.lay_out(url)
    assert {each.condition for each in check(Nats(url), ALL)} == {Condition.AS_EXPECTED}


def test_ensuring_twice_changes_nothing(url: str) -> None:
    writer = made(url)
    before = dump(url)
    again = ensure(writer, ALL)
    assert again.made == ()
    assert again.drifted == ()
    assert dump(url) == before


def test_two_who_ensure_at_once_both_succeed(url: str) -> None:
    for _ in range(5):
        emptied(url)
        together = threading.Barrier(2)

        def one(_: int, together: threading.Barrier = together) -> Any:
            together.wait(5)
            return ensure(Nats(url), ALL)

        with ThreadPoolExecutor(2) as pool:
            done = list(pool.map(one, range(2)))
        assert set(done[0].made) | set(done[1].made) == set(ALL)
        for each in done:
            assert {one.condition for one in each.checked} == {Condition.AS_EXPECTED}
        assert len(dump(url)) == 4


STREAM_CASES: list[tuple[dict[str, Any], str, object]] = [
    ({"subjects": ["sandbox.>", "extra.>"]}, "subjects", ("sandbox.>", "extra.>")),
    ({"retention": api.RetentionPolicy.INTEREST}, "retention", "interest"),
    ({"storage": api.StorageType.FILE}, "storage", "file"),
    ({"max_age": 600}, "max_age", timedelta(minutes=10)),
    ({"max_age": 0}, "max_age", timedelta(0)),
    ({"max_msgs": 7}, "max_msgs", 7),
    ({"max_msgs": -1}, "max_msgs", -1),
]


@pytest.mark.parametrize(("changes", "field", "actual"), STREAM_CASES)
def test_a_stream_made_otherwise_is_reported_and_left_alone(
    url: str, changes: dict[str, Any], field: str, actual: object
) -> None:
    made(url)

    async def remake(jetstream: JetStreamContext) -> None:
        config = (await jetstream.stream_info("SANDBOX")).config.evolve(metadata=None, **changes)
        await jetstream.delete_stream("SANDBOX")
        await jetstream.add_stream(config)

    in_jetstream(url, remake)
    before = dump(url)
    done = ensure(Nats(url), ALL)
    assert done.made == (WORKERS,), "its consumer went with the stream"
    [drifted] = done.drifted
    assert drifted.expected == SANDBOX
    assert [(each.where, each.field, each.actual) for each in drifted.drift] == [
        ("stream SANDBOX", field, actual)
    ]
    after = dump(url)
    assert after["SANDBOX"]["config"] == before["SANDBOX"]["config"]
    assert after["SANDBOX"]["created"] == before["SANDBOX"]["created"]
    assert all(after[name] == before[name] for name in before if name != "SANDBOX")


def test_a_stream_altered_by_hand_has_drifted_in_each_field_that_was_altered(url: str) -> None:
    writer = made(url)

    async def alter(jetstream: JetStreamContext) -> None:
        config = (await jetstream.stream_info("EVENTS")).config
        await jetstream.update_stream(config.evolve(max_age=0.25, duplicate_window=0.2, max_msgs=9))

    in_jetstream(url, alter)
    found = {each.expected: each for each in check(writer, ALL)}
    assert {(each.field, each.actual) for each in found[EVENTS].drift} == {
        ("max_age", timedelta(milliseconds=250)),
        ("max_msgs", 9),
    }
    assert found[SANDBOX].condition is Condition.AS_EXPECTED
    assert [each.field for each in check(writer, expected_streams(3))[0].drift] == ["replicas"]


CONSUMER_CASES: list[tuple[dict[str, Any], str, object]] = [
    ({"durable_name": None, "name": ROUTER.name, "inactive_threshold": 600}, "durable", False),
    ({"ack_policy": api.AckPolicy.ALL}, "ack_policy", "all"),
    ({"filter_subject": "events.guild.>"}, "filter_subject", "events.guild.>"),
    ({"filter_subject": None}, "filter_subject", ""),
    ({"max_ack_pending": 5}, "max_ack_pending", 5),
    ({"ack_wait": 2.5}, "ack_wait", timedelta(seconds=2.5)),
    ({"max_deliver": None}, "max_deliver", -1),
]


@pytest.mark.parametrize(("changes", "field", "actual"), CONSUMER_CASES)
def test_a_consumer_made_otherwise_is_reported_and_left_alone(
    url: str, changes: dict[str, Any], field: str, actual: object
) -> None:
    writer = made(url)
    remake_router(url, **changes)
    before = dump(url)
    done = ensure(writer, ALL)
    assert done.made == ()
    [drifted] = done.drifted
    assert [(each.where, each.field, each.actual) for each in drifted.drift] == [
        ("consumer EVENTS/sandbox-event-router", field, actual)
    ]
    assert dump(url) == before


def test_a_consumer_with_several_filters_shows_them_all(newest: str) -> None:
    writer = made(newest)
    remake_router(newest, filter_subject=None, filter_subjects=["events.a", "events.b"])
    [found] = check(writer, [ROUTER])
    assert [each.actual for each in found.drift] == ["events.a, events.b"]


def remake_router(url: str, **changes: Any) -> None:
    config = api.ConsumerConfig(
        durable_name="sandbox-event-router",
        ack_policy=api.AckPolicy.EXPLICIT,
        filter_subject="events.>",
        max_ack_pending=100,
        ack_wait=15,
        max_deliver=5,
    ).evolve(**changes)

    async def remake(jetstream: JetStreamContext) -> None:
        await jetstream.delete_consumer("EVENTS", "sandbox-event-router")
        await jetstream.add_consumer("EVENTS", config)

    in_jetstream(url, remake)


class Overtaken(Nats):
    """One whom somebody else overtakes, with another idea, between the look and the creation."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.other = Nats(url)

    def create_stream(self, config: StreamConfig) -> None:
        self.other.create_stream(replace(config, max_msgs=11))
        super().create_stream(config)

    def create_consumer(self, config: ConsumerConfig) -> None:
        self.other.create_consumer(replace(config, max_ack_pending=11))
        super().create_consumer(config)


def test_one_who_is_overtaken_changes_nothing_and_reports_it(newest: str) -> None:
    done = ensure(Overtaken(newest), ALL)
    # Of the workers' consumer that field is left open, so it is as expected, though not ours.
    assert done.made == ()
    assert [(each.expected, each.drift[0].actual) for each in done.drifted] == [
        (SANDBOX, 11),
        (EVENTS, 11),
        (ROUTER, 11),
    ]
    found = dump(newest)
    assert found["SANDBOX"]["config"]["max_msgs"] == 11
    assert found["SANDBOX/sandbox-consumer"]["config"]["max_ack_pending"] == 11


def test_what_the_server_refuses_is_an_error_that_says_why(url: str) -> None:
    with pytest.raises(ArrakisError, match="replicas > 1 not supported"):
        ensure(Nats(url), expected_streams(3))
    assert dump(url) == {}

    async def overlap(jetstream: JetStreamContext) -> None:
        await jetstream.add_stream(name="SOMETHING", subjects=["events.>"])

    in_jetstream(url, overlap)
    with pytest.raises(ArrakisError, match="subjects overlap with an existing stream"):
        ensure(Nats(url), ALL)
    with pytest.raises(Missing, match="stream not found"):
        Nats(url).create_consumer(ROUTER)


def test_only_one_sandboxs_messages_come_back_as_they_were_sent(url: str) -> None:
    writer = made(url)
    one, other = uuid4(), uuid4()
    started = datetime.now(UTC) - timedelta(milliseconds=1)
    payloads = [b"", b"\x00\xff\r\n", "épice".encode(), b"x" * 100_000]
    sequences = []
    for number, payload in enumerate(payloads):
        sequences.append(publish(writer, one, f"type{number}.made", payload))
        publish(writer, other, "message", b"not yours")
    assert sequences == [1, 3, 5, 7]

    found = read(writer, one, 10)
    assert [each.data for each in found] == payloads
    assert [each.sequence for each in found] == sequences
    assert [each.subject for each in found] == [f"sandbox.{one}.events.type{n}.made" for n in range(4)]
    times = [started, *(each.time for each in found), datetime.now(UTC)]
    assert times == sorted(times)
    assert {each.utcoffset() for each in times} == {timedelta(0)}

    assert [each.sequence for each in read(writer, one, 2)] == [1, 3]
    assert [each.sequence for each in read(writer, one, 2, after=3)] == [5, 7]
    assert read(writer, one, 2, after=7) == []
    assert read(writer, uuid4(), 10) == []
    assert len(read(writer, other, 10)) == 4


def test_a_worker_gets_what_is_published(url: str) -> None:
    writer, sandbox = made(url), uuid4()
    publish(writer, sandbox, "message", b"{}")

    async def take(jetstream: JetStreamContext) -> list[tuple[str, bytes]]:
        pulling = await jetstream.pull_subscribe_bind("sandbox-consumer", "SANDBOX")
        return [(each.subject, each.data) for each in await pulling.fetch(1, timeout=2)]

    assert in_jetstream(url, take) == [(f"sandbox.{sandbox}.events.message", b"{}")]


def test_reading_leaves_no_trace(url: str) -> None:
    writer, sandbox = made(url), uuid4()
    for _ in range(3):
        publish(writer, sandbox, "message", b"{}")
    before = dump(url)
    reader = Nats(url)
    assert len(read(reader, sandbox)) == 3
    check(reader, ALL)
    reader.stream("SANDBOX")
    reader.consumer("SANDBOX", "sandbox-consumer")
    reader.subscriptions()
    assert dump(url) == before
    assert before["SANDBOX/sandbox-consumer"]["num_pending"] == 3


def test_the_live_numbers_of_a_stream(url: str) -> None:
    writer, sandbox = made(url), uuid4()
    assert Nats(url).stream("NONE") is None
    empty = writer.stream("SANDBOX")
    assert empty is not None
    assert (empty.messages, empty.bytes, empty.first_sequence, empty.last_sequence) == (0, 0, 0, 0)
    for _ in range(3):
        publish(writer, sandbox, "message", b"{}")
    in_jetstream(url, lambda jetstream: jetstream.delete_msg("SANDBOX", 1))
    found = writer.stream("SANDBOX")
    assert found is not None
    assert (found.messages, found.first_sequence, found.last_sequence) == (2, 2, 3)
    assert found.bytes > 2 * len(subject_of(sandbox, "message"))
    assert found.replicas_current == 1
    assert (found.discard, found.full) == ("old", False)
    assert drift(SANDBOX, found.config) == []
    assert empty.oldest is None
    assert found.oldest == read(writer, sandbox)[0].time
    writer.change_stream("SANDBOX", {"max_msgs": 2})
    assert (full := writer.stream("SANDBOX")) is not None
    assert full.full


def test_the_live_numbers_of_a_consumer(url: str) -> None:
    writer, sandbox = made(url), uuid4()
    assert writer.consumer("SANDBOX", "nobody") is None
    assert writer.consumer("NONE", "sandbox-consumer") is None
    for _ in range(4):
        publish(writer, sandbox, "message", b"{}")

    async def work(client: Client) -> list[ConsumerState | None]:
        async def look(stream: str, name: str) -> ConsumerState | None:
            return await asyncio.to_thread(writer.consumer, stream, name)

        jetstream = client.jetstream()
        pulling = await jetstream.pull_subscribe_bind("sandbox-consumer", "SANDBOX")
        [first] = await pulling.fetch(1, timeout=2)
        held = await look("SANDBOX", "sandbox-consumer")
        await first.nak()
        taken = 0
        while taken < 4:
            taken += len(await pulling.fetch(4 - taken, timeout=2))
        again = await look("SANDBOX", "sandbox-consumer")
        inbox = client.new_inbox()
        await client.subscribe(inbox)
        await client.publish("$JS.API.CONSUMER.MSG.NEXT.SANDBOX.sandbox-consumer", b"", reply=inbox)
        await client.flush()
        waiting = await look("SANDBOX", "sandbox-consumer")
        pushing = api.ConsumerConfig(deliver_subject=client.new_inbox(), durable_name="pushed")
        await jetstream.add_consumer("EVENTS", pushing)
        unbound = await look("EVENTS", "pushed")
        await client.subscribe(str(pushing.deliver_subject))
        await client.flush()
        return [held, again, waiting, unbound, await look("EVENTS", "pushed")]

    held, again, waiting, unbound, bound = [each for each in by_hand(url, work) if each]
    assert (held.pending, held.ack_pending, held.redelivered, held.waiting_pulls) == (3, 1, 0, 0)
    assert (held.delivered, held.acknowledged) == (1, 0)
    assert again.delivered == 4
    assert (again.pending, again.ack_pending, again.redelivered) == (0, 4, 1)
    assert (waiting.waiting_pulls, waiting.push_bound) == (1, False)
    assert (unbound.push_bound, bound.push_bound) == (False, True)


@pytest.mark.parametrize("somebody_listens", [False, True])
def test_publishing_without_the_stream_says_so_at_once(url: str, somebody_listens: bool) -> None:
    writer, sandbox = Nats(url), uuid4()

    async def attempt(client: Client) -> int:
        heard = await client.subscribe("sandbox.>") if somebody_listens else None
        await client.flush()
        started = time.monotonic()
        with pytest.raises(Missing, match="no stream SANDBOX takes sandbox") as missing:
            await asyncio.to_thread(publish, writer, sandbox, "message", b"{}")
        assert time.monotonic() - started < SOON
        assert "nats stream ls" in missing.value.hint
        return heard.pending_msgs if heard else 0

    assert by_hand(url, attempt) == 0, "nobody gets what was not stored"
    with pytest.raises(Missing, match="stream not found"):
        read(writer, sandbox)


def test_a_stream_of_other_subjects_takes_no_event(url: str) -> None:
    writer = Nats(url)
    writer.create_stream(replace(SANDBOX, subjects=("elsewhere.>",)))
    with pytest.raises(Missing, match="no stream SANDBOX takes sandbox"):
        publish(writer, uuid4(), "message", b"{}")
    writer.create_stream(replace(EVENTS, name="OTHER", subjects=("sandbox.>",)))
    with pytest.raises(ArrakisError, match="expected stream does not match"):
        publish(writer, uuid4(), "message", b"{}")
    stored = writer.stream("OTHER")
    assert stored is not None
    assert stored.messages == 0


def test_a_payload_too_large_is_refused_and_not_called_a_dead_server(url: str) -> None:
    writer = made(url)
    with pytest.raises(ArrakisError, match="maximum payload exceeded") as refused:
        publish(writer, uuid4(), "message", b"x" * 2_000_000)
    assert not isinstance(refused.value, Unreachable)


def test_every_consumer_counts_as_a_listener_not_only_the_first_256(newest: str) -> None:
    made(newest)
    sandbox = uuid4()

    async def crowd(jetstream: JetStreamContext) -> None:
        for number in range(300):
            config = api.ConsumerConfig(durable_name=f"c{number}", filter_subject=f"sandbox.{sandbox}.>")
            await jetstream.add_consumer("SANDBOX", config)

    in_jetstream(newest, crowd)
    clients = {each.client for each in Nats(newest).subscriptions() if str(sandbox) in each.subject}
    assert clients == {f"consumer c{number}" for number in range(300)}


def test_changing_a_stream_changes_the_fields_that_are_named_and_nothing_else(url: str) -> None:
    writer = made(url)
    in_jetstream(
        url,
        lambda jetstream: jetstream.update_stream(
            api.StreamConfig(
                name="SANDBOX",
                subjects=["sandbox.a.>"],
                storage=api.StorageType.MEMORY,
                max_age=60,
                duplicate_window=30,
                description="whose it is",
            )
        ),
    )
    publish_to(url, "sandbox.a.b")
    writer.change_stream("SANDBOX", {"subjects": ("sandbox.>",), "max_age": timedelta(minutes=5)})
    found = dump(url)["SANDBOX"]
    assert (found["config"]["subjects"], found["config"]["max_age"]) == (["sandbox.>"], 300)
    assert (found["config"]["description"], found["config"]["duplicate_window"]) == ("whose it is", 30)
    assert found["state"]["messages"] == 1
    with pytest.raises(ArrakisError, match="can not change storage type"):
        writer.change_stream("SANDBOX", {"storage": "file"})
    with pytest.raises(Missing, match="stream not found"):
        writer.change_stream("NONE", {"max_msgs": 1})


def test_the_same_id_is_stored_once(url: str) -> None:
    writer, sandbox = made(url), uuid4()
    assert [publish(writer, sandbox, "a", b"1", id="x"), publish(writer, sandbox, "b", b"2")] == [1, 2]
    assert publish(writer, sandbox, "a", b"1", id="x") == 1
    assert [each.data for each in read(writer, sandbox)] == [b"1", b"2"]


def test_deleting_takes_what_is_named_and_what_is_gone_is_no_error(url: str) -> None:
    writer, sandbox = made(url), uuid4()
    for payload in (b"1", b"2"):
        publish(writer, sandbox, "a", payload)
    writer.delete_message("SANDBOX", 1)
    assert [each.data for each in read(writer, sandbox)] == [b"2"]
    with pytest.raises(ArrakisError):
        writer.delete_message("SANDBOX", 1)
    for _ in range(2):
        writer.delete_consumer("SANDBOX", "sandbox-consumer")
        writer.delete_stream("EVENTS")
    assert set(dump(url)) == {"SANDBOX"}


def publish_to(url: str, subject: str) -> None:
    in_jetstream(url, lambda jetstream: jetstream.publish(subject, b"{}"))
