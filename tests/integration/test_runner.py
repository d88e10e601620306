"""A run on real servers: its lease, the plan's only use, its records and their copies, the pace, and the emergency that has neither."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from diagnostics.strain import Strain, measure
from runbooks.engine import apply, lease, runner, throttle
from runbooks.engine import plan as plans
from runbooks.engine.apply import Outcome
from runbooks.engine.environment import resolve
from runbooks.engine.errors import Exit, LeaseHeld, Refused
from runbooks.engine.gate import Gate
from runbooks.engine.journal import Journal
from runbooks.engine.lease import Lease
from runbooks.engine.model import (
    LEFT_ALONE,
    Action,
    Finding,
    Observation,
    Pace,
    Phase,
    Plan,
    Remedy,
    Resource,
    Reversibility,
    Runbook,
    Severity,
    State,
    Target,
)
from runbooks.engine.page import Rights
from runbooks.engine.runner import Runner, at_pace, new_run
from sandbox.deadline import within
from sandbox.errors import ArrakisError, Halted, Unreachable
from sandbox.ports import SqlWriter
from tests.integration.world import World
from tests.waiting import eventually

pytestmark = pytest.mark.soak  # what every run's tests notice too, to the word: for the mutants

NAME, VERB = "rb-runs", "note"
LOST = "the lease is not ours any more: another operator took over"
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'arrakis-runbooks'"
TARGET = Target(name="custom", account=None, region=None, database="d", fingerprint="f", redis="r", nats="n")

Meddle = Callable[[Action, Gate], None]


@dataclass
class Things:
    """What is acted on: which are done, in which lots and threads, and by which gate."""

    done: list[str] = field(default_factory=list)
    lots: list[list[str]] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    gates: list[Gate] = field(default_factory=list)


class Note:
    """Notes what is done, behind the fence; `meddle` is called before it."""

    verb = VERB
    rights = Rights()

    def __init__(self, gate: Gate, things: Things, meddle: Meddle) -> None:
        self._gate, self._things, self._meddle = gate, things, meddle

    def observe(self, action: Action) -> Observation:
        return self.observe_all([action])[action.id]

    def observe_all(self, actions: Sequence[Action]) -> Mapping[str, Observation]:
        states = {each.id: State.AFTER if each.id in self._things.done else State.BEFORE for each in actions}
        return {name: Observation(state=state, reason="looked") for name, state in states.items()}

    def in_use(self, action: Action) -> str | None:
        return None

    def in_use_all(self, actions: Sequence[Action]) -> Mapping[str, str]:
        return {}

    def apply(self, action: Action) -> None:
        self.apply_all([action])

    def apply_all(self, actions: Sequence[Action]) -> Mapping[str, Exception]:
        self._begin(actions)
        failed = dict[str, Exception]()
        for action in actions:
            try:
                self._meddle(action, self._gate)
            except Halted:
                raise
            except ArrakisError as error:
                failed[action.id] = error
            else:
                self._things.done.append(action.id)
        return failed

    def revert(self, action: Action) -> None:
        self.revert_all([action])

    def revert_all(self, actions: Sequence[Action]) -> Mapping[str, Exception]:
        self._begin(actions)
        for action in actions:
            self._meddle(action, self._gate)
            self._things.done.remove(action.id)
        return {}

    def _begin(self, actions: Sequence[Action]) -> None:
        self._things.lots.append([each.id for each in actions])
        self._things.threads.add(threading.current_thread().name)


class Host:
    """A host of an operator's, with a journal and a runner of its own."""

    def __init__(self, world: World, state: Path, **other: str) -> None:
        environment = resolve(None, {**world.env, **other}, state, state)
        self.journal = Journal(state / "journal.jsonl", actor="chani", clock=lambda: datetime.now(UTC))
        self.told: list[str] = []
        self.ended: list[tuple[str, int, int]] = []
        self.runner = Runner(
            environment,
            self.journal,
            timeout=5,
            progress=lambda result, number, whole: self.ended.append((result.action.id, number, whole)),
            tell=self.told.append,
        )

    def phases(self, run: str) -> list[tuple[Phase, str | None]]:
        """Return what the journal says of a run."""
        return [(each.phase, each.action) for each in self.journal.entries() if each.run == run]


@dataclass
class Place:
    """The world, some hosts, and what is acted on there."""

    world: World
    folder: Path
    things: Things = field(default_factory=Things)

    def host(self, name: str = "here", **other: str) -> Host:
        """Return a host."""
        return Host(self.world, self.folder / name, **other)

    def runbook(self, meddle: Meddle = lambda *_: None, **fields: Any) -> Runbook:
        """Return the runbook; `meddle` is called before each of its actions."""

        def remedies(gate: Gate) -> Mapping[str, Remedy]:
            self.things.gates.append(gate)
            return {VERB: Note(gate, self.things, meddle)}

        return Runbook(
            name=NAME,
            title="Notes",
            gather=lambda *_, **__: None,
            diagnose=lambda _: [],
            propose=lambda _: ([], []),
            existing=lambda _: None,
            remedies=remedies,
            **fields,
        )

    def take_over(self) -> None:
        """Let another operator have the lease."""
        self.world.sql.execute("UPDATE runbooks.lease SET holder = 'stilgar', token = token + 1")

    def holder(self) -> tuple[Any, ...]:
        """Return who has the lease, and for which run."""
        found = self.world.sql.execute("SELECT holder, run FROM runbooks.lease").fetchone()
        assert found
        return found

    def used(self) -> list[tuple[Any, ...]]:
        """Return the plans that were used, and by which run."""
        return self.world.sql.execute("SELECT plan, run FROM runbooks.used_plans").fetchall()


@pytest.fixture(scope="module", autouse=True)
def _tables(world: World) -> None:
    """Make the tables."""
    lease.prepare(world.database)


@pytest.fixture
def place(world: World, tmp_path: Path) -> Iterator[Place]:
    """Return the place, where nothing was ever applied."""
    yield Place(world, tmp_path)
    world.sql.execute("DELETE FROM runbooks.journal; DELETE FROM runbooks.used_plans")
    world.sql.execute("UPDATE runbooks.lease SET holder = NULL, run = NULL, heartbeat = NULL, since = NULL")


def plan_of(count: int = 1, verb: str = VERB, **fields: Any) -> Plan:
    """Return a plan of the actions a1, a2 …"""
    actions = [
        Action(
            id=f"a{number}",
            verb=verb,
            resource=Resource(kind="thing", id=f"thing-{number}"),
            before={},
            after={},
            reason="asked for",
            reversibility=Reversibility.REVERSIBLE,
        )
        for number in range(1, count + 1)
    ]
    given: dict[str, Any] = {"findings": (), "existing": 10, "now": datetime.now(UTC), **fields}
    return plans.make(runbook=NAME, environment=TARGET, actions=actions, **given)


def became(outcome: Outcome) -> list[tuple[Phase | None, str]]:
    """Return what became of each action."""
    return [(each.phase, each.reason) for each in outcome.results]


def fence(gate: Gate) -> None:
    """Change something, as a remedy does."""
    with gate.write.sql.transaction() as transaction:
        gate.fence(transaction)


# ---- its name, and its gate


def test_a_run_is_named_by_its_runbook_the_moment_in_utc_and_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        name, other = new_run(plan_of()), new_run(plan_of())
    finally:
        monkeypatch.undo()
        time.tzset()
    assert name != other
    told = re.fullmatch(rf"{NAME}-(\d{{8}}-\d{{6}})-[0-9a-f]{{4}}", name)
    assert told
    at = datetime.strptime(told[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)


def test_a_gate_leads_to_the_environments_systems_and_names_its_runbook(place: Place) -> None:
    host = place.host()
    gate = host.runner.gate(place.runbook())
    assert (gate.read.tag, gate.write.actor) == (f"arrakis-runbooks:{NAME}", "chani")
    tagged = f"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '/* arrakis-runbooks:{NAME} */%%'"
    for opened in (gate.read.sql.snapshot, gate.write.sql.transaction):
        with opened():
            assert place.world.count(tagged + " AND state = 'idle in transaction'") == 1
    assert gate.read.keys.host == gate.write.keys.host == place.world.keys.host
    gate.tell("a word")
    assert host.told == ["a word"]
    fence(gate)  # of which there is none yet
    gate.pause()
    assert not gate.alone()


# ---- a run


def test_a_run_has_the_lease_uses_up_its_plan_and_writes_down_what_it_does(place: Place) -> None:
    host, seen = place.host(), list[Any]()
    host.journal.append("earlier", Phase.PLANNED)
    plan, copied = plan_of(2), place.world.database

    def meddle(action: Action, gate: Gate) -> None:
        fence(gate)
        seen.append((*place.holder(), place.used(), len(lease.records(copied, "r1"))))

    outcome = host.runner.run(plan, "r1", place.runbook(meddle))
    assert (outcome.run, outcome.plan, outcome.exit) == ("r1", plan, Exit.HEALTHY)
    assert became(outcome) == [(Phase.DONE, "looked")] * 2
    assert (outcome.left, place.things.done) == ((), ["a1", "a2"])
    assert host.ended == [("a1", 1, 2), ("a2", 2, 2)]
    us = lease.holder("chani")
    assert seen == [(us, "r1", [(plan.id, "r1")], 2), (us, "r1", [(plan.id, "r1")], 4)]
    assert place.holder() == (None, None)
    assert host.phases("r1") == [
        (Phase.RUN_STARTED, None),
        (Phase.STARTED, "a1"),
        (Phase.DONE, "a1"),
        (Phase.STARTED, "a2"),
        (Phase.DONE, "a2"),
        (Phase.RUN_ENDED, None),
    ]
    earlier, *records = host.journal.entries()
    assert records[0].observed == {"plan": plans.as_json(plan)}
    assert records[-1].observed == {"exit": 0}
    assert lease.records(copied, "r1") == records
    assert lease.records(copied, "earlier") == [earlier]
    assert host.told == []


def test_what_another_holds_is_not_begun(place: Place) -> None:
    host, plan = place.host(), plan_of()
    with (
        Lease.held(place.world.database, holder="stilgar", run="r0"),
        pytest.raises(LeaseHeld, match=r"^stilgar is at work since "),
    ):
        host.runner.run(plan, "r1", place.runbook())
    assert (host.journal.entries(), place.used(), place.things.lots) == ([], [], [])


@pytest.mark.parametrize("urgent", [False, True])
def test_a_plan_is_used_once(place: Place, urgent: bool) -> None:
    host, plan, other = place.host(), plan_of(), plan_of(2)
    runbook = place.runbook(urgent=urgent)
    host.journal.append("other", Phase.PLANNED, observed={"digest": "x"})
    host.runner.refuse_used(plan)
    assert host.runner.run(other, "r0", runbook).exit is Exit.HEALTHY
    host.runner.run(plan, "r1", runbook)
    records, lots = host.journal.entries(), [*place.things.lots]
    for again in (
        lambda: host.runner.run(plan, "r2", runbook),
        lambda: host.runner.refuse_used(plan),
    ):
        with pytest.raises(Refused) as told:
            again()
        assert str(told.value) == f"plan {plan.id} was used already, by run r1"
        assert told.value.hint == "a plan is used once: run the runbook again"
    assert (host.journal.entries(), place.things.lots) == (records, lots)


def test_a_plan_that_was_used_on_another_host_is_not_used_again(place: Place) -> None:
    host, plan = place.host(), plan_of()
    place.host("elsewhere").runner.run(plan, "r1", place.runbook())
    with pytest.raises(Refused) as told:
        host.runner.run(plan, "r2", place.runbook())
    assert str(told.value) == f"plan {plan.id} was used already, on another host"
    assert told.value.hint == "a plan is used once: run the runbook again"
    assert host.phases("r2") == [(Phase.RUN_STARTED, None), (Phase.RUN_ENDED, None)]
    assert host.journal.entries()[-1].observed == {"exit": 4}
    assert place.things.lots == [["a1"]]
    assert place.used() == [(plan.id, "r1")]


# ---- the lease lost


def test_a_plan_is_not_used_up_by_who_has_lost_the_lease(place: Place) -> None:
    host = place.host()
    host.journal.anchor = lambda _: place.take_over()
    with pytest.raises(LeaseHeld, match=f"^{LOST}$"):
        host.runner.run(plan_of(), "r1", place.runbook())
    assert (place.used(), place.things.lots) == ([], [])
    assert host.phases("r1") == [(Phase.RUN_STARTED, None)]


def test_who_loses_the_lease_in_the_midst_changes_nothing_more(place: Place) -> None:
    def meddle(action: Action, gate: Gate) -> None:
        place.take_over()
        fence(gate)

    outcome = place.host().runner.run(plan_of(2), "r1", place.runbook(meddle))
    assert became(outcome) == [(Phase.STARTED, f"not finished: {LOST}"), (None, f"not reached: {LOST}")]
    assert (place.things.done, place.holder()) == ([], ("stilgar", "r1"))


def test_who_has_lost_the_lease_begins_nothing_more(place: Place) -> None:
    outcome = place.host().runner.run(plan_of(2), "r1", place.runbook(lambda *_: place.take_over()))
    assert became(outcome) == [(Phase.DONE, "looked"), (None, f"not reached: {LOST}")]
    assert outcome.exit is Exit.PARTLY


# ---- the pace


def fail(action: Action, _: Gate) -> None:
    """Fail at all but the third."""
    if action.id != "a3":
        raise ArrakisError(f"{action.id} is stuck")


@pytest.mark.parametrize("urgent", [False, True])
def test_more_failures_than_may_be_end_it(place: Place, urgent: bool) -> None:
    runbook = place.runbook(fail, pace=Pace(failures=1), urgent=urgent)
    outcome = place.host().runner.run(plan_of(3), "r1", runbook)
    assert became(outcome) == [
        (Phase.FAILED, "a1 is stuck"),
        (Phase.FAILED, "a2 is stuck"),
        (None, "not reached: more failed than the 1 that may"),
    ]
    assert outcome.exit is Exit.ERROR


def test_as_many_failures_as_may_be_do_not(place: Place) -> None:
    outcome = place.host().runner.run(plan_of(3), "r1", place.runbook(fail, pace=Pace(failures=2)))
    assert became(outcome)[2] == (Phase.DONE, "looked")


@pytest.mark.parametrize("urgent", [False, True])
def test_what_fails_in_the_midst_of_a_lot_counts_at_once(place: Place, urgent: bool) -> None:
    raised = list[str]()

    def meddle(action: Action, gate: Gate) -> None:
        gate.pause()
        for call in (partial(gate.failed, ArrakisError("a part of it is stuck")), gate.pause):
            with pytest.raises(Halted) as told:
                call()
            raised.append(str(told.value))

    outcome = place.host().runner.run(plan_of(2), "r1", place.runbook(meddle, urgent=urgent))
    assert became(outcome) == [(Phase.DONE, "looked"), (None, "not reached: one failed")]
    assert raised == ["one failed"] * 2


def test_lots_are_worked_on_by_workers_but_an_undo_in_its_order_by_one(place: Place) -> None:
    host, both = place.host(), threading.Barrier(2, timeout=20)
    pace = Pace(workers=2, lot=2)

    def meet(*_: object) -> None:
        both.wait()

    host.runner.run(plan_of(4), "r1", place.runbook(meet, pace=pace))
    assert sorted(place.things.lots) == [["a1", "a2"], ["a3", "a4"]]
    assert place.things.threads == {"worker 0", "worker 1"}
    place.things.lots.clear()
    place.things.threads.clear()
    undoing = plan_of(4, f"undo {VERB}", undoes="r1")
    assert host.runner.run(undoing, "r2", place.runbook(pace=pace)).exit is Exit.HEALTHY
    assert place.things.lots == [["a1", "a2"], ["a3", "a4"]]
    assert place.things.threads == {threading.current_thread().name}
    assert place.things.done == []


def test_ctrl_c_is_told_what_it_does(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    host, patience = place.host(), iter([KeyboardInterrupt])
    wait_for = apply.wait_for

    def interrupted(crew: Sequence[threading.Thread]) -> None:
        for each in patience:
            raise each
        wait_for(crew)

    monkeypatch.setattr(apply, "wait_for", interrupted)
    runbook = place.runbook(lambda *_: eventually(lambda: bool(host.told)), pace=Pace(workers=2, lot=1))
    outcome = host.runner.run(plan_of(3), "r1", runbook)
    assert host.told == [
        "each finishes its step, and `resume` takes up the rest; Ctrl-C again does not wait for them"
    ]
    assert became(outcome)[2] == (None, "not reached: interrupted")


# ---- throttled


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let nobody else be at work, and the throttle measure without haste; return what it cannot see."""
    hidden = list[str]()

    def alone(database: SqlWriter) -> Strain:
        return replace(measure(database), lately=0, hidden=tuple(hidden))

    monkeypatch.setattr(throttle, "_CALM_EVERY", 0)
    monkeypatch.setattr(throttle, "_CHECKED", 0)
    defaults = throttle.Throttle.__init__.__kwdefaults__
    assert defaults
    monkeypatch.setitem(defaults, "measure", alone)
    return hidden


THROTTLED = Pace(workers=1, lot=2, ample=4, throttled=True)


def test_who_is_alone_takes_ample_lots(place: Place, calm: list[str]) -> None:
    calm.append("the rest")
    host = place.host()
    outcome = host.runner.run(plan_of(5), "r1", place.runbook(lambda _, gate: gate.pause(), pace=THROTTLED))
    assert outcome.exit is Exit.HEALTHY
    assert place.things.lots == [["a1", "a2", "a3", "a4"], ["a5"]]
    assert place.things.gates[-1].alone()
    assert host.told == ["not seen from here, and not heeded: the rest"]


def test_without_a_throttle_nothing_is_measured(place: Place, calm: list[str]) -> None:
    calm.append("the rest")
    host = place.host()
    runbook = place.runbook(lambda _, gate: gate.pause(), pace=replace(THROTTLED, throttled=False))
    assert host.runner.run(plan_of(4), "r1", runbook).exit is Exit.HEALTHY
    assert place.things.lots == [["a1", "a2"], ["a3", "a4"]]
    assert host.told == []
    gate = host.runner.gate(runbook)
    with at_pace(gate, runbook, check=lambda: None) as same:
        assert same is gate


@pytest.mark.usefixtures("calm")
def test_who_loses_the_lease_is_held_up_by_the_throttle(place: Place) -> None:
    def meddle(action: Action, gate: Gate) -> None:
        gate.pause()
        place.take_over()
        gate.pause()
        pytest.fail("goes on")

    outcome = place.host().runner.run(plan_of(3), "r1", place.runbook(meddle, pace=THROTTLED))
    assert [each.phase for each in outcome.results] == [Phase.STARTED] * 3
    assert {each.reason for each in outcome.results} == {f"not finished: {LOST}"}


@pytest.mark.usefixtures("calm")
def test_a_run_that_is_to_end_does_not_wait_for_the_throttle(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile() -> None:  # another fails while the throttle holds this one up
        with pytest.raises(Halted):
            place.things.gates[-1].failed(ArrakisError("stuck"))

    def meddle(action: Action, gate: Gate) -> None:
        gate.pause()
        pytest.fail("goes on")

    monkeypatch.setattr(throttle, "_give_way", meanwhile)
    outcome = place.host().runner.run(plan_of(2), "r1", place.runbook(meddle, pace=THROTTLED))
    assert {each.reason for each in outcome.results} == {"not finished: one failed"}


@pytest.mark.usefixtures("calm")
def test_connections_are_kept_for_each_worker_and_three_that_write_besides(place: Place) -> None:
    host = place.host()
    runbook = place.runbook(pace=replace(THROTTLED, workers=2))
    gate = host.runner.gate(runbook)
    eventually(partial(there_are, place, 0))  # those of other tests have gone
    with at_pace(gate, runbook, check=lambda: None) as paced:
        for opened, kept in ((paced.read.sql.snapshot, 2), (paced.write.sql.transaction, 2 + 5)):
            with ExitStack() as many:
                for _ in range(7):
                    many.enter_context(opened())
            eventually(partial(there_are, place, kept))
        assert (paced.fence, paced.tell) == (gate.fence, gate.tell)
    eventually(partial(there_are, place, 0))


def there_are(place: Place, sessions: int) -> bool:
    """Whether so many sessions of ours are there."""
    return place.world.count(SESSIONS) == sessions


# ---- what was interrupted


def test_what_an_interrupted_run_left_is_done_and_what_it_did_is_not(place: Place) -> None:
    host, plan = place.host(), plan_of(3)
    broken = host.runner.run(plan, "r1", place.runbook(lambda *_: place.take_over(), pace=Pace(failures=0)))
    assert [each.phase for each in broken.results] == [Phase.DONE, None, None]
    place.world.sql.execute("UPDATE runbooks.lease SET holder = NULL; DELETE FROM runbooks.journal")
    other = place.host("elsewhere")
    past = host.journal.entries()
    outcome = other.runner.run(plan, "r1", place.runbook(), past=past)
    assert became(outcome) == [(Phase.DONE, ""), (Phase.DONE, "looked"), (Phase.DONE, "looked")]
    assert place.things.lots == [["a1"], ["a2"], ["a3"]]
    assert other.phases("r1") == [
        (Phase.STARTED, "a2"),
        (Phase.DONE, "a2"),
        (Phase.STARTED, "a3"),
        (Phase.DONE, "a3"),
        (Phase.RUN_ENDED, None),
    ]
    assert lease.records(place.world.database, "r1") == other.journal.entries()
    assert place.used() == [(plan.id, "r1")]


def test_a_run_that_was_undone_meanwhile_is_not_taken_up(place: Place) -> None:
    host, plan = place.host(), plan_of(2)
    host.runner.run(plan, "r1", place.runbook(lambda *_: place.take_over()))
    place.world.sql.execute("UPDATE runbooks.lease SET holder = NULL")
    undoing = plan_of(1, f"undo {VERB}", undoes="r1")
    place.host("elsewhere").runner.run(undoing, "r2", place.runbook())
    records, lots = host.journal.entries(), [*place.things.lots]
    with pytest.raises(Refused) as told:
        host.runner.run(plan, "r1", place.runbook(), past=records)
    assert (str(told.value), told.value.hint) == ("run r1 was undone by r2", "run its runbook again")
    assert (host.journal.entries(), place.things.lots) == (records, lots)


# ---- an emergency


LEFT = Finding(check=LEFT_ALONE, severity=Severity.UNKNOWN, summary="nobody can tell")
OTHER = Finding(check="other", severity=Severity.CRITICAL, summary="all is lost")


@pytest.mark.parametrize(("urgent", "left"), [(True, (LEFT,)), (False, ())])
def test_an_emergency_is_one_of_a_part_where_something_was_left_alone(
    place: Place, urgent: bool, left: tuple[Finding, ...]
) -> None:
    plan = plan_of(1, findings=(LEFT, OTHER))
    assert place.host().runner.run(plan, "r1", place.runbook(urgent=urgent)).left == left


def test_an_emergency_takes_no_lease_and_is_copied_when_it_is_over(place: Place) -> None:
    host, seen, plan = place.host(), list[Any](), plan_of(2)
    host.journal.append("earlier", Phase.PLANNED)

    def meddle(action: Action, gate: Gate) -> None:
        fence(gate)
        seen.append((*place.holder(), place.used(), lease.records(place.world.database, "r1")))

    outcome = host.runner.run(plan, "r1", place.runbook(meddle, urgent=True))
    assert (outcome.run, outcome.plan) == ("r1", plan)
    assert became(outcome) == [(Phase.DONE, "looked")] * 2
    assert seen == [(None, None, [], [])] * 2
    assert place.used() == []
    earlier, *records = host.journal.entries()
    assert [each.phase for each in records] == [
        Phase.RUN_STARTED,
        *(Phase.STARTED, Phase.DONE) * 2,
        Phase.RUN_ENDED,
    ]
    assert records[0].observed == {"plan": plans.as_json(plan)}
    assert lease.records(place.world.database, "r1") == records
    assert lease.records(place.world.database, "earlier") == [earlier]
    assert host.ended == [("a1", 1, 2), ("a2", 2, 2)]


def test_an_emergency_that_was_interrupted_is_taken_up(place: Place) -> None:
    host, plan = place.host(), plan_of(2)
    host.runner.run(plan, "r1", place.runbook(fail_second, urgent=True))
    outcome = host.runner.run(plan, "r1", place.runbook(urgent=True), past=host.journal.entries())
    assert became(outcome) == [(Phase.DONE, ""), (Phase.DONE, "looked")]
    assert place.things.lots == [["a1"], ["a2"], ["a2"]]
    assert [phase for phase, _ in host.phases("r1")].count(Phase.RUN_STARTED) == 1


def fail_second(action: Action, _: Gate) -> None:
    """Fail at the second."""
    if action.id == "a2":
        raise ArrakisError("stuck")


def test_an_emergency_is_held_up_by_a_dead_postgresql_for_no_time_and_by_a_silent_one_for_a_second(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = list[tuple[float, str, str]]()

    def sooner(seconds: float, call: Callable[[], Any], what: str) -> None:
        with pytest.raises(Unreachable) as told:
            within(0.01, call, what)
        waited.append((seconds, what, str(told.value)))
        raise told.value

    plan = plan_of()
    dead = place.host("dead", DATABASE_URL="postgresql://127.0.0.1:1/x")
    assert became(dead.runner.run(plan, "r1", place.runbook(urgent=True))) == [(Phase.DONE, "looked")]
    with socket.create_server(("127.0.0.1", 0)) as mute:
        host = place.host("mute", DATABASE_URL=f"postgresql://127.0.0.1:{mute.getsockname()[1]}/x")
        place.things.done.clear()
        monkeypatch.setattr(runner, "within", sooner)
        assert became(host.runner.run(plan, "r2", place.runbook(urgent=True))) == [(Phase.DONE, "looked")]
    assert waited == [(1.0, "PostgreSQL", "PostgreSQL gave no answer within 0.01 s")]
    assert host.phases("r2")[-1] == (Phase.RUN_ENDED, None)
