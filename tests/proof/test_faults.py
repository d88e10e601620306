"""Whatever a wire does, a look ends in time, says what it could not read, and calls nothing well that it did not see."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from lab.control import Lab
from runbooks import rb_sb_003
from runbooks.engine.apply import Outcome
from runbooks.engine.environment import resolve
from runbooks.engine.model import Phase, Plan
from runbooks.engine.operate import Operator
from sandbox.errors import ArrakisError
from tests.acceptance.dump import Dump, dump
from tests.acceptance.engineer import Answer, Engineer
from tests.integration.crowd import fill
from tests.integration.world import World
from tests.proof.proxy import Fault, Kind, Proxy, standing_before

POSTGRES, REDIS, NATS, AWS = "DATABASE_URL", "REDIS_URL", "NATS_URL", "AWS_ENDPOINT_URL"
SYSTEMS = (POSTGRES, REDIS, NATS, AWS)
TELLS = {  # what an audit hears from each alone
    POSTGRES: {"PostgreSQL", "PgBouncer", "database", "sandboxes", "connections", "blockers", "waiting", "tables", "indexes", "stop flag"},
    REDIS: {"Redis", "keys", "families", "Redis latency", "slow commands", "latency events"},
    NATS: {"NATS", "listeners", "streams and consumers"},
    AWS: {"alarm", "schedule", "service", "tasks", "autoscaling", "RDS", "ElastiCache", "runs"},
}  # fmt: skip
STEADY = {POSTGRES: "database", REDIS: "keys", NATS: "listeners", AWS: "alarm"}  # what each is soon heard of
START = 20  # seconds that programs take to start and to write, on a machine that has much else to do
PAGE = b"<html><title>Sign in</title>\x1b[31m</html>"
SIGN_IN = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s" % (len(PAGE), PAGE)
BUSY = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"
SORRY = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\n\r\nsorry"

DEAF = {  # nothing is ever heard whole
    "very late": Fault(kind=Kind.LATE, seconds=30),
    "dripping": Fault(kind=Kind.DRIP, seconds=0.1),
    "reset at once": Fault(kind=Kind.RESET),
    "truncated at once": Fault(kind=Kind.CLOSED),
    "hung up on": Fault(kind=Kind.HANGUP),
    "half open": Fault(kind=Kind.SILENT),
    "a stranger's page": Fault(kind=Kind.STRANGER, said=SIGN_IN),
    "too many": Fault(kind=Kind.STRANGER, said=BUSY),
    "sorry": Fault(kind=Kind.STRANGER, said=SORRY),
    "noise": Fault(kind=Kind.STRANGER, said=b"\x00\xff\x1b[31m\r\n" * 40),
}
HALF = {  # something is heard, and then no more
    "late": Fault(kind=Kind.LATE, seconds=0.3),
    "reset": Fault(kind=Kind.RESET, after=2000),
    "truncated": Fault(kind=Kind.CLOSED, after=2000),
    "hung up on later": Fault(kind=Kind.HANGUP, after=2000),
    "half open later": Fault(kind=Kind.SILENT, after=2000),
    "dripping later": Fault(kind=Kind.DRIP, after=2000, seconds=0.1),
}
RIGHTS_ALONE = {
    ("rb-sb-005", REDIS)
}  # asked there which rights one has, and nothing else while room is plenty
RUNBOOKS = tuple(f"rb-sb-00{number}" for number in range(1, 7))
UNTIMED = ",".join(
    (*RUNBOOKS[:-1], "quarantine", "emergency", "maintenance")
)  # the last comes after all others
CODES = ("ThrottlingException", "TooManyRequestsException", "InternalFailure", "ServiceUnavailable", "ExpiredTokenException", "RequestTimeTooSkewed")  # fmt: skip


@contextmanager
def faulty(
    engineer: Engineer, faults: Mapping[str, Fault], state: Path
) -> Iterator[tuple[Engineer, list[Proxy]]]:
    """Yield the engineer with these faults on their wires."""
    with ExitStack() as stack:
        proxies = {name: stack.enter_context(standing_before(engineer.lab.env[name])) for name in faults}
        for name, fault in faults.items():
            proxies[name].fault = fault
        through = {name: proxy.url for name, proxy in proxies.items()}
        yield engineer.but(RUNBOOKS_STATE_DIR=str(state), **through), list(proxies.values())


def severities(answer: Answer, checks: set[str]) -> dict[str, set[str]]:
    """Return what was said of each check that was told of at all."""
    found: dict[str, set[str]] = {}
    for each in answer.document["findings"]:
        if each["check"] in checks:
            found.setdefault(each["check"], set()).add(each["severity"])
    return found


def well(answer: Answer) -> set[str]:
    return {each["check"] for each in answer.document["findings"] if each["severity"] == "ok"}


def ended_well(answer: Answer, seconds: float) -> None:
    """Insist that a call ended in time, with an answer that can be read."""
    assert answer.code in (2, 3), answer.said
    assert answer.seconds < 2 * seconds + START, answer.said
    assert (
        answer.document.get("seconds", 0) < 3 * seconds + 2
    )  # an audit's: what is timed comes after all others
    assert "Traceback" not in answer.said
    assert "\x1b" not in answer.said
    assert answer.document["outcome"] == {2: "proposed", 3: "unknown"}[answer.code]
    assert answer.document["verdict"] != "healthy"


def assert_deaf(answer: Answer, systems: set[str]) -> None:
    """Insist that all that these systems tell is unknown."""
    assert answer.code == 3, answer.said
    told = severities(answer, set().union(*(TELLS[each] for each in systems)))
    assert {STEADY[each] for each in systems} <= set(told)
    assert told == {check: {"unknown"} for check in told}


def assert_heard(answer: Answer, systems: set[str]) -> None:
    """Insist that something is told of each of these; on a busy machine not all of it comes in time."""
    for each in systems:
        assert set().union(*severities(answer, TELLS[each]).values()) - {"unknown"}, (each, answer.said)


@pytest.fixture
def chani(grounds: Lab, world: World, tmp_path: Path) -> Engineer:
    """Return somebody at a lab where nothing has happened."""
    return Engineer(grounds, tmp_path / "chani")


def test_each_wire_with_a_fault(chani: Engineer, tmp_path: Path) -> None:
    both = (
        {POSTGRES: DEAF["half open"], AWS: DEAF["truncated at once"]},
        {REDIS: DEAF["dripping"], NATS: DEAF["reset at once"]},
    )

    def audited(faults: Mapping[str, Fault]) -> Answer:
        with faulty(chani, faults, tmp_path / "-".join(faults)) as (blind, _):
            return blind.call("audit", "--json", "--timeout", "3", "--only", UNTIMED)

    with ThreadPoolExecutor() as hands:
        for faults, answer in zip(both, hands.map(audited, both), strict=True):
            ended_well(answer, 3)
            assert_deaf(answer, set(faults))
            assert_heard(answer, set(SYSTEMS) - set(faults))


@pytest.fixture(scope="module")
def truths(engineer: Engineer) -> dict[str, Answer]:
    """Return what each look says when nothing is in its way."""
    return {name: engineer.call(name, "--json", "--timeout", "20") for name in ("audit", *RUNBOOKS)}


@pytest.mark.soak
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("name", DEAF)
def test_every_look_at_a_server_that_nothing_is_heard_of(
    engineer: Engineer, truths: Mapping[str, Answer], tmp_path: Path, system: str, name: str
) -> None:
    with faulty(engineer, {system: DEAF[name]}, tmp_path) as (blind, _):
        answer = blind.call("audit", "--json", "--timeout", "3")
        ended_well(answer, 3)
        assert_deaf(answer, {system})
        assert_heard(answer, set(SYSTEMS) - {system})

    def looked(runbook: str) -> tuple[Answer, bool]:
        with faulty(engineer, {system: DEAF[name]}, tmp_path / runbook) as (blind, [proxy]):
            return blind.call(runbook, "--json", "--timeout", "2"), proxy.struck.is_set()

    with ThreadPoolExecutor(2) as hands:
        asked = dict(zip(RUNBOOKS, hands.map(looked, RUNBOOKS), strict=True))
    assert any(struck for _, struck in asked.values())
    for runbook, (answer, struck) in asked.items():
        if struck and (runbook, system) not in RIGHTS_ALONE:
            assert answer.code == 3, answer.said
            ended_well(answer, 2)
        else:  # it misses nothing
            assert answer.code == truths[runbook].code, answer.said
            assert well(answer) <= well(truths[runbook]), answer.said


@pytest.mark.soak
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("name", HALF)
def test_every_look_at_a_server_that_is_heard_in_part(
    engineer: Engineer, truths: Mapping[str, Answer], tmp_path: Path, system: str, name: str
) -> None:
    def looked(look: str) -> Answer:
        with faulty(engineer, {system: HALF[name]}, tmp_path / look) as (blind, _):
            return blind.call(look, "--json", "--timeout", "2")

    with ThreadPoolExecutor(2) as hands:
        for look, answer in zip(truths, hands.map(looked, truths), strict=True):
            if answer.code:  # all was read, and well
                ended_well(answer, 2)
            assert answer.code in (truths[look].code, 3), answer.said
            assert well(answer) <= well(truths[look]), answer.said


@pytest.mark.parametrize(
    "code", [CODES[-1], *(pytest.param(code, marks=pytest.mark.soak) for code in CODES[:-1])]
)
def test_an_account_that_refuses_everything(chani: Engineer, world: World, code: str) -> None:
    world.wipe()
    fill(chani.lab.env, strangers=1, keys=2)
    refuse(chani, code, 1000)
    try:
        answer = chani.call("rb-sb-003", "--json", "--timeout", "3")
    finally:
        refuse(chani, code, 0)
    ended_well(answer, 3)
    assert_deaf(answer, {AWS})
    assert {"orphaned schema", "orphaned keys"} <= {each["check"] for each in answer.document["findings"]}
    [alarm] = [each["summary"] for each in answer.document["findings"] if each["check"] == "alarm"]
    assert code in alarm


def refuse(engineer: Engineer, code: str, times: int) -> None:
    where = f"{engineer.lab.env[AWS]}/moto-api/faults?operation=*&code={code}&times={times}"
    with urlopen(Request(where, method="POST"), timeout=5) as answer:
        assert answer.status == 200


# Applying


class Run:
    """An apply of rb-sb-003 through a proxy whose fault comes once so many targets are done."""

    def __init__(self, env: Mapping[str, str], state: Path, proxy: Proxy, fault: Fault, after: int) -> None:
        environment = resolve(None, env, state, state)
        self._proxy, self._fault, self._after = proxy, fault, after
        self.operator = Operator(environment, timeout=2, progress=self._progress, tell=lambda _: None)

    def _progress(self, _: object, ended: int, __: int) -> None:
        if ended == self._after:
            self._proxy.fault = self._fault

    def apply(self, plan: Plan) -> tuple[Outcome | None, list[str]]:
        """Apply the plan, and return what became of it, and the lines that say why not all of it is done."""
        try:
            outcome = self.operator.apply(plan, rb_sb_003.RUNBOOK, ask=allow, max_targets=99)
        except ArrakisError as error:
            return None, [str(error)]
        return outcome, [each.reason for each in outcome.results if not each.settled]

    def resume(self) -> Outcome:
        """Take it up, with the wire mended."""
        self._proxy.fault = None
        [run] = {each.run for each in self.operator.journal.entries() if each.phase is Phase.RUN_STARTED}
        return self.operator.resume(run, {rb_sb_003.RUNBOOK.name: rb_sb_003.RUNBOOK}, ask=allow)

    def done(self) -> Counter[str | None]:
        """Return how often each target was done."""
        return Counter(each.action for each in self.operator.journal.entries() if each.phase is Phase.DONE)


def allow(*_: object) -> None:
    """Confirm whatever is asked."""


def lose(lab: Lab, world: World, state: Path, system: str, fault: Fault, after: int) -> None:
    """Let a fault come in the midst of a run; take it up without it, and find each target moved, whole, and once."""
    with standing_before(lab.env[system]) as proxy, pytest.MonkeyPatch.context() as patch:
        world.wipe()
        fill(lab.env, strangers=4, keys=3)
        env = {**lab.env, system: proxy.url}
        for name, value in env.items():
            patch.setenv(name, value)
        run = Run(env, state, proxy, fault, after)
        plan = run.operator.diagnose(rb_sb_003.RUNBOOK).plan
        assert plan is not None
        assert len(plan.actions) == 8
        before = dump(lab)
        outcome, why = run.apply(plan)
        needed = system != AWS  # which guards the beginning alone
        # Who is heard in part may have been heard enough, on one connection after the other.
        assert bool(why) is needed or (needed and fault.after), why
        assert all(line.splitlines() == [line] for line in why)
        if why:
            assert after <= run.done().total() < len(plan.actions)
            # Its process lives on here, so the lease would have to run out first.
            world.sql.execute("UPDATE runbooks.lease SET holder = NULL")
            outcome = run.resume()
        assert outcome is not None
        assert {each.settled for each in outcome.results} == {True}
        assert run.done() == Counter(action.id for action in plan.actions)
        assert_moved(before, dump(lab))


def assert_moved(before: Dump, after: Dump) -> None:
    """Insist that everything is in quarantine now, as whole as it was."""
    for was, now in ((before.schemas, after.schemas), (before.keys, after.keys)):
        assert not [name for name in now if name.startswith("sandbox")]
        back = {
            re.sub(r"^quarantine([_:])\d{14}[_:](sandbox:)?", r"sandbox\1", name): held
            for name, held in now.items()
        }
        assert back == was


def test_a_run_that_loses_its_database_is_finished_by_a_resume(
    grounds: Lab, world: World, tmp_path: Path
) -> None:
    lose(grounds, world, tmp_path, POSTGRES, DEAF["hung up on"], 3)


@pytest.mark.soak
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("fault", [*DEAF, *(name for name in HALF if name != "late")])
def test_every_run_that_loses_a_server(
    grounds: Lab, world: World, tmp_path: Path, system: str, fault: str
) -> None:
    for moment in (2, 6):
        lose(grounds, world, tmp_path / str(moment), system, (DEAF | HALF)[fault], moment)
