"""Questions that several have are asked once."""

import threading
from collections.abc import Callable

import pytest

from runbooks.engine.sharing import Once
from sandbox.errors import Unreachable


def test_who_asks_again_gets_the_first_answer() -> None:
    once, asked = Once(), list[int]()

    def read() -> int:
        asked.append(1)
        return len(asked)

    assert [once("a", read), once("a", read), once("b", read)] == [1, 1, 2]


def test_an_error_is_for_all_who_ask_and_the_server_is_not_asked_again() -> None:
    once, asked = Once(), list[int]()

    def fail() -> int:
        asked.append(1)
        raise Unreachable("no answer")

    for _ in range(3):
        with pytest.raises(Unreachable, match="no answer"):
            once("a", fail)
    assert asked == [1]


def test_who_asks_meanwhile_waits_for_the_first_answer() -> None:
    once, answers = Once(), list[str]()
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> str:
        begun.set()
        assert go_on.wait(10)
        return "the first"

    def asking(read: Callable[[], str]) -> threading.Thread:
        thread = threading.Thread(target=lambda: answers.append(once("a", read)))
        thread.start()
        return thread

    first = asking(slow)
    assert begun.wait(10)
    others = [asking(lambda: "another") for _ in range(8)]
    go_on.set()
    for each in (first, *others):
        each.join(10)
    assert answers == ["the first"] * 9
