"""Questions that several have are asked once."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO

import pytest

from runbooks.engine.environment import Environment
from runbooks.engine.sharing import Once, sharing
from runbooks.engine.systems import Readers, readers
from sandbox.errors import Unreachable

NOWHERE = Environment(
    name="custom",
    database_url="postgresql://u@127.0.0.1:1/none",
    redis_url="redis://127.0.0.1:1",
    nats_url="nats://127.0.0.1:1",
)


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


def test_what_can_be_read_only_once_is_asked_for_each_time() -> None:
    class Account:
        def read(self, service: str, operation: str, /, **params: object) -> dict[str, object]:
            return {"Body": BytesIO(b"an object"), "asked": service}

    systems = replace(readers(NOWHERE, tag="test", timeout=1), aws=Account())
    with sharing(systems) as shared:
        bodies = [shared.aws.read("s3", "get_object", Key="k")["Body"].read() for _ in range(2)]
        alike = [shared.aws.read("s3", "list_objects_v2", Prefix="k") for _ in range(2)]
    assert bodies == [b"an object"] * 2
    assert alike[0] is alike[1]


class Slow:
    """A database whose moment takes long to be held."""

    host = "slow"

    def __init__(self) -> None:
        self.asked, self.go_on, self.closed = threading.Event(), threading.Event(), threading.Event()

    @contextmanager
    def moment(self) -> Iterator["Slow"]:
        self.asked.set()
        assert self.go_on.wait(10)
        try:
            yield self
        finally:
            self.closed.set()


def test_a_moment_that_comes_too_late_is_not_held() -> None:
    slow, failures = Slow(), list[str]()
    systems = replace(readers(NOWHERE, tag="test", timeout=1), sql=slow)  # type: ignore[arg-type]

    def ask(shared: Readers) -> None:
        try:
            with shared.sql.snapshot():
                pass
        except Unreachable as error:
            failures.append(str(error))

    with sharing(systems) as shared:
        late = threading.Thread(target=ask, args=(shared,))
        late.start()
        assert slow.asked.wait(10)
    slow.go_on.set()
    late.join(10)
    assert slow.closed.is_set()
    assert failures == ["this look is over"]


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
