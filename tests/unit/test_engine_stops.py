"""Emergency stops: what became of a sandbox since, what can be given back, and a watch that never takes silence for a lowered flag."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from runbooks.engine import stops
from runbooks.engine.errors import Stopped
from runbooks.engine.stops import Marked, Stop, Watch
from sandbox import schemas
from sandbox.errors import ArrakisError, Denied, Missing, Unreachable

NOW = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)
SOON = NOW + timedelta(seconds=1)
STOP = Stop(id="s1", raised_at=NOW, raised_by="chani", reason="worms", halting=True, parts={})
MARKED = Marked(
    id=UUID(int=1),
    name="sietch",
    was="running",
    was_destroyed_at=None,
    was_expires_at=SOON,
    schemas=("sandbox_1",),
    was_guilds=("g1", "g2", "g3"),
    marked_at=NOW,
    status="destroyed",
    destroyed_at=NOW,
    expires_at=SOON,
    guilds=("g2",),
    event="sandbox_destroyed",
    actor="chani",
    at=NOW,
)


class Answers:
    """A database that answers each statement as it was prepared, and no other. Satisfies SqlReader, and SqlTransaction."""

    host = "db"

    def __init__(self, **answers: Any) -> None:
        self.answers, self.asked = answers, list[tuple[str, dict[str, object]]]()
        self._asked = threading.Condition()

    def wait_for(self, more: int) -> None:
        """Wait until so many more were asked."""
        before = len(self.asked)
        with self._asked:
            assert self._asked.wait_for(lambda: len(self.asked) >= before + more, timeout=10)

    @contextmanager
    def snapshot(self) -> Iterator["Answers"]:
        yield self

    def rows(self, statement: str, row: type, /, **params: object) -> list[Any]:
        found: list[Any] = self._answer(statement, params)
        assert all(isinstance(each, row) for each in found)
        return found

    def execute(self, statement: str, /, **params: object) -> int:
        count: int = self._answer(statement, params)
        return count

    def _answer(self, statement: str, params: dict[str, object]) -> Any:
        with self._asked:
            self.asked.append((statement, params))
            self._asked.notify_all()
        answer = self.answers[statement.rpartition("/")[2]]
        if isinstance(answer, Exception):
            raise answer
        return answer


def reader(**answers: Any) -> Any:
    return Answers(**answers)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, None),
        ({"at": None}, None),
        ({"at": NOW - timedelta(1)}, None),
        ({"status": None}, "its row is gone"),
        ({"status": "running"}, "it is running by somebody else's hand"),
        ({"destroyed_at": SOON}, "it is destroyed by somebody else's hand"),
        ({"destroyed_at": None}, "it is destroyed by somebody else's hand"),
        ({"expires_at": NOW}, "somebody moved its end since"),
        ({"at": SOON, "actor": "leto", "event": "ttl_extended"}, "leto wrote ttl_extended about it since"),
    ],
)
def test_what_became_of_it_since_is_told(changes: dict[str, Any], told: str | None) -> None:
    assert replace(MARKED, **changes).touched == told


def test_the_guilds_that_are_not_mapped_any_more_are_named() -> None:
    assert MARKED.unmapped == ("g1", "g3")


def test_who_raised_it_and_when_is_said() -> None:
    assert STOP.by == "chani, since 2026-03-01 12:00:05 UTC"


def test_what_can_be_given_back_is_told_from_what_cannot() -> None:
    whole, gone, touched = (
        MARKED,
        replace(MARKED, schemas=("sandbox_3", "sandbox_1", "sandbox_2")),
        replace(MARKED, status=None, schemas=("sandbox_9",)),
    )
    database = Answers(names=[], sandboxes=[whole, gone, touched])
    waiting, lost = _standing(database, there=["sandbox_1"])
    assert waiting == [whole]
    assert lost == [
        (
            gone,
            "schema sandbox_2, sandbox_3 is gone; if it is in quarantine, the undo of that run has to come first",
        ),
        (touched, "its row is gone"),
    ]
    assert ("read/stops/sandboxes", {"stop": "s1"}) in database.asked


def _standing(database: Any, *, there: list[str]) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schemas, "names", {database: there}.get)
        return stops.standing(database, "s1")


def test_a_stop_is_read_and_what_nobody_may_see_is_no_lowered_flag() -> None:
    assert stops.raised(reader(raised=[STOP])) == STOP
    assert stops.raised(reader(raised=[])) is None
    assert stops.raised(reader(raised=Missing("no such table"))) is None
    with pytest.raises(Unreachable):
        stops.raised(reader(raised=Unreachable("no answer")))
    with pytest.raises(Denied, match="cannot tell whether an emergency stop is raised: no right") as denied:
        stops.raised(reader(raised=Denied("no right")))
    assert denied.value.hint.startswith("GRANT USAGE ON SCHEMA runbooks")


def test_the_marked_ones_are_read_by_their_ids() -> None:
    ids = [stops._Id(id=UUID(int=number)) for number in (1, 2)]
    assert stops.marked(reader(marked=ids)) == {UUID(int=1), UUID(int=2)}
    assert stops.marked(reader(marked=Missing("no such table"))) == frozenset()


def test_what_is_written_down_is_what_was_given() -> None:
    database: Any = Answers(
        **dict.fromkeys(("raise", "lower", "lift", "mark", "give_back"), 3), raised=[STOP], hold=[STOP]
    )
    parts, over = {"scale down": {"was": 3}}, {"disable rule": {"was": NOW}}
    stops.raise_stop(database, id="s1", by="chani", reason="worms", halting=True, parts=parts, over=over)
    assert stops.held(database, id="s1") == STOP
    stops.lower(database, id="s1")
    stops.lift(database, id="s1", by="leto")
    assert stops.mark(database, {UUID(int=1): ["sandbox_1"]}, actor="chani") == 3
    assert stops.give_back(database, stop="s1", ids=[UUID(int=1)], actor="leto") == 3
    assert database.asked == [
        ("write/stops/raise", {"id": "s1", "by": "chani", "reason": "worms", "halting": True, "parts": '{"scale down":{"was":3}}', "over": '{"disable rule":{"was":"2026-03-01T12:00:05+00:00"}}'}),
        ("write/stops/hold", {"id": "s1"}),
        ("write/stops/lower", {"id": "s1"}),
        ("write/stops/lift", {"id": "s1", "by": "leto"}),
        ("read/stops/raised", {}),
        ("write/stops/mark", {"sandboxes": '[{"id":"00000000-0000-0000-0000-000000000001","schemas":["sandbox_1"]}]', "actor": "chani"}),
        ("write/stops/give_back", {"stop": "s1", "ids": [UUID(int=1)], "actor": "leto"}),
    ]  # fmt: skip
    assert stops.held(Answers(hold=[]), id="s1") is None  # type: ignore[arg-type]


def test_nothing_is_marked_for_a_stop_that_was_lifted() -> None:
    database: Any = Answers(raised=[])
    with pytest.raises(ArrakisError, match="lifted just now"):
        stops.mark(database, {UUID(int=1): []}, actor="chani")


# The watch

GONE = Unreachable("no answer")
LOWERED = replace(STOP, halting=False)


@pytest.mark.parametrize(
    ("seen", "raises"),
    [
        (([],), None),
        (([LOWERED],), None),
        (([STOP],), Stopped),
        ((GONE,), Unreachable),
        ((GONE, []), None),
        ((GONE, [LOWERED]), None),
        (([STOP], []), Stopped),  # what was halted stays so
        (([STOP], GONE), Stopped),
        ((GONE, [STOP]), Stopped),
        ((GONE, Denied("no")), Denied),
    ],
)
def test_a_watch_knows_the_latest_but_forgets_no_stop(
    seen: tuple[Any, ...], raises: type[Exception] | None
) -> None:
    database = reader()
    watch = Watch(database)
    watch.insist()
    for each in seen:
        database.answers = {"raised": each}
        watch.look()
    if raises is None:
        watch.insist()
    else:
        with pytest.raises(raises) as told:
            watch.insist()
        assert raises is not Stopped or STOP.by in str(told.value)


def test_a_stop_is_honoured_within_a_second() -> None:
    assert 0 < stops._GLANCE < 1


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a watch look a thousand times in a second."""
    monkeypatch.setattr(stops, "_GLANCE", 0.001)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        ([STOP], Stopped, "chani, since 2026-03-01 12:00:05 UTC"),
        (GONE, Unreachable, "no answer"),
        (
            RuntimeError("bang"),
            ArrakisError,
            r"nobody can tell whether a stop is raised: RuntimeError\('bang'\)",
        ),
    ],
)
def test_a_watch_has_looked_before_it_is_handed_over_and_goes_on_looking(
    answer: Any, error: type[Exception], told: str
) -> None:
    database = reader(raised=[])
    with stops.watching(database) as watch:
        assert database.asked
        watch.insist()
        database.answers = {"raised": answer}
        database.wait_for(more=3)
        with pytest.raises(error, match=told):
            watch.insist()


@pytest.mark.usefixtures("quick")
def test_a_watch_ends_with_what_it_is_for_and_holds_up_no_exit() -> None:
    before = threading.enumerate()  # another test's may not have gone yet
    with stops.watching(reader(raised=[])):
        [thread] = [each for each in threading.enumerate() if each not in before]
        assert thread.name == "stop flag"
        assert thread.daemon
    thread.join(10)
    assert not thread.is_alive()
