"""What differs from the expected configuration is named, field by field; what exists is never changed."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sandbox.errors import ArrakisError, Unreachable
from sandbox.model import ConsumerState, Message, StreamState
from sandbox.ports import Subscription
from sandbox.streams import (
    Config,
    ConsumerConfig,
    Drift,
    StreamConfig,
    as_plain,
    check,
    drift,
    ensure,
    expected_consumers,
    expected_streams,
    from_plain,
    listeners,
    publish,
    read,
    subject_of,
    subjects_of,
    takes,
)
from tests.unit.routing import consumer_state, stream_state

ID = UUID("83963dd9-82b6-49b7-a7f6-d86f86e45136")
SANDBOX, EVENTS = expected_streams()
WORKERS, ROUTER = expected_consumers()
ALL = (SANDBOX, EVENTS, WORKERS, ROUTER)

durations = st.timedeltas(timedelta(0), timedelta(days=30))
subjects = st.sampled_from(["sandbox.>", "events.>", "events.guild.>", "other"])
streams = st.builds(
    StreamConfig,
    name=st.just("SANDBOX"),
    subjects=st.lists(subjects, max_size=3, unique=True).map(tuple),
    retention=st.sampled_from(["limits", "interest", "workqueue"]),
    storage=st.sampled_from(["memory", "file"]),
    max_age=durations,
    max_msgs=st.integers(-1, 1_000_000),
    replicas=st.integers(1, 5) | st.none(),
)
consumers = st.builds(
    ConsumerConfig,
    stream=st.just("SANDBOX"),
    name=st.just("sandbox-consumer"),
    durable=st.booleans(),
    ack_policy=st.sampled_from(["none", "all", "explicit"]),
    filter_subject=subjects | st.just(""),
    max_ack_pending=st.integers(-1, 10_000),
    ack_wait=durations,
    max_deliver=st.integers(-1, 10),
)
open_fields = st.sets(
    st.sampled_from([each.name for each in fields(ConsumerConfig) if each.name not in ("stream", "name")])
)
pairs = st.tuples(streams, streams) | st.tuples(consumers, consumers)


def test_what_is_expected_is_what_the_deployed_system_makes() -> None:
    limits: dict[str, Any] = {"retention": "limits", "storage": "memory", "max_age": timedelta(seconds=300)}
    assert expected_streams(3) == (
        StreamConfig(name="SANDBOX", subjects=("sandbox.>",), max_msgs=500_000, replicas=3, **limits),
        StreamConfig(name="EVENTS", subjects=("events.>",), max_msgs=500_000, replicas=3, **limits),
    )
    assert {each.replicas for each in expected_streams()} == {1}
    assert expected_consumers() == (
        ConsumerConfig(stream="SANDBOX", name="sandbox-consumer", durable=True, ack_policy="explicit"),
        ConsumerConfig(
            stream="EVENTS",
            name="sandbox-event-router",
            durable=True,
            ack_policy="explicit",
            filter_subject="events.>",
            max_ack_pending=100,
            ack_wait=timedelta(seconds=15),
            max_deliver=5,
        ),
    )


@pytest.mark.parametrize(
    ("expected", "changed", "actual", "said"),
    [
        (SANDBOX, "subjects", ("sandbox.>", "x"), "subjects is sandbox.>, x, expected sandbox.>"),
        (SANDBOX, "subjects", (), "subjects is empty, expected sandbox.>"),
        (SANDBOX, "retention", "interest", "retention is interest, expected limits"),
        (SANDBOX, "storage", "file", "storage is file, expected memory"),
        (SANDBOX, "max_age", timedelta(0), "max_age is 0:00:00, expected 0:05:00"),
        (SANDBOX, "max_msgs", -1, "max_msgs is -1, expected 500000"),
        (SANDBOX, "replicas", 3, "replicas is 3, expected 1"),
        (WORKERS, "durable", False, "durable is False, expected True"),
        (WORKERS, "ack_policy", "all", "ack_policy is all, expected explicit"),
        (ROUTER, "filter_subject", "", "filter_subject is empty, expected events.>"),
        (ROUTER, "max_ack_pending", 1000, "max_ack_pending is 1000, expected 100"),
        (ROUTER, "ack_wait", timedelta(seconds=30), "ack_wait is 0:00:30, expected 0:00:15"),
        (ROUTER, "max_deliver", -1, "max_deliver is -1, expected 5"),
    ],
)
def test_a_field_that_differs_is_named_with_both_values(
    expected: Config, changed: str, actual: Any, said: str
) -> None:
    wanted = getattr(expected, changed)
    change: dict[str, Any] = {changed: actual}
    [found] = drift(expected, replace(expected, **change))
    assert found == Drift(where=expected.where, field=changed, expected=wanted, actual=actual)
    assert str(found) == f"{expected.where}: {said}"


def test_a_person_knows_which_one_is_meant() -> None:
    assert [each.where for each in ALL] == [
        "stream SANDBOX",
        "stream EVENTS",
        "consumer SANDBOX/sandbox-consumer",
        "consumer EVENTS/sandbox-event-router",
    ]


@given(pairs)
def test_drift_is_empty_only_for_equals_and_names_every_field_that_differs(pair: tuple[Any, Any]) -> None:
    expected, actual = pair
    differing = {
        each.name
        for each in fields(expected)
        if getattr(expected, each.name) not in (None, getattr(actual, each.name))
        and not (each.name == "subjects" and set(expected.subjects) == set(actual.subjects))
    }
    found = drift(expected, actual)
    assert {each.field for each in found} == differing
    assert len(found) == len(differing)
    assert drift(expected, expected) == []
    assert drift(actual, actual) == []


@given(streams, st.randoms(use_true_random=False))
def test_the_order_of_subjects_means_nothing(stream: StreamConfig, random: Any) -> None:
    assume(len(stream.subjects) > 1)
    shuffled = list(stream.subjects)
    random.shuffle(shuffled)
    assert drift(stream, replace(stream, subjects=tuple(shuffled))) == []
    assert drift(stream, replace(stream, subjects=stream.subjects[:-1])) != []


@given(consumers, consumers, open_fields)
def test_fields_left_open_never_drift(
    expected: ConsumerConfig, actual: ConsumerConfig, left_open: set[str]
) -> None:
    all_of_them = {each.field for each in drift(expected, actual)}
    some: dict[str, Any] = dict.fromkeys(left_open)
    assert {each.field for each in drift(replace(expected, **some), actual)} == all_of_them - left_open


@pytest.mark.parametrize(
    ("event_type", "subject"),
    [
        ("message", f"sandbox.{ID}.events.message"),
        ("guild.member.join", f"sandbox.{ID}.events.guild.member.join"),
        ("a-b_c:1", f"sandbox.{ID}.events.a-b_c:1"),
        ("épice", f"sandbox.{ID}.events.épice"),
        ("x" * 200, f"sandbox.{ID}.events.{'x' * 200}"),
    ],
)
def test_an_event_type_makes_a_subject_below_the_sandboxs_own(event_type: str, subject: str) -> None:
    assert subject_of(ID, event_type) == subject
    assert subjects_of(ID) == f"sandbox.{ID}.>"


@pytest.mark.parametrize(
    ("event_type", "why"),
    [
        *[(each, "a part of it is empty") for each in ("", ".", ".a", "a.", "a..b")],
        *[(each, "do not belong") for each in ("*", ">", "a.*", "a.>", "a*", ">b", "a b", " a", "a\u00a0b")],
        *[(each, "do not belong") for each in ("a\r\nPUB x 0", "a\tb", "a\x00", "a\x7f", "\ud800")],
        ("x" * 201, "longer than 200"),
    ],
)
def test_what_is_no_event_type_is_refused_and_never_sent(event_type: str, why: str) -> None:
    with pytest.raises(ArrakisError, match=why) as refused:
        publish(Messaging(), ID, event_type, b"")
    assert str(refused.value).isprintable()
    assert refused.value.hint


@given(st.text(max_size=20))
def test_an_accepted_event_type_stays_in_its_sandbox(event_type: str) -> None:
    try:
        subject = subject_of(ID, event_type)
    except ArrakisError:
        return
    head, tokens = subject.split(".")[:3], subject.split(".")[3:]
    assert head == ["sandbox", str(ID), "events"]
    assert all(token and not set(token) & set(" *>\r\n\t") for token in tokens)
    assert subject.encode()


@pytest.mark.parametrize(
    ("subject", "counts"),
    [
        (f"sandbox.{ID}.>", True),
        (f"sandbox.{ID.hex[:8]}.events.x", True),
        ("sandbox.>", False),
        ("sandbox.*.events.>", False),
        ("sandbox.00000000-0000-4000-8000-000000000000.>", False),
        (f"events.{ID}", False),
        ("sandbox", False),
    ],
)
def test_who_listens_to_one_sandbox(subject: str, counts: bool) -> None:
    heard = [Subscription(client="worker", subject=subject), Subscription(client="all", subject="sandbox.>")]
    assert listeners(heard, str(ID)) == (["worker"] if counts else [])


@dataclass
class Messaging:
    """A stand-in that knows configurations only; what nobody prepared fails."""

    have: dict[str, Config] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    on_create: Callable[[Config], Config] = lambda config: config
    then: ArrakisError | None = None
    host: str = "nowhere"

    def stream(self, name: str) -> StreamState | None:
        found = self.have.get(f"stream {name}")
        return stream_state(found) if isinstance(found, StreamConfig) else None

    def consumer(self, stream: str, name: str) -> ConsumerState | None:
        found = self.have.get(f"consumer {stream}/{name}")
        return consumer_state(found) if isinstance(found, ConsumerConfig) else None

    def create_stream(self, config: StreamConfig) -> None:
        self._create(config)

    def create_consumer(self, config: ConsumerConfig) -> None:
        self._create(config)

    def _create(self, config: Config) -> None:
        self.calls.append(config.where)
        if isinstance(config, ConsumerConfig):
            assert f"stream {config.stream}" in self.have, "its stream comes first"
        self.have[config.where] = self.on_create(config)
        if self.then:
            raise self.then

    def publish(self, stream: str, subject: str, payload: bytes, *, id: str = "") -> int:
        raise AssertionError(f"published {subject!r}")

    def change_stream(self, name: str, changes: Mapping[str, Any]) -> None:
        raise AssertionError(f"changed {name}")

    def delete_stream(self, name: str) -> None:
        raise AssertionError(f"deleted {name}")

    def delete_consumer(self, stream: str, name: str) -> None:
        raise AssertionError(f"deleted {name}")

    def delete_message(self, stream: str, sequence: int) -> None:
        raise AssertionError(f"deleted {sequence}")

    def messages(self, stream: str, subject: str, limit: int, *, after: int = 0) -> list[Message]:
        self.calls.append(f"{stream} {subject} {limit} {after}")
        return []

    def subscriptions(self) -> list[Subscription]:
        raise AssertionError("asked who listens")


def holding(*configs: Config) -> Messaging:
    return Messaging(have={each.where: each for each in configs})


def test_each_expectation_is_as_expected_missing_or_drifted() -> None:
    short = replace(EVENTS, max_age=timedelta(seconds=1), storage="file")
    found = check(holding(SANDBOX, short, replace(WORKERS, max_deliver=9)), ALL)
    assert [each.expected for each in found] == list(ALL)
    assert [str(each.condition) for each in found] == ["as expected", "drifted", "as expected", "missing"]
    assert [[each.field for each in one.drift] for one in found] == [[], ["storage", "max_age"], [], []]


def test_only_what_is_missing_is_made_streams_first_and_the_drifted_is_left() -> None:
    odd = replace(EVENTS, max_msgs=7)
    writer = holding(odd)
    done = ensure(writer, [ROUTER, WORKERS, EVENTS, SANDBOX])
    assert done.made == (SANDBOX, ROUTER, WORKERS)
    assert writer.calls == [each.where for each in done.made]
    assert [each.expected for each in done.drifted] == [EVENTS]
    assert writer.have[EVENTS.where] == odd
    assert [each.expected for each in done.checked] == [ROUTER, WORKERS, EVENTS, SANDBOX]
    assert ensure(writer, ALL).made == ()


def test_what_somebody_else_made_meanwhile_in_their_way_is_drift_and_not_ours() -> None:
    def theirs(config: Config) -> Config:
        return replace(config, max_age=timedelta(hours=1)) if isinstance(config, StreamConfig) else config

    writer = Messaging(on_create=theirs, then=ArrakisError("already in use with a different configuration"))
    done = ensure(writer, [SANDBOX])
    assert done.made == ()
    assert [each.field for each in done.drifted[0].drift] == ["max_age"]


def test_a_refusal_that_leaves_nothing_is_an_error() -> None:
    class Refusing(Messaging):
        def _create(self, config: Config) -> None:
            raise ArrakisError("no room")

    with pytest.raises(ArrakisError, match="no room"):
        ensure(Refusing(), ALL)


def test_what_cannot_be_read_is_no_finding() -> None:
    class Silent(Messaging):
        def consumer(self, stream: str, name: str) -> ConsumerState | None:
            raise Unreachable("no answer")

    silent = Silent(have={SANDBOX.where: SANDBOX})
    with pytest.raises(Unreachable):
        check(silent, [SANDBOX, WORKERS])
    with pytest.raises(Unreachable):
        ensure(silent, [SANDBOX, WORKERS])
    assert silent.calls == []


def test_reading_asks_for_one_sandbox_only() -> None:
    reader = Messaging()
    read(reader, ID)
    read(reader, ID, 5, after=41)
    assert reader.calls == [f"SANDBOX sandbox.{ID}.> 100 0", f"SANDBOX sandbox.{ID}.> 5 41"]


@pytest.mark.parametrize(
    ("patterns", "subject", "taken"),
    [
        (["sandbox.>"], "sandbox.1.events.a", True),
        (["sandbox.>"], "sandbox", False),
        (["sandbox.>"], "sandbox.>", True),
        (["sandbox.>"], f"sandbox.{ID}.>", True),
        (["sandbox.*"], "sandbox.1", True),
        (["sandbox.*"], "sandbox.1.events", False),
        (["sandbox.*"], "sandbox.>", False),
        (["sandbox.*.events.guild.>"], "sandbox.1.events.guild.join", True),
        (["sandbox.*.events.guild.>"], "sandbox.1.events.member.join", False),
        (["sandbox.*.events.guild.>"], "sandbox.1.>", False),
        (["sandbox.1"], "sandbox.*", False),
        (["sandbox.*"], "sandbox.*", True),
        (["events.a", "events.b"], "events.b", True),
        (["events.a.b"], "events.a", False),
        ([">"], "anything.at.all", True),
        ([], "events.a", False),
    ],
)
def test_which_subjects_a_pattern_covers(patterns: list[str], subject: str, taken: bool) -> None:
    assert takes(patterns, subject) is taken


@given(streams | consumers)
def test_what_is_written_into_a_plan_is_read_back(config: Config) -> None:
    assert from_plain(json.loads(json.dumps(as_plain(config)))) == config
