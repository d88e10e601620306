"""What an operator asks for, on real servers: diagnosed, confirmed behind the guards, applied once, taken up, undone, looked at again."""

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from diagnostics.stack import Stack
from runbooks.engine import lease, operate
from runbooks.engine import plan as plans
from runbooks.engine.environment import Environment, resolve
from runbooks.engine.errors import Exit, PlanError, Refused
from runbooks.engine.gate import Gate
from runbooks.engine.journal import JournalEntry
from runbooks.engine.lease import Mirror
from runbooks.engine.model import (
    Action,
    Finding,
    Observation,
    Phase,
    Plan,
    Remedy,
    Resource,
    Reversibility,
    Runbook,
    Severity,
    State,
    Target,
    Trial,
)
from runbooks.engine.operate import Operator, TakenUp, ended
from runbooks.engine.page import Page, Rights
from runbooks.engine.systems import Readers, target
from runbooks.engine.work import Result
from sandbox.errors import ArrakisError, Unreachable
from sandbox.facts import Fact, Known, Unknown
from tests.integration.world import World

pytestmark = pytest.mark.soak  # what every run's tests notice too, to the word: for the mutants

NAME, EMERGENCY = "rb-op", "rb-now"
TAG = f"arrakis-runbooks:{NAME}"
TAGGED = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s AND state = 'idle in transaction'"
NOWHERE = {"DATABASE_URL": "postgresql://127.0.0.1:1/x"}
FINE = Finding(check="looks", severity=Severity.OK, summary="all is well")
BAD = Finding(check="looks", severity=Severity.WARNING, summary="all is lost")
LEFT = Finding(check="left", severity=Severity.WARNING, summary="something is left")
UNTOLD = Finding(check="looks", severity=Severity.UNKNOWN, summary="nobody can tell")
ALLOWED = "1 target, 10% of the 10 sandbox resources that exist"
UNCHANGED = "nothing was changed"


@dataclass
class Things:
    """What is acted on, and how it was looked at: which are done, which fail, and what `gather` and `propose` were given."""

    done: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    gathered: list[dict[str, Any]] = field(default_factory=list)
    options: list[dict[str, Any]] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None


class Do:
    """Does a thing, unless it is broken."""

    rights = Rights()

    def __init__(self, verb: str, gate: Gate, things: Things, rights: Rights) -> None:
        self.verb, self._gate, self._things, self.rights = verb, gate, things, rights

    def observe(self, action: Action) -> Observation:
        state = State.AFTER if action.id in self._things.done else State.BEFORE
        return Observation(state=state, reason="looked")

    def in_use(self, action: Action) -> str | None:
        return None

    def apply(self, action: Action) -> None:
        self._gate.tell(f"doing {action.id}")
        if action.id in self._things.broken:
            raise ArrakisError(f"{action.id} is stuck")
        self._things.done.append(action.id)

    def revert(self, action: Action) -> None:
        self._things.done.remove(action.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a runbook has seen, and what became of its trial."""

    gathered: Mapping[str, Any]
    tried: Fact[Any] | None = None


def action(number: int, verb: str = "do") -> Action:
    """Return the action `a{number}`."""
    return Action(
        id=f"a{number}",
        verb=verb,
        resource=Resource(kind="thing", id=f"thing-{number}"),
        before={},
        after={},
        reason="asked for",
        reversibility=Reversibility.NOTHING if verb == "look at" else Reversibility.REVERSIBLE,
    )


@dataclass
class Place:
    """The world, its operators, and what they act on."""

    world: World
    folder: Path
    things: Things = field(default_factory=Things)
    told: list[str] = field(default_factory=list)
    ended: list[tuple[str, int, int]] = field(default_factory=list)
    asked: list[tuple[Environment, Plan, str]] = field(default_factory=list)

    def ask(self, environment: Environment, plan: Plan, scope: str) -> None:
        """Confirm everything."""
        self.asked.append((environment, plan, scope))

    def environment(self, host: str = "here", **other: str) -> Environment:
        """Return the environment as a host sees it."""
        state = self.folder / host
        return resolve(None, {**self.world.env, **other}, state, state)

    def operator(self, environment: Environment | None = None, *, timeout: float = 8) -> Operator:
        """Return an operator."""
        return Operator(
            environment or self.environment(),
            timeout=timeout,
            progress=lambda result, number, whole: self.ended.append((result.action.id, number, whole)),
            tell=self.told.append,
        )

    def elsewhere(self) -> Operator:
        """Return an operator on another host."""
        return self.operator(self.environment("elsewhere"))

    def runbook(
        self,
        actions: Sequence[Action] = (),
        findings: Sequence[Finding] = (FINE,),
        *,
        left: Sequence[Finding] = (),
        name: str = NAME,
        existing: int | None = 10,
        rights: Rights | None = None,
        **fields: Any,
    ) -> Runbook:
        """Return a runbook that finds and proposes this; `rights` are what its verb `set` takes."""

        def gather(read: Readers, *, now: datetime, deadline: float, stack: Stack, **about: Any) -> Facts:
            given = {"read": read, "now": now, "deadline": deadline, "stack": stack, "about": about}
            self.things.gathered.append(given)
            self.things.meanwhile()
            return Facts(gathered=given)

        def diagnose(facts: Facts) -> list[Finding]:
            assert facts.gathered is self.things.gathered[-1]
            tried = [] if facts.tried is None else [replace(FINE, evidence={"tried": facts.tried})]
            return [*findings, *tried]

        def propose(facts: Facts, **options: Any) -> tuple[list[Action], list[Finding]]:
            assert facts.gathered is self.things.gathered[-1]
            self.things.options.append(options)
            return [*actions], [*left]

        def existing_in(facts: Facts) -> int | None:
            assert facts.gathered is self.things.gathered[-1]
            return existing

        def remedies(gate: Gate) -> Mapping[str, Remedy]:
            self.things.gates.append(gate)
            needs = {"do": Rights(), "set": rights or Rights(), "look at": Rights()}
            return {verb: Do(verb, gate, self.things, its) for verb, its in needs.items()}

        return Runbook(
            name=name,
            title="Does things",
            gather=gather,
            diagnose=diagnose,
            propose=propose,
            existing=existing_in,
            remedies=remedies,
            **fields,
        )

    def planned(self, operator: Operator, *actions: Action, **fields: Any) -> Plan:
        """Return a plan as the operator makes it."""
        found = operator.diagnose(self.runbook(actions or (action(1),), **fields))
        assert found.plan
        return found.plan

    def interrupted(self, operator: Operator, *actions: Action, **fields: Any) -> tuple[str, Runbook]:
        """Apply a plan that ends at what is broken; return the run and its runbook. Nothing is broken then."""
        runbook = self.runbook(actions, **fields)
        plan = operator.diagnose(runbook).plan
        assert plan
        outcome = operator.apply(plan, runbook, ask=lambda *_: None, max_targets=len(actions))
        assert outcome.exit is Exit.PARTLY
        self.things.broken.clear()
        return outcome.run, runbook

    def limited(self, *rights: str) -> Environment:
        """Return the environment with a login at Redis that may do all but this."""
        self.world.redis.execute_command("ACL", "SETUSER", "limited", "on", ">pw", "~*", "+@all", *rights)  # type: ignore[no-untyped-call]
        parts = urlsplit(self.world.env["REDIS_URL"])
        return self.environment(REDIS_URL=f"redis://limited:pw@{parts.netloc}{parts.path}")


@pytest.fixture(scope="module", autouse=True)
def _tables(world: World) -> None:
    """Make the tables."""
    lease.prepare(world.database)


@pytest.fixture
def place(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Return the place, where nothing was ever applied."""
    for name, value in world.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SANDBOX_OWNER", "chani")
    yield Place(world, tmp_path)
    for table in ("journal", "used_plans", "stops"):
        world.sql.execute(f"DELETE FROM runbooks.{table}".encode())
    world.sql.execute("UPDATE runbooks.lease SET holder = NULL, run = NULL, heartbeat = NULL, since = NULL")
    world.redis.execute_command("ACL", "DELUSER", "limited")  # type: ignore[no-untyped-call]


@pytest.fixture
def aimed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """Return in whose name, and within which deadlines, it was looked up which production this is."""
    looks = list[tuple[str, float]]()

    def looked(environment: Environment, read: Readers, *, deadline: float) -> Target:
        looks.append((read.tag, deadline))
        return target(environment, read, deadline=deadline)

    monkeypatch.setattr(operate, "target", looked)
    return looks


def raise_stop(world: World) -> None:
    """Raise an emergency stop."""
    world.sql.execute(
        "INSERT INTO runbooks.stops (id, raised_at, raised_by, reason, halting, parts)"
        " VALUES ('s1', '2026-03-01T10:00Z', 'liet', '', true, '{}')"
    )


def refusal(call: Callable[[], object]) -> str:
    """Return the words of a guard's refusal."""
    with pytest.raises(Refused) as told:
        call()
    assert told.value.hint == UNCHANGED
    return str(told.value)


def phases(entries: Sequence[JournalEntry]) -> list[tuple[Phase, str | None]]:
    """Return what records say, in their order."""
    return [(each.phase, each.action) for each in entries]


# ---- the whole way


def test_a_diagnosis_looks_as_it_was_asked_and_keeps_its_plan(
    place: Place, aimed: list[tuple[str, float]]
) -> None:
    stack = Stack(cluster="mine")
    operator = place.operator(replace(place.environment(), stack=stack))
    runbook = place.runbook([action(1)], [FINE, BAD], left=[LEFT])
    before = datetime.now(UTC)
    place.things.meanwhile = lambda: aimed.append(("gathering", 0))  # while it gathers nobody asks
    found = operator.diagnose(runbook, about={"sandbox": "s1"}, newest=3)
    [given] = place.things.gathered
    assert (given["deadline"], given["stack"], given["about"]) == (8, stack, {"sandbox": "s1"})
    assert given["read"].tag == TAG
    assert before <= given["now"] <= datetime.now(UTC)
    assert place.things.options == [{"newest": 3}]
    assert (found.at, found.by, found.runbook) == (given["now"], "chani", runbook)
    assert found.environment is operator.environment
    assert found.findings == (FINE, BAD, LEFT)
    assert found.exit is Exit.PROPOSED
    plan = found.plan
    assert plan
    assert plan == plans.make(
        runbook=NAME,
        environment=target(operator.environment, given["read"], deadline=5),
        now=given["now"],
        findings=[FINE, BAD, LEFT],
        actions=[action(1)],
        existing=10,
    )
    assert plan.environment.account == "123456789012"
    assert plan.environment.fingerprint
    assert [name for name, _ in aimed] == ["gathering", TAG]
    assert 1 < aimed[1][1] <= 8
    assert (place.folder / "here" / "custom" / "plans" / f"{plan.id}.json").exists()
    assert operator.journal.path == place.folder / "here" / "custom" / "journal.jsonl"
    [record] = operator.journal.entries()
    assert (record.run, record.phase, record.observed) == (plan.id, Phase.PLANNED, {"digest": plan.digest})
    assert record.actor == operator.actor == "chani"
    assert before <= record.at <= datetime.now(UTC)
    assert operator.saved(plan.id) == plan
    assert place.things.gates == []


def test_a_plan_is_confirmed_applied_and_looked_at_again(place: Place) -> None:
    stack = Stack(cluster="mine")
    operator = place.operator(replace(place.environment(), stack=stack))
    runbook = place.runbook([action(1)], outlook=lambda facts: [replace(FINE, evidence=facts.gathered)])
    plan = operator.diagnose(runbook).plan
    assert plan
    between = datetime.now(UTC)
    outcome = operator.apply(plan, runbook, ask=place.ask, max_targets=None)
    assert place.asked == [(operator.environment, plan, ALLOWED)]
    assert place.asked[0][0] is operator.environment
    assert re.fullmatch(rf"{NAME}-\d{{8}}-\d{{6}}-[0-9a-f]{{4}}", outcome.run)
    assert (outcome.plan, outcome.exit, place.things.done) == (plan, Exit.HEALTHY, ["a1"])
    assert place.ended == [("a1", 1, 1)]
    assert place.told == ["doing a1"]
    first, again = place.things.gathered
    assert outcome.outlook == (replace(FINE, evidence=again),)
    assert again is not first
    assert again["read"].tag == TAG
    assert (again["deadline"], again["stack"], again["about"]) == (8, stack, {})
    assert between <= again["now"] <= datetime.now(UTC)
    assert phases(operator.journal.entries()) == [
        (Phase.PLANNED, None),
        (Phase.RUN_STARTED, None),
        (Phase.STARTED, "a1"),
        (Phase.DONE, "a1"),
        (Phase.RUN_ENDED, None),
    ]
    assert {each.actor for each in operator.journal.entries()} == {"chani"}
    assert lease.records(place.world.database, outcome.run) == operator.journal.entries()[1:]


def test_an_interrupted_run_is_taken_up_by_what_is_left_of_it(place: Place) -> None:
    operator = place.operator()
    place.things.broken.add("a2")
    run, runbook = place.interrupted(operator, action(1), action(2), outlook=lambda _: [BAD])
    taken = operator.taken_up(run, {NAME: runbook})
    assert (taken.runbook, taken.left) == (runbook, (action(2),))
    assert taken.past == operator.journal.entries()[1:]
    assert taken.plan == operator.saved(taken.plan.id)
    outcome = operator.resume(run, {NAME: runbook}, ask=place.ask)
    assert place.asked == [(operator.environment, taken.plan, "1 of 2 actions are left")]
    assert place.asked[0][0] is operator.environment
    assert (outcome.run, outcome.plan, outcome.exit) == (run, taken.plan, Exit.HEALTHY)
    assert [(each.phase, each.reason) for each in outcome.results] == [
        (Phase.DONE, ""),
        (Phase.DONE, "looked"),
    ]
    assert outcome.outlook == (BAD,)
    assert place.things.done == ["a1", "a2"]
    begun = [each for each in operator.journal.entries() if each.phase is Phase.RUN_STARTED]
    assert [each.run for each in begun] == [run]


def test_a_run_is_undone_by_a_plan_of_its_own(place: Place) -> None:
    operator = place.operator()
    runbook = place.runbook([action(1), action(2)], [BAD])
    plan = operator.diagnose(runbook).plan
    assert plan
    run = operator.apply(plan, runbook, ask=lambda *_: None, max_targets=2).run
    before = datetime.now(UTC)
    outcome = operator.undo(run, {NAME: runbook}, ask=place.ask)
    assert (outcome.exit, place.things.done) == (Exit.HEALTHY, [])
    [(environment, undoing, scope)] = place.asked
    assert environment is operator.environment
    assert scope == "an undo touches only what its run did"
    assert outcome.plan == undoing == operator.saved(undoing.id)
    assert (undoing.runbook, undoing.environment, undoing.existing) == (NAME, plan.environment, 10)
    assert (undoing.undoes, undoing.findings) == (run, ())
    assert before <= undoing.created_at <= datetime.now(UTC)
    assert [(each.id, each.verb) for each in undoing.actions] == [("a2", "undo do"), ("a1", "undo do")]


# ---- diagnosed


def test_where_nothing_is_proposed_there_is_no_plan(place: Place, aimed: list[tuple[str, float]]) -> None:
    operator = place.operator()
    found = operator.diagnose(place.runbook())
    assert (found.plan, found.exit, found.findings) == (None, Exit.HEALTHY, (FINE,))
    assert place.things.gathered[0]["about"] == {}
    assert (aimed, operator.journal.entries()) == ([], [])
    assert not (operator.environment.state / "plans").exists()


def test_the_target_has_what_is_left_of_the_time_and_a_second_at_least(
    place: Place, aimed: list[tuple[str, float]]
) -> None:
    place.planned(place.operator(timeout=0.5))
    assert aimed == [(TAG, 1.0)]


def test_in_an_emergency_the_target_is_looked_up_beside_the_rest(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, deadlines = threading.Event(), list[float]()

    def looked(environment: Environment, read: Readers, *, deadline: float) -> Target:
        deadlines.append(deadline)
        asked.set()
        return target(environment, read, deadline=deadline)

    def gathering() -> None:
        assert asked.wait(5)

    monkeypatch.setattr(operate, "target", looked)
    place.things.meanwhile = gathering
    operator = place.operator()
    found = operator.diagnose(place.runbook([action(1)], urgent=True))
    assert deadlines == [4]
    assert found.plan
    assert found.plan.environment.account == "123456789012"
    assert found.exit is Exit.PROPOSED


def test_what_this_login_may_not_see_is_said_last(place: Place) -> None:
    reads = Rights(redis=frozenset({"+scan", "+get"}))
    found = place.operator(place.limited("-scan")).diagnose(
        place.runbook(left=[LEFT], page=Page(reads=reads))
    )
    *told, last = found.findings
    assert told == [FINE, LEFT]
    assert last.summary == "cannot tell all: this login lacks rights at Redis: +scan"
    assert found.exit is Exit.UNKNOWN


@pytest.mark.parametrize(
    ("findings", "proposed", "exit"),
    [
        ([], False, Exit.HEALTHY),
        ([FINE], False, Exit.HEALTHY),
        ([FINE], True, Exit.PROPOSED),
        ([FINE, BAD], False, Exit.PROPOSED),
        ([BAD, UNTOLD, FINE], True, Exit.UNKNOWN),
    ],
)
def test_a_look_ends_well_badly_or_unknown(findings: list[Finding], proposed: bool, exit: Exit) -> None:
    assert ended(findings, proposed=proposed) is exit


def test_a_plan_that_cannot_be_saved_is_none(place: Place) -> None:
    operator = place.operator()
    operator.environment.state.mkdir(parents=True)
    (operator.environment.state / "plans").write_text("")
    with pytest.raises(ArrakisError) as told:
        place.planned(operator)
    assert str(told.value) == "the plan cannot be saved: Not a directory"
    assert told.value.hint == "set RUNBOOKS_STATE_DIR to a folder you can write"
    assert operator.journal.entries() == []


def test_times_are_in_utc_wherever_it_runs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        plan = place.planned(place.operator())
    finally:
        monkeypatch.undo()
        time.tzset()
    assert plan.created_at.utcoffset() == timedelta(0)
    assert abs(plan.created_at - datetime.now(UTC)) < timedelta(minutes=1)


# ---- tried


def trying(
    place: Place,
    *actions: Action,
    fails: ArrakisError | None = None,
    learned: list[Fact[tuple[Result, ...]]],
    **fields: Any,
) -> Runbook:
    """Return a runbook with a trial of these actions, or that cannot be made; what became of it is `learned`."""

    def propose(facts: Facts) -> list[Action]:
        assert facts.gathered is place.things.gathered[-1]
        if fails:
            raise fails
        return [*actions]

    def learn(facts: Facts, tried: Fact[tuple[Result, ...]]) -> Facts:
        learned.append(tried)
        return replace(facts, tried=tried)

    return place.runbook(
        trial=Trial(propose=propose, learn=learn),
        outlook=lambda _: pytest.fail("looks again"),
        **{"existing": 1, **fields},
    )


def test_what_is_tried_is_a_run_of_its_own_and_the_diagnosis_knows_it(
    place: Place, aimed: list[tuple[str, float]]
) -> None:
    operator, learned = place.operator(), list[Fact[tuple[Result, ...]]]()
    before = datetime.now(UTC)
    found = operator.diagnose(trying(place, action(1), learned=learned), trial=place.ask)
    assert found.findings == (FINE, replace(FINE, evidence={"tried": learned[0]}))
    assert found.plan is None
    [(environment, plan, scope)] = place.asked
    assert environment is operator.environment
    assert scope == "1 target, 100% of the 1 sandbox resources that exist; at most 1"
    assert (plan.runbook, plan.findings, plan.actions) == (NAME, (), (action(1),))
    assert (plan.existing, plan.environment.account) == (1, "123456789012")
    assert before <= plan.created_at <= datetime.now(UTC)
    assert aimed == [(TAG, 8)] * 2
    assert operator.saved(plan.id) == plan
    [tried] = learned
    assert isinstance(tried, Known)
    assert [(each.phase, each.reason) for each in tried.value] == [(Phase.DONE, "looked")]
    assert place.things.done == ["a1"]
    assert len(place.things.gathered) == 1


def test_nothing_is_tried_unless_it_is_asked_for_and_there_is_something(place: Place) -> None:
    operator, learned = place.operator(), list[Fact[tuple[Result, ...]]]()
    assert operator.diagnose(trying(place, action(1), learned=learned)).findings == (FINE,)
    assert operator.diagnose(place.runbook(), trial=place.ask).findings == (FINE,)
    assert (learned, place.asked, place.things.done) == ([], [], [])


def test_what_cannot_be_tried_is_unknown_and_says_why(place: Place) -> None:
    learned, error = list[Fact[tuple[Result, ...]]](), ArrakisError("there is nothing", hint="make some")
    place.operator().diagnose(trying(place, fails=error, learned=learned), trial=place.ask)
    assert learned == [Unknown("there is nothing", "make some", error)]
    assert place.asked == []


# ---- saved


def test_a_plan_is_read_back_only_where_it_was_made_and_as_it_was(place: Place) -> None:
    operator = place.operator()
    plan, other = place.planned(operator), place.planned(operator, action(2))
    assert (operator.saved(plan.id), operator.saved(other.id)) == (plan, other)
    with pytest.raises(PlanError, match=r"^there is no plan x for this environment$"):
        operator.saved("x")
    strange = place.elsewhere()
    plans.save(plan, strange.environment.state / "plans")
    place.planned(strange, action(3))
    for observed in (None, {"digest": "another"}, {}):
        if observed is not None:
            strange.journal.append(plan.id, Phase.PLANNED, observed=observed)
        with pytest.raises(Refused) as told:
            strange.saved(plan.id)
        assert str(told.value) == f"plan {plan.id} was not made here"
        assert told.value.hint == "run the runbook again"
    strange.journal.append(plan.id, Phase.PLANNED, observed={"digest": plan.digest})
    strange.journal.append(plan.id, Phase.RUN_STARTED, observed={"digest": "no plan's"})
    assert strange.saved(plan.id) == plan


# ---- applied


@pytest.mark.parametrize(("urgent", "deadline"), [(False, 8), (True, 4)])
def test_who_looks_again_has_all_the_time_but_in_an_emergency(
    place: Place, urgent: bool, deadline: float
) -> None:
    operator = place.operator()
    runbook = place.runbook([action(1)], outlook=lambda _: [BAD], urgent=urgent)
    plan = operator.diagnose(runbook).plan
    assert plan
    outcome = operator.apply(plan, runbook, ask=place.ask, max_targets=None, look_again=False)
    assert (outcome.outlook, len(place.things.gathered)) == ((), 1)
    assert operator.looked_again(outcome, runbook) == replace(outcome, outlook=(BAD,))
    assert place.things.gathered[-1]["deadline"] == deadline
    idle = replace(outcome, results=tuple(replace(each, phase=None) for each in outcome.results))
    some = replace(outcome, results=(*idle.results, *outcome.results))
    assert operator.looked_again(some, runbook).outlook == (BAD,)
    looks = len(place.things.gathered)
    assert operator.looked_again(idle, runbook) is idle
    assert operator.looked_again(outcome, replace(runbook, outlook=None)) is outcome
    assert len(place.things.gathered) == looks


def test_the_journal_is_anchored_where_the_environment_says_so(place: Place) -> None:
    environment = replace(place.environment(), stack=Stack(journal_log_group="nowhere"))
    operator = place.operator(environment)
    plan = place.planned(operator)
    operator.apply(plan, place.runbook(), ask=place.ask, max_targets=None)
    [told] = [each for each in place.told if each.startswith("journal: ")]
    assert told.startswith("journal: record 5 is not anchored, the next run does it: ")


# ---- the guards


def test_a_used_plan_is_refused_before_anybody_is_asked(place: Place) -> None:
    operator = place.operator()
    plan = place.planned(operator)
    run = operator.apply(plan, place.runbook(), ask=lambda *_: None, max_targets=None).run
    with pytest.raises(Refused) as told:
        operator.apply(plan, place.runbook(), ask=place.ask, max_targets=None)
    assert str(told.value) == f"plan {plan.id} was used already, by run {run}"
    assert (place.asked, place.things.done) == ([], ["a1"])


def test_the_guards_refuse_in_their_order_and_nobody_is_asked(place: Place) -> None:
    operator = place.operator(replace(place.environment(), account="999"))
    whole = place.planned(operator)
    there = whole.environment
    many = tuple(action(number) for number in range(1, 4))
    runbook = place.runbook(rights=Rights(redis=frozenset({"+set"})))

    def said(
        plan: Plan, operator: Operator, max_targets: int | None = None, also: Rights | None = None
    ) -> str:
        return refusal(
            lambda: operator.confirm(plan, runbook, ask=place.ask, max_targets=max_targets, also=also)
        )

    raise_stop(place.world)
    old = replace(whole, created_at=whole.created_at - timedelta(hours=1), actions=many)
    old = replace(old, expires_at=old.created_at + timedelta(minutes=30))
    lacking = replace(old, actions=tuple(replace(each, verb="set") for each in many))
    wrong = replace(lacking, environment=replace(there, database="other"))
    assert said(wrong, operator) == (
        f"refused by the guard 'target': the plan was made for database other, this is {there.database}"
    )
    assert said(replace(wrong, environment=replace(there, account=None)), operator) == (
        "refused by the guard 'target': the plan was made for account None, this is 123456789012"
    )
    assert said(lacking, operator) == (
        "refused by the guard 'account': custom is account 999, the credentials are for 123456789012"
    )
    ours = place.operator(replace(place.limited("-set"), account="123456789012"))
    assert said(lacking, ours) == (
        f"refused by the guard 'rights': this login lacks rights at Redis: +set (deploy/rights/{NAME} has what gives them)"
    )
    assert said(old, ours, also=Rights(redis=frozenset({"+set"}))).startswith("refused by the guard 'rights'")
    assert said(old, ours) == (
        f"refused by the guard 'fresh': the plan is valid from {old.created_at:%H:%M:%S} to {old.expires_at:%H:%M:%S} UTC"
    )
    fresh = replace(whole, actions=many)
    assert said(fresh, ours) == (
        "refused by the guard 'stop': an emergency stop is raised by liet, since 2026-03-01 10:00:00 UTC;"
        " `emergency-status` says what resuming would do"
    )
    place.world.sql.execute("DELETE FROM runbooks.stops")
    assert said(fresh, ours) == (
        "refused by the guard 'blast radius': 3 targets, 30% of the 10 sandbox resources that exist;"
        " the limit is 25 and 20%. --max-targets 3 raises it"
    )
    assert said(fresh, ours, 2) == (
        "refused by the guard 'blast radius': 3 targets, 30% of the 10 sandbox resources that exist; at most 2"
    )
    assert (place.asked, place.things.done) == ([], [])
    assert phases(operator.journal.entries()) == [(Phase.PLANNED, None)]
    ours.confirm(fresh, runbook, ask=place.ask, max_targets=3)
    assert place.asked[0][1:] == (
        fresh,
        "3 targets, 30% of the 10 sandbox resources that exist; at most 3",
    )
    assert place.told == []


def test_what_whoever_is_asked_refuses_is_not_done(place: Place) -> None:
    def refuse(*_: object) -> None:
        raise Refused("no")

    operator = place.operator()
    with pytest.raises(Refused, match=r"^no$"):
        operator.apply(place.planned(operator), place.runbook(), ask=refuse, max_targets=None)
    assert (place.things.done, phases(operator.journal.entries())) == ([], [(Phase.PLANNED, None)])


def test_rights_that_nobody_can_tell_of_are_told_and_refuse_nothing(place: Place) -> None:
    operator = place.operator(place.limited("-acl", "-set"))
    runbook = place.runbook([action(1, "set")], rights=Rights(redis=frozenset({"+set"})))
    plan = operator.diagnose(runbook).plan
    assert plan
    operator.confirm(plan, runbook, ask=place.ask, max_targets=None)
    assert place.told == ["cannot tell before it is tried whether this login may at Redis: +set"]
    assert len(place.asked) == 1
    [gate] = place.things.gates  # by which the remedies were asked what they take
    assert (gate.read.tag, gate.write.actor) == (TAG, "chani")


# ---- an emergency


def test_an_emergency_is_held_up_by_neither_limit_nor_stop_nor_right_nor_a_dead_server(place: Place) -> None:
    raise_stop(place.world)
    operator = place.operator(replace(place.environment(**NOWHERE), account="123456789012"))
    rights = Rights(redis=frozenset({"+set"}))
    runbook = place.runbook(
        [action(1), action(2, "set")], urgent=True, existing=None, rights=rights, name=EMERGENCY
    )
    plan = operator.diagnose(runbook).plan
    assert plan
    assert plan.environment.fingerprint is None
    outcome = operator.apply(plan, runbook, ask=place.ask, max_targets=None)
    assert place.asked == [(operator.environment, plan, "do thing-1, set thing-2")]
    assert (outcome.exit, place.things.done) == (Exit.HEALTHY, ["a1", "a2"])
    with pytest.raises(Refused, match=f"was used already, by run {outcome.run}$"):
        operator.apply(plan, runbook, ask=place.ask, max_targets=None)


def test_an_emergency_is_refused_in_another_account_but_not_where_that_is_unknown(place: Place) -> None:
    operator = place.operator(replace(place.environment(), account="999"))
    runbook = place.runbook([action(1)], urgent=True)
    plan = operator.diagnose(runbook).plan
    assert plan
    assert refusal(lambda: operator.confirm(plan, runbook, ask=place.ask, max_targets=None)) == (
        "refused by the guard 'account': custom is account 999, the credentials are for 123456789012"
    )
    assert place.asked == []
    unknown = replace(plan, environment=replace(plan.environment, account=None))
    operator.confirm(unknown, runbook, ask=place.ask, max_targets=None)
    assert place.asked == [(operator.environment, unknown, "do thing-1")]
    expired = replace(unknown, expires_at=unknown.created_at)
    assert refusal(lambda: operator.confirm(expired, runbook, ask=place.ask, max_targets=None)).startswith(
        "refused by the guard 'fresh': "
    )


def test_an_emergency_that_was_interrupted_is_taken_up_without_postgresql(place: Place) -> None:
    operator = place.operator(place.environment(**NOWHERE))
    place.things.broken.add("a2")
    run, runbook = place.interrupted(
        operator, action(1), action(2), urgent=True, name=EMERGENCY, outlook=lambda _: [BAD]
    )
    outcome = operator.resume(run, {EMERGENCY: runbook}, ask=place.ask)
    assert place.asked[0][2] == "1 of 2 actions are left: do thing-2"
    assert (outcome.run, outcome.exit, outcome.outlook) == (run, Exit.HEALTHY, (BAD,))
    assert place.things.done == ["a1", "a2"]
    assert place.things.gathered[-1]["deadline"] == 4


def test_an_emergency_that_another_has_overtaken_is_not_taken_up(place: Place) -> None:
    operator = place.operator()
    place.things.broken.add("a2")
    run, runbook = place.interrupted(operator, action(1), action(2), urgent=True, name=EMERGENCY)
    calm = place.runbook([action(3)])
    others = {EMERGENCY: runbook, NAME: calm, "rb-back": place.runbook(name="rb-back", urgent=True)}
    operator.apply(place.planned(operator, action(3)), calm, ask=lambda *_: None, max_targets=None)
    assert operator.taken_up(run, others).left == (action(2),)
    back = place.runbook([action(4)], name="rb-back", urgent=True)
    plan = operator.diagnose(back).plan
    assert plan
    later = operator.apply(plan, back, ask=lambda *_: None, max_targets=None).run
    assert refusal(lambda: operator.resume(run, others, ask=place.ask)) == (
        f"refused by the guard 'overtaken': {later} was run since; `emergency-status` says how all stands"
    )
    assert place.asked == []
    only = replace(operator.environment, account="999")
    place.world.sql.execute("DELETE FROM runbooks.journal")
    assert refusal(lambda: place.operator(only).taken_up(later, others)).startswith(
        "refused by the guard 'account': "
    )


# ---- taken up


def test_of_one_action_it_is_said_so(place: Place) -> None:
    operator = place.operator()
    runbook = place.runbook()
    plan = place.planned(operator)
    place.things.broken.add("a1")
    run = operator.apply(plan, runbook, ask=lambda *_: None, max_targets=None).run
    place.things.broken.clear()
    operator.resume(run, {NAME: runbook}, ask=place.ask)
    assert place.asked[0][2] == "1 of 1 action is left"


def test_of_a_run_what_is_neither_done_nor_skipped_is_left(place: Place) -> None:
    operator = place.operator()
    plan = place.planned(operator, *(action(number) for number in range(1, 6)))
    for number, phase in enumerate((Phase.DONE, Phase.SKIPPED, Phase.FAILED, Phase.STARTED), 1):
        operator.journal.append("r1", phase, action=f"a{number}")
    taken = TakenUp(plan=plan, runbook=place.runbook(), past=operator.journal.entries())
    assert [each.id for each in taken.left] == ["a3", "a4", "a5"]


def test_a_run_is_taken_up_on_another_host_with_the_records_of_both(place: Place) -> None:
    place.things.broken.add("a2")
    operator, other = place.operator(), place.elsewhere()
    run, runbook = place.interrupted(operator, action(1), action(2), action(3))
    place.things.broken.add("a3")
    assert other.resume(run, {NAME: runbook}, ask=place.ask).exit is Exit.PARTLY
    place.things.broken.clear()
    theirs = operator.journal.entries()[1:]
    assert other.records(run) == [*theirs, *other.journal.entries()]
    assert operator.records(run) == [*theirs, *other.journal.entries()]
    assert other.taken_up(run, {NAME: runbook}).left == (action(3),)


def begun(operator: Operator, plan: Plan, run: str = "r1") -> None:
    """Write down that a run of a plan was begun."""
    operator.journal.append(run, Phase.RUN_STARTED, observed={"plan": plans.as_json(plan)})


def test_a_run_of_the_day_is_taken_up_and_an_older_one_is_not(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, runbook = place.operator(), place.runbook()
    plan = place.planned(operator)
    begun(operator, plan)
    last = plan.created_at + timedelta(hours=24, minutes=30)
    monkeypatch.setattr(operate, "_now", lambda: last)
    assert operator.taken_up("r1", {NAME: runbook}).plan == plan
    monkeypatch.setattr(operate, "_now", lambda: last + timedelta(microseconds=1))
    with pytest.raises(Refused) as told:
        operator.taken_up("r1", {NAME: runbook})
    assert str(told.value) == (
        f"run r1 is too old to take up: its plan is of {plan.created_at:%Y-%m-%d %H:%M} UTC"
    )
    assert told.value.hint == f"`undo --run r1` gives back what it took; then run {NAME} again"


def test_a_run_of_a_runbook_that_nobody_knows_is_neither_taken_up_nor_undone(place: Place) -> None:
    operator = place.operator()
    begun(operator, place.planned(operator))
    for call in (
        lambda: operator.taken_up("r1", {}),
        lambda: operator.undo("r1", {}, ask=place.ask),
    ):
        with pytest.raises(PlanError) as told:
            call()
        assert str(told.value) == f"nobody here knows {NAME}"
        assert told.value.hint == "use the version that made the plan"


def test_the_guards_refuse_to_take_up_too(place: Place) -> None:
    operator, rights = place.operator(), Rights(redis=frozenset({"+set"}))
    place.things.broken.add("a2")
    run, runbook = place.interrupted(operator, action(1, "set"), action(2), rights=rights)
    limited = place.operator(place.limited("-set"))
    known = {NAME: runbook}
    assert limited.taken_up(run, known).left == (action(2),)  # of what is left, nothing takes that right
    assert refusal(lambda: limited.taken_up(run, known, also=rights)).startswith(
        "refused by the guard 'rights': this login lacks rights at Redis: +set "
    )
    raise_stop(place.world)
    assert refusal(lambda: operator.resume(run, known, ask=place.ask)).startswith(
        "refused by the guard 'stop': "
    )
    assert (place.asked, place.things.done) == ([], ["a1"])


# ---- undone


@pytest.mark.parametrize("known", [True, False])
def test_an_undone_run_is_not_taken_up(place: Place, known: bool) -> None:
    operator = place.operator()
    place.things.broken.add("a2")
    run, runbook = place.interrupted(operator, action(1), action(2))
    other = operator if known else place.elsewhere()
    undone = other.undo(run, {NAME: runbook}, ask=lambda *_: None).run
    with pytest.raises(Refused) as told:
        operator.taken_up(run, {NAME: runbook})
    assert str(told.value) == f"run {run} was undone by {undone}"
    assert told.value.hint == (f"run {NAME} again" if known else "run its runbook again")


def test_what_did_nothing_that_can_be_undone_is_not_undone(place: Place) -> None:
    operator = place.operator()
    runbook = place.runbook([action(1, "look at")])
    plan = operator.diagnose(runbook).plan
    assert plan
    run = operator.apply(plan, runbook, ask=lambda *_: None, max_targets=None).run
    with pytest.raises(PlanError) as told:
        operator.undo(run, {NAME: runbook}, ask=place.ask)
    assert str(told.value) == f"run {run} did nothing that can be undone"
    assert told.value.hint == f"`show --run {run}` says what it did"
    assert place.asked == []


# ---- records


def test_a_run_that_nobody_knows_has_no_records(place: Place) -> None:
    operator = place.operator()
    operator.journal.append("other", Phase.RUN_STARTED)
    with pytest.raises(PlanError) as told:
        operator.records("r1")
    assert str(told.value) == "there is no run r1 in this environment"
    assert told.value.hint == "`history` lists them"


def test_without_postgresql_what_this_host_knows_has_to_do(place: Place) -> None:
    operator = place.operator(place.environment(**NOWHERE))
    records = [operator.journal.append("r1", Phase.DONE, action=f"a{number}") for number in (2, 1)]
    operator.journal.append("other", Phase.DONE)
    assert operator.records("r1") == records
    with pytest.raises(Unreachable):
        operator.records("r2")


def test_records_of_one_moment_are_in_the_order_of_their_numbers(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = datetime.now(UTC)
    monkeypatch.setattr(operate, "_now", lambda: moment)
    operator, other = place.operator(), place.elsewhere()
    ours = [operator.journal.append(run, Phase.DONE) for run in ("other", "r1", "r1")]
    theirs = [other.journal.append("r1", Phase.DONE) for _ in range(2)]
    Mirror(place.world.database).copy([*ours, *theirs])
    found = operator.records("r1")
    assert sorted(each.seq for each in found) == [each.seq for each in found] == [1, 2, 2, 3]
    assert len({(each.chain, each.seq) for each in found}) == 4


def test_runs_are_looked_up_under_a_name_of_its_own(place: Place) -> None:
    with place.operator().sql.snapshot():
        assert place.world.count(TAGGED, "/* arrakis-runbooks:history */%") == 1
