"""A run that is followed: what PostgreSQL and NATS say of it, look by look, though either may be silent."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest

from runbooks.engine import following
from runbooks.engine.errors import Exit, PlanError
from runbooks.engine.following import Snapshot, Speed, watch
from runbooks.engine.standing import Failure, Part, Standing
from sandbox.errors import Unreachable
from sandbox.facts import Known, Unknown
from sandbox.ports import QueueState

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
QUEUE = QueueState(run="r1", waiting=3, in_hand=2, again=0, patience=timedelta(seconds=30))
OTHER = replace(QUEUE, run="r0")
SILENT = Unreachable("no answer")


def stands(
    done: int = 0, *, at: float = 0, total: int = 20, exit: int | None = None, queued: bool = True
) -> Standing:
    now = NOW + timedelta(seconds=at)
    parts = (Part(worker="a", seen=now, done=done, skipped=0, failed=0, begun=0),)
    return Standing(queued=queued, total=total, exit=exit, strangers=0, now=now, parts=parts)


def failure(at: float) -> Failure:
    return Failure(at=NOW + timedelta(seconds=at), worker="a", resource=f"t{at}", reason="no")


class World:
    """A run in PostgreSQL and on the queue, one look after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.standings: list[Standing | Exception | None] = []
        self.queues: list[QueueState] | Exception = [OTHER, QUEUE]
        self.failures: list[Failure] | Exception = []
        self.after, self.waited = list[datetime](), list[float]()
        self.sql: Any = object()
        monkeypatch.setattr(following, "standing", self._standing)
        monkeypatch.setattr(following, "failures", self._failures)

    def _standing(self, sql: object, run: str) -> Standing | None:
        assert (sql, run) == (self.sql, "r1")
        found = self.standings.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def _failures(self, sql: object, run: str, *, after: datetime) -> list[Failure]:
        assert (sql, run) == (self.sql, "r1")
        self.after.append(after)
        if isinstance(self.failures, Exception):
            raise self.failures
        return [each for each in self.failures if each.at > after]

    def _queues(self) -> list[QueueState]:
        if isinstance(self.queues, Exception):
            raise self.queues
        return self.queues

    def seen(self, *standings: Standing | Exception | None, interval: float = 1.0) -> list[Snapshot]:
        self.standings = list(standings)
        queue: Any = SimpleNamespace(queues=self._queues)
        looks = watch(self.sql, queue, "r1", interval=interval, wait=self.waited.append)
        return list(islice(looks, len(standings)))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_it_is_looked_at_every_so_often_until_it_is_over(world: World) -> None:
    seen = world.seen(stands(0), stands(10, at=5), stands(20, at=6, exit=5), interval=7)
    assert [each.exit for each in seen] == [None, None, Exit.PARTLY]
    assert world.waited == [7, 7]
    assert seen[1] == Snapshot(
        run="r1", stands=Known(stands(10, at=5)), queue=Known(QUEUE), rate=2.0, remaining=timedelta(seconds=5), failures=()
    )  # fmt: skip
    assert (seen[0].rate, seen[0].remaining) == (None, None)


def test_it_is_looked_at_every_second(world: World) -> None:
    world.standings = [stands(), stands(exit=0)]
    queue: Any = SimpleNamespace(queues=world._queues)
    assert len(list(watch(world.sql, queue, "r1", wait=world.waited.append))) == 2
    assert world.waited == [1.0]


def test_with_its_end_the_looking_ends(world: World) -> None:
    world.standings = [stands(exit=0)]
    queue: Any = SimpleNamespace(queues=world._queues)
    assert len(list(watch(world.sql, queue, "r1", wait=world.waited.append))) == 1
    assert world.waited == []


def test_where_nothing_ends_nobody_can_tell_how_long_it_takes(world: World) -> None:
    seen = world.seen(stands(4), stands(4, at=10))
    assert (seen[1].rate, seen[1].remaining) == (0.0, None)


def test_a_run_that_nobody_knows_is_said_so(world: World) -> None:
    with pytest.raises(PlanError, match="there is no run r1") as error:
        world.seen(None)
    assert error.value.hint == "`history` lists them"


def test_what_is_silent_is_unknown_and_the_rest_is_told(world: World) -> None:
    world.queues, world.failures = [OTHER], SILENT
    [seen] = world.seen(stands(4))
    assert (seen.queue, seen.failures) == (Known(None), ())
    world.queues = SILENT
    silent, after = world.seen(SILENT, stands(8))
    assert isinstance(silent.stands, Unknown)
    assert isinstance(silent.queue, Unknown)
    assert (silent.exit, silent.rate, silent.remaining, silent.stranded) == (None, None, None, False)
    assert isinstance(after.stands, Known)


def test_a_failure_is_told_once(world: World) -> None:
    world.failures = [failure(1), failure(3), failure(2)]
    first, second = world.seen(stands(1), stands(2))
    assert first.failures == (failure(1), failure(3), failure(2))
    assert second.failures == ()
    assert world.after == [datetime.min.replace(tzinfo=UTC), NOW + timedelta(seconds=3)]


@pytest.mark.parametrize(
    ("changes", "queue", "stranded"),
    [
        ({}, None, True),
        ({}, replace(QUEUE, waiting=0, in_hand=0), True),
        ({}, replace(QUEUE, waiting=0), False),
        ({}, replace(QUEUE, in_hand=0), False),
        ({"exit": 5}, None, False),
        ({"exit": 0}, None, False),
        ({"done": 20}, None, False),
        ({"queued": False}, None, False),
    ],
)
def test_what_is_left_and_on_no_queue_is_stranded(
    changes: dict[str, Any], queue: QueueState | None, stranded: bool
) -> None:
    snapshot = Snapshot(
        run="r1", stands=Known(stands(**changes)), queue=Known(queue), rate=None, remaining=None, failures=()
    )
    assert snapshot.stranded is stranded
    assert not replace(snapshot, queue=SILENCE).stranded
    assert not replace(snapshot, stands=SILENCE).stranded


SILENCE = Unknown("no answer")


@pytest.mark.parametrize(
    ("seen", "rates"),
    [
        ([(0, 5)], [None]),
        ([(0, 5), (0, 9)], [None, None]),
        ([(0, 5), (2, 9)], [None, 2.0]),
        ([(0, 5), (1, 9)], [None, 4.0]),
        ([(0, 0), (30, 30), (31, 31), (60, 120)], [None, 1.0, 1.0, 3.0]),
        ([(0, 0), (29, 29), (31, 31), (59, 87), (61, 87)], [None, 1.0, 1.0, 58 / 30, 56 / 30]),
        ([(0, 0), (100, 50)], [None, 0.5]),
        ([(0, 0), (40, 40), (80, 160)], [None, 1.0, 3.0]),
    ],
)
def test_the_rate_is_of_the_last_half_minute(
    seen: Sequence[tuple[float, int]], rates: list[float | None]
) -> None:
    speed = Speed()
    assert [speed.take(NOW + timedelta(seconds=second), ended) for second, ended in seen] == pytest.approx(
        rates
    )
