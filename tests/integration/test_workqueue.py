"""Work queues on a real JetStream: an action lies there once, is handed to one, and comes back from the dead."""

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import pytest
from nats.aio.client import Client

from sandbox.adapters.nats import Nats
from sandbox.adapters.workqueue import STREAM, JetStreamQueue
from sandbox.errors import ArrakisError, Missing, Unreachable
from sandbox.model import StreamConfig
from sandbox.ports import Parcel, QueueState, Reply
from tests.integration.messaging import by_hand
from tests.integration.world import World

PATIENCE = timedelta(seconds=0.5)


@pytest.fixture
def queue(world: World) -> JetStreamQueue:
    """Return the queues, prepared."""
    made = JetStreamQueue(world.env["NATS_URL"], timeout=3)
    made.prepare(replicas=1)
    return made


@pytest.fixture
def run(queue: JetStreamQueue) -> Iterator[str]:
    """Return a run with a queue of its own."""
    name = f"run-{uuid4().hex[:6]}"
    queue.open(name, patience=PATIENCE)
    yield name
    queue.close(name)


def state(queue: JetStreamQueue, run: str) -> tuple[int, int, int]:
    """Return how much waits, is in hand, and was handed out again."""
    [found] = [each for each in queue.queues() if each.run == run]
    return found.waiting, found.in_hand, found.again


def test_thousands_are_laid_out_in_a_moment_and_each_lies_there_once(queue: JetStreamQueue, run: str) -> None:
    actions = [f"a{number}" for number in range(2000)]
    began = time.monotonic()
    assert queue.put(run, actions[:1300]) == 1300
    assert queue.put(run, actions) == 700
    assert time.monotonic() - began < 5
    assert queue.put(run, actions) == 0
    assert [each for each in queue.queues() if each.run == run] == [
        QueueState(run=run, waiting=2000, in_hand=0, again=0, patience=PATIENCE)
    ]


def test_what_is_in_hand_cannot_be_laid_out_again_what_is_answered_can(
    queue: JetStreamQueue, run: str
) -> None:
    queue.put(run, ["a1", "a2", "a3"])
    done, back, aside = queue.take(run, 5, wait=1)
    assert [parcel.action for parcel in (done, back, aside)] == ["a1", "a2", "a3"]
    assert queue.put(run, ["a1", "a2", "a3"]) == 0
    assert queue.take(run, 5, wait=0.05) == []
    queue.answer([done], Reply.DONE)
    queue.answer([aside], Reply.SET_ASIDE)
    queue.answer([back], Reply.GIVEN_BACK)
    [again] = queue.take(run, 5, wait=1)
    assert (again.action, again.delivered) == ("a2", 2)
    queue.answer([again], Reply.GIVEN_BACK, rest=timedelta(seconds=0.4))
    assert queue.take(run, 5, wait=0.1) == []
    [later] = queue.take(run, 5, wait=1)
    assert (later.action, later.delivered) == ("a2", 3)
    assert queue.put(run, ["a1", "a2", "a3"]) == 2


def test_who_says_nothing_is_thought_dead_who_says_so_is_still_at_it(queue: JetStreamQueue, run: str) -> None:
    queue.put(run, ["a1", "a2"])
    slow, dead = queue.take(run, 2, wait=1)
    end = time.monotonic() + 2
    back: list[Parcel] = []
    while not back and time.monotonic() < end:
        queue.answer([slow], Reply.AT_IT)
        back = queue.take(run, 2, wait=0.1)
    assert [(parcel.action, parcel.delivered) for parcel in back] == [(dead.action, 2)]
    queue.answer([slow], Reply.DONE)
    queue.answer([dead], Reply.DONE)  # late, but done
    assert state(queue, run)[:2] == (0, 0)


def test_that_we_are_at_it_has_to_be_heard_by_the_queue_and_not_by_some_server(queue: JetStreamQueue) -> None:
    queue.open("gone", patience=PATIENCE)
    queue.put("gone", ["a1"])
    taken = queue.take("gone", 1, wait=1)
    queue.answer(taken, Reply.AT_IT)
    queue.close("gone")
    with pytest.raises(Unreachable):
        queue.answer(taken, Reply.AT_IT)
    queue.answer(taken, Reply.DONE)


def test_one_is_waited_for_and_runs_do_not_see_each_other(queue: JetStreamQueue, run: str) -> None:
    queue.open("other", patience=PATIENCE)
    queue.put("other", ["a1"])
    began = time.monotonic()
    assert queue.take(run, 5, wait=0.3) == []
    assert 0.3 <= time.monotonic() - began < 1.5
    queue.close("other")
    with pytest.raises(Missing, match="no queue of run other"):
        queue.take("other", 5, wait=0.1)
    queue.open("other", patience=PATIENCE)
    assert queue.take("other", 5, wait=0.05) == []  # what was left on it went with it
    queue.close("other")
    queue.close("other")


@pytest.mark.parametrize(
    ("subject", "content"),
    [
        ("{run}.a1", b"no json"),
        ("{run}.a1", json.dumps({"run": "another", "action": "a1"}).encode()),
        ("{run}.a1", json.dumps({"run": "{run}", "action": "a2"}).encode()),
        ("{run}.a1.more", json.dumps({"run": "{run}", "action": "more"}).encode()),
        ("{run}.Ä", b""),
    ],
)
def test_what_is_not_as_we_write_it_names_no_action(
    world: World, queue: JetStreamQueue, run: str, subject: str, content: bytes
) -> None:
    async def publish(client: Client) -> None:
        where = "runbooks.work." + subject.replace("{run}", run)
        await client.jetstream().publish(where, content.replace(b"{run}", run.encode()))

    by_hand(world.env["NATS_URL"], publish)
    [parcel] = queue.take(run, 5, wait=1)
    assert parcel.action is None


def test_names_that_would_reach_others_are_refused(queue: JetStreamQueue) -> None:
    for name in ("", "a.b", "a>", "*", "a b", "ä"):
        with pytest.raises(ArrakisError, match="cannot be named on a queue"):
            queue.put(name, ["a1"])
        with pytest.raises(ArrakisError, match="cannot be named on a queue"):
            queue.open(name, patience=PATIENCE)
        with pytest.raises(ArrakisError, match="cannot be named on a queue"):
            queue.put("run", [name])


def test_without_the_stream_or_with_another_nothing_is_laid_out(world: World, queue: JetStreamQueue) -> None:
    system = Nats(world.env["NATS_URL"], timeout=3)
    system.delete_stream(STREAM)
    assert queue.queues() == []
    with pytest.raises(Missing, match=f"no stream {STREAM}"):
        queue.put("run", ["a1"])
    plain = StreamConfig(
        name=STREAM,
        subjects=("runbooks.work.>",),
        retention="limits",
        storage="memory",
        max_age=timedelta(0),
        max_msgs=-1,
        replicas=1,
    )
    system.create_stream(plain)
    with pytest.raises(ArrakisError, match="set up otherwise: retention is 'limits'"):
        queue.prepare(replicas=1)
    system.delete_stream(STREAM)
    queue.prepare(replicas=1)
    queue.prepare(replicas=3)  # there is one: how many copies it has is left as it is


def test_a_dead_server_is_unreachable() -> None:
    dead = JetStreamQueue("nats://127.0.0.1:1", timeout=1)
    for call in (lambda: dead.prepare(replicas=1), dead.queues, lambda: dead.take("run", 1, wait=1)):
        with pytest.raises(Unreachable):
            call()
