"""The gate: what is held while something is changed, how long is looked for its end, and who uses what is nobody's."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from runbooks.engine import gate as gates
from runbooks.engine.errors import LeaseHeld
from runbooks.engine.gate import Gate
from runbooks.engine.systems import Readers, Writers
from sandbox.errors import ArrakisError, Denied, Unreachable
from sandbox.model import Sandbox, Status
from sandbox.ports import Subscription
from sandbox.schemas import Existing, SchemaUser
from tests.unit.plans import action
from tests.unit.worlds import row

OWNED, GONE, NOBODYS = UUID(int=0xA << 124), UUID(int=0xB << 124), UUID(int=0xC << 124)
ROWS = (row(OWNED, Status.RUNNING), row(GONE, Status.DESTROYED))
ORPHANS = {str(GONE): None, str(NOBODYS): None}


class Database:
    """A database that says what is asked of it, and when. Satisfies SqlWriter and SqlTransaction."""

    host = "db"

    def __init__(self, log: list[Any], *sandboxes: Sandbox) -> None:
        self.log, self.sandboxes = log, sandboxes
        self.sessions = list[SchemaUser]()
        self.looked_for: Any = None

    @contextmanager
    def snapshot(self) -> Iterator["Database"]:
        yield self

    @contextmanager
    def transaction(self) -> Iterator["Database"]:
        self.log.append("begun")
        yield self
        self.log.append("ended")

    def execute(self, statement: str, **params: object) -> int:
        self.log.append(statement)
        return 0

    def rows(self, statement: str, kind: Any, **params: Any) -> list[Any]:
        match statement:
            case "read/registry/claimants":
                heads = [least.hex[:8] for least in params["least"]]
                return [each for each in self.sandboxes if each.hex[:8] in heads]
            case "read/schemas/existing":
                there = [Existing(name=name, oid=7, writes=1) for name in ("sandbox_x", "sandbox_y")]
                return [each for each in there if each.name in params["schemas"]]
            case "read/schemas/names":
                return [SimpleNamespace(name=f"sandbox_{id}") for id in (OWNED, GONE)]
            case "read/schemas/hidden_sessions":
                return [SimpleNamespace(hidden=0)]
            case _:
                assert statement == "read/schemas/users"
                self.looked_for = params["schemas"], params["tag"]
                return [each for each in self.sessions if each.schema_name in params["schemas"]]


class Keys:
    """Keys, and how long ago each was used. Satisfies KeyReader as far as a look goes."""

    def __init__(self) -> None:
        self.idle: dict[bytes, int] = {}

    def scan(self, pattern: str) -> Iterator[list[bytes]]:
        yield list(self.idle)

    def idle_seconds(self, keys: Sequence[bytes]) -> list[int | None]:
        return [self.idle[key] for key in keys]


class World:
    """A gate to servers where nobody does anything yet. What is changed is kept apart from what is read."""

    def __init__(self) -> None:
        self.log, self.told = list[Any](), list[str]()
        self.read, self.written = Database([], *ROWS), Database(self.log, *ROWS)
        self.keys, self.listening = Keys(), list[Subscription]()
        self.fenced: Exception | None = None
        nothing: Any = None
        sql, keys, written, self.streams = (
            self._any(each)
            for each in (
                self.read,
                self.keys,
                self.written,
                SimpleNamespace(subscriptions=lambda: self.listening),
            )
        )
        read = Readers(
            sql=sql, pools=nothing, keys=keys, cache=nothing, streams=self.streams, aws=nothing, tag="r1"
        )
        write = Writers(sql=written, keys=nothing, streams=nothing, aws=nothing, actor="ada")
        self.gate = Gate(read=read, write=write, fence=self._fence, tell=self.told.append)

    @staticmethod
    def _any(fake: object) -> Any:
        return fake

    def _fence(self, transaction: object) -> None:
        assert transaction is self.written
        self.log.append("fenced")
        if self.fenced:
            raise self.fenced

    def use(self, schema: str) -> None:
        """Let a session use a schema."""
        self.read.sessions.append(
            SchemaUser(
                schema_name=schema,
                pid=1,
                user_name="leto",
                application="psql",
                state="active",
                how="reads it",
            )
        )


@pytest.fixture
def world() -> World:
    return World()


# What is held


def test_a_gate_that_nobody_else_has_a_say_in_waits_for_nothing_and_counts_no_failure(world: World) -> None:
    world.gate.pause()
    world.gate.failed(ArrakisError("stuck"))
    assert not world.gate.alone()


def test_the_lease_is_held_until_the_change_is_made(world: World) -> None:
    with world.gate.lease():
        world.log.append("changed")
    assert world.log == ["begun", "fenced", "changed", "ended"]


def test_with_the_lease_lost_no_change_is_begun(world: World) -> None:
    world.fenced = LeaseHeld("taken over")
    with pytest.raises(LeaseHeld), world.gate.lease():
        world.log.append("changed")
    assert world.log == ["begun", "fenced"]


@pytest.mark.parametrize("token", ORPHANS)
def test_an_orphan_is_held_as_one_until_the_change_is_made(world: World, token: str) -> None:
    with world.gate.orphan(token) as transaction:
        assert transaction is world.written
        world.log.append("changed")
    assert world.log == ["begun", "fenced", "write/schemas/hold_rows", "fenced", "changed", "ended"]


def test_what_a_sandbox_owns_by_now_is_not_changed(world: World) -> None:
    with (
        pytest.raises(ArrakisError, match="not an orphan any more: it belongs to"),
        world.gate.orphan(str(OWNED)),
    ):
        world.log.append("changed")
    assert "changed" not in world.log


# Looking until it is done


class Clock:
    """A clock that only sleep moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Looks:
    """What is seen at each look, the last from then on, and how long after the beginning each was."""

    def __init__(self, clock: Clock, *seen: str | Exception) -> None:
        self.clock, self.seen, self.at = clock, list(seen), list[float]()

    def __call__(self) -> tuple[bool, str]:
        self.at.append(self.clock.now - 1000)
        seen = self.seen.pop(0) if len(self.seen) > 1 else self.seen[0]
        if isinstance(seen, Exception):
            raise seen
        return seen == "done", seen


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(gates, "time", clock)
    return clock


def test_what_is_done_at_the_first_look_is_neither_waited_for_nor_told(world: World, clock: Clock) -> None:
    looks = Looks(clock, "done")
    assert world.gate.watch(action(1), looks, pause=4, longest=9, patience=100) is None
    assert (looks.at, world.told) == ([0], [])


def test_it_is_looked_at_more_and_more_seldom_and_only_what_changes_is_told(
    world: World, clock: Clock
) -> None:
    looks = Looks(clock, "", "begun", "begun", "half", "begun", "done")
    assert world.gate.watch(action(1), looks, pause=4, longest=8, patience=100) is None
    assert looks.at == [0, 4, 10, 18, 26, 34]
    assert world.told == ["  t1: begun", "  t1: half", "  t1: begun"]


def test_after_all_patience_it_is_said_how_it_stands(world: World, clock: Clock) -> None:
    looks = Looks(clock, "begun", "begun", "half", "nearly")
    assert world.gate.watch(action(1), looks, pause=5, longest=5, patience=10) == "nearly"
    assert looks.at == [0, 5, 10, 15]
    assert world.told == ["  t1: begun", "  t1: half"]


def test_what_is_done_when_patience_is_over_is_done(world: World, clock: Clock) -> None:
    looks = Looks(clock, "begun", "done")
    assert world.gate.watch(action(1), looks, pause=50, longest=50, patience=10) is None


def test_what_gives_no_answer_is_asked_again(world: World, clock: Clock) -> None:
    looks = Looks(clock, Unreachable("no answer"), Unreachable("no answer"), "begun", "done")
    assert world.gate.watch(action(1), looks, pause=1, longest=1, patience=10) is None
    assert world.told == ["  t1: cannot tell: no answer", "  t1: begun"]


def test_what_gives_no_answer_to_the_last_is_not_taken_for_done(world: World, clock: Clock) -> None:
    looks = Looks(clock, Unreachable("no answer"))
    stood = world.gate.watch(action(1), looks, pause=1, longest=1, patience=3)
    assert stood == "cannot tell: no answer"


def test_what_answers_that_we_may_not_look_is_not_asked_again(world: World, clock: Clock) -> None:
    with pytest.raises(Denied):
        world.gate.watch(action(1), Looks(clock, Denied("no right")), pause=1, longest=1, patience=3)


# Who uses it


def test_what_nobody_owns_or_uses_is_nobodys(world: World) -> None:
    assert world.gate.users_of(ORPHANS) == {}
    assert [world.gate.user_of(token, None) for token in ORPHANS] == [None, None]
    assert world.gate.users_of({}) == {}


def test_owners_and_users_are_told_and_of_what_is_owned_no_server_is_asked(world: World) -> None:
    world.keys.idle = {f"sandbox:{NOBODYS}:a".encode(): 5, f"sandbox:{OWNED}:a".encode(): 5}
    users = world.gate.users_of({str(OWNED): "sandbox_own", **ORPHANS})
    assert users == {
        str(OWNED): f"it belongs to {ROWS[0].name} (running)",
        str(NOBODYS): f"a key of sandbox:{NOBODYS} was used 5 s ago",
    }
    assert world.read.looked_for == ([f"sandbox_{GONE}"], "r1")


def test_where_all_is_owned_no_server_is_asked(world: World) -> None:
    token = str(OWNED)
    assert world.gate.user_of(token, None) == f"it belongs to {ROWS[0].name} (running)"
    assert world.read.looked_for is None


def test_a_schema_of_another_name_is_looked_at_too(world: World) -> None:
    world.use("legacy")
    assert world.gate.users_of({**ORPHANS, str(NOBODYS): "legacy"}) == {
        str(NOBODYS): "leto (psql, pid 1) reads it"
    }
    assert world.read.looked_for == ([f"sandbox_{GONE}", "legacy"], "r1")
    assert world.gate.user_of(str(NOBODYS), "legacy") == "leto (psql, pid 1) reads it"
    assert world.gate.user_of(str(NOBODYS), None) is None


def test_who_listens_uses_it(world: World) -> None:
    world.listening = [Subscription(client="paul", subject=f"sandbox.{NOBODYS}.events")]
    assert world.gate.users_of(ORPHANS) == {str(NOBODYS): "paul listens to its subjects"}


def test_of_schemas_those_that_exist_are_told(world: World) -> None:
    assert world.gate.existing(["sandbox_y", "sandbox_z"]) == {
        "sandbox_y": Existing(name="sandbox_y", oid=7, writes=1)
    }
