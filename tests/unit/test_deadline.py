"""What is made one ahead comes in order, within its time, and nobody goes on making what nobody takes."""

import threading
from collections.abc import Iterator

import pytest

from sandbox.deadline import ahead
from sandbox.errors import Unreachable


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
