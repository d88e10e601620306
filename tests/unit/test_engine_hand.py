"""What a process has in hand: the queue is told all the while that we are at it, and nobody goes on whom it may have given up."""

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest

from runbooks.engine import hand as hands
from runbooks.engine.errors import LeaseHeld
from runbooks.engine.hand import Hand
from sandbox.errors import ArrakisError, Unreachable
from sandbox.ports import Parcel, QueueState, Reply

PATIENCE = 30.0  # seconds: two thirds are 20
FIRST, SECOND, THIRD = (
    Parcel(action=name, delivered=1, receipt=f"receipt of {name}") for name in ("a1", "a2", "a3")
)


class Clock:
    """A clock that only tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Queue:
    """What is handed out, and what was said of it. Satisfies WorkQueue."""

    host = "nats"

    def __init__(self) -> None:
        self.waiting = list[list[Parcel]]()
        self.asked = list[tuple[str, int, float]]()
        self.said = list[tuple[list[Parcel], Reply, float]]()
        self.meanwhile: Callable[[], None] = lambda: None
        self.trouble: Exception | None = None
        self.heard = threading.Event()

    def take(self, run: str, limit: int, *, wait: float) -> list[Parcel]:
        self.asked.append((run, limit, wait))
        return self.waiting.pop(0)

    def answer(self, parcels: Sequence[Parcel], reply: Reply, *, rest: timedelta = timedelta(0)) -> None:
        self.meanwhile()
        if self.trouble:
            raise self.trouble
        self.said.append((list(parcels), reply, rest.total_seconds()))
        self.heard.set()

    def prepare(self, *, replicas: int) -> None: ...

    def open(self, run: str, *, patience: timedelta) -> None: ...

    def put(self, run: str, actions: Sequence[str]) -> int:
        return len(actions)

    def queues(self) -> list[QueueState]:
        return []

    def close(self, run: str) -> None: ...


class Turns(threading.Event):
    """Lets somebody speak some times, at the times that they wait for, and then has them fall silent."""

    def __init__(self, clock: Clock, turns: int) -> None:
        super().__init__()
        self.clock, self.turns, self.waited = clock, turns, list[float | None]()

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout)
        self.clock.now += timeout or 0
        return len(self.waited) > self.turns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(hands, "time", clock)
    return clock


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def hand(queue: Queue, clock: Clock) -> Hand:
    """Return a hand that took nothing for a long while."""
    hand = Hand(queue, patience=timedelta(seconds=PATIENCE))
    clock.now += 500
    return hand


def take(hand: Hand, queue: Queue, *parcels: Parcel) -> None:
    queue.waiting.append(list(parcels))
    assert hand.take("r1", 9, wait=0.5) == list(parcels)


def speak(hand: Hand, clock: Clock, turns: int) -> Turns:
    """Let a hand say so many times that it is still at it."""
    hand._over = turn = Turns(clock, turns)
    hand._speak()
    return turn


# What is in hand


def test_what_is_taken_is_in_hand_until_it_is_answered(hand: Hand, queue: Queue) -> None:
    empty = [hand.empty]
    take(hand, queue, FIRST, SECOND)
    assert queue.asked == [("r1", 9, 0.5)]
    take(hand, queue, THIRD)
    empty.append(hand.empty)
    hand.answer([FIRST, THIRD], Reply.DONE)
    empty.append(hand.empty)
    hand.answer([SECOND], Reply.SET_ASIDE)
    assert [*empty, hand.empty] == [True, False, False, True]
    assert queue.said == [([FIRST, THIRD], Reply.DONE, 0), ([SECOND], Reply.SET_ASIDE, 0)]


def test_nothing_is_answered_twice(hand: Hand, queue: Queue) -> None:
    take(hand, queue, FIRST, SECOND)
    hand.answer([FIRST], Reply.DONE)
    hand.answer([FIRST, SECOND], Reply.GIVEN_BACK)
    hand.give_back_for_later([FIRST, SECOND])
    assert [said for said in queue.said if said[0]] == [
        ([FIRST], Reply.DONE, 0),
        ([SECOND], Reply.GIVEN_BACK, 0),
    ]


def test_what_is_given_back_for_later_rests_for_half_the_patience(hand: Hand, queue: Queue) -> None:
    take(hand, queue, FIRST, SECOND)
    hand.give_back_for_later([SECOND])
    assert queue.said == [([SECOND], Reply.GIVEN_BACK, 15)]
    assert not hand.empty


def test_an_answer_that_the_queue_does_not_hear_is_left_to_it(hand: Hand, queue: Queue) -> None:
    take(hand, queue, FIRST)
    queue.trouble = Unreachable("no answer")
    hand.answer([FIRST], Reply.DONE)
    assert hand.empty


def test_a_fault_of_ours_in_an_answer_is_not_hidden(hand: Hand, queue: Queue) -> None:
    queue.trouble = RuntimeError("bang")
    with pytest.raises(RuntimeError):
        hand.answer([FIRST], Reply.DONE)


# What the queue hears


def test_the_queue_is_told_four_times_within_its_patience_what_we_are_at(
    hand: Hand, queue: Queue, clock: Clock
) -> None:
    take(hand, queue, FIRST, SECOND)
    assert speak(hand, clock, 2).waited == [7.5] * 3
    assert queue.said == [([FIRST, SECOND], Reply.AT_IT, 0)] * 2


def test_with_nothing_in_hand_nobody_is_asked_and_nobody_has_heard_us(
    hand: Hand, queue: Queue, clock: Clock
) -> None:
    heard = hand._heard
    assert speak(hand, clock, 2).waited == [7.5] * 3
    assert (queue.said, hand._heard) == ([], heard)


def test_who_was_not_heard_says_it_again(hand: Hand, queue: Queue, clock: Clock) -> None:
    take(hand, queue, FIRST)
    answers: list[ArrakisError | None] = [Unreachable("no answer"), None]

    def meanwhile() -> None:
        queue.trouble = answers.pop(0)

    queue.meanwhile = meanwhile
    speak(hand, clock, 2)
    assert queue.said == [([FIRST], Reply.AT_IT, 0)]


def test_it_is_said_by_a_thread_that_ends_with_the_hand_and_keeps_no_process_alive(queue: Queue) -> None:
    hand = Hand(queue, patience=timedelta(seconds=0.01))
    take(hand, queue, FIRST)
    others = threading.enumerate()
    with hand as held:
        assert held is hand
        assert queue.heard.wait(5)
        [speaker] = [each for each in threading.enumerate() if each not in others]
        assert speaker.name == "still at it"
        assert speaker.daemon
        assert speaker.is_alive()
    assert hand._over.is_set()
    speaker.join(5)
    assert not speaker.is_alive()


# Who may go on


def test_who_is_not_heard_for_two_thirds_of_the_patience_may_not_go_on(
    hand: Hand, queue: Queue, clock: Clock
) -> None:
    take(hand, queue, FIRST)
    clock.now += 20
    hand.insist()
    clock.now += 1
    with pytest.raises(LeaseHeld, match="NATS at nats has not heard us for 21 s") as error:
        hand.insist()
    assert error.value.hint == "it is looked at again by whoever has it"


def test_the_silence_is_counted_from_the_first_that_was_taken(hand: Hand, queue: Queue, clock: Clock) -> None:
    take(hand, queue, FIRST)
    clock.now += 19
    take(hand, queue, SECOND)
    take(hand, queue)
    clock.now += 2
    with pytest.raises(LeaseHeld):
        hand.insist()


def test_who_begins_anew_has_time_again(hand: Hand, queue: Queue, clock: Clock) -> None:
    take(hand, queue, FIRST)
    hand.answer([FIRST], Reply.DONE)
    clock.now += 500
    take(hand, queue, SECOND)
    hand.insist()


def test_who_has_nothing_in_hand_may_be_silent_for_ever(queue: Queue, clock: Clock) -> None:
    hand = Hand(queue, patience=timedelta(seconds=1))
    clock.now += 500
    hand.insist()
    hand.insist_heard(since=-1e9)


def test_the_silence_is_counted_from_the_moment_at_which_what_was_heard_began_to_be_said(
    hand: Hand, queue: Queue, clock: Clock
) -> None:
    def slowly() -> None:
        clock.now += 5

    take(hand, queue, FIRST)
    queue.meanwhile = slowly
    speak(hand, clock, 1)  # 7.5 s, and 5 s until it is heard, and 7.5 s
    clock.now = 1527.5
    hand.insist()
    clock.now += 0.5
    with pytest.raises(LeaseHeld):
        hand.insist()


def test_what_was_not_heard_does_not_count(hand: Hand, queue: Queue, clock: Clock) -> None:
    take(hand, queue, FIRST)
    queue.trouble = Unreachable("no answer")
    speak(hand, clock, 2)  # 22.5 s
    with pytest.raises(LeaseHeld):
        hand.insist()


def test_all_threads_are_told_when_any_was_not_heard_since_they_began(
    hand: Hand, queue: Queue, clock: Clock
) -> None:
    take(hand, queue, FIRST)
    hand.insist_heard(since=clock.now)
    clock.now = 1600
    with pytest.raises(LeaseHeld):
        hand.insist()
    clock.now = 1700
    hand.insist_heard(since=1600.5)
    for since in (1599, 1600):
        with pytest.raises(Unreachable, match="NATS at nats has not heard us") as error:
            hand.insist_heard(since=since)
        assert error.value.hint == "what was in hand is looked at again by whoever has it"
