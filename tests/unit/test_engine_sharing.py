"""What is shared while several look: one moment of the database, held from the first question on, and every answer but once."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import pytest

from runbooks.engine.sharing import Once, sharing
from runbooks.engine.systems import Readers
from sandbox.errors import Unreachable


class Database:
    """A database that counts what is open. Satisfies SqlReader and SqlSnapshot."""

    host = "db"

    def __init__(self) -> None:
        self.moments = self.opened = self.open = 0
        self.asked = list[tuple[Any, ...]]()
        self.trouble: Exception | None = None

    @contextmanager
    def moment(self) -> Iterator["Database"]:
        self.moments += 1
        try:
            yield self
        finally:
            self.moments -= 1
        if self.trouble:
            raise self.trouble

    @contextmanager
    def snapshot(self) -> Iterator["Database"]:
        assert self.moments == 1, "as of the moment alone"
        self.opened, self.open = self.opened + 1, self.open + 1
        try:
            yield self
        finally:
            self.open -= 1

    def keeping(self, connections: int) -> Any:
        return nullcontext(connections)

    def rows(self, *asked: Any, **params: Any) -> list[str]:
        self.asked.append((*asked, params))
        return [f"answer {len(self.asked)}"]

    def newest(self, columns: Any) -> Any:
        self.asked.append(("newest", columns))
        return {"newest": len(self.asked)}

    def explain(self, statement: str, **params: Any) -> Any:
        self.asked.append(("explain", statement, params))
        return {"explain": len(self.asked)}


class Account:
    def __init__(self) -> None:
        self.asked = list[tuple[Any, ...]]()

    def read(self, service: str, operation: str, /, **params: Any) -> Any:
        self.asked.append((service, operation, params))
        return {"n": len(self.asked)}


@pytest.fixture
def database() -> Database:
    return Database()


def shared(database: Database, account: Account | None = None) -> Any:
    nothing: Any = None
    sql: Any = database
    return sharing(
        Readers(
            sql=sql,
            pools=nothing,
            keys=nothing,
            cache=nothing,
            streams=nothing,
            aws=account or nothing,
            tag="t",
        )
    )


def test_nothing_is_asked_before_the_first_question_and_nothing_is_open_after_the_last(
    database: Database,
) -> None:
    with shared(database) as readers:
        assert isinstance(readers.ask, Once)
        assert readers.sql.host == "db"
        assert database.moments == 0
        with readers.sql.snapshot() as snapshot:
            assert (database.moments, database.open) == (1, 0)
            snapshot.rows("s", str)
            assert (database.moments, database.open) == (1, 1)
        assert (database.moments, database.open) == (1, 0)
        with readers.sql.snapshot():
            pass
    assert (database.moments, database.opened) == (0, 1)


def test_a_question_is_asked_once_and_each_gets_the_answer_for_itself(database: Database) -> None:
    with shared(database) as readers:
        answers = list[list[str]]()
        for _ in range(2):
            with readers.sql.snapshot() as snapshot:
                answers += [
                    snapshot.rows("s", str, a=1, b=2),
                    snapshot.rows("s", str, b=2, a=1),
                    snapshot.rows("s", int, a=1, b=2),
                    snapshot.rows("s", str, a=1, b=3),
                    snapshot.rows("t", str, a=1, b=2),
                    snapshot.rows("s", str, a=object, b=2),
                ]
                answers[0].append("mine alone")
    assert [each[0] for each in answers] == [f"answer {number}" for number in (1, 1, 2, 3, 4, 5)] * 2
    assert [len(each) for each in answers] == [3] + [1] * 11
    assert database.asked[0] == ("s", str, {"a": 1, "b": 2})
    assert database.opened == 1


def test_what_is_measured_is_asked_each_time_in_the_one_transaction(database: Database) -> None:
    with shared(database) as readers, readers.sql.snapshot() as snapshot:
        assert snapshot.newest({"t": []}) == {"newest": 1}
        assert snapshot.explain("s", a=1) == {"explain": 2}
        assert snapshot.explain("s", a=1) == {"explain": 3}
    assert database.asked == [("newest", {"t": []}), *[("explain", "s", {"a": 1})] * 2]
    assert database.opened == 1


def test_who_wants_a_moment_gets_the_one_that_is_held(database: Database) -> None:
    with shared(database) as readers:
        with readers.sql.moment() as moment:
            assert moment is readers.sql
        with readers.sql.keeping(3) as connections:
            assert connections == 3


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Return what is set as soon as somebody waits for a turn."""
    somebody, real = threading.Event(), threading.BoundedSemaphore

    class Turns(real):  # type: ignore[valid-type,misc]
        def __enter__(self) -> bool:
            if not self.acquire(blocking=False):
                somebody.set()
                self.acquire()
            return True

    monkeypatch.setattr(threading, "BoundedSemaphore", Turns)
    return somebody


def test_two_are_open_at_once_and_who_comes_third_has_the_turn_of_who_leaves(
    database: Database, queue: threading.Event
) -> None:
    answers = list[list[str]]()

    def ask(readers: Readers) -> None:
        with readers.sql.snapshot() as snapshot:
            answers.append(snapshot.rows("s", str, n=3))

    with shared(database) as readers, ExitStack() as stack:
        for number in range(2):
            snapshot = stack.enter_context(readers.sql.snapshot())
            snapshot.rows("s", str, n=number)
            snapshot.rows("s", str, n=number + 10)
        third = threading.Thread(target=ask, args=(readers,))
        third.start()
        assert queue.wait(10)
        assert (database.open, answers) == (2, [])
        stack.close()
        third.join(10)
    assert (database.open, answers) == (0, [["answer 5"]])


def test_whoever_has_a_turn_never_waits_for_one_who_has_none(
    database: Database, queue: threading.Event
) -> None:
    """A circle otherwise: who waits for the turn waits for who has it, who waits for the answer that the first is to give."""
    with shared(database) as readers, ExitStack() as stack:
        first, second = (stack.enter_context(readers.sql.snapshot()) for _ in range(2))
        first.rows("a", str)
        second.rows("b", str)

        def ask() -> None:
            with readers.sql.snapshot() as snapshot:
                snapshot.rows("wanted by all", str)

        third = threading.Thread(target=ask, daemon=True)
        third.start()
        assert queue.wait(10)
        answer = threading.Thread(target=first.rows, args=("wanted by all", str), daemon=True)
        answer.start()
        answer.join(10)
        assert not answer.is_alive()
        stack.close()
        third.join(10)
    assert [asked[0] for asked in database.asked] == ["a", "b", "wanted by all"]


def test_whatever_becomes_of_the_moment_what_was_read_is_read(database: Database) -> None:
    database.trouble = Unreachable("its connection is gone")
    with shared(database) as readers, readers.sql.snapshot() as snapshot:
        answer = snapshot.rows("s", str)
    assert answer == ["answer 1"]
    database.trouble = RuntimeError("a fault of ours")
    with pytest.raises(RuntimeError), shared(database) as readers, readers.sql.snapshot() as snapshot:
        snapshot.rows("s", str)


def test_who_comes_too_late_is_left_with_nothing_open(database: Database) -> None:
    with shared(database) as readers:
        late = readers.sql
    with pytest.raises(Unreachable, match="this look is over"), late.snapshot():
        pass
    assert database.moments == 0


def test_an_account_is_asked_once_but_for_what_is_streamed(database: Database) -> None:
    account = Account()
    with shared(database, account) as readers:
        asked = [
            readers.aws.read("rds", "describe", a=1, b=2),
            readers.aws.read("rds", "describe", b=2, a=1),
            readers.aws.read("rds", "describe", a=2, b=2),
            readers.aws.read("ecs", "describe", a=1, b=2),
            readers.aws.read("rds", "list", a=1, b=2),
            *(readers.aws.read("s3", "get_object", Key="k") for _ in range(2)),
        ]
    assert [each["n"] for each in asked] == [1, 1, 2, 3, 4, 5, 6]
    assert account.asked[0] == ("rds", "describe", {"a": 1, "b": 2})
    assert account.asked[-1] == ("s3", "get_object", {"Key": "k"})


def test_ctrl_c_is_for_all_who_ask_too() -> None:
    once = Once()

    def interrupted() -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            once("a", interrupted)
