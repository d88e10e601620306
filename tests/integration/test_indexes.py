"""The control tables' indexes, statistics and plans on a real server; indexes made concurrently, and what goes wrong with that."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from diagnostics.explain import Explained, Flaw, drawn, flaws
from diagnostics.indexes import (
    EXPECTED,
    TABLES,
    Progress,
    Table,
    read_building,
    read_indexes,
    read_progress,
    read_tables,
)
from runbooks.engine.errors import LeaseHeld
from runbooks.engine.gate import Gate
from runbooks.engine.model import Action, Reversibility, State
from runbooks.remedies import alone, indexes
from runbooks.remedies.indexes import AnalyzeTable, CreateIndex, analyze_table, create_index
from sandbox import health, registry
from sandbox.adapters import postgres
from sandbox.adapters.postgres import Postgres
from sandbox.errors import ArrakisError, Busy
from sandbox.ports import SqlTransaction
from tests.integration.gated import Gated, gated
from tests.integration.pgbouncer import pooled
from tests.integration.world import World

ROWS = 20_000
OWNER = EXPECTED["idx_sandboxes_owner"]
NAME = EXPECTED["sandboxes_name_unique"]


@pytest.fixture(scope="module")
def gate(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    """Return the remedies, beside a sandbox and many destroyed ones."""
    world.make("box", owner="chani", guilds=("123456789012345678",))
    world.sql.execute(
        "INSERT INTO sandboxes (name, owner, status, schema_name, created_at, expires_at) "
        "SELECT 'old-' || n, 'stilgar', 'destroyed', 'sandbox_old_' || n, now() - n * interval '1 s', now() "
        "FROM generate_series(1, %s) AS n",
        (ROWS,),
    )
    world.sql.execute(
        "SELECT pg_stat_force_next_flush()"
    )  # or they would be counted once more after the ANALYZE
    world.sql.execute("ANALYZE sandboxes")
    with gated(world.env, tmp_path_factory.mktemp("state")) as remedies:
        yield remedies


@pytest.fixture(autouse=True)
def restored(world: World) -> Iterator[None]:
    """Give the next test the tables as the migration makes them."""
    yield
    found = world.sql.execute("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid").fetchall()
    for (name,) in found:
        world.sql.execute(f"DROP INDEX {name}".encode())
    world.database.script("migrations/0001_control_tables")
    if NAME.name not in states(world):
        world.sql.execute("ALTER TABLE sandboxes ADD CONSTRAINT sandboxes_name_unique UNIQUE (name)")


def states(world: World) -> dict[str, bool]:
    """Return the control tables' indexes, and whether each is valid."""
    with world.database.snapshot() as snapshot:
        return {each.name: each.usable for each in read_indexes(snapshot)}


def table(world: World) -> Table:
    """Return the statistics of the sandboxes' table."""
    with world.database.snapshot() as snapshot:
        return next(each for each in read_tables(snapshot) if each.name == "sandboxes")


def missing(world: World, name: str = OWNER.name) -> Action:
    """Drop an index, and return the action that makes it."""
    world.sql.execute(f"DROP INDEX {name}".encode())
    return create_index(EXPECTED[name], leftover=False, reason="it is missing")


@contextmanager
def writing(world: World) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Leave a transaction open that has written to the table: nobody makes an index past it."""
    with psycopg.connect(world.env["DATABASE_URL"]) as client:
        client.execute("UPDATE sandboxes SET owner = owner WHERE name = 'box'")
        yield client


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up at once what cannot be done at once."""
    monkeypatch.setattr(postgres, "_GLANCE", 0.02)
    monkeypatch.setattr(indexes, "_PATIENCE", 0.3)
    monkeypatch.setattr(indexes, "_BRIEF", 0.3)


def refusing(gate: Gated, after: int) -> tuple[Gate, list[str]]:
    """Return a gate whose lease is lost after so many looks at it, and what it tells."""
    told: list[str] = []
    looks = iter(range(after))

    def fence(_: SqlTransaction) -> None:
        if next(looks, None) is None:
            raise LeaseHeld("the lease is not ours any more")

    return Gate(read=gate.read, write=gate.write, fence=fence, tell=told.append), told


# ---- what there is


def test_what_is_expected_is_what_the_migration_makes(world: World) -> None:
    with world.database.snapshot() as snapshot:
        found = {each.name: each for each in read_indexes(snapshot)}
    assert {
        name: each.definition.replace("public.sandbox_status", "sandbox_status")
        for name, each in found.items()
    } == {name: each.definition for name, each in EXPECTED.items()}
    assert {name for name, each in found.items() if each.constraint} == {
        name for name, each in EXPECTED.items() if each.constraint
    }
    assert all(each.usable and each.does(EXPECTED[name]) for name, each in found.items())
    primary = world.sql.execute("SELECT conname FROM pg_constraint WHERE contype = 'p'").fetchall()
    assert {name for name, each in EXPECTED.items() if each.primary} <= {name for (name,) in primary}


def test_definitions_are_the_same_whatever_the_search_path(gate: Gated, world: World) -> None:
    url = urlsplit(world.env["DATABASE_URL"])
    elsewhere = url._replace(query="options=-c%20search_path%3Dpg_catalog").geturl()
    with Postgres(elsewhere, tag="tests").snapshot() as snapshot:
        found = {each.name: each for each in read_indexes(snapshot)}
    assert "public.sandbox_status" in found["idx_sandboxes_expires"].definition
    assert all(found[name].does(expected) for name, expected in EXPECTED.items())


def test_the_size_of_a_fresh_index_is_about_what_is_estimated(gate: Gated, world: World) -> None:
    with world.database.snapshot() as snapshot:
        found = {each.name: each for each in read_indexes(snapshot)}
    for name in ("sandboxes_name_unique", "idx_sandboxes_created", "sandboxes_pkey"):
        needed = found[name].needed
        assert needed
        assert 0.4 < found[name].bytes / needed < 2.5
        assert not found[name].bloated


def test_statistics_are_fresh_or_stale(gate: Gated, world: World) -> None:
    fresh = table(world)
    assert (fresh.believed, fresh.live, fresh.stale, fresh.autovacuum_off) == (
        ROWS + 1,
        ROWS + 1,
        False,
        False,
    )
    assert fresh.analyzed_at
    world.sql.execute("ALTER TABLE sandboxes SET (autovacuum_enabled = off)")
    assert table(world).autovacuum_off
    world.sql.execute("ALTER TABLE sandboxes RESET (autovacuum_enabled)")


# ---- plans


def test_the_commands_own_statements_are_explained_and_answered(gate: Gated, world: World) -> None:
    with world.database.snapshot() as snapshot:
        explained = Explained(snapshot)
        seen = health.look_up(explained, "box")
        plain = health.look_up(snapshot, "box")
    assert (seen.sandbox, seen.guilds, seen.schemas) == (plain.sandbox, plain.guilds, plain.schemas)
    assert [plan.statement for plan in explained.plans] == [
        "read/registry/by_name",
        "read/schemas/named",
        "read/registry/claimants",
        "read/registry/guilds",
    ]
    by_name = explained.plans[0]
    assert (by_name.root.index, by_name.root.rows) == ("sandboxes_name_unique", 1)
    assert by_name.milliseconds > 0
    assert flaws(by_name) == []
    assert max(len(line) for plan in explained.plans for line in drawn(plan)) <= 80


def test_an_index_that_is_wanted_is_seen_in_the_plan(gate: Gated, world: World) -> None:
    missing(world)
    with world.database.snapshot() as snapshot:
        explained = Explained(snapshot)
        registry.live_count(explained, "chani")
    [fault] = flaws(explained.plans[0])
    assert fault.flaw is Flaw.SEQUENTIAL
    assert fault.words.startswith(f"reads all {ROWS + 1:,} rows of sandboxes for 1")


def test_nothing_is_explained_that_could_change_anything(gate: Gated, world: World) -> None:
    with world.database.snapshot() as snapshot, pytest.raises(ValueError, match="not to be explained"):
        snapshot.explain("write/registry/unmap_destroyed")
    with world.database.transaction() as transaction, pytest.raises(ValueError, match="not to be explained"):
        transaction.explain("read/registry/clock")


# ---- making an index


def test_a_missing_index_is_made_and_dropped_again(gate: Gated, world: World) -> None:
    action, remedy = missing(world), gate.remedies["create index"]
    assert gate.state(action) == (State.BEFORE, "there is no such index")
    assert gate.in_use(action) is None
    assert gate.apply(action) == (State.AFTER, "it is there, and valid")
    assert states(world)[OWNER.name]
    remedy.revert(action)
    assert OWNER.name not in states(world)
    remedy.revert(action)  # taken up after a kill: nothing is left to do


def test_a_unique_index_is_its_constraints_again(gate: Gated, world: World) -> None:
    world.sql.execute("ALTER TABLE sandboxes DROP CONSTRAINT sandboxes_name_unique")
    action = create_index(NAME, leftover=False, reason="it is missing")
    assert gate.apply(action)[0] is State.AFTER
    kind = "SELECT contype::text FROM pg_constraint WHERE conname = 'sandboxes_name_unique'"
    assert world.one(kind) == "u"
    gate.remedies["create index"].revert(action)
    assert NAME.name not in states(world)
    world.sql.execute("CREATE UNIQUE INDEX sandboxes_name_unique ON sandboxes (name)")
    assert gate.state(action) == (State.PARTLY, "it is there, but no constraint's yet")
    assert gate.apply(action)[0] is State.AFTER


def test_names_that_are_there_twice_are_said_and_nothing_is_left(gate: Gated, world: World) -> None:
    world.sql.execute("ALTER TABLE sandboxes DROP CONSTRAINT sandboxes_name_unique")
    world.sql.execute("UPDATE sandboxes SET name = 'old-1' WHERE name = 'old-2'")
    action = create_index(NAME, leftover=False, reason="it is missing")
    with pytest.raises(
        ArrakisError, match=r"was not made: .*could not create unique index.*; what was left of it is dropped"
    ):
        gate.remedies["create index"].apply(action)
    assert gate.state(action)[0] is State.BEFORE
    world.sql.execute("UPDATE sandboxes SET name = 'old-2' WHERE schema_name = 'sandbox_old_2'")


@pytest.mark.usefixtures("hasty")
def test_what_cannot_be_made_in_time_is_cancelled_and_what_is_left_is_known(
    gate: Gated, world: World
) -> None:
    action, remedy = missing(world), gate.remedies["create index"]
    with (
        writing(world),
        pytest.raises(
            ArrakisError, match=r"has not ended a statement within .*; an invalid index is left: DROP"
        ),
    ):
        remedy.apply(action)
    assert states(world)[OWNER.name] is False
    assert gate.state(action) == (State.PARTLY, "an invalid one is left of an earlier attempt")
    planned = create_index(OWNER, leftover=True, reason="it is invalid")
    assert gate.state(planned)[0] is State.BEFORE
    assert gate.apply(planned)[0] is State.AFTER
    assert states(world)[OWNER.name]


@pytest.mark.usefixtures("hasty")
def test_a_lease_that_is_lost_cancels_it_and_the_wait_is_told(
    gate: Gated, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = missing(world)
    monkeypatch.setattr(indexes, "_PATIENCE", 30.0)
    monkeypatch.setattr(alone, "_CHECK", 0.2)
    lost, told = refusing(gate, after=3)
    with writing(world) as client:
        pid = client.info.backend_pid
        with pytest.raises(LeaseHeld):
            CreateIndex(lost).apply(action)
    assert f"for session {pid}" in told[0]
    assert told[-1].startswith(f"  {OWNER.name} was not made; an invalid index is left")
    refused, _ = refusing(gate, after=0)
    with pytest.raises(LeaseHeld):
        CreateIndex(refused).apply(action)
    assert gate.state(action)[0] is State.PARTLY


@pytest.mark.usefixtures("hasty")
def test_ctrl_c_cancels_it(gate: Gated, world: World) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    missing(world)
    with writing(world), pytest.raises(KeyboardInterrupt):
        world.database.alone(OWNER.concurrently, patience=30, watch=interrupt)
    at_work = "SELECT count(*) FROM pg_stat_progress_create_index"
    assert world.count(at_work) == 0


@pytest.mark.usefixtures("hasty")
def test_while_somebody_makes_one_nobody_begins_another(gate: Gated, world: World) -> None:
    action, said = missing(world), list[str | None]()

    def look() -> None:
        said.append(gate.in_use(action))
        if said[-1]:
            raise Busy("seen")

    with writing(world), pytest.raises(Busy, match="seen"):
        world.database.alone(OWNER.concurrently, patience=30, watch=look)
    assert str(said[-1]).startswith("another index is being made on its table: ")


@pytest.mark.usefixtures("hasty")
def test_one_that_is_hidden_from_this_role_is_known_by_its_lock(gate: Gated, world: World) -> None:
    world.sql.execute("CREATE ROLE meek LOGIN")
    url = urlsplit(world.env["DATABASE_URL"])
    meek = Postgres(url._replace(netloc=f"meek@{url.hostname}:{url.port}").geturl(), tag="tests")
    missing(world)
    seen: dict[str, Progress | None] = {}
    told: list[str | None] = []

    def look() -> None:
        with meek.snapshot() as snapshot:
            seen.update({name: read_progress(snapshot, name) for name in TABLES})
        with world.database.snapshot() as snapshot:
            told[:] = [each.index for each in read_building(snapshot)]
        if seen["sandboxes"] and told == [OWNER.name]:
            raise Busy("seen")

    with writing(world), pytest.raises(Busy, match="seen"):
        world.database.alone(OWNER.concurrently, patience=30, watch=look)
    world.sql.execute("DROP ROLE meek")
    assert {name: each and each.told for name, each in seen.items()} == {
        **dict.fromkeys(TABLES),
        "sandboxes": "hidden from this role",
    }


def test_an_index_of_that_name_that_is_another_is_left_alone(gate: Gated, world: World) -> None:
    action = missing(world)
    world.sql.execute("CREATE INDEX idx_sandboxes_owner ON sandboxes (owner, name)")
    assert gate.state(action)[0] is State.CHANGED
    with pytest.raises(ArrakisError, match="is not the index that was made"):
        gate.remedies["create index"].revert(action)
    world.sql.execute("DROP INDEX idx_sandboxes_owner; CREATE INDEX by_owner ON sandboxes (owner)")
    assert gate.state(action) == (State.AFTER, "it is there as by_owner, and valid")
    world.sql.execute("DROP INDEX by_owner")


@pytest.mark.parametrize(
    "changed",
    [
        {"before": {"name": "sandboxes_pkey", "table": "sandboxes", "leftover": False}},
        {"before": {"name": "another", "table": "sandboxes", "leftover": False}},
        {"after": {"definition": "CREATE INDEX idx_sandboxes_owner ON public.sandboxes (lower(owner))"}},
    ],
)
def test_a_plan_that_says_otherwise_is_refused(gate: Gated, changed: dict[str, dict[str, object]]) -> None:
    action = replace(create_index(OWNER, leftover=False, reason="x"), **changed)  # type: ignore[arg-type]
    for step in (gate.state, gate.remedies["create index"].apply, gate.remedies["create index"].revert):
        with pytest.raises(ArrakisError, match="is no index to be made here"):
            step(action)


def test_a_statement_that_runs_alone_is_not_bound_by_the_roles_own_patience(
    world: World, tmp_path: Path
) -> None:
    watched: list[int] = []
    world.sql.execute("ALTER ROLE lab SET statement_timeout = '50ms'")
    try:
        world.database.alone("SELECT pg_sleep(0.2)", patience=9, watch=lambda: watched.append(1))
        with pooled(world.env["DATABASE_URL"], tmp_path) as url:
            through = Postgres(url, tag="tests")
            with pytest.raises(
                Busy, match="statement timeout"
            ):  # PgBouncer takes no such option: the role's own stands
                through.alone("SELECT pg_sleep(0.2)", patience=9, watch=lambda: None)
    finally:
        world.sql.execute("ALTER ROLE lab RESET statement_timeout")
    assert watched


def test_an_index_is_made_through_pgbouncer(gate: Gated, world: World, tmp_path: Path) -> None:
    missing(world)
    with pooled(world.env["DATABASE_URL"], tmp_path) as url:
        Postgres(url, tag="tests").alone(OWNER.concurrently, patience=30, watch=lambda: None)
    assert states(world)[OWNER.name]


@pytest.mark.parametrize(
    ("progress", "told"),
    [
        (
            Progress(
                table="t", index=None, pid=1, phase="building index", done=37, total=100, waits_for=None
            ),
            "building index 30 %",
        ),
        (
            Progress(table="t", index=None, pid=1, phase="waiting for writers", done=0, total=0, waits_for=7),
            "waiting for writers, for session 7",
        ),
    ],
)
def test_progress_is_told_in_steps(progress: Progress, told: str) -> None:
    assert progress.told == told


# ---- analyzing


def test_a_table_is_analyzed_and_that_is_nothing_to_take_back(gate: Gated, world: World) -> None:
    action = analyze_table(table(world), reason="it is stale")
    world.sql.execute("UPDATE sandboxes SET owner = owner WHERE name < 'old-2'")
    assert gate.state(action)[0] is State.BEFORE
    assert gate.apply(action)[0] is State.AFTER
    assert table(world).modified == 0
    assert action.reversibility is Reversibility.NOTHING
    with pytest.raises(ArrakisError, match="nothing to take back"):
        gate.remedies["analyze table"].revert(action)


def test_a_role_that_may_not_is_told_so(gate: Gated, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "_SOON", 0.0)
    world.sql.execute("CREATE ROLE liet LOGIN")
    url = urlsplit(world.env["DATABASE_URL"])
    liet = Postgres(url._replace(netloc=f"liet@{url.hostname}:{url.port}").geturl(), tag="tests")
    fence: Callable[[SqlTransaction], None] = lambda _: None  # noqa: E731
    other = Gate(read=gate.read, write=replace(gate.write, sql=liet), fence=fence, tell=lambda _: None)
    action = analyze_table(table(world), reason="it is stale")
    with pytest.raises(ArrakisError, match="skips it for a role that may not"):
        AnalyzeTable(other).apply(action)
    with pytest.raises(ArrakisError, match="none of the control tables"):
        AnalyzeTable(other).apply(replace(action, before={**action.before, "name": "spice"}))
