"""What is made one ahead comes in order, within its time, and nobody goes on making what nobody takes. Ctrl-C is heard."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from sandbox.deadline import ahead, beside, within
from sandbox.errors import Unreachable
from sandbox.facts import gather


def test_the_next_is_made_while_one_is_dealt_with() -> None:
    begun = [threading.Event() for _ in range(3)]

    def make() -> Iterator[int]:
        for number, event in enumerate(begun):
            event.set()
            yield number

    taken = []
    for number in ahead(5, make(), "it"):
        assert all(event.wait(5) for event in begun[: number + 2])
        taken.append(number)
    assert taken == [0, 1, 2]


def test_what_goes_wrong_comes_after_what_was_made() -> None:
    def make() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    coming = ahead(5, make(), "it")
    assert next(coming) == 1
    with pytest.raises(ValueError, match="no more"):
        next(coming)


def test_who_makes_nothing_in_time_is_not_waited_for() -> None:
    released = threading.Event()

    def make() -> Iterator[int]:
        yield 1
        released.wait(5)

    coming = ahead(0.05, make(), "Redis at h:1")
    assert next(coming) == 1
    with pytest.raises(Unreachable, match=r"Redis at h:1 gave no answer within 0\.05 s"):
        next(coming)
    released.set()


@pytest.mark.parametrize("taken", [1, 5])
def test_nobody_goes_on_making_what_is_not_taken(taken: int) -> None:
    made: list[int] = []

    def make() -> Iterator[int]:
        for number in range(1000):
            made.append(number)
            yield number

    coming = ahead(5, make(), "what is given up")
    for _ in range(taken):
        next(coming)
    coming.close()
    for thread in threading.enumerate():
        if thread.name == "ahead what is given up":
            thread.join(5)
            assert not thread.is_alive()
    assert len(made) <= taken + 3


class Heard(Exception):
    """Raised by a signal's handler, as Ctrl-C is."""


@pytest.fixture
def hearing() -> Iterator[None]:
    def raise_heard(*_: object) -> None:
        raise Heard

    before = signal.signal(signal.SIGUSR1, raise_heard)
    yield
    signal.signal(signal.SIGUSR1, before)


def where() -> tuple[int, int]:
    """Where the main thread is."""
    frame = sys._current_frames()[threading.main_thread().ident or 0]
    return id(frame), frame.f_lasti


WAITS: dict[str, Callable[[Callable[[], bool]], object]] = {
    "within": lambda call: within(60, call, "it"),
    "beside": lambda call: beside(call)(),
    "ahead": lambda call: next(ahead(60, (call() for _ in range(1)), "it")),
    "gather": lambda call: gather({"it": call}, deadline=60),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_a_signal_that_does_not_end_a_wait_is_heard(
    wait: Callable[[Callable[[], bool]], object], hearing: None
) -> None:
    """The kernel may hand a signal to any thread: it is the main one's to handle, whose wait goes on as if nothing were."""
    released, over = threading.Event(), threading.Event()

    def call() -> bool:
        while len({where() for _ in range(20) if not released.wait(0.001)}) > 1:
            pass  # it has to be waiting
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        released.wait(10)
        over.set()
        return True

    with pytest.raises(Heard):
        wait(call)
    assert not over.is_set()
    released.set()
