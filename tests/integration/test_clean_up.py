"""Cleaning up one sandbox on real servers: nobody widens it, each step may be the last, and what is left is finished."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from runbooks.engine import lease, stops
from runbooks.engine.budget import Budget
from runbooks.engine.environment import resolve
from runbooks.engine.gate import Gate
from runbooks.engine.model import Action, Resource, Reversibility, State
from runbooks.engine.systems import readers, writers
from runbooks.remedies.cleanup import CleanUp, DropBlocker
from sandbox import cleanup, lifecycle, registry, removal, schemas
from sandbox.adapters.redis import Redis
from sandbox.errors import ArrakisError, Blocked, SandboxError, Unreachable
from sandbox.joblog import logger
from sandbox.model import Sandbox, Status
from sandbox.ports import SqlTransaction
from sandbox.removal import Destroyed, Terms
from tests.integration.world import NOW, World

HOUR = timedelta(hours=1)
DEAD = Redis("redis://127.0.0.1:1/0", timeout=1)
Tell = Callable[[str, Mapping[str, object]], None]
Insist = Callable[[SqlTransaction, Sandbox], None]


@pytest.fixture(autouse=True)
def _empty(world: World) -> Iterator[None]:
    yield
    world.sql.execute("DROP SCHEMA IF EXISTS reporting CASCADE")
    world.wipe()


def overdue(world: World, name: str, *, guilds: tuple[str, ...] = ()) -> Sandbox:
    """Make a sandbox in use whose time is over."""
    made = world.make(name, guilds=guilds)
    world.sql.execute(
        "UPDATE sandboxes SET created_at = %s, expires_at = %s WHERE id = %s",
        (NOW - 25 * HOUR, NOW - HOUR, made.id),
    )
    return made


def watch(world: World, made: Sandbox) -> None:
    """Let a view elsewhere rest on a sandbox's schema."""
    world.sql.execute("CREATE SCHEMA reporting")
    world.sql.execute(
        f'CREATE VIEW reporting.overview AS SELECT id FROM "sandbox_{made.id}".profiles'.encode()
    )


def everything(world: World) -> tuple[object, ...]:
    """Return all that a clean-up could change: rows, history, mappings, tables and keys."""
    queries = (
        "SELECT s::text FROM sandboxes AS s ORDER BY 1",
        "SELECT a::text FROM sandbox_audit_log AS a ORDER BY 1",
        "SELECT m::text FROM sandbox_guild_mapping AS m ORDER BY 1",
        "SELECT c.oid::regclass::text FROM pg_class AS c WHERE relnamespace::regnamespace::text"
        " ~ '^\"?(sandbox_|reporting)' ORDER BY 1",
    )
    keys = {name: world.redis.get(name) for name in world.key_names()}
    return (*(world.sql.execute(query.encode()).fetchall() for query in queries), keys)


def nothing(*_: object) -> None:
    """Object to nothing, and tell nobody."""


def clean_up(
    world: World,
    id: UUID,
    *,
    keys: Redis | None = None,
    insist: Insist = nothing,
    tell: Tell = nothing,
) -> Destroyed:
    def insist_all(transaction: SqlTransaction, rows: Sequence[Sandbox]) -> None:
        for row in rows:
            insist(transaction, row)

    terms = Terms(actor="chani", now=NOW, tell=lambda _, step, seen: tell(step, seen))
    gone = removal.clean_up(world.database, keys or world.keys, [id], terms, insist=insist_all)[id]
    if isinstance(gone, Destroyed):
        return gone
    raise gone


def insist_on_due(transaction: SqlTransaction, row: Sandbox) -> None:
    """Refuse what is not due any more, as a remedy does."""
    if not cleanup.due_at(transaction, NOW, ids=[row.id]):
        raise ArrakisError(f"{row.name} is not due any more")


def leave_keys(world: World, made: Sandbox) -> None:
    """Take a sandbox away, and leave what a Redis that did not answer leaves: its keys, and a row that says so."""
    clean_up(world, made.id)
    world.sql.execute(
        "UPDATE sandbox_audit_log SET details = details || '{\"keysLeft\": true}' WHERE event_type = 'sandbox_destroyed'"
    )
    world.redis.set(f"sandbox:{made.id}:session:0", 0)


def left_over(world: World) -> list[UUID]:
    """Return the destroyed sandboxes of which keys are known to have been left."""
    with world.database.snapshot() as snapshot:
        return [row.id for row in registry.unfinished(snapshot)]


def test_an_overdue_sandbox_goes_with_all_that_it_has_and_each_step_is_told_when_it_is_done(
    world: World,
) -> None:
    stays = overdue(world, "stays", guilds=("3",))
    before = everything(world)
    made = overdue(world, "over", guilds=("1", "2"))
    world.redis.mset({f"sandbox:{made.hex}:x": 1, f"sandbox:{str(made.id).upper()}:x": 1})
    own = {f"sandbox:{made.hex}:x", f"sandbox:{str(made.id).upper()}:x"}
    own |= {key for key in world.key_names() if key.startswith(f"sandbox:{made.id}")}
    told: list[tuple[str, dict[str, object], str, int, bool]] = []

    def tell(step: str, seen: Mapping[str, object]) -> None:
        left = len(own & world.key_names())
        told.append((step, dict(seen), world.status(made.id), left, made.schema_name in world.schemas()))

    gone = clean_up(world, made.id, insist=insist_on_due, tell=tell)
    assert told == [
        ("condemned", {"status": "destroying", "guilds": 2}, "destroying", 7, True),
        ("keys deleted", {"keys": 7}, "destroying", 0, True),
        ("schemas dropped", {"schemas": made.schema_name}, "destroyed", 0, False),
    ]
    assert (gone.schemas, sorted(gone.guilds), gone.keys, gone.unsettled) == (
        [made.schema_name],
        ["1", "2"],
        7,
        None,
    )
    assert (gone.sandbox.status, gone.sandbox.destroyed_at) == (Status.DESTROYED, NOW)
    assert world.events(made.id)[-2:] == ["sandbox_destroying", "sandbox_destroyed"]
    world.sql.execute("DELETE FROM sandboxes WHERE id = %s", (made.id,))
    assert everything(world) == before  # nothing of the neighbour's went along
    assert world.mapped() == {"3": stays.id}


def test_who_insists_is_asked_with_the_row_held_and_leaves_everything_as_it_was(world: World) -> None:
    made = overdue(world, "over", guilds=("1",))
    before = everything(world)

    def insist(transaction: SqlTransaction, row: Sandbox) -> None:
        assert (row.id, row.status) == (made.id, Status.RUNNING)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            world.sql.execute("SELECT FROM sandboxes WHERE id = %s FOR UPDATE NOWAIT", (made.id,))
        raise ArrakisError("it must not go")

    told: list[str] = []
    with pytest.raises(ArrakisError, match="it must not go"):
        clean_up(world, made.id, insist=insist, tell=lambda step, _: told.append(step))
    assert everything(world) == before
    assert told == []


def test_one_that_cannot_go_keeps_none_of_those_that_are_taken_with_it(world: World) -> None:
    made = [overdue(world, f"over-{number}", guilds=(str(number),)) for number in range(3)]
    stays = made[1].id

    def insist(_: SqlTransaction, rows: Sequence[Sandbox]) -> None:
        if any(row.id == stays for row in rows):
            raise ArrakisError("it must not go")

    told: list[tuple[UUID, str]] = []
    terms = Terms(actor="chani", now=NOW, tell=lambda row, step, _: told.append((row.id, step)))
    ids = [row.id for row in made]
    gone = removal.clean_up(world.database, world.keys, ids, terms, insist=insist)
    assert [isinstance(gone[id], Destroyed) for id in ids] == [True, False, True]
    assert str(gone[stays]) == "it must not go"
    assert [world.status(id) for id in ids] == ["destroyed", "running", "destroyed"]
    assert world.mapped() == {"1": stays}
    assert {id for id, _ in told} == {ids[0], ids[2]}
    assert all(world.events(id).count("sandbox_destroying") == 1 for id in (ids[0], ids[2]))


def test_one_failure_too_many_ends_it_in_the_midst_and_the_rest_is_as_it_was(world: World) -> None:
    made = [overdue(world, f"over-{number}") for number in range(6)]
    asked = list[UUID]()

    def insist(_: SqlTransaction, rows: Sequence[Sandbox]) -> None:
        if len(rows) == 1:
            asked.append(rows[0].id)
        raise ArrakisError("it must not go")

    budget, ids = Budget(2), [row.id for row in made]
    terms = Terms(actor="chani", now=NOW, pause=budget.insist, failed=budget.fail)
    gone = removal.clean_up(world.database, world.keys, ids, terms, insist=insist)
    assert asked == ids[:3]
    assert [str(gone[id]) for id in ids] == ["it must not go"] * 3 + ["more failed than the 2 that may"] * 3
    assert [world.status(id) for id in ids] == ["running"] * 6


def test_what_failed_before_a_halt_keeps_its_reason(world: World) -> None:
    made = [overdue(world, f"over-{number}") for number in range(4)]
    ids = [row.id for row in made]

    def insist(_: SqlTransaction, rows: Sequence[Sandbox]) -> None:
        if rows[0].id != ids[0] or len(rows) > 1:
            raise ArrakisError("it must not go")

    budget = Budget(1)
    terms = Terms(actor="chani", now=NOW, pause=budget.insist, failed=budget.fail)
    gone = removal.clean_up(world.database, world.keys, ids, terms, insist=insist)
    halted = "more failed than the 1 that may"
    assert [str(gone[id]) for id in ids] == [halted, "it must not go", "it must not go", halted]
    assert [world.status(id) for id in ids] == ["destroying"] + ["running"] * 3


def test_keys_that_cannot_be_deleted_count_as_failures_at_once(world: World) -> None:
    made = [overdue(world, f"over-{number}") for number in range(5)]
    budget, ids = Budget(2), [row.id for row in made]
    terms = Terms(actor="chani", now=NOW, pause=budget.insist, failed=budget.fail)
    gone = removal.clean_up(world.database, DEAD, ids, terms, insist=nothing)
    left = [each.unsettled for each in gone.values() if isinstance(each, Destroyed)]
    assert len(left) == 2
    assert all(str(each).startswith("its keys are left: ") for each in left)
    assert [str(gone[id]) for id in ids[2:]] == ["more failed than the 2 that may"] * 3
    assert [world.status(id) for id in ids] == ["destroyed"] * 2 + ["destroying"] * 3


def test_a_halt_ends_it_in_the_midst_and_another_call_takes_it_up(world: World) -> None:
    made = [overdue(world, f"over-{number}") for number in range(3)]
    budget, ids = Budget(0), [row.id for row in made]

    def tell(_: Sandbox, step: str, __: Mapping[str, object]) -> None:
        if step == "schemas dropped":
            budget.halt("interrupted")

    terms = Terms(actor="chani", now=NOW, pause=budget.insist, failed=budget.fail, tell=tell)
    gone = removal.clean_up(world.database, world.keys, ids, terms, insist=nothing)
    assert isinstance(gone[ids[0]], Destroyed)
    assert [str(gone[id]) for id in ids[1:]] == ["interrupted"] * 2
    assert [world.status(id) for id in ids] == ["destroyed", "destroying", "destroying"]
    again = removal.clean_up(world.database, world.keys, ids, Terms(actor="chani", now=NOW), insist=nothing)
    assert all(isinstance(each, Destroyed) for each in again.values())
    assert (world.schemas(), world.key_names()) == (set(), set())


def test_one_that_was_extended_meanwhile_stays(world: World) -> None:
    made = overdue(world, "over", guilds=("1",))
    lifecycle.extend(world.database, world.keys, "over", 2 * HOUR, actor="liet", now=NOW)
    before = everything(world)
    with pytest.raises(ArrakisError, match="over is not due any more"):
        clean_up(world, made.id, insist=insist_on_due)
    assert everything(world) == before


def test_what_rests_on_its_schema_is_said_before_anything_is_changed(world: World) -> None:
    made = overdue(world, "watched", guilds=("1",))
    watch(world, made)
    before = everything(world)
    told: list[str] = []
    with pytest.raises(Blocked, match=r"would take along view reporting\.overview"):
        clean_up(world, made.id, tell=lambda step, _: told.append(step))
    assert everything(world) == before
    assert told == []


def test_one_that_somebody_began_to_destroy_is_taken_up(world: World) -> None:
    made = overdue(world, "begun", guilds=("1",))
    world.sql.execute("UPDATE sandboxes SET status = 'destroying' WHERE id = %s", (made.id,))
    gone = clean_up(world, made.id)
    assert (gone.schemas, gone.guilds, gone.keys) == ([made.schema_name], ("1",), 5)
    assert world.status(made.id) == "destroyed"
    assert world.key_names() == set()
    resumed = "SELECT details ->> 'resumed' FROM sandbox_audit_log WHERE event_type = 'sandbox_destroying'"
    assert world.one(resumed) == "true"


def test_without_redis_it_goes_and_says_what_is_left_and_a_second_call_finishes(world: World) -> None:
    made = overdue(world, "keyless", guilds=("1",))
    told: list[tuple[str, object]] = []
    gone = clean_up(world, made.id, keys=DEAD, tell=lambda step, seen: told.append((step, dict(seen))))
    assert isinstance(gone.unsettled, Unreachable)
    assert [step for step, _ in told] == ["condemned", "keys left", "schemas dropped"]
    assert told[2] == ("schemas dropped", {"schemas": made.schema_name})
    assert told[1] == ("keys left", {"error": gone.unsettled.__cause__})
    assert str(gone.unsettled) == f"its keys are left: {gone.unsettled.__cause__}"
    assert (gone.keys, world.status(made.id), world.schemas(), world.mapped()) == (0, "destroyed", set(), {})
    assert left_over(world) == [made.id]
    assert len(world.key_names()) == 6  # and its route, which ends by itself
    again = clean_up(world, made.id)
    assert (again.keys, again.schemas, again.unsettled) == (5, [], None)
    assert (left_over(world), world.key_names()) == ([], set())
    before = everything(world)
    assert clean_up(world, made.id).keys == 0
    assert everything(world) == before  # a third one finds nothing to do, and writes nothing


@pytest.mark.parametrize("by_job", [False, True])
@pytest.mark.parametrize("alive", [False, True])
def test_keys_that_were_left_and_went_by_themselves_are_left_no_more(
    world: World, by_job: bool, alive: bool
) -> None:
    made = overdue(world, "keyless")
    leave_keys(world, made)
    world.redis.flushall()
    assert left_over(world) == [made.id]
    keys = world.keys if alive else DEAD
    if by_job:
        log = logger("CleanupProvider", level="debug", stream=io.StringIO())
        cleanup.Job(world.database, keys, clock=lambda: NOW, log=log).run(spared=None)
    else:
        assert clean_up(world, made.id, keys=keys).keys == 0
    assert left_over(world) == ([] if alive else [made.id])  # without Redis nobody can tell


def test_what_does_not_exist_is_said(world: World) -> None:
    with pytest.raises(SandboxError, match="SANDBOX_004"):
        clean_up(world, UUID(int=4))


@pytest.fixture
def gate(world: World, tmp_path: Path) -> Gate:
    """Return what a remedy works with; nobody holds the lease, and nobody needs to be told."""
    return gate_to(world.env, tmp_path, [])


def gate_to(env: Mapping[str, str], home: Path, told: list[str]) -> Gate:
    environment = resolve(None, env, home, home)
    return Gate(
        read=readers(environment, tag="tests:remedies", timeout=5),
        write=writers(environment, tag="tests:remedies", actor="chani", timeout=5),
        fence=nothing,
        tell=told.append,
    )


def action(made: Sandbox, *, status: str = "running") -> Action:
    before = {"id": str(made.id), "status": status, "owner": made.owner, "schemas": [made.schema_name]}
    return Action(
        id="a1",
        verb=CleanUp.verb,
        resource=Resource(kind="sandbox", id=made.name),
        before=before,
        after={},
        reason="it is over",
        reversibility=Reversibility.IRREVERSIBLE,
    )


def change(world: World, made: Sandbox, how: str) -> None:
    """Change a sandbox between plan and apply."""
    if how == "extended":
        lifecycle.extend(world.database, world.keys, made.name, 2 * HOUR, actor="liet", now=NOW)
    if how == "expired":
        lifecycle.expire(world.database, world.keys, made.name, actor="liet", now=NOW)
    if how == "begun":
        world.sql.execute("UPDATE sandboxes SET status = 'destroying' WHERE id = %s", (made.id,))
    if how in ("destroyed", "destroyed, its schema not"):
        clean_up(world, made.id)
    if how == "destroyed without Redis":
        leave_keys(world, made)
    if how == "destroyed, its schema not":
        world.sql.execute("SELECT create_sandbox_schema(%s)", (str(made.id),))
    if how == "row deleted":
        world.sql.execute("DELETE FROM sandboxes WHERE id = %s", (made.id,))


def test_what_a_stop_marked_is_not_cleaned_up_by_what_was_confirmed_before(world: World, gate: Gate) -> None:
    made = overdue(world, "marked", guilds=("1",))
    remedy, planned = CleanUp(gate), action(made)
    assert remedy.observe(planned).state is State.BEFORE
    lease.prepare(world.database)
    with world.database.transaction() as transaction:
        stops.raise_stop(transaction, id="s1", by="liet", reason="", halting=False, parts={}, over={})
        stops.mark(transaction, {made.id: [str(made.schema_name)]}, actor="liet")
    before = everything(world)
    seen = remedy.observe(planned)
    assert (seen.state, "emergency-resume" in seen.reason) == (State.CHANGED, True)
    with pytest.raises(ArrakisError, match="an emergency stop marked it"):
        remedy.apply(planned)
    assert everything(world) == before
    with world.database.transaction() as transaction:
        stops.lift(transaction, id="s1", by="liet")


@pytest.mark.parametrize(
    ("how", "state", "reason"),
    [
        ("left alone", State.BEFORE, "it is running, and over"),
        ("expired", State.BEFORE, "it is expired, and over"),
        ("begun", State.BEFORE, "it is destroying, and over"),
        ("extended", State.CHANGED, f"it is running until {NOW + 2 * HOUR:%Y-%m-%d %H:%M} UTC"),
        ("row deleted", State.CHANGED, "its row is gone"),
        ("destroyed", State.AFTER, "nothing of it is left"),
        ("destroyed without Redis", State.PARTLY, "it is destroyed, but keys are left"),
        ("destroyed, its schema not", State.PARTLY, "it is destroyed, but sandbox_{id} are left"),
    ],
)
def test_a_clean_up_sees_how_its_sandbox_stands_and_brings_it_to_its_end(
    world: World, gate: Gate, how: str, state: State, reason: str
) -> None:
    made = overdue(world, "over", guilds=("1",))
    change(world, made, how)
    remedy, planned = CleanUp(gate), action(made)
    seen = remedy.observe(planned)
    assert (seen.state, seen.reason) == (state, reason.format(id=made.id))
    if state in (State.BEFORE, State.PARTLY):
        remedy.apply(planned)
        assert remedy.observe(planned).state is State.AFTER
        assert (world.schemas(), world.key_names() - {"sandbox:route:1"}) == (set(), set())


def test_keys_that_were_left_are_what_a_clean_up_of_a_destroyed_one_is_about(
    world: World, gate: Gate
) -> None:
    made = overdue(world, "over")
    change(world, made, "destroyed without Redis")
    remedy, planned = CleanUp(gate), action(made, status="destroyed")
    assert remedy.observe(planned).state is State.BEFORE
    remedy.apply(planned)
    assert remedy.observe(planned).state is State.AFTER
    assert world.key_names() == set()


def test_a_clean_up_refuses_what_is_not_over_any_more(world: World, gate: Gate) -> None:
    made = overdue(world, "over", guilds=("1",))
    change(world, made, "extended")
    before = everything(world)
    with pytest.raises(ArrakisError, match="over is not over any more: it is running"):
        CleanUp(gate).apply(action(made))
    assert everything(world) == before


def test_a_clean_up_whose_keys_are_left_has_failed_and_is_seen_midway(world: World, tmp_path: Path) -> None:
    made, told = overdue(world, "over"), list[str]()
    remedy = CleanUp(gate_to({**world.env, "REDIS_URL": "redis://127.0.0.1:1/0"}, tmp_path, told))
    with pytest.raises(Unreachable, match=r"its keys are left: Redis at 127\.0\.0\.1:1"):
        remedy.apply(action(made))
    assert [line.split()[1] for line in told] == ["condemned", "keys", "schemas"]
    assert remedy.observe(action(made)).state is State.PARTLY


def test_a_clean_up_without_the_lease_changes_nothing(world: World, gate: Gate) -> None:
    made = overdue(world, "over")
    before = everything(world)

    def fence(transaction: SqlTransaction) -> None:
        raise ArrakisError("the lease is lost")

    stalled = Gate(read=gate.read, write=gate.write, fence=fence, tell=nothing)
    with pytest.raises(ArrakisError, match="the lease is lost"):
        CleanUp(stalled).apply(action(made))
    assert everything(world) == before


def test_a_clean_up_says_what_rests_on_its_schema_and_who_holds_it(world: World, gate: Gate) -> None:
    made = overdue(world, "over")
    remedy = CleanUp(gate)
    assert remedy.in_use(action(made)) is None
    with psycopg.connect(world.env["DATABASE_URL"]) as reader:
        reader.execute(f'SELECT FROM "{made.schema_name}".profiles'.encode())
        pid = reader.info.backend_pid
        assert str(remedy.in_use(action(made))).startswith(f"session {pid} of ")
    watch(world, made)
    assert remedy.in_use(action(made)) == f"view reporting.overview rests on {made.schema_name}"


def test_the_drop_of_an_object_sees_how_it_stands(world: World, gate: Gate) -> None:
    made = overdue(world, "over")
    watch(world, made)
    remedy = DropBlocker(gate)
    with world.database.snapshot() as snapshot:
        [blocker] = schemas.blockers(snapshot, [str(made.schema_name)])
    planned = Action(
        id="a1",
        verb=DropBlocker.verb,
        resource=Resource(kind=blocker.kind, id=blocker.name),
        before={
            "schema": blocker.schema,
            "name": blocker.name,
            "statement": blocker.statement,
            "definition": blocker.definition,
        },
        after={},
        reason="it was named",
        reversibility=Reversibility.IRREVERSIBLE,
    )
    assert remedy.observe(planned).state is State.BEFORE
    remedy.apply(planned)
    assert world.one("SELECT to_regclass('reporting.overview') IS NULL") is True
    assert remedy.observe(planned).state is State.AFTER
    for kind, column in (("view", "tier"), ("materialized view", "id")):
        made_again = f'CREATE {kind} reporting.overview AS SELECT {column} FROM "{made.schema_name}".profiles'
        world.sql.execute(made_again.encode())
        seen = remedy.observe(planned)
        assert (seen.state, seen.reason) == (State.CHANGED, f"reporting.overview is another {kind} now")
        world.sql.execute(f"DROP {kind} reporting.overview".encode())
