"""A run handed over to workers, on real servers: what is asked, written down and laid on the queue, how it ends, and what is cut short."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbooks.engine import permission
from runbooks.engine import plan as plans
from runbooks.engine.apply import started
from runbooks.engine.distributed import (
    PATIENCE,
    Coordinator,
    distributed,
    end_run,
    outcome_of,
    work_queue,
    workers_of,
)
from runbooks.engine.environment import Environment
from runbooks.engine.errors import Exit, LeaseHeld, PlanError, Refused
from runbooks.engine.journal import Journal, JournalEntry, Record
from runbooks.engine.lease import Lease, records
from runbooks.engine.model import Finding, Pace, Phase, Plan, Runbook, Severity
from runbooks.engine.page import Rights
from runbooks.engine.work import Result
from sandbox.adapters.workqueue import JetStreamQueue
from sandbox.errors import Unreachable
from sandbox.ports import QueueState
from tests.integration.counting import NAME, counting
from tests.integration.hand import Waiting, at_once
from tests.integration.test_crew import Clock, Site, actions, done, model_of
from tests.integration.wire import Wire, wired
from tests.integration.world import World
from tests.unit.plans import plan

UNKNOWN: Any = None
HOLDER = "SELECT holder, run FROM runbooks.lease"
FAILED = Record(phase=Phase.FAILED, action="a1", error="it is broken")
OVER = Record(phase=Phase.RUN_ENDED, observed={"exit": 0})


# ---- what needs no server


def entries(*said: tuple[str | None, Phase, str | None]) -> list[JournalEntry]:
    """Return records as (action, phase, error)."""
    return [
        JournalEntry(
            chain="c",
            seq=seq,
            run="r1",
            action=name,
            phase=phase,
            at=datetime(2026, 3, 1, tzinfo=UTC),
            actor="ada",
            observed={"settled": True} if error == "as it should be" else {},
            error=error,
            previous="",
        )
        for seq, (name, phase, error) in enumerate(said, 1)
    ]


S, D, K, F = Phase.STARTED, Phase.DONE, Phase.SKIPPED, Phase.FAILED
NOTHING = (None, "not reached", False)
OUTCOMES: list[tuple[list[tuple[str | None, Phase, str | None]], tuple[Phase | None, str, bool]]] = [
    ([], NOTHING),
    ([("a2", S, None)], NOTHING),
    ([("a9", D, None)], NOTHING),
    ([(None, K, "a stranger")], NOTHING),
    ([(None, K, "a stranger"), ("a2", D, None)], (D, "", True)),
    ([("a2", S, None), ("a2", D, None)], (D, "", True)),
    ([("a2", F, "it is broken")], (F, "it is broken", False)),
    ([("a2", F, "it is broken"), ("a2", S, None)], (F, "it is broken", False)),
    ([("a2", F, "it is broken"), ("a2", F, "and again")], (F, "and again", False)),
    ([("a2", F, "it is broken"), ("a2", D, None)], (D, "", True)),
    ([("a2", F, "it is broken"), ("a2", K, "as it should be")], (K, "as it should be", True)),
    ([("a2", D, None), ("a2", F, "too late")], (D, "", True)),
    ([("a2", D, None), ("a2", K, "it is done")], (D, "", True)),
    ([("a2", K, "in use"), ("a2", F, "too late")], (K, "in use", False)),
    ([("a2", K, "in use"), ("a2", D, None)], (K, "in use", False)),
    ([("a2", D, None), ("a2", S, None)], (D, "", True)),
]


@pytest.mark.parametrize(("said", "ending"), OUTCOMES)
def test_the_last_ending_of_an_action_counts_but_what_is_done_stays_so(
    said: list[tuple[str | None, Phase, str | None]], ending: tuple[Phase | None, str, bool]
) -> None:
    ours = plan(3)
    past = entries(("a1", D, None), *said, ("a3", F, "it is broken"))
    outcome = outcome_of("r1", ours, past)
    phase, reason, settled = ending
    assert (outcome.run, outcome.plan, outcome.outlook) == ("r1", ours, ())
    assert outcome.results == (
        Result(action=ours.actions[0], phase=D, reason="", settled=True),
        Result(action=ours.actions[1], phase=phase, reason=reason, settled=settled),
        Result(action=ours.actions[2], phase=F, reason="it is broken", settled=False),
    )


def test_a_run_was_put_on_the_queue_if_that_is_in_its_records() -> None:
    assert distributed(entries((None, Phase.RUN_STARTED, None), (None, Phase.PLANNED, None), ("a1", D, None)))
    assert distributed(entries((None, Phase.RUN_STARTED, None), ("a1", D, None))) is False
    assert distributed([]) is False


def test_a_worker_may_be_silent_for_half_a_minute() -> None:
    assert timedelta(seconds=30) == PATIENCE


def test_the_queue_is_that_of_the_environment() -> None:
    environment = Environment(
        name="x", database_url="", redis_url="", nats_url="nats://one:1,nats://two", nats_tls_ca="ca.pem"
    )
    expected = JetStreamQueue("nats://one:1,nats://two", timeout=3, tls_ca="ca.pem")
    assert vars(work_queue(environment, timeout=3)) == vars(expected)


@pytest.mark.parametrize(
    ("undoes", "changes"),
    [("r0", {}), (None, {"urgent": True}), (None, {"pace": Pace(lot=5)}), ("r0", {"urgent": True})],
)
def test_what_has_an_order_is_not_handed_over(undoes: str | None, changes: dict[str, Any]) -> None:
    ours = plan(3, undoes=undoes)
    runbook = replace(counting(), **changes)
    with pytest.raises(PlanError) as told:
        Coordinator(UNKNOWN, UNKNOWN).start(ours, runbook, ask=UNKNOWN, max_targets=3)
    assert str(told.value) == f"the actions of {ours.id} are done in their order, by one"
    assert told.value.hint == "apply it without --distributed"


# ---- on servers


class Prepared(JetStreamQueue):
    """The queues, and for how many replicas each their place was made."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.replicas = list[int]()

    def prepare(self, *, replicas: int) -> None:
        super().prepare(replicas=1 if replicas == 3 else replicas)  # there is one server
        self.replicas.append(replicas)


class Cut(Prepared):
    """The queues through a wire that is cut half-way."""

    wire: Wire

    def put(self, run: str, actions: Sequence[str]) -> int:
        laid = super().put(run, actions[: len(actions) // 2])
        self.wire.cut()
        return laid + super().put(run, actions[len(actions) // 2 :])


class Asked:
    """Whoever confirms it: what they were asked, and what happens meanwhile."""

    def __init__(self, *meanwhile: Any) -> None:
        self.said = list[tuple[Environment, Plan, str]]()
        self._meanwhile = meanwhile

    def __call__(self, environment: Environment, plan: Plan, text: str) -> None:
        self.said.append((environment, plan, text))
        for each in self._meanwhile:
            each()


@pytest.fixture(scope="module")
def model(world: World, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Return a plan that those of the tests are made after."""
    return model_of(world, tmp_path_factory.mktemp("model"))


@pytest.fixture
def site(world: World, model: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Return the world with nothing at work in it."""
    for name, value in world.env.items():
        monkeypatch.setenv(name, value)
    site = Site(world, tmp_path, model, Clock())
    yield site
    site.leave()


def coordinator(site: Site, queue: JetStreamQueue | None = None, host: str = "here") -> Coordinator:
    """Return who hands over on a host, as long as nobody says how patient the queue is."""
    return Coordinator(site.operator(host), queue or Prepared(site.world.env["NATS_URL"], timeout=5))


def on_disk(site: Site, host: str = "here") -> list[JournalEntry]:
    """Return what a host has written down."""
    return site.operator(host).journal.entries()


def holder(site: Site) -> tuple[Any, ...]:
    """Return who holds the lease, and for which run."""
    found = site.world.sql.execute(HOLDER).fetchone()
    assert found
    return found


def start(by: Coordinator, plan: Plan, ask: Any = lambda *_: None, most: int | None = None) -> str:
    """Begin a plan's run."""
    return by.start(plan, counting(), ask=ask, max_targets=most)


def test_all_of_a_plan_is_laid_on_the_queue_once_it_is_confirmed_and_written_down_for_all(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    rights = list[Rights]()
    asking = permission.ask

    def ask(environment: Any, read: Any, wanted: Rights, *, timeout: float) -> Any:
        rights.append(wanted)
        return asking(environment, read, wanted, timeout=timeout)

    monkeypatch.setattr(permission, "ask", ask)
    queue, asked, ours = Prepared(site.world.env["NATS_URL"], timeout=5), Asked(), site.plan(actions(4))
    by = coordinator(site, queue)
    run = start(by, ours, asked, 4)
    assert re.fullmatch(NAME + r"-[0-9]{8}-[0-9]{6}-[0-9a-f]{4}", run)
    [(environment, confirmed, text)] = asked.said
    assert (environment.state, confirmed) == (site.folder / "here" / "custom", ours)
    assert text == "4 targets, 10% of the 40 sandbox resources that exist; at most 4"
    assert [each.nats for each in rights] == [permission.HANDING_OVER.nats]
    assert queue.replicas == [1]
    assert site.said == [f"run {run}: 4 actions laid on the queue at {queue.host}"]
    written = on_disk(site)
    assert [(each.run, each.phase, each.observed) for each in written] == [
        (run, Phase.RUN_STARTED, started(ours)),
        (run, Phase.PLANNED, {"actions": 4, "left": 4}),
    ]
    assert records(site.world.database, run) == written
    assert holder(site) == (f"workers of {run}", run)
    assert site.queue(run) == QueueState(run=run, waiting=4, in_hand=0, again=0, patience=PATIENCE)
    assert [each.action for each in queue.take(run, 9, wait=0.1)] == ["a0", "a1", "a2", "a3"]
    with pytest.raises(Refused, match=f"^plan {ours.id} was used already, by run {run}$"):
        start(by, ours)


def test_what_is_not_confirmed_is_not_begun(site: Site) -> None:
    def refuse() -> None:
        raise Refused("nobody said yes")

    queue, asked = Prepared(site.world.env["NATS_URL"], timeout=5), Asked(refuse)
    by, ours = coordinator(site, queue), site.plan(actions(4))
    with pytest.raises(Refused, match=r"^refused by the guard 'blast radius': .*; at most 3$"):
        start(by, ours, asked, 3)
    assert not asked.said
    with pytest.raises(Refused, match=r"^nobody said yes$"):
        start(by, ours, asked, 4)
    assert (len(asked.said), queue.replicas, on_disk(site)) == (1, [], [])
    assert (site.said, holder(site)) == ([], (None, None))


def test_without_a_queue_or_the_lease_the_plan_is_not_used_up(site: Site) -> None:
    ours, nowhere = site.plan(actions(2)), JetStreamQueue("nats://127.0.0.1:1", timeout=2)
    with pytest.raises(Unreachable, match=r"^NATS at 127\.0\.0\.1:1"):
        start(coordinator(site, nowhere), ours)
    with (
        Lease.held(site.world.database, holder="stilgar", run="r1"),
        pytest.raises(LeaseHeld, match=r"^stilgar is at work since .*, run r1$"),
    ):
        start(coordinator(site), ours)
    assert (site.said, on_disk(site), holder(site)) == ([], [], (None, None))
    patient = Coordinator(
        site.operator(), Prepared(site.world.env["NATS_URL"]), patience=timedelta(seconds=7)
    )
    left = site.queue(start(patient, ours))
    assert left is not None
    assert (left.waiting, left.patience) == (2, timedelta(seconds=7))


def test_the_queues_have_as_many_replicas_as_the_streams_of_the_environment(site: Site) -> None:
    operator, queue = site.operator(), Prepared(site.world.env["NATS_URL"], timeout=5)
    stack = replace(operator.environment.stack, stream_replicas=3)
    operator.environment = replace(operator.environment, stack=stack)
    run = start(Coordinator(operator, queue), site.plan(actions(1)))
    assert queue.replicas == [3]
    Coordinator(operator, queue).resume(run, {NAME: counting()}, ask=Asked())
    assert queue.replicas == [3, 3]


def test_what_is_cut_short_half_way_is_begun_and_resumed_from_anywhere(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with wired(site.world.env["NATS_URL"]) as wire:
        cut = Cut(wire.url, timeout=2)
        cut.wire = wire
        with pytest.raises(Unreachable) as told:
            start(coordinator(site, cut), site.plan(actions(4)))
    run = on_disk(site)[0].run
    cause = told.value.__cause__
    assert isinstance(cause, Unreachable)
    assert str(cause).startswith(f"NATS at {cut.host}")
    assert str(told.value) == f"run {run} is begun, and not all of it is on the queue: {cause}"
    assert told.value.hint == f"`resume --run {run}` puts the rest there"
    assert site.said == []
    half = site.queue(run)
    assert half is not None
    assert (half.waiting, holder(site)) == (2, (f"workers of {run}", run))

    wanted, asking = list[Rights](), permission.ask

    def ask(environment: Any, read: Any, rights: Rights, *, timeout: float) -> Any:
        wanted.append(rights)
        return asking(environment, read, rights, timeout=timeout)

    monkeypatch.setattr(permission, "ask", ask)
    queue, asked = Prepared(site.world.env["NATS_URL"], timeout=5), Asked()
    other = coordinator(site, queue, "elsewhere")
    site.recorded(run, *done(0))
    assert other.resume(run, {NAME: counting()}, ask=asked) == run
    [(environment, resumed, text)] = asked.said
    assert environment.state == site.folder / "elsewhere" / "custom"
    assert ([each.id for each in resumed.actions], text) == (
        ["a0", "a1", "a2", "a3"],
        "3 of 4 actions are left",
    )
    assert [each.nats for each in wanted] == [permission.HANDING_OVER.nats]
    assert (queue.replicas, site.queue(run)) == ([1], replace(half, waiting=4))
    assert site.said == [f"run {run}: 2 actions laid on the queue at {queue.host}"]
    [planned_again] = on_disk(site, "elsewhere")
    assert (planned_again.phase, planned_again.observed) == (Phase.PLANNED, {"actions": 4, "left": 3})
    assert records(site.world.database, run)[-1] == planned_again


def test_nothing_is_laid_on_the_queue_that_other_hosts_cannot_read(site: Site) -> None:
    site.world.sql.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'it is full'; END$$"
    )
    try:
        site.world.sql.execute(
            "CREATE TRIGGER refused BEFORE INSERT ON runbooks.journal"
            " FOR EACH ROW WHEN (NEW.phase = 'run-started') EXECUTE FUNCTION refuse()"
        )
        site.operator().journal.append("of-the-past", Phase.PLANNED)
        with pytest.raises(
            Unreachable, match=r"^run .* is begun, and not all .*: PostgreSQL at .*: it is full"
        ):
            start(coordinator(site), site.plan(actions(2)))
    finally:
        site.world.sql.execute("DROP FUNCTION refuse CASCADE")
    assert [each.phase for each in on_disk(site)] == [Phase.PLANNED, Phase.RUN_STARTED]
    assert (site.queues.queues(), site.said) == ([], [])


def test_what_was_lost_from_postgresql_while_they_were_asked_is_copied_again(site: Site) -> None:
    run = site.lay_out(actions(2), put=False)

    def lose() -> None:
        site.world.sql.execute("DELETE FROM runbooks.journal")

    before = records(site.world.database, run)
    coordinator(site).resume(run, {NAME: counting()}, ask=Asked(lose))
    after = records(site.world.database, run)
    assert sorted(each.phase for each in after) == ["planned", "planned", "run-started"]
    assert {each.hash for each in before} < {each.hash for each in after}


def test_a_run_that_has_an_order_by_now_is_not_resumed(site: Site) -> None:
    run, asked = site.lay_out(actions(2), put=False), Asked()
    with pytest.raises(PlanError, match=f"^the actions of {run} are done in their order, by one$"):
        coordinator(site).resume(run, {NAME: counting(pace=Pace())}, ask=asked)
    with pytest.raises(PlanError, match=f"^nobody here knows {NAME}$"):
        coordinator(site).resume(run, {}, ask=asked)
    assert (asked.said, on_disk(site), holder(site)) == ([], [], (None, None))


def test_a_run_that_is_undone_while_they_are_asked_is_not_resumed(site: Site) -> None:
    run = site.lay_out(actions(2), put=False)
    with pytest.raises(Refused, match=f"^run {run} was undone by the-undo$"):
        coordinator(site).resume(run, {NAME: counting()}, ask=Asked(lambda: site.undo(run)))
    left = site.queue(run)
    assert left is not None
    assert (left.waiting, site.said, on_disk(site)) == (0, [], [])


def test_a_run_of_which_nothing_is_left_is_ended_by_who_resumes_it(site: Site) -> None:
    run, asked = site.lay_out(actions(2), ended=done(0, 1)), Asked()
    assert coordinator(site).resume(run, {NAME: counting()}, ask=asked) == run
    assert asked.said[0][2] == "0 of 2 actions are left"
    assert [(each.phase, each.observed) for each in on_disk(site)] == [
        (Phase.PLANNED, {"actions": 2, "left": 0}),
        (Phase.RUN_ENDED, {"exit": 0}),
    ]
    assert records(site.world.database, run)[-2:] == on_disk(site)
    assert (site.stands(run).exit, holder(site), site.queue(run)) == (0, (None, None), None)


def test_what_failed_is_tried_again_and_does_not_end_the_run(site: Site) -> None:
    run = site.lay_out(actions(2), ended=[*done(0), FAILED])
    coordinator(site).resume(run, {NAME: counting()}, ask=Asked())
    left = site.queue(run)
    assert left is not None
    assert (left.waiting, site.stands(run).exit, holder(site)[1]) == (1, None, run)


def test_what_became_of_a_run_is_told_by_the_records_of_all_hosts(site: Site) -> None:
    found = Finding(check="counted", severity=Severity.OK, summary="as it should be")
    runbook: Runbook = replace(
        counting(), gather=lambda *_, **__: "facts", outlook=lambda facts: [found] if facts == "facts" else []
    )
    run = site.lay_out(actions(3), ended=[*done(0), FAILED])
    outcome = coordinator(site).outcome(run, runbook)
    assert (outcome.run, outcome.plan.id, outcome.outlook) == (run, run, (found,))
    assert [(each.phase, each.reason) for each in outcome.results] == [
        (D, ""),
        (F, "it is broken"),
        (None, "not reached"),
    ]
    assert coordinator(site).outcome(run, counting()) == replace(outcome, outlook=())


# ---- its end


def begun(site: Site, *ended: Record, over: bool = False) -> tuple[str, Plan]:
    """Let a run of two actions be on the queue, with these endings; return it and its plan."""
    run = site.lay_out(actions(2), ended=ended, put=False)
    if over:
        site.recorded(run, OVER)
    return run, plans.from_json(records(site.world.database, run)[0].observed["plan"])


def own(site: Site, name: str = "own") -> Journal:
    """Return a worker's journal, of which no copy is made but by who ends the run."""
    return Journal(site.folder / f"{name}.jsonl", actor="ada", clock=lambda: datetime.now(UTC))


@pytest.mark.parametrize(
    ("ended", "exit"),
    [
        (done(0, 1), Exit.HEALTHY),
        ([*done(0), FAILED], Exit.PARTLY),
        ([FAILED, replace(FAILED, action="a0")], Exit.ERROR),
    ],
)
def test_a_run_is_ended_with_what_became_of_it_and_its_lease_given_back(
    site: Site, ended: list[Record], exit: Exit
) -> None:
    run, ours = begun(site, *ended)
    sql, journal = site.world.database, own(site)
    with Lease.held(sql, holder=workers_of(run), run=run, shared=True) as held:
        assert end_run(run, ours, lease=held, sql=sql, journal=journal) is True
        assert holder(site) == (None, None)
        assert end_run(run, ours, lease=held, sql=sql, journal=journal) is True  # somebody did it already
    [last] = journal.entries()
    assert (last.run, last.phase, last.observed) == (run, Phase.RUN_ENDED, {"exit": int(exit)})
    assert records(sql, run)[-1] == last
    assert site.stands(run).exit == exit


@pytest.mark.parametrize(
    ("ended", "over", "mine", "told"),
    [
        (done(0), False, True, False),  # something is left
        (done(0, 1), False, False, False),  # another has the lease
        (done(0, 1), True, True, True),
        (done(0, 1), True, False, True),
    ],
)
def test_a_run_is_not_ended_before_its_time_nor_by_others_nor_twice(
    site: Site, ended: list[Record], over: bool, mine: bool, told: bool
) -> None:
    run, ours = begun(site, *ended, over=over)
    sql, journal = site.world.database, own(site)
    name = workers_of(run) if mine else "stilgar"
    with Lease.held(sql, holder=name, run=run, shared=True) as held:
        assert end_run(run, ours, lease=held, sql=sql, journal=journal) is told
        assert (holder(site), journal.entries()) == ((name, run), [])


def test_a_run_that_nobody_knows_is_not_over(site: Site) -> None:
    sql, journal = site.world.database, own(site)
    with Lease.held(sql, holder=workers_of("r1"), run="r1", shared=True) as held:
        assert end_run("r1", site.plan(actions(1)), lease=held, sql=sql, journal=journal) is False
    assert journal.entries() == []


def test_of_all_who_see_that_a_run_is_over_one_ends_it(site: Site) -> None:
    run, ours = begun(site, *done(0, 1))
    sql, journals = site.world.database, [own(site, str(number)) for number in range(4)]
    told = list[bool]()
    with ExitStack() as open_ones:
        held = [
            open_ones.enter_context(Lease.held(sql, holder=workers_of(run), run=run, shared=True))
            for _ in journals
        ]
        assert (
            at_once(
                *(
                    lambda each=each, journal=journal: told.append(
                        end_run(run, ours, lease=each, sql=sql, journal=journal)
                    )
                    for each, journal in zip(held, journals, strict=True)
                )
            )
            == [None] * 4
        )
    assert told == [True] * 4
    assert sum(len(each.entries()) for each in journals) == 1
    assert [each.phase for each in records(sql, run)].count(Phase.RUN_ENDED) == 1


def test_what_is_done_while_it_is_ended_counts(site: Site) -> None:
    run, ours = begun(site, *done(0), FAILED)
    sql, journal = site.world.database, own(site)

    def end(held: Lease) -> None:
        assert end_run(run, ours, lease=held, sql=sql, journal=journal)

    with Lease.held(sql, holder=workers_of(run), run=run, shared=True) as held:
        with Waiting(site.world, end, held) as waiting, site.world.visitor() as other:
            other.execute("BEGIN")
            other.execute("SELECT FROM runbooks.lease FOR UPDATE")
            waiting.begin()
            site.recorded(run, Record(phase=Phase.PLANNED, observed={"actions": 2, "left": 1}), *done(1))
            other.execute("COMMIT")
        assert waiting.raised is None
    assert site.stands(run).exit == 0
