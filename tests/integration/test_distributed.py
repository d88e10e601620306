"""A run past one machine, on real servers and in real processes: each action is done once, whoever dies on the way."""

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from runbooks.engine import plan as plans
from runbooks.engine import stops
from runbooks.engine.crew import Crew
from runbooks.engine.distributed import Coordinator, work_queue
from runbooks.engine.errors import Exit, LeaseHeld, PlanError, Refused, Stopped
from runbooks.engine.following import watch
from runbooks.engine.journal import verify
from runbooks.engine.lease import Lease
from runbooks.engine.model import Action, Pace
from runbooks.engine.operate import Operator
from runbooks.engine.standing import Standing, latest_run, standing
from runbooks.reports import following
from sandbox.adapters.postgres import Postgres
from sandbox.adapters.workqueue import JetStreamQueue
from sandbox.facts import Known, Unknown
from sandbox.ports import QueueState
from tests.acceptance.program import ROOT, Program
from tests.integration.counting import (
    BROKEN,
    NAME,
    PACE,
    action,
    counting,
    hand_over,
    key,
    operator_at,
    planned,
)
from tests.integration.messaging import by_hand
from tests.integration.wire import wired
from tests.integration.world import World
from tests.waiting import eventually

Meddle = Callable[[Action], None]


@dataclass
class Place:
    """The world, and some hosts of its operators."""

    world: World
    folder: Path

    def operator(self, host: str = "here", **other: str) -> Operator:
        """Return an operator on a host."""
        return operator_at({**self.world.env, **other}, self.folder / host)

    def begin(self, actions: Sequence[Action], *, patience: float = 2, **other: str) -> str:
        """Put a run on the queue."""
        operator = self.operator(**other)
        _, run = hand_over(operator, planned(operator, actions), counting(), patience=patience)
        return run

    def crew(
        self, host: str = "here", *, idle: float = 0.3, meddle: Meddle = lambda _: None, **other: str
    ) -> Crew:
        """Return a worker in this process."""
        self.said: list[str] = []
        operator = operator_at({**self.world.env, **other}, self.folder / host, self.said.append)
        queue = work_queue(operator.environment, timeout=2)
        return Crew(operator, queue, {NAME: counting(meddle)}, tell=self.said.append, idle=idle)

    def process(self, host: str, what: str, argument: str) -> Program:
        """Start a process of its own."""
        return self._program(host, "tests.integration.counting", what, argument)

    def call(self, *words: str, **other: str) -> Program:
        """Call a task, as a process of its own."""
        return self._program("here", "invoke", *words, **other)

    def _program(self, host: str, *words: str, **other: str) -> Program:
        env = {**os.environ, **self.world.env, "RUNBOOKS_STATE_DIR": str(self.folder / host), **other}
        with Path(os.devnull).open() as nothing:
            return Program(["-m", *words], cwd=ROOT, env=env, stdin=nothing.fileno())

    def counts(self, number: int) -> list[int]:
        """Return how often each of the first actions was done."""
        found: Any = self.world.redis.mget([key(f"a{each}") for each in range(number)])
        return [int(count or 0) for count in found]

    def phases(self, run: str) -> Counter[str]:
        """Return how often each phase is in the mirrored journal."""
        rows = self.world.sql.execute("SELECT phase FROM runbooks.journal WHERE run = %s", (run,))
        return Counter(str(phase) for (phase,) in rows)

    def stands(self, run: str) -> Standing:
        """Return how a run stands."""
        stands = standing(self.world.database, run)
        assert stands
        return stands

    def queue(self, run: str) -> QueueState | None:
        """Return a run's queue."""
        queues = JetStreamQueue(self.world.env["NATS_URL"]).queues()
        return next((each for each in queues if each.run == run), None)

    def verify(self, *hosts: str) -> None:
        """Make sure that the journals are whole, and that each of their records is mirrored."""
        for host in hosts:
            entries = verify((self.folder / host / "custom" / "journal.jsonl").read_bytes())
            chain, query = entries[0].chain, "SELECT count(*) FROM runbooks.journal WHERE chain = %s"
            assert self.world.count(query, chain) == len(entries)


@pytest.fixture
def place(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Return the place, with nothing at work in it."""
    for name, value in world.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("runbooks.engine.crew._GLANCE", 0.05)  # in the workers of this process
    monkeypatch.setattr("runbooks.engine.shift._WAIT", 0.1)
    yield Place(world, tmp_path)
    world.redis.flushall()
    world.sql.execute("DELETE FROM runbooks.stops")
    world.sql.execute("UPDATE runbooks.lease SET holder = NULL, run = NULL, heartbeat = NULL, since = NULL")
    queues = JetStreamQueue(world.env["NATS_URL"])
    for each in queues.queues():
        queues.close(each.run)


def actions(number: int, **before: Any) -> list[Action]:
    """Return actions that are alike."""
    return [action(each, **before) for each in range(number)]


@pytest.mark.soak
def test_a_killed_workers_actions_are_done_by_another_and_none_twice(place: Place) -> None:
    run = place.begin(actions(120, seconds=0.03), patience=1)
    with place.process("one", "work", "60") as killed, place.process("two", "work", "60") as other:
        eventually(lambda: [bool(part.done) for part in place.stands(run).parts] == [True, True])
        killed.kill()
        assert sum(place.counts(120)) < 120, "it was killed too late"
        eventually(lambda: place.stands(run).exit is not None)
        eventually(lambda: place.queue(run) is None)
        other.kill()
        assert killed.wait() == -signal.SIGKILL
    assert place.counts(120) == [1] * 120
    stands = place.stands(run)
    assert (stands.done, stands.left, stands.exit) == (120, 0, Exit.HEALTHY)
    assert len(stands.parts) == 2
    phases = place.phases(run)
    assert (phases["done"], phases["run-ended"], phases["failed"]) == (120, 1, 0)
    place.verify("here", "two")
    assert place.world.one("SELECT holder FROM runbooks.lease") is None


def test_a_coordinator_that_is_killed_half_way_is_repeated_without_doubles(place: Place) -> None:
    operator = place.operator("here")
    plan = planned(operator, actions(40))
    with place.process("here", "hand-over", plan.id) as program:
        assert program.wait(20) == -signal.SIGKILL
    run = latest_run(place.world.database, NAME)
    before = place.queue(run)
    assert before is not None
    assert (before.waiting, before.in_hand) == (20, 0)
    with pytest.raises(Refused, match="was used already"):
        hand_over(operator, plan, counting(), patience=2)

    assert place.crew().work().exit is Exit.HEALTHY
    assert f"run {run}: 20 actions are left and not on the queue: `resume --run {run}`" in place.said
    assert place.stands(run).exit is None
    coordinator = Coordinator(operator, work_queue(operator.environment, timeout=5))
    coordinator.resume(run, {NAME: counting()}, ask=lambda *_: None)
    coordinator.resume(run, {NAME: counting()}, ask=lambda *_: None)  # as often as anybody likes
    assert place.queue(run) == replace(before, waiting=20)

    assert place.crew("two").work().exit is Exit.HEALTHY
    assert place.counts(40) == [1] * 40
    outcome = coordinator.outcome(run, counting())
    assert (outcome.exit, place.stands(run).exit) == (Exit.HEALTHY, Exit.HEALTHY)
    assert place.phases(run)["done"] == 40


@pytest.mark.soak
def test_what_kills_its_workers_is_set_aside_and_the_rest_is_done(place: Place) -> None:
    doomed = [*actions(8), action(8, kills=True)]
    run = place.begin(doomed, patience=0.5)
    for host in ("one", "two", "three"):
        with place.process(host, "work", "60") as program:
            assert program.wait(30) == -signal.SIGKILL
    tally = place.crew("four", idle=2).work()
    assert (tally.exit, tally.document()["set_aside"]) == (
        Exit.PARTLY,
        ["thing-8: set aside: begun 3 times, and whoever began it came to no end"],
    )
    assert place.counts(9) == [1] * 8 + [0]
    stands = place.stands(run)
    assert (stands.done, stands.failed, stands.exit) == (8, 1, Exit.PARTLY)
    assert place.queue(run) is None


def test_what_others_lay_on_a_queue_is_set_aside_and_widens_nothing(place: Place) -> None:
    run = place.begin(actions(3))
    strange = "rb-count-of-another-environment"
    queues = JetStreamQueue(place.world.env["NATS_URL"])
    queues.open(strange, patience=timedelta(seconds=1))
    queues.put(strange, ["a1"])

    async def forge(client: Client) -> None:
        jetstream = client.jetstream()
        await jetstream.publish(f"runbooks.work.{run}.x", b'{"run": "drop", "action": "everything"}')
        named = json.dumps({"run": run, "action": "a99"}).encode()
        await jetstream.publish(f"runbooks.work.{run}.a99", named)

    by_hand(place.world.env["NATS_URL"], forge)
    tally = place.crew().work()
    assert tally.exit is Exit.PARTLY
    assert sorted(tally.document()["set_aside"]) == [
        "on the queue lay the action a99, which is none of its plan: set aside",
        "on the queue lay what is no action: set aside",
    ]
    assert (place.counts(3), place.world.redis.get(key("a99"))) == ([1, 1, 1], None)
    stands = place.stands(run)
    assert (stands.done, stands.strangers, stands.exit) == (3, 2, Exit.HEALTHY)
    left = place.queue(strange)  # nobody here knows that run: it is left to those who do
    assert left is not None
    assert (left.waiting, left.in_hand) == (1, 0)


@pytest.mark.soak
def test_an_emergency_stop_halts_all_within_a_second_and_new_workers_go_on(place: Place) -> None:
    run = place.begin(actions(60, seconds=0.05), patience=60)
    with place.process("one", "work", "60") as one, place.process("two", "work", "60") as two:
        eventually(lambda: [bool(part.done) for part in place.stands(run).parts] == [True, True])
        with place.world.database.transaction() as transaction:
            stops.raise_stop(
                transaction, id="stop-1", by="stilgar", reason="", halting=True, parts={}, over={}
            )
        raised = time.monotonic()
        last, since = place.counts(60), raised
        while time.monotonic() < raised + 1.5:  # whatever is counted is counted within the first second
            if (now := place.counts(60)) != last:
                last, since = now, time.monotonic()
        assert since - raised < 1
        assert sum(last) < 60, "it was raised too late"
        for program in (one, two):
            out, err = program.communicate(10)
            assert (program.wait(), out) == (Exit.REFUSED, "")
            assert "an emergency stop is raised by stilgar" in err
    with pytest.raises(Stopped):
        place.crew().work()
    left = place.queue(run)
    assert left is not None
    assert left.waiting + left.in_hand == 60 - place.stands(run).done
    assert place.phases(run)["failed"] == 0

    with place.world.database.transaction() as transaction:
        stops.lift(transaction, id="stop-1", by="stilgar")
    assert place.crew("three").work().exit is Exit.HEALTHY
    assert place.counts(60) == [1] * 60
    assert (place.stands(run).failed, place.stands(run).exit) == (0, Exit.HEALTHY)


def test_ctrl_c_finishes_what_is_in_hand_and_gives_the_rest_back(place: Place) -> None:
    run = place.begin(actions(40, seconds=0.05), patience=30)
    with place.process("one", "work", "60") as program:
        eventually(lambda: sum(place.counts(40)) >= 3)
        os.kill(program.pid, signal.SIGINT)
        out, err = program.communicate(10)
    assert program.wait() == Exit.HEALTHY
    assert "what is in hand is finished, the rest is given back" in err
    done = sum(place.counts(40))
    assert done < 40, "it was interrupted too late"
    assert (
        json.loads(out)["runs"][run]["done"]
        == done
        == place.phases(run)["done"]
        == place.phases(run)["started"]
    )
    left = place.queue(run)
    assert left is not None
    assert (left.waiting, left.in_hand) == (40 - done, 0)


@pytest.mark.soak
def test_too_many_failures_stop_all_workers_and_a_resumed_run_tries_again(place: Place) -> None:
    place.world.redis.set(BROKEN, "yes")
    run = place.begin([*actions(6), *(action(number, fails=True) for number in range(6, 40))])
    crew = place.crew()
    assert crew.work().exit is Exit.PARTLY
    stands = place.stands(run)
    assert stands.failed > PACE.failures
    assert stands.left >= 40 - 6 - 4 * PACE.lot
    assert stands.exit is None
    told = f"{stands.failed} actions failed, more than the 2 that may: no more are taken."
    assert any(told in line for line in place.said)
    assert place.crew("two").work().document()["runs"] == {}

    place.world.redis.delete(BROKEN)
    operator = place.operator("three")
    coordinator = Coordinator(operator, work_queue(operator.environment, timeout=5))
    coordinator.resume(run, {NAME: counting()}, ask=lambda *_: None)
    assert place.stands(run).failed == 0
    assert place.crew("two").work().exit is Exit.HEALTHY
    assert place.counts(40) == [1] * 40
    assert (place.stands(run).done, place.stands(run).exit) == (40, Exit.HEALTHY)


@pytest.mark.soak
def test_a_server_that_gives_no_answer_is_no_failure_of_the_target(place: Place) -> None:
    run = place.begin([*actions(3), *(action(number, away=True) for number in range(3, 12))], patience=1)
    assert place.crew(idle=2).work().exit is Exit.HEALTHY
    assert place.counts(12) == [1] * 12
    assert (place.stands(run).done, place.stands(run).failed) == (12, 0)
    assert place.phases(run)["failed"] == 9 > PACE.failures
    assert "waiting: the server gave no answer" in place.said


@pytest.mark.soak
def test_a_worker_without_its_postgresql_waits_and_nothing_is_done_twice(place: Place) -> None:
    with wired(place.world.env["DATABASE_URL"]) as wire:
        run = place.begin(actions(20), DATABASE_URL=wire.url)

        def meddle(done: Action) -> None:
            if done.id == "a7":
                wire.cut()  # after it was done, before anybody is told
                threading.Timer(1, wire.mend).start()

        tally = place.crew(meddle=meddle, DATABASE_URL=wire.url, idle=2.5).work()
    assert tally.exit is Exit.HEALTHY
    assert place.counts(20) == [1] * 20
    assert (place.stands(run).done, place.stands(run).exit) == (20, Exit.HEALTHY)
    assert any(line.startswith("waiting: PostgreSQL at") for line in place.said)
    place.verify("here")


@pytest.mark.soak
def test_a_worker_that_the_queue_does_not_hear_stops_before_another_is_given_its_work(place: Place) -> None:
    with wired(place.world.env["NATS_URL"]) as wire:
        run = place.begin(actions(10, seconds=0.3), NATS_URL=wire.url, patience=1)
        done: list[float] = []

        def meddle(_: Action) -> None:
            done.append(time.monotonic())
            if len(done) == 1:
                wire.cut()
                threading.Timer(1.8, wire.mend).start()

        assert place.crew(meddle=meddle, NATS_URL=wire.url, idle=2).work().exit is Exit.HEALTHY
    assert not [moment for moment in done if done[0] + 1 < moment < done[0] + 1.8]
    assert place.counts(10) == [1] * 10
    assert place.stands(run).exit == Exit.HEALTHY


def test_who_holds_the_lease_is_waited_for(place: Place) -> None:
    run = place.begin(actions(4))
    with (
        pytest.raises(LeaseHeld, match=f"workers of {run}"),
        Lease.held(place.world.database, holder="stilgar", run="rb-sb-001-x"),
    ):
        pass
    place.world.sql.execute("UPDATE runbooks.lease SET heartbeat = now() - interval '1 minute'")
    with Lease.held(place.world.database, holder="stilgar", run="rb-sb-001-x"), pytest.raises(LeaseHeld):
        place.crew().work()
    assert place.counts(4) == [0] * 4
    assert any("waiting: stilgar is at work" in line for line in place.said)
    assert place.crew().work().exit is Exit.HEALTHY
    assert place.counts(4) == [1] * 4


def test_the_task_waits_for_work_and_ends_calmly(place: Place) -> None:
    with place.call("cleanup-worker", "--idle", "0", "--json") as program:
        assert program.stderr.readline().startswith("waiting for work at")
        os.kill(program.pid, signal.SIGTERM)
        out, _ = program.communicate(10)
    assert (program.wait(), json.loads(out)) == (0, {"runs": {}, "set_aside": [], "exit": 0})
    with place.call("cleanup-worker", "--timeout", "2", NATS_URL="nats://127.0.0.1:1") as program:
        _, err = program.communicate(10)
    assert program.wait() == Exit.UNKNOWN
    assert "NATS at 127.0.0.1:1" in err


def test_what_was_undone_or_has_an_order_is_not_worked_on(place: Place) -> None:
    operator = place.operator()
    run = place.begin(actions(4))
    place.world.sql.execute("UPDATE runbooks.lease SET heartbeat = now() - interval '1 minute'")
    undoing = plans.seal(replace(planned(operator, actions(2)), undoes=run))
    with pytest.raises(PlanError, match="in their order, by one"):
        hand_over(operator, undoing, counting(), patience=1)
    with pytest.raises(PlanError, match="in their order, by one"):
        hand_over(operator, planned(operator, actions(2)), counting(pace=Pace()), patience=1)
    operator.apply(undoing, counting(), ask=lambda *_: None, max_targets=2)
    with pytest.raises(Refused, match=f"run {run} was undone by {NAME}"):
        place.crew("two").work()


@pytest.mark.soak
def test_a_run_that_is_undone_under_its_workers_is_not_worked_on_by_them(place: Place) -> None:
    run = place.begin(actions(8))
    other = place.operator("elsewhere")
    inverse = [replace(each, verb=f"undo {each.verb}") for each in actions(1)]
    undoing = plans.seal(replace(planned(other, inverse), undoes=run))
    meddling, undone = threading.Lock(), threading.Event()

    def meddle(_: Action) -> None:
        if not meddling.acquire(blocking=False):
            undone.wait(20)
            return
        place.world.sql.execute("UPDATE runbooks.lease SET heartbeat = now() - interval '1 minute'")
        other.apply(undoing, counting(), ask=lambda *_: None, max_targets=1)
        undone.set()

    with pytest.raises(Refused, match=f"run {run} was undone by {NAME}"):
        place.crew(meddle=meddle, idle=2).work()
    assert sum(place.counts(8)) <= PACE.workers  # what was in hand


@pytest.mark.parametrize("asked", [False, True])
def test_what_was_undone_on_another_host_is_not_resumed(place: Place, asked: bool) -> None:
    here, runbooks = place.operator(), {NAME: counting(pace=Pace())}
    place.world.redis.set(BROKEN, "yes")
    plan = planned(here, [*actions(2), action(2, fails=True), action(3)])
    run = here.apply(plan, runbooks[NAME], ask=lambda *_: None, max_targets=4).run
    assert place.counts(4) == [1, 1, 0, 0]
    place.world.redis.delete(BROKEN)

    def undo(*_: object) -> None:
        place.operator("elsewhere").undo(run, runbooks, ask=lambda *_: None)

    if not asked:
        undo()
    with pytest.raises(Refused, match=f"run {run} was undone by {NAME}"):
        here.resume(run, runbooks, ask=undo if asked else lambda *_: None)
    assert place.counts(4) == [0, 0, 0, 0]


def test_a_run_is_followed_from_anywhere_with_either_server_dead(place: Place) -> None:
    run = place.begin([*actions(12, seconds=0.02), action(12, fails=True)])
    place.world.redis.set(BROKEN, "yes")
    queue, dead_queue = (
        JetStreamQueue(place.world.env["NATS_URL"]),
        JetStreamQueue("nats://127.0.0.1:1", timeout=1),
    )
    dead = Postgres("postgresql://127.0.0.1:1/x", tag="tests", timeout=1)
    database = place.world.database

    first = next(watch(database, queue, run))
    assert "0 of 13: 0 done, 0 skipped, 0 failed" in following.line(first)
    assert "queue: 13 waiting, 0 in hand" in following.line(first)
    blind = next(watch(dead, queue, run))
    assert isinstance(blind.stands, Unknown)
    assert "cannot tell how far it is: PostgreSQL at" in following.line(blind)
    assert "13 waiting" in following.line(blind)
    deaf = next(watch(database, dead_queue, run))
    assert isinstance(deaf.queue, Unknown)
    assert "0 of 13" in following.line(deaf)
    assert "cannot tell what is on the queue: NATS at" in following.line(deaf)
    with pytest.raises(PlanError, match="there is no run nobodys"):
        next(watch(database, queue, "nobodys"))

    def work(_: float) -> None:
        place.crew("elsewhere").work()

    lines: list[str] = []
    seen = watch(database, queue, latest_run(database, NAME), wait=work)
    assert following.follow(seen, as_json=False, say=lines.append) is Exit.PARTLY
    assert "FAILED   thing-12: it is broken" in lines[1]
    assert lines[-1] == f"{run} is over, exit 5: 13 of 13: 12 done, 0 skipped, 1 failed"
    [last] = watch(database, queue, run)
    document = following.document(last)
    assert (document["done"], document["failed"], document["left"], document["exit"]) == (12, 1, 0, 5)
    assert [each["resource"] for each in document["failures"]] == ["thing-12"]
    assert isinstance(last.stands, Known)
    [part] = last.stands.value.parts
    assert "pid" in part.worker
