"""A cluster of three servers, of which one is lost: what is said of it is right or unknown, and nothing is done twice."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from diagnostics.streams import read_messaging
from runbooks.engine.apply import Outcome
from runbooks.engine.crew import Crew
from runbooks.engine.errors import Exit
from runbooks.engine.model import Phase, Severity
from runbooks.engine.operate import Diagnosis, Operator
from runbooks.engine.standing import standing
from runbooks.rb_sb_004 import RUNBOOK
from runbooks.remedies import CorrectStream, CreateConsumer, CreateStream, PublishCanary
from sandbox.adapters.nats import Nats
from sandbox.adapters.workqueue import STREAM, JetStreamQueue
from sandbox.errors import ArrakisError, Unreachable
from sandbox.model import ConsumerConfig
from sandbox.streams import (
    Condition,
    Config,
    check,
    ensure,
    expected_consumers,
    expected_streams,
    publish,
    read,
)
from tests.integration.counting import NAME, action, counting, hand_over, key, operator_at, planned
from tests.integration.natscluster import Member, Nodes, cluster
from tests.integration.world import World
from tests.waiting import eventually

pytestmark = pytest.mark.soak

SANDBOX, EVENTS = expected_streams(3)
WORKERS, ROUTER = expected_consumers()
ALL: tuple[Config, ...] = (SANDBOX, EVENTS, WORKERS, ROUTER)
MANY = 20  # messages, and queues
ELECTED = 30  # seconds in which the servers that are left have settled who leads


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.fixture
def nodes(running: Nodes) -> Iterator[Nodes]:
    """Return the cluster, all well, with both streams and their consumers, and nothing in them."""
    system = Nats(running.url)
    eventually(lambda: ensured(system), seconds=ELECTED)
    running.settle()
    yield running
    running.settle()
    for name in ("SANDBOX", "EVENTS", STREAM):
        system.delete_stream(name)


def ensured(system: Nats) -> bool:
    """Whether all could be made: servers that have just elected one of them may not know yet that they are three."""
    try:
        ensure(system, ALL)
    except ArrakisError:
        return False
    return True


@pytest.fixture
def system(nodes: Nodes) -> Nats:
    return Nats(nodes.url, timeout=2)


@pytest.fixture
def queue(nodes: Nodes) -> JetStreamQueue:
    """Return the work queue, three times over."""
    made = JetStreamQueue(nodes.url, timeout=5)
    made.prepare(replicas=3)
    return made


@pytest.fixture
def operator(world: World, nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    """Return an operator whose messaging system is the cluster."""
    env = {**world.env, "NATS_URL": nodes.url}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return operator_at(env, tmp_path, timeout=10)


def settled(call: Callable[[], object]) -> bool:
    """Whether a call has its answer; it may have none for now, and nothing else is allowed."""
    try:
        call()
    except Unreachable:
        return False
    return True


def looking(looks: Sequence[Callable[[], None]]) -> None:
    """Look until all looks have had their answers ten times running."""
    streak = 0

    def enough() -> bool:
        nonlocal streak
        streak = streak + 1 if [settled(look) for look in looks] == [True] * len(looks) else 0
        return streak >= 10

    eventually(enough, seconds=ELECTED)


# ---- what is seen


def test_whoever_is_lost_what_is_seen_is_right_or_unknown(
    nodes: Nodes, system: Nats, queue: JetStreamQueue
) -> None:
    sandbox = uuid4()
    said = [b"%d" % number for number in range(MANY)]
    for each in said:
        publish(system, sandbox, "message", each)
    listener = ConsumerConfig(stream="SANDBOX", name="a-listener", filter_subject=f"sandbox.{sandbox}.>")
    system.create_consumer(listener)
    runs = [f"run-{number}" for number in range(MANY)]
    for run in runs:
        queue.open(run, patience=timedelta(minutes=5))
        queue.put(run, ["a1", "a2", "a3"])

    def streams_are_there() -> None:
        assert {each.condition for each in check(system, ALL)} == {Condition.AS_EXPECTED}

    def messaging_is_whole() -> None:
        seen = read_messaging(system, replicas=3, pause=lambda _: None)
        assert [each.name for each in seen.streams if each.state is None or each.drift] == []
        assert [each.name for each in seen.consumers if each.state is None or each.drift] == []
        assert [each.state.messages for each in seen.streams if each.state] == [0, MANY]

    def all_messages_are_read() -> None:
        assert [each.data for each in read(system, sandbox)] == said

    def the_listener_is_seen() -> None:
        seen = {each.client for each in system.subscriptions() if each.subject == listener.filter_subject}
        assert seen == {"consumer a-listener"}

    def all_queues_are_seen() -> None:
        assert {each.run: each.waiting for each in queue.queues()} == dict.fromkeys(runs, 3)

    looks = [
        streams_are_there,
        messaging_is_whole,
        all_messages_are_read,
        the_listener_is_seen,
        all_queues_are_seen,
    ]
    for victim in nodes.members:
        with nodes.without(victim):
            looking(looks)
    looking(looks)


def test_what_is_laid_out_while_a_server_is_lost_is_there_once_or_unknown(
    nodes: Nodes, queue: JetStreamQueue
) -> None:
    queue.open("run", patience=timedelta(minutes=5))
    actions = [f"a{number}" for number in range(MANY)]
    laid = 0
    with nodes.without(nodes.leader(f"STREAM.INFO.{STREAM}")):
        for each in actions:
            eventually(lambda each=each: settled(lambda: queue.put("run", [each])), seconds=ELECTED)  # type: ignore[misc]
        laid = queue.put("run", actions)
    assert laid == 0
    assert [each.waiting for each in queue.queues()] == [MANY]
    assert Counter(each.action for each in queue.take("run", 2 * MANY, wait=2)) == Counter(actions)


def test_without_a_majority_nothing_is_known_and_nothing_is_proposed(
    nodes: Nodes, operator: Operator
) -> None:
    assert diagnosed(operator).plan is not None  # nobody serves its consumers
    first, second, _ = nodes.members
    with nodes.without(first), nodes.without(second):
        found = diagnosed(operator)
    assert (found.exit, found.plan) == (Exit.UNKNOWN, None)
    unknown = [each.summary for each in found.findings if each.severity is Severity.UNKNOWN]
    assert any("streams" in each for each in unknown), unknown


# ---- what is mended


def diagnosed(operator: Operator) -> Diagnosis:
    return operator.diagnose(RUNBOOK)


def apply(operator: Operator) -> None:
    """Apply what is proposed, and take it up until it has come to its end."""
    plan = diagnosed(operator).plan
    assert plan is not None
    outcome = operator.apply(plan, RUNBOOK, ask=lambda *_: None, max_targets=len(plan.actions))
    go_on(operator, outcome)


def go_on(operator: Operator, outcome: Outcome) -> None:
    """Take a run up until it has come to its end: each of its actions ended once."""

    def ended() -> bool:
        nonlocal outcome
        if not all(each.settled for each in outcome.results):
            outcome = operator.resume(outcome.run, {RUNBOOK.name: RUNBOOK}, ask=lambda *_: None)
        return all(each.settled for each in outcome.results)

    eventually(ended, seconds=ELECTED, pause=0.5)
    endings = [
        each.action for each in operator.records(outcome.run) if each.phase in (Phase.DONE, Phase.SKIPPED)
    ]
    assert sorted(map(str, endings)) == sorted(each.id for each in outcome.plan.actions)


@contextmanager
def losing(
    monkeypatch: pytest.MonkeyPatch, remedy: type, member: Callable[[], Member], *, when: str
) -> Iterator[None]:
    """Lose a server in the midst of the remedy's first act: just before the server is asked for it, or just after."""
    whole = remedy.apply  # type: ignore[attr-defined]
    lost: list[Member] = []

    def lose() -> None:
        if not lost:
            lost.append(member())
            lost[0].kill()

    def act(self: object, *args: object) -> None:
        if when == "before":
            lose()
        whole(self, *args)
        lose()

    monkeypatch.setattr(remedy, "apply", act)
    yield
    assert lost


BOTH = pytest.mark.parametrize("when", ["before", "after"])


@BOTH
def test_a_stream_is_corrected_though_its_leader_is_lost(
    nodes: Nodes, system: Nats, operator: Operator, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    sandbox = uuid4()
    for number in range(MANY):
        publish(system, sandbox, "message", b"%d" % number)
    system.change_stream("SANDBOX", {"max_msgs": 1000})
    with losing(monkeypatch, CorrectStream, lambda: nodes.leader("STREAM.INFO.SANDBOX"), when=when):
        apply(operator)
    assert {each.condition for each in check(system, ALL)} == {Condition.AS_EXPECTED}
    assert len(read(system, sandbox)) == MANY


@BOTH
def test_a_consumer_is_made_once_though_the_leader_of_its_stream_is_lost(
    nodes: Nodes, system: Nats, operator: Operator, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    system.delete_consumer("EVENTS", ROUTER.name)
    with losing(monkeypatch, CreateConsumer, lambda: nodes.leader("STREAM.INFO.EVENTS"), when=when):
        apply(operator)
    assert {each.condition for each in check(system, ALL)} == {Condition.AS_EXPECTED}


@BOTH
def test_a_stream_is_made_once_though_a_server_is_lost(
    nodes: Nodes, system: Nats, operator: Operator, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """With one server away there are not the three that it is to lie on: it is made once there are."""
    system.delete_stream("SANDBOX")
    back = threading.Timer(10, nodes.settle)
    with losing(monkeypatch, CreateStream, lambda: nodes.members[0], when=when):
        back.start()
        apply(operator)
        back.join()
    assert {each.condition for each in check(system, ALL)} == {Condition.AS_EXPECTED}


@BOTH
def test_a_canary_is_stored_once_though_its_leader_is_lost(
    nodes: Nodes, system: Nats, world: World, operator: Operator, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    made = world.make(f"canary-{when}")
    with losing(monkeypatch, PublishCanary, lambda: nodes.leader("STREAM.INFO.SANDBOX"), when=when):
        operator.diagnose(RUNBOOK, about={"sandbox": made.name}, trial=lambda *_: None)
    run = next(each.run for each in operator.journal.entries() if each.phase is Phase.STARTED)
    eventually(lambda: settled(lambda: system.stream("SANDBOX")), seconds=ELECTED)
    go_on(operator, operator.resume(run, {RUNBOOK.name: RUNBOOK}, ask=lambda *_: None))
    assert len(read(system, made.id)) == 1
    world.wipe()


# ---- what is distributed


class Place:
    """Some workers in this process, who count in the world's Redis how often they did what."""

    def __init__(self, world: World, nodes: Nodes, folder: Path) -> None:
        self._world, self._folder, self._nats = world, folder, nodes.url
        self.said: list[str] = []

    def begin(self, count: int, *, patience: float, seconds: float) -> str:
        """Put a run on the queue."""
        operator = self.operator("boss")
        plan = planned(operator, [action(number, seconds=seconds) for number in range(count)])
        return hand_over(operator, plan, counting(), patience=patience)[1]

    def operator(self, host: str) -> Operator:
        return operator_at({**self._world.env, "NATS_URL": self._nats}, self._folder / host, self.said.append)

    def crew(self, host: str, nats: str = "", *, idle: float = 20) -> Crew:
        """Return a worker on a host of its own, who reaches one server or all."""
        queue = JetStreamQueue(nats or self._nats, timeout=5)
        return Crew(self.operator(host), queue, {NAME: counting()}, tell=self.said.append, idle=idle)

    def counts(self, number: int) -> list[int]:
        found = [self._world.redis.get(key(f"a{each}")) for each in range(number)]
        return [int(str(count or b"0", "ascii")) if isinstance(count, bytes) else 0 for count in found]

    def begun(self, run: str) -> int:
        """Return how often an action was begun."""
        query = "SELECT count(*) FROM runbooks.journal WHERE run = %s AND phase = 'started'"
        return self._world.count(query, run)

    def exit(self, run: str) -> int | None:
        stands = standing(self._world.database, run)
        return stands.exit if stands else None


@pytest.fixture
def place(
    world: World, nodes: Nodes, queue: JetStreamQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    for name, value in {**world.env, "NATS_URL": nodes.url}.items():
        monkeypatch.setenv(name, value)
    yield Place(world, nodes, tmp_path)
    world.redis.flushall()
    world.sql.execute("UPDATE runbooks.lease SET holder = NULL, run = NULL, heartbeat = NULL, since = NULL")


@contextmanager
def at_work(*crews: Crew) -> Iterator[list[ArrakisError]]:
    """Let crews work beside the block, and wait until all of them have ended; yield what they ended with."""
    errors: list[ArrakisError] = []

    def work(crew: Crew) -> None:
        try:
            crew.work()
        except ArrakisError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(crew,)) for crew in crews]
    for each in threads:
        each.start()
    try:
        yield errors
    finally:
        for each in threads:
            each.join(120)


@pytest.mark.parametrize(
    "what", [f"STREAM.INFO.{STREAM}", f"CONSUMER.INFO.{STREAM}.{{run}}"], ids=["stream", "queue"]
)
def test_a_run_goes_on_though_whoever_leads_its_queue_is_lost_and_nothing_is_done_twice(
    place: Place, nodes: Nodes, what: str
) -> None:
    count = 60
    run = place.begin(count, patience=15, seconds=0.1)
    with at_work(place.crew("one"), place.crew("two")) as errors:
        eventually(lambda: sum(place.counts(count)) >= 10)
        with nodes.without(nodes.leader(what.format(run=run))):
            eventually(lambda: place.exit(run) is not None, seconds=90)
    assert place.counts(count) == [1] * count
    assert (place.exit(run), errors) == (Exit.HEALTHY, []), place.said


def test_while_nobody_hears_that_work_is_in_hand_nobody_else_begins_it(place: Place, nodes: Nodes) -> None:
    """The queue's patience is shorter than an election: what is in hand is given up, not done beside another."""
    run = place.begin(8, patience=2, seconds=0.7)
    with at_work(place.crew("one"), place.crew("two")) as errors:
        eventually(lambda: sum(place.counts(8)) >= 1)
        with nodes.without(nodes.leader(f"CONSUMER.INFO.{STREAM}.{run}")):
            eventually(lambda: place.exit(run) is not None, seconds=90)
    assert place.counts(8) == [1] * 8
    assert (place.exit(run), errors) == (Exit.HEALTHY, []), place.said


def test_a_worker_whose_server_is_cut_off_gives_up_before_another_is_given_its_work(
    place: Place, nodes: Nodes
) -> None:
    """Its server takes what it says, and can tell nobody: that is not being heard."""
    run = place.begin(2, patience=2, seconds=20)
    leader = nodes.leader(f"CONSUMER.INFO.{STREAM}.{run}")
    lonely = next(each for each in nodes.members if each is not leader)
    with at_work(place.crew("lonely", lonely.url)) as first:
        eventually(lambda: place.begun(run) == 2)
        with nodes.cut_off(lonely), at_work(place.crew("other", leader.url)) as second:
            eventually(lambda: place.exit(run) is not None, seconds=90)
    assert place.counts(2) == [1, 1], place.said
    assert place.begun(run) > 2, place.said
    assert (place.exit(run), second) == (Exit.HEALTHY, [])
    assert all(isinstance(each, Unreachable) for each in first), first
