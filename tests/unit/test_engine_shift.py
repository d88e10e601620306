"""One process' work on a run of the queue: what is answered, and when, whatever happens to a lot, a server, or the run."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runbooks.engine import copies, shift
from runbooks.engine.errors import LeaseHeld
from runbooks.engine.gate import Gate
from runbooks.engine.hand import Hand
from runbooks.engine.journal import Journal, JournalEntry
from runbooks.engine.model import Pace, Phase, Runbook, State
from runbooks.engine.page import Rights
from runbooks.engine.shift import Shift
from runbooks.engine.sorting import Sorted
from runbooks.engine.standing import Part, Standing
from runbooks.engine.tally import Tally
from sandbox.errors import ArrakisError, Busy, Missing, Unreachable
from sandbox.ports import Parcel, QueueState, Reply
from tests.unit.plans import plan
from tests.unit.test_engine_asking import runbook
from tests.unit.test_engine_work import Many, Things

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLAN = plan(6)
RUNBOOK = runbook(Rights())
DONE, BACK, ASIDE = Reply.DONE, Reply.GIVEN_BACK, Reply.SET_ASIDE
PATIENCE = timedelta(seconds=40)


SQL: Any = object()


def parcel(name: str | None, delivered: int = 1) -> Parcel:
    return Parcel(action=name, delivered=delivered, receipt=f"receipt of {name}")


class Queue:
    """What lies on the queue, and what was said to it. Satisfies WorkQueue."""

    host = "nats"

    def __init__(self, *waiting: Parcel) -> None:
        self.waiting = list(waiting)
        self.said = list[tuple[str | None, Reply, float]]()
        self.closed, self.taken = list[str](), list[tuple[str, int, float]]()
        self.states: list[QueueState] = []
        self.meanwhile: Any = lambda: None

    def take(self, run: str, limit: int, *, wait: float) -> list[Parcel]:
        self.taken.append((run, limit, wait))
        found, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return found

    def answer(self, parcels: Sequence[Parcel], reply: Reply, *, rest: timedelta = timedelta(0)) -> None:
        self.said += [(each.action, reply, rest.total_seconds()) for each in parcels]

    def queues(self) -> list[QueueState]:
        self.meanwhile()
        return self.states

    def close(self, run: str) -> None:
        self.closed.append(run)
        raise Unreachable("whoever comes next takes it away")


class World:
    """A run, its queue, the journal of all, and what the workers of one process say."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.queue, self.remedy = Queue(), Many()
        self.told = list[str]()
        self.journal = Journal(folder / "journal.jsonl", actor="ada", clock=lambda: NOW)
        self.past: list[JournalEntry] = []
        self.exit: int | None = None
        self.known, self.ends = True, True
        self.standing_error: ArrakisError | None = None
        self.lost: Exception | None = None
        self.copying: ArrakisError | None = None
        self.copied = list[tuple[str | None, Phase]]()
        self.tally = Tally(idle_after=0, tell=self.told.append)
        patch.setattr("os.fsync", lambda _: None)
        patch.setattr(shift, "_WAIT", 0.001)
        patch.setattr(shift, "standing", self._standing)
        patch.setattr(shift, "records_of", self._records)
        patch.setattr(shift, "end_run", self._end)
        patch.setattr(copies, "Mirror", self._mirror)

    def _mirror(self, sql: object) -> Any:
        assert sql is SQL
        return SimpleNamespace(copy=self._copy, catch_up=lambda _: None)

    def _records(self, sql: object, run: str, names: Sequence[str]) -> list[JournalEntry]:
        assert (sql, run) == (SQL, "r1")
        return [entry for entry in self._all if entry.action in names]

    @property
    def _all(self) -> list[JournalEntry]:
        return [*self.past, *self.journal.entries()]

    def _standing(self, sql: object, run: str) -> Standing | None:
        assert (sql, run) == (SQL, "r1")
        if self.standing_error:
            raise self.standing_error
        last = {entry.action: entry.phase for entry in self._all if entry.action}
        done, skipped, failed = (
            list(last.values()).count(phase) for phase in (Phase.DONE, Phase.SKIPPED, Phase.FAILED)
        )
        part = Part(worker="a", seen=NOW, done=done, skipped=skipped, failed=failed, begun=0)
        found = Standing(queued=True, total=6, exit=self.exit, strangers=0, now=NOW, parts=(part,))
        return found if self.known else None

    def _end(self, run: str, plan: object, *, lease: Any, sql: object, journal: object) -> bool:
        assert (run, plan, sql, journal) == ("r1", PLAN, SQL, self.journal)
        lease.check()
        self.exit = 0 if self.ends else self.exit
        return self.ends

    def _copy(self, entries: list[JournalEntry]) -> None:
        if self.copying:
            raise self.copying
        self.copied += [(entry.action, entry.phase) for entry in entries]

    def _check(self) -> None:
        if self.lost:
            raise self.lost

    def shift(self, **pace: Any) -> Shift:
        gate: Any = SimpleNamespace(write=SimpleNamespace(sql=SQL), tell=self.told.append)
        queue: Any = self.queue
        taken: Any = SimpleNamespace(plan=PLAN)
        lease: Any = SimpleNamespace(check=self._check)
        hand = Hand(queue, patience=PATIENCE)
        remedies: Any = {"flip": self.remedy}
        made = Pace(**({"lot": 3, "failures": 9} | pace))
        return Shift("r1", taken, gate, queue, lease, hand, self.journal, remedies, made, self.tally)

    def work(self, **pace: Any) -> None:
        """Work until the shift is over, which nothing here lets last."""
        at_work = self.shift(**pace)
        thread = threading.Timer(5, at_work._over.set)
        thread.daemon = True
        thread.start()
        try:
            at_work.work()
        finally:
            thread.cancel()

    def began(self, number: int, *phases: Phase) -> None:
        """Let an action have these records already."""
        for phase in phases:
            self.past.append(
                JournalEntry(chain="d", seq=len(self.past) + 1, run="r1", action=f"a{number}", phase=phase, at=NOW, actor="leto", observed={}, error=None, previous="")
            )  # fmt: skip

    @property
    def said(self) -> dict[str | None, list[Reply]]:
        found: dict[str | None, list[Reply]] = {}
        for name, reply, _ in self.queue.said:
            found.setdefault(name, []).append(reply)
        return found


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path, monkeypatch)
    world.remedy.states |= {action.id: next(iter(world.remedy.states.values())) for action in PLAN.actions}
    return world


def names(*numbers: int) -> list[Parcel]:
    return [parcel(f"a{number}") for number in numbers]


# All goes well


def test_all_is_done_answered_and_ended(world: World) -> None:
    world.queue.waiting = names(1, 2, 3, 4, 5, 6)
    world.work()
    assert world.said == {f"a{number}": [DONE] for number in range(1, 7)}
    assert world.queue.taken == [("r1", 3, 0.001)] * 2
    assert world.queue.closed == ["r1"]
    assert [line for line in world.told if "done" in line] == ["r1: 3 done in 0.0 s"] * 2
    assert world.told[-1] == "run r1: every action has ended, and so has the run"
    assert world.tally.document()["runs"] == {"r1": {"done": 6, "skipped": 0, "failed": 0}}


def test_several_are_at_it_at_once(world: World) -> None:
    together = threading.Barrier(2, timeout=10)

    class Slow(Many):
        def apply_all(self, actions: Any) -> Any:
            together.wait()
            return super().apply_all(actions)

    world.remedy, states = Slow(), world.remedy.states
    world.remedy.states = states
    world.queue.waiting = names(1, 2, 3, 4, 5, 6)
    world.work(workers=2)
    assert set(world.said) == {f"a{number}" for number in range(1, 7)}


def test_what_fails_has_ended_too_and_is_told(world: World) -> None:
    world.remedy.broken = {"a2": ArrakisError("stuck")}
    world.queue.waiting = names(1, 2, 3)
    world.queue.states = []
    world.work()
    assert world.said == {f"a{number}": [DONE] for number in (1, 2, 3)}
    assert "FAILED   flip t2: stuck" in world.told
    assert "r1: 2 done, 1 failed in 0.0 s" in world.told


# What was handed out


def test_what_has_ended_is_answered_and_what_is_nobodys_set_aside(world: World) -> None:
    world.began(1, Phase.STARTED, Phase.DONE)
    world.began(2, Phase.STARTED, Phase.STARTED, Phase.STARTED)
    world.queue.waiting = [*names(1, 2), parcel("x\n"), parcel(None), *names(3)]
    world.work(lot=5)
    assert world.said == {"a1": [DONE], "a2": [ASIDE], "x\n": [ASIDE], None: [ASIDE], "a3": [DONE]}
    reasons = [
        "on the queue lay the action x\\n, which is none of its plan: set aside",
        "on the queue lay what is no action: set aside",
        "t2: set aside: begun 3 times, and whoever began it came to no end",
    ]
    assert [line for line in world.told if line.startswith("SET")] == [
        f"SET ASIDE  {reason}" for reason in reasons
    ]
    assert world.tally.document()["set_aside"] == reasons
    aside = [(entry.action, entry.phase, entry.error) for entry in world.journal.entries()][:3]
    assert aside == [
        (None, Phase.SKIPPED, reasons[0]),
        (None, Phase.SKIPPED, reasons[1]),
        ("a2", Phase.FAILED, reasons[2].removeprefix("t2: ")),
    ]


def test_what_a_worker_that_is_gone_had_done_already_was_done_by_the_run(world: World) -> None:
    world.began(1, Phase.STARTED)
    world.remedy.states |= {"a1": State.AFTER, "a2": State.AFTER}
    world.queue.waiting = names(1, 2)
    world.work()
    ended = {entry.action: entry.phase for entry in world.journal.entries() if entry.action}
    assert ended == {"a1": Phase.DONE, "a2": Phase.SKIPPED}


def test_what_was_not_copied_is_not_set_aside_yet(world: World) -> None:
    world.copying = Unreachable("no answer")
    world.began(2, Phase.STARTED, Phase.STARTED, Phase.STARTED)
    world.queue.waiting = names(2)
    at_work = world.shift()
    taken = at_work._taken()
    assert taken is not None
    at_work._do(taken)
    assert world.said == {"a2": [BACK]}


@pytest.mark.parametrize(
    ("lot", "sizes"),
    [(9, [[1, 2], [3, 4, 5], [6]]), (3, [[1, 2], [3], [4], [5], [6]]), (1, [[1], [2], [3], [4], [5], [6]])],
)
def test_what_was_begun_before_is_done_in_smaller_lots_and_at_last_alone(
    world: World, lot: int, sizes: list[list[int]]
) -> None:
    def some(*numbers: int) -> tuple[Parcel, ...]:
        return tuple(names(*numbers))

    found = Sorted(strangers=(), ended=(), deadly=(), fresh=some(1, 2), suspect=some(3, 4, 5), alone=some(6))
    assert world.shift(lot=lot)._lots(found, []) == [names(*each) for each in sizes]


def test_what_was_not_reached_is_given_back(world: World) -> None:
    world.remedy.broken = {"a1": LeaseHeld("taken over")}

    class Stubborn(Many):
        def apply_all(self, actions: Any) -> Any:
            world.lost = LeaseHeld("taken over")
            raise world.lost

    world.remedy, states = Stubborn(), world.remedy.states
    world.remedy.states = states
    world.queue.waiting = names(1, 2, 3)
    with pytest.raises(LeaseHeld, match="taken over"):
        world.work()
    assert world.said == {f"a{number}": [BACK] for number in (1, 2, 3)}


def test_with_the_shift_over_no_further_lot_is_begun(world: World) -> None:
    at_work = world.shift(lot=6)

    class Last(Things):
        def apply(self, action: Any) -> None:
            super().apply(action)
            at_work._over.set()

    last: Any = Last()
    last.states = world.remedy.states
    world.remedy = last
    at_work._remedies = {"flip": last}
    world.queue.waiting = names(1, 2)
    taken = at_work._taken()
    assert taken is not None
    at_work._do(taken)
    assert world.said == {"a1": [DONE], "a2": [BACK]}


# What could not be told


def test_what_no_server_answered_for_is_tried_again_later(world: World) -> None:
    world.remedy.broken = {"a2": Unreachable("no answer of Redis")}
    world.queue.waiting = names(1, 2)
    at_work = world.shift()
    taken = at_work._taken()
    assert taken is not None
    with pytest.raises(Unreachable, match="no answer of Redis") as error:
        at_work._do(taken)
    assert error.value.hint == "it is tried again"
    assert world.queue.said == [("a1", DONE, 0), ("a2", BACK, 20)]


def test_what_is_not_copied_is_not_answered_for(world: World) -> None:
    world.queue.waiting = names(1)
    at_work = world.shift()
    taken = at_work._taken()
    world.copying = Unreachable("PostgreSQL is gone")
    assert taken is not None
    with pytest.raises(Unreachable, match="what was done is not in PostgreSQL yet: PostgreSQL is gone"):
        at_work._do(taken)
    assert world.said == {"a1": [BACK]}
    with pytest.raises(Unreachable):
        at_work._taken()
    world.copying = None
    assert at_work._taken() == []
    assert world.copied == [("a1", Phase.STARTED), ("a1", Phase.DONE)]


def test_what_cannot_be_written_down_ends_the_shift(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.queue.waiting = names(1)
    at_work = world.shift()
    taken = at_work._taken()
    assert taken is not None

    def full(*_: object) -> None:
        raise ArrakisError("the disk is full")

    monkeypatch.setattr(world.journal, "extend", full)
    with pytest.raises(ArrakisError, match="the disk is full") as error:
        at_work._work_through(taken, [])
    assert error.value.hint == "what was in hand was given back"
    assert type(error.value) is ArrakisError
    assert world.said == {"a1": [BACK]}


def test_a_hand_that_was_not_heard_says_so(world: World) -> None:
    at_work = world.shift()
    at_work._hand._lost_at = 10.0
    with pytest.raises(Unreachable, match="has not heard us"):
        at_work._explain([], copies.Arrivals(), 9.0)


# When it is over


def test_a_run_that_is_over_ends_the_shift_without_a_word(world: World) -> None:
    world.exit = 5
    world.work()
    assert (world.told, world.queue.taken, world.queue.closed) == ([], [], [])


def test_a_run_that_others_end_is_not_closed_here(world: World) -> None:
    world.ends = False
    for number in range(1, 7):
        world.began(number, Phase.DONE)
    at_work = world.shift()
    assert at_work._taken() is None
    assert (world.told, world.queue.closed, at_work._over.is_set()) == ([], [], False)


def test_a_run_with_more_failures_than_may_be_is_given_up(world: World) -> None:
    for number in (1, 2):
        world.began(number, Phase.FAILED)
    world.work(failures=1)
    assert world.told == [
        "run r1: 2 actions failed, more than the 1 that may: no more are taken. "
        "`show --run r1` says why, `resume --run r1` tries again"
    ]
    assert not world.tally.may_go_on("r1", 2)
    assert world.tally.may_go_on("r1", 1)


def test_as_many_failures_as_may_be_are_no_reason_to_give_up(world: World) -> None:
    world.began(1, Phase.FAILED)
    assert world.shift(failures=1)._taken() == []


STATE = QueueState(run="r1", waiting=0, in_hand=0, again=0, patience=PATIENCE)


@pytest.mark.parametrize("states", [[], [STATE], [replace(STATE, run="r0", waiting=3)]])
def test_what_is_left_and_on_no_queue_ends_the_shift(world: World, states: list[QueueState]) -> None:
    world.queue.states = states
    world.work()
    assert world.told == ["run r1: 6 actions are left and not on the queue: `resume --run r1`"]


@pytest.mark.parametrize("state", [replace(STATE, waiting=1), replace(STATE, in_hand=1)])
def test_what_others_have_in_hand_is_waited_for_until_it_is_idle(world: World, state: QueueState) -> None:
    world.queue.states, looks = [state], list[int]()
    world.tally = Tally(idle_after=1e9, tell=world.told.append)

    def meanwhile() -> None:
        looks.append(1)
        if len(looks) == 3:
            world.tally._last -= 2e9

    world.queue.meanwhile = meanwhile
    world.work()
    assert len(looks) == 3
    assert world.told == ["run r1: nothing has come for a while; others have the rest in hand"]


def test_who_has_something_in_hand_is_not_idle(world: World) -> None:
    world.queue.states = [replace(STATE, in_hand=1)]
    world.tally = Tally(idle_after=1e-9, tell=world.told.append)
    at_work = world.shift()
    at_work._hand._parcels["x"] = parcel("a1")
    at_work._look_around()
    assert not at_work._over.is_set()


# When something is wrong


@pytest.mark.parametrize("silence", [Unreachable("no answer"), Busy("no answer")])
def test_silence_is_told_once_and_waited_for(world: World, silence: ArrakisError) -> None:
    world.standing_error, looks = silence, list[int]()
    world.tally = Tally(idle_after=0, tell=world.told.append)
    at_work = world.shift()

    def waited(seconds: float) -> bool:
        assert seconds == 0.001
        looks.append(1)
        if len(looks) == 3:
            world.standing_error, world.exit = None, 0
        return False

    at_work._over.wait = waited  # type: ignore[assignment,method-assign]
    at_work.work()
    assert len(looks) == 3
    assert world.told == ["waiting: no answer", "goes on"]


def test_silence_until_it_is_idle_is_what_ended_it(world: World) -> None:
    world.standing_error = Unreachable("no answer")
    world.tally = Tally(idle_after=1e-9, tell=world.told.append)
    with pytest.raises(Unreachable, match="no answer"):
        world.work()


@pytest.mark.parametrize("error", [LeaseHeld("taken over"), Missing("no such queue"), RuntimeError("bang")])
@pytest.mark.parametrize("over", [False, True])
def test_what_goes_wrong_ends_it_unless_it_only_says_that_all_is_over(
    world: World, error: Exception, over: bool
) -> None:
    world.lost, world.exit = error, 0 if over else None
    if over and not isinstance(error, RuntimeError):
        world.work()
        return
    with pytest.raises(type(error), match=str(error)):
        world.work()


def test_the_first_thing_that_went_wrong_is_told(world: World) -> None:
    at_work = world.shift()
    for error in (RuntimeError("first"), RuntimeError("second")):
        at_work._fail(error)
    with pytest.raises(RuntimeError, match="first"):
        at_work.work()


def test_where_nobody_can_tell_whether_it_is_over_it_is_not(world: World) -> None:
    world.lost, world.standing_error = LeaseHeld("taken over"), Unreachable("no answer")
    with pytest.raises(LeaseHeld):
        world.work()


def test_a_run_that_nobody_knows_any_more_is_said_so(world: World) -> None:
    world.known = False
    with pytest.raises(Missing, match="nobody knows run r1 any more"):
        world.work()


def test_ctrl_c_lets_what_is_in_hand_be_finished_and_is_raised(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = list[int]()

    def waiting(crew: Sequence[threading.Thread]) -> None:
        waits.append(len(crew))
        if len(waits) == 1:
            raise KeyboardInterrupt
        for each in crew:
            each.join(10)

    monkeypatch.setattr(shift, "wait_for", waiting)
    world.queue.states = [replace(STATE, in_hand=1)]
    with pytest.raises(KeyboardInterrupt):
        world.work(workers=2)
    assert waits == [2, 2]
    assert world.told[0] == "run r1: interrupted: what is in hand is finished, the rest is given back"


def test_workers_are_daemons(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[threading.Thread]()
    monkeypatch.setattr(shift, "wait_for", seen.extend)
    world.exit = 0
    world.work(workers=2)
    assert [(each.name, each.daemon) for each in seen] == [("worker 0", True), ("worker 1", True)]


def test_with_the_shift_over_nothing_is_taken(world: World) -> None:
    world.queue.waiting = names(1)
    at_work = world.shift()
    at_work._over.set()
    at_work._turn()
    assert (world.queue.taken, world.told) == ([], [])


def test_who_has_work_is_not_idle(world: World) -> None:
    seen = list[bool]()

    class Watched(Things):
        def apply(self, action: Any) -> None:
            seen.append(world.tally.idle)
            super().apply(action)

    watched: Any = Watched()
    watched.states = world.remedy.states
    world.remedy = watched
    world.tally = Tally(idle_after=1e9, tell=world.told.append)
    world.tally._last -= 2e9
    world.queue.waiting = names(1)
    at_work = world.shift()
    at_work._turn()
    assert seen == [False]


@pytest.mark.parametrize("lost", ["lease", "hand"])
def test_before_each_lot_it_is_asked_whether_we_may_go_on(world: World, lost: str) -> None:
    at_work = world.shift()
    if lost == "lease":
        world.lost = LeaseHeld("NATS, or who else, has not heard us")
    else:
        at_work._hand._parcels["x"] = parcel("a1")
        at_work._hand._oldest = at_work._hand._heard = -1e9
    at_work_on = at_work._work([], Pace())
    [found] = at_work_on.do(PLAN.actions[:1])
    assert "has not heard us" in found.reason
    assert world.remedy.calls == []
    assert "has not heard us" in at_work_on.budget.halted


# How it is begun


def test_a_shift_holds_the_lease_with_its_fellows_and_is_fenced_by_what_it_has_in_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = list[tuple[Any, ...]]()

    class Held:
        """A lease, and what is in hand."""

        def __init__(self, *what: object) -> None:
            calls.append(what)

        def __enter__(self) -> "Held":
            return self

        def __exit__(self, *_: object) -> None:
            calls.append(("let go",))

        def check(self) -> None:
            calls.append(("lease checked",))

        def fence(self, transaction: object) -> None:
            calls.append(("lease fences", transaction))

        def insist(self) -> None:
            calls.append(("hand insists",))

    class Working:
        def __init__(self, *given: Any) -> None:
            self.given = given
            shifts.append(self)

        def work(self) -> None:
            calls.append(("works",))

    @contextmanager
    def at_pace(gate: Any, runbook: Any, *, check: Any) -> Iterator[Any]:
        paced.append((gate, runbook, check))
        yield replace(gate, tell=paced.append)

    shifts, paced = list[Working](), list[Any]()
    nothing: Any = None
    gate = Gate(read=nothing, write=SimpleNamespace(sql=SQL), fence=nothing, tell=nothing)  # type: ignore[arg-type]
    made_of = replace(RUNBOOK, pace=Pace(lot=7, workers=1), remedies=lambda guarded: {"of": guarded})
    journal = SimpleNamespace(actor="ada")

    def gate_of(runbook: Runbook) -> Gate:
        calls.append(("gate of", runbook.pace.workers))
        return gate

    operator: Any = SimpleNamespace(
        runner=SimpleNamespace(gate=gate_of),
        journal=journal,
        actor="ada",
    )
    monkeypatch.setattr(shift, "Lease", SimpleNamespace(held=lambda sql, **how: Held("lease", sql, how)))
    monkeypatch.setattr(shift, "Hand", lambda queue, *, patience: Held("hand", queue, patience))
    monkeypatch.setattr(shift, "refuse_undone", lambda sql, run: calls.append(("not undone", sql, run)))
    monkeypatch.setattr(shift, "Shift", Working)
    monkeypatch.setattr(shift, "at_pace", at_pace)
    monkeypatch.setattr(shift, "holder", lambda actor: f"{actor} on host")
    taken: Any = SimpleNamespace(runbook=made_of, plan=PLAN)
    queue: Any = Queue()
    tally = Tally(idle_after=0, tell=lambda _: None)
    shift.work_on("r1", taken, operator=operator, queue=queue, patience=PATIENCE, workers=4, tally=tally)
    assert calls == [
        ("gate of", 4),
        ("lease", SQL, {"holder": "workers of r1", "run": "r1", "shared": True}),
        ("hand", queue, PATIENCE),
        ("not undone", SQL, "r1"),
        ("works",),
        ("let go",),
        ("let go",),
    ]
    [(guarded, of, check)] = paced
    assert of.pace == Pace(lot=7, workers=4)
    [made] = shifts
    run, its_taken, its_gate, its_queue, its_lease, its_hand, its_journal, remedies, pace, its_tally = (
        made.given
    )
    assert (run, its_taken, its_queue, pace, its_tally) == ("r1", taken, queue, of.pace, tally)
    assert remedies == {"of": its_gate}
    assert (its_gate.fence, its_gate.tell) == (guarded.fence, paced.append)
    assert (its_journal.actor, journal.actor) == ("ada on host", "ada")
    calls.clear()
    check()
    guarded.fence("transaction")
    assert calls == [("lease checked",), ("hand insists",), ("lease fences", "transaction")]
    assert isinstance(its_lease, Held)
    assert isinstance(its_hand, Held)


def test_work_is_waited_for_but_not_for_long() -> None:
    assert 0.1 <= shift._WAIT <= 5
