"""A worker process on real servers: which runs it works on, whom it waits for, what it tells, and how it comes to an end."""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbooks.engine import crew, lease, stops
from runbooks.engine import plan as plans
from runbooks.engine.apply import started
from runbooks.engine.crew import Crew
from runbooks.engine.errors import Exit, LeaseHeld, PlanError, Refused, Stopped
from runbooks.engine.journal import Journal, Record
from runbooks.engine.lease import Lease, Mirror
from runbooks.engine.model import Action, Pace, Phase, Plan, Runbook
from runbooks.engine.operate import Operator
from runbooks.engine.standing import Standing, standing
from runbooks.engine.systems import readers
from sandbox.adapters.workqueue import JetStreamQueue
from sandbox.errors import Unreachable
from sandbox.ports import QueueState, Reply
from tests.integration.counting import BROKEN, NAME, action, counting, key, operator_at, planned
from tests.integration.wire import wired
from tests.integration.world import World

pytestmark = pytest.mark.soak  # what every run's tests notice too, to the word: for the mutants

MANY = 40
"""Looks after which a worker would go on for ever."""

HOLDERS = "SELECT holder FROM runbooks.lease"


class Clock:
    """A time that goes on only where a worker waits, and what happens meanwhile: at each of its glances one thing."""

    def __init__(self) -> None:
        self.now, self.asked = 1000.0, 0
        self.waited = list[float]()
        self.meanwhile = list[Callable[[], object]]()

    def monotonic(self) -> float:
        self.asked += 1
        if self.asked > 100 * MANY:
            pytest.fail("it comes to no end")
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.now += seconds
        if self.meanwhile:
            self.meanwhile.pop(0)()


class Watched(JetStreamQueue):
    """The queues, and how often they were looked at."""

    looks = 0

    def queues(self) -> list[QueueState]:
        self.looks += 1
        if self.looks > MANY:
            pytest.fail("it comes to no end")
        return super().queues()


@dataclass
class Site:
    """The world with nothing at work in it, runs that other hosts have laid on its queue, and what a worker here says."""

    world: World
    folder: Path
    model: Plan
    clock: Clock
    said: list[str] = field(default_factory=list)
    told: Callable[[str], object] = lambda _: None
    """What happens when something is told."""

    def __post_init__(self) -> None:
        self.queues = Watched(self.world.env["NATS_URL"], timeout=5)
        now = datetime.now(UTC)
        self.elsewhere = Journal(self.folder / "elsewhere.jsonl", actor="chani", clock=lambda: now)

    def tell(self, text: str) -> None:
        """Keep what is told, without how long something took."""
        self.said.append(re.sub(r" in [0-9.]+ s$", "", text))
        self.told(text)

    def operator(self, host: str = "here", **other: str) -> Operator:
        """Return an operator on a host, who says what a worker does."""
        return operator_at({**self.world.env, **other}, self.folder / host, self.tell)

    def worker(
        self,
        *,
        idle: float = 3,
        workers: int | None = 1,
        runbook: Runbook | None = None,
        queue: JetStreamQueue | None = None,
    ) -> Crew:
        """Return a worker in this process, one lot at a time."""
        runbooks = {NAME: runbook or counting()}
        return Crew(
            self.operator(), queue or self.queues, runbooks, tell=self.tell, idle=idle, workers=workers
        )

    def plan(self, actions: Sequence[Action]) -> Plan:
        """Return a plan that was made on another host."""
        return plans.seal(replace(self.model, actions=tuple(actions), existing=10 * len(actions)))

    def recorded(self, run: str, *records: Record) -> None:
        """Let another host have written this down."""
        Mirror(self.world.database).copy(self.elsewhere.extend(run, records))

    def lay_out(
        self,
        actions: Sequence[Action],
        *,
        run: str = "",
        runbook: str = NAME,
        ended: Sequence[Record] = (),
        put: bool = True,
    ) -> str:
        """Let another host have begun a run, and put it on the queue; return the run."""
        plan = plans.seal(replace(self.plan(actions), runbook=runbook))
        run = run or plan.id
        said = {"actions": len(actions), "left": len(actions)}
        self.recorded(
            run,
            Record(phase=Phase.RUN_STARTED, observed=started(plan)),
            *ended,
            Record(phase=Phase.PLANNED, observed=said),
        )
        self.queues.open(run, patience=timedelta(seconds=20))
        if put:
            past = {record.action for record in ended}
            self.queues.put(run, [each.id for each in actions if each.id not in past])
        return run

    def undo(self, run: str) -> None:
        """Let another host have undone a run."""
        undoing = plans.seal(replace(self.plan(actions(1)), undoes=run))
        self.recorded("the-undo", Record(phase=Phase.RUN_STARTED, observed=started(undoing)))

    def stop(self, *, halting: bool = True) -> None:
        """Raise an emergency stop."""
        with self.world.database.transaction() as transaction:
            stops.raise_stop(
                transaction, id="stop-1", by="stilgar", reason="", halting=halting, parts={}, over={}
            )

    def counts(self, number: int) -> list[int]:
        """Return how often each of the first actions was done."""
        found: Any = self.world.redis.mget([key(f"a{each}") for each in range(number)])
        return [int(count or 0) for count in found]

    def queue(self, run: str) -> QueueState | None:
        """Return a run's queue."""
        queues = JetStreamQueue(self.world.env["NATS_URL"]).queues()
        return next((each for each in queues if each.run == run), None)

    def stands(self, run: str) -> Standing:
        """Return how a run stands."""
        stands = standing(self.world.database, run)
        assert stands
        return stands

    @property
    def waiting(self) -> str:
        """What is told first."""
        return f"waiting for work at {self.queues.host}"

    def leave(self) -> None:
        """Take away what a test has left."""
        self.world.redis.flushall()
        self.world.sql.execute("TRUNCATE runbooks.stops, runbooks.journal, runbooks.used_plans CASCADE")
        self.world.sql.execute(
            "UPDATE runbooks.lease SET holder = NULL, run = NULL, heartbeat = NULL, since = NULL"
        )
        for each in JetStreamQueue(self.world.env["NATS_URL"]).queues():
            self.queues.close(each.run)


def model_of(world: World, folder: Path) -> Plan:
    """Return a plan for a world, in which the toolkit's own tables and the stream are from now on."""
    lease.prepare(world.database)
    JetStreamQueue(world.env["NATS_URL"]).prepare(replicas=1)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in world.env.items():
            patch.setenv(name, value)
        return planned(operator_at(world.env, folder), actions(1))


@pytest.fixture(scope="module")
def model(world: World, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Return a plan that those of the tests are made after."""
    return model_of(world, tmp_path_factory.mktemp("model"))


@pytest.fixture
def site(world: World, model: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Return the site."""
    for name, value in world.env.items():
        monkeypatch.setenv(name, value)
    clock = Clock()
    monkeypatch.setattr("runbooks.engine.crew.time", clock)
    monkeypatch.setattr("runbooks.engine.tally.time", clock)
    monkeypatch.setattr("runbooks.engine.shift._WAIT", 0.05)
    monkeypatch.setattr("runbooks.engine.apply._GLANCE", 0.005)
    site = Site(world, tmp_path, model, clock)
    yield site
    site.leave()


def actions(number: int, **before: Any) -> list[Action]:
    """Return actions that are alike."""
    return [action(each, **before) for each in range(number)]


def done(*numbers: int) -> list[Record]:
    """Return records of actions that were done."""
    return [Record(phase=Phase.DONE, action=f"a{number}") for number in numbers]


# ---- from the first look to the last


def test_what_is_laid_out_is_done_until_nothing_has_come_for_long_enough(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[tuple[Any, ...]]()

    def ask(environment: Any, *, tag: str, timeout: float) -> Any:
        asked.append((environment, tag, timeout))
        return readers(environment, tag=tag, timeout=timeout)

    monkeypatch.setattr(crew, "readers", ask)
    run = site.lay_out(actions(8), ended=done(7))
    worker = site.worker()
    site.clock.now += 100  # before it has begun to wait
    tally = worker.work()
    assert site.said == [
        site.waiting,
        f"run {run}: 7 of 8 actions are left",
        f"{run}: 5 done",
        f"{run}: 2 done",
        f"run {run}: every action has ended, and so has the run",
    ]
    assert tally is worker.tally
    assert tally.document() == {
        "runs": {run: {"done": 7, "skipped": 0, "failed": 0}},
        "set_aside": [],
        "exit": 0,
    }
    assert (site.counts(7), site.stands(run).exit, site.queue(run)) == ([1] * 7, Exit.HEALTHY, None)
    assert site.world.one(HOLDERS) is None
    assert (site.clock.waited, site.queues.looks) == ([1.0] * 3, 5)
    environment = worker._operator.environment
    assert asked == [(environment, "arrakis-runbooks:cleanup-worker", 5.0)]


def test_what_goes_wrong_at_the_first_look_is_raised_at_once(site: Site) -> None:
    nowhere = Watched("nats://127.0.0.1:1", timeout=2)
    with pytest.raises(Unreachable, match=r"^NATS at 127\.0\.0\.1:1"):
        site.worker(queue=nowhere).work()
    assert (site.said, site.clock.waited, nowhere.looks) == ([], [], 1)


def test_without_an_end_it_waits_until_ctrl_c(site: Site) -> None:
    def later() -> None:
        site.clock.now += 1e9

    def interrupt() -> None:
        raise KeyboardInterrupt

    site.clock.meanwhile = [later, later, interrupt]
    worker = site.worker(idle=0)
    assert worker.work() is worker.tally
    assert (site.said, site.clock.waited, site.queues.looks) == ([site.waiting], [1.0] * 3, 4)


@pytest.mark.parametrize(("given", "at_once"), [(None, 2), (3, 3), (1, 1)])
def test_so_many_lots_are_in_hand_at_once(site: Site, given: int | None, at_once: int) -> None:
    together, names = threading.Barrier(at_once), set[str]()

    def meddle(_: Action) -> None:
        names.add(threading.current_thread().name)
        together.wait(5)

    runbook = counting(meddle, pace=Pace(workers=2, lot=1))
    run = site.lay_out(actions(at_once))
    tally = site.worker(workers=given, runbook=runbook).work()
    assert names == {f"worker {number}" for number in range(at_once)}
    assert tally.document()["runs"] == {run: {"done": at_once, "skipped": 0, "failed": 0}}


# ---- whose runs


def test_only_runs_of_this_environment_that_were_put_on_the_queue_are_worked_on(site: Site) -> None:
    begun = site.plan(actions(1))
    start = Record(phase=Phase.RUN_STARTED, observed=started(begun))
    queued = Record(phase=Phase.PLANNED, observed={"actions": 1, "left": 1})
    over = Record(phase=Phase.RUN_ENDED, observed={"exit": 0})
    site.recorded("ab-applied-here", start)
    site.recorded("ac-applied-and-over", start, over)
    site.recorded("ad-over", start, queued, over)
    site.recorded("zz-over", start, queued, over)
    alone = ["aa-of-another-environment", "ab-applied-here", "ac-applied-and-over", "zy-of-another"]
    for each in (*alone, "ad-over", "zz-over"):
        site.queues.open(each, patience=timedelta(seconds=20))
        site.queues.put(each, ["a0"])
    run = site.lay_out([action(1)])
    empty = site.lay_out([action(2)], put=False)
    site.worker().work()
    assert site.said == [
        site.waiting,
        f"run {run}: 1 of 1 actions are left",
        f"{run}: 1 done",
        f"run {run}: every action has ended, and so has the run",
    ]
    left = {each.run: each.waiting for each in site.queues.queues()}
    assert left == {**dict.fromkeys(alone, 1), empty: 0}
    assert site.counts(3) == [0, 1, 0]


def test_what_others_have_in_hand_is_waited_for(site: Site) -> None:
    run = site.lay_out(actions(3))
    other = JetStreamQueue(site.world.env["NATS_URL"])
    taken = other.take(run, 3, wait=1)
    assert len(taken) == 3

    def give_back(text: str) -> None:
        if text.endswith("actions are left"):
            other.answer(taken, Reply.GIVEN_BACK)

    site.told = give_back
    site.worker().work()
    assert site.counts(3) == [1] * 3
    assert site.stands(run).exit is Exit.HEALTHY.value


def test_a_run_whose_last_worker_died_before_its_end_is_ended(site: Site) -> None:
    run = site.lay_out(actions(2), ended=done(0, 1))
    site.worker().work()
    assert site.said == [
        site.waiting,
        f"run {run}: 0 of 2 actions are left",
        f"run {run}: every action has ended, and so has the run",
    ]
    assert (site.stands(run).exit, site.queue(run)) == (0, None)


def test_a_run_with_too_many_failures_is_left_alone_until_somebody_resumes_it(site: Site) -> None:
    site.world.redis.set(BROKEN, "yes")
    run = site.lay_out([*actions(5, fails=True), action(5)])

    def resume() -> None:
        site.world.redis.delete(BROKEN)
        site.recorded(run, Record(phase=Phase.PLANNED, observed={"actions": 6, "left": 6}))
        site.queues.put(run, [f"a{number}" for number in range(5)])

    site.clock.meanwhile = [lambda: None, resume]
    tally = site.worker().work()
    assert site.said == [
        site.waiting,
        f"run {run}: 6 of 6 actions are left",
        *(f"FAILED   count thing-{number}: it is broken" for number in range(5)),
        f"{run}: 5 failed",
        f"run {run}: 5 actions failed, more than the 2 that may: no more are taken. "
        f"`show --run {run}` says why, `resume --run {run}` tries again",
        f"{run}: 5 done",
        f"{run}: 1 done",
        f"run {run}: every action has ended, and so has the run",
    ]
    assert (site.counts(6), site.stands(run).exit) == ([1] * 6, 0)
    assert tally.exit is Exit.PARTLY
    assert site.clock.waited == [1.0] * 5


# ---- who is waited for


def test_whoever_holds_the_lease_is_waited_for_and_the_guards_are_asked_once(site: Site) -> None:
    run = site.lay_out(actions(2))
    with ExitStack() as held:
        held.enter_context(Lease.held(site.world.database, holder="stilgar", run="r1"))
        since = site.world.one(
            "SELECT to_char(since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') FROM runbooks.lease"
        )
        site.clock.meanwhile = [lambda: None, held.close]
        site.worker().work()
    assert site.said == [
        site.waiting,
        f"run {run}: 2 of 2 actions are left",
        f"waiting: stilgar is at work since {since} UTC, run r1",
        f"{run}: 2 done",
        "goes on",
        f"run {run}: every action has ended, and so has the run",
    ]
    assert site.clock.waited == [1.0] * 5


def test_who_holds_the_lease_to_the_end_is_what_kept_it_from_working(site: Site) -> None:
    site.lay_out(actions(2))
    with (
        Lease.held(site.world.database, holder="stilgar", run="r1"),
        pytest.raises(LeaseHeld, match=r"^stilgar is at work since .*, run r1$"),
    ):
        site.worker().work()
    assert (site.counts(2), site.clock.waited) == ([0] * 2, [1.0] * 3)


def test_a_lock_is_waited_for(site: Site) -> None:
    run = site.lay_out(actions(1))
    site.world.sql.execute(
        "CREATE FUNCTION locked() RETURNS trigger LANGUAGE plpgsql"
        " AS $$BEGIN RAISE 'somebody has it' USING ERRCODE = 'lock_not_available'; END$$"
    )
    site.world.sql.execute("CREATE TRIGGER locked BEFORE UPDATE ON runbooks.lease EXECUTE FUNCTION locked()")
    site.clock.meanwhile = [lambda: site.world.sql.execute("DROP FUNCTION locked CASCADE")]
    try:
        site.worker().work()
    finally:
        site.world.sql.execute("DROP FUNCTION IF EXISTS locked CASCADE")
    assert "waiting: PostgreSQL could not take the lock: somebody has it" in site.said
    assert (site.counts(1), site.stands(run).exit) == ([1], 0)


@pytest.mark.parametrize("mended", [True, False])
def test_a_queue_that_does_not_answer_is_waited_for(site: Site, mended: bool) -> None:
    with wired(site.world.env["NATS_URL"]) as wire:
        queue = Watched(wire.url, timeout=2)
        site.clock.meanwhile = [wire.cut, lambda: None, wire.mend if mended else lambda: None]
        worker = site.worker(idle=4, queue=queue)
        if mended:
            assert worker.work() is worker.tally
        else:
            with pytest.raises(Unreachable) as raised:
                worker.work()
            assert worker.tally.troubled is raised.value
    place = re.escape(queue.host)
    expected = [f"waiting for work at {place}", f"waiting: NATS at {place}.*"] + ["goes on"] * mended
    assert len(site.said) == len(expected), site.said
    assert all(re.fullmatch(*each) for each in zip(expected, site.said, strict=True))
    assert site.clock.waited == [1.0] * 4


# ---- in an emergency


def test_nothing_is_begun_while_an_emergency_stop_is_raised(site: Site) -> None:
    run = site.lay_out(actions(2))
    site.stop()
    with pytest.raises(
        Stopped, match=r"^an emergency stop is raised by stilgar, since [0-9: -]+ UTC$"
    ) as told:
        site.worker().work()
    assert told.value.hint == "`emergency-status` says what resuming would do"
    assert (site.said, site.clock.waited) == ([site.waiting], [])
    assert (site.counts(2), site.world.one(HOLDERS)) == ([0] * 2, None)
    left = site.queue(run)
    assert left is not None
    assert (left.waiting, left.in_hand) == (2, 0)


def test_a_stop_that_halts_nothing_is_none(site: Site) -> None:
    site.lay_out(actions(2))
    site.stop(halting=False)
    assert site.worker().work().exit is Exit.HEALTHY
    assert site.counts(2) == [1] * 2


def test_a_stop_in_the_midst_of_work_is_raised_without_another_look(site: Site) -> None:
    site.lay_out(actions(2))
    runbook = counting(lambda _: site.stop())
    with pytest.raises(Stopped, match=r"^an emergency stop is raised by stilgar"):
        site.worker(runbook=runbook).work()
    assert (site.counts(2), site.queues.looks, site.clock.waited) == ([1, 0], 2, [])


# ---- what is refused


def test_a_run_that_was_undone_under_its_workers_is_refused(site: Site) -> None:
    run = site.lay_out(actions(2))

    def undo() -> None:
        site.undo(run)
        held.close()

    with ExitStack() as held:
        held.enter_context(Lease.held(site.world.database, holder="stilgar", run="the-undo"))
        site.clock.meanwhile = [undo]
        with pytest.raises(Refused, match=f"^run {run} was undone by the-undo$") as told:
            site.worker().work()
    assert told.value.hint == "run its runbook again"
    assert site.said[:2] == [site.waiting, f"run {run}: 2 of 2 actions are left"]
    assert site.said[2].startswith("waiting: stilgar is at work since")
    assert site.said[3:] == [f"run {run}: run {run} was undone by the-undo", "goes on"]
    assert site.counts(2) == [0] * 2
    assert site.clock.waited == [1.0] * 3


@pytest.mark.parametrize("interrupted", [False, True])
def test_what_the_guards_refuse_is_told_once_and_the_first_of_it_raised_at_the_end(
    site: Site, interrupted: bool
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    site.lay_out(actions(2), run="r1")
    site.undo("r1")
    site.lay_out([action(2)], run="r2", runbook="rb-other")
    site.lay_out([action(3)], run="r3")
    site.clock.meanwhile = [lambda: None, interrupt if interrupted else lambda: None]
    worker = site.worker()
    if interrupted:
        assert worker.work() is worker.tally
    else:
        with pytest.raises(Refused, match=r"^run r1 was undone by the-undo$"):
            worker.work()
    assert site.said == [
        site.waiting,
        "run r1: run r1 was undone by the-undo",
        "run r2: nobody here knows rb-other",
        "run r3: 1 of 1 actions are left",
        "r3: 1 done",
        "run r3: every action has ended, and so has the run",
    ]
    assert site.counts(4) == [0, 0, 0, 1]
    assert {each.run: each.waiting for each in site.queues.queues()} == {"r1": 2, "r2": 1}


def test_what_no_version_here_knows_is_refused_with_what_to_do(site: Site) -> None:
    site.lay_out(actions(1), run="r1", runbook="rb-other")
    with pytest.raises(PlanError, match=r"^nobody here knows rb-other$") as told:
        site.worker().work()
    assert told.value.hint == "use the version that made the plan"
