"""What takes the database's room, as a real server has it."""

import struct
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import pq

from diagnostics.postgres import Quota, connections
from diagnostics.storage import (
    Holder,
    read_catalog,
    read_dead_rows,
    read_holders,
    read_sizes,
    read_slots,
    read_wal,
)
from sandbox.adapters.postgres import Postgres
from sandbox.errors import Denied
from tests.integration.world import World
from tests.waiting import eventually

BIG, SMALL = "sandbox_3f2b8c1e", "sandbox_83963dd9"


@pytest.fixture(scope="module", autouse=True)
def _schemas(world: World) -> Iterator[None]:
    world.sql.execute(
        f"CREATE SCHEMA {BIG}; CREATE TABLE {BIG}.kept AS SELECT n, repeat('x', 500) AS x FROM generate_series(1, 4000) AS n;"
        f"CREATE INDEX ON {BIG}.kept (n); CREATE SCHEMA {SMALL}; CREATE TABLE {SMALL}.kept (id int);"
        "CREATE SCHEMA sandboxes_of_others; CREATE TABLE sandboxes_of_others.kept AS SELECT * FROM generate_series(1, 9999)"
    )
    yield
    world.wipe()
    world.sql.execute("DROP SCHEMA IF EXISTS sandboxes_of_others CASCADE")


def test_the_largest_schemas_are_measured_with_their_indexes(world: World) -> None:
    with world.database.snapshot() as snapshot:
        sizes = {size.name: size.bytes for size in read_sizes(snapshot)}
    assert list(sizes) == [BIG, SMALL]
    assert sizes[BIG] == world.count(f"SELECT pg_total_relation_size('{BIG}.kept')") > 2_000_000
    assert sizes[SMALL] == 0


def test_a_table_that_somebody_is_dropping_is_not_waited_for(world: World) -> None:
    with psycopg.connect(world.env["DATABASE_URL"]) as other, world.database.snapshot() as snapshot:
        other.execute(f"LOCK {BIG}.kept")
        assert [size.name for size in read_sizes(snapshot)] == [SMALL]


def test_how_many_relations_the_sandboxes_have(world: World) -> None:
    with world.database.snapshot() as snapshot:
        seen = read_catalog(snapshot)
    assert (seen.schemas, seen.in_sandboxes) == (2, 3)
    assert seen.relations == world.count("SELECT count(*) FROM pg_class")
    assert seen.bytes > 0


def test_dead_rows_are_those_of_sandboxes_and_control_tables(world: World) -> None:
    for table in (f"{SMALL}.kept", "sandboxes_of_others.kept"):
        world.sql.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)".encode())
        world.sql.execute(f"INSERT INTO {table} SELECT * FROM generate_series(1, 50)".encode())
        world.sql.execute(f"DELETE FROM {table}".encode())
    world.sql.execute("SELECT pg_stat_force_next_flush()")

    def dead() -> list[tuple[str, int, bool]]:
        with world.database.snapshot() as snapshot:
            return [(each.name, each.dead, each.vacuumed_at is None) for each in read_dead_rows(snapshot)]

    eventually(lambda: dead() == [(f"{SMALL}.kept", 50, True)])


def test_the_write_ahead_log_is_for_monitors_to_see(world: World) -> None:
    with world.database.snapshot() as snapshot:
        seen = read_wal(snapshot)
    assert seen.bytes >= seen.files * 2**20 > 0
    world.sql.execute("CREATE ROLE stranger LOGIN")
    with stranger(world).snapshot() as snapshot, pytest.raises(Denied, match="pg_ls_waldir"):
        read_wal(snapshot)
    with stranger(world).snapshot() as snapshot:
        assert read_sizes(snapshot)[0].name == BIG


def stranger(world: World) -> Postgres:
    """Return the database as a role sees it that was granted nothing."""
    url = urlsplit(world.env["DATABASE_URL"])
    return Postgres(url._replace(netloc=f"stranger@{url.hostname}:{url.port}").geturl(), tag="tests")


def test_a_slot_that_nobody_reads_holds_the_log_back(world: World) -> None:
    world.sql.execute("SELECT pg_create_physical_replication_slot('left_behind', true)")
    world.sql.execute(f"INSERT INTO {SMALL}.kept SELECT * FROM generate_series(1, 5000)".encode())
    with world.database.snapshot() as snapshot:
        [slot] = read_slots(snapshot)
    world.sql.execute("SELECT pg_drop_replication_slot('left_behind')")
    assert (slot.name, slot.kind, slot.active) == ("left_behind", "physical", False)
    assert slot.retained
    assert slot.retained > 100_000


def test_who_keeps_vacuum_from_its_work(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diagnostics.storage._OLD", 3)

    def holders() -> list[Holder]:
        with world.database.snapshot() as snapshot:
            return [each for each in read_holders(snapshot) if each.kind == "session"]

    elsewhere = urlsplit(world.env["DATABASE_URL"])._replace(path="/postgres").geturl()
    with (
        psycopg.connect(elsewhere) as far,
        psycopg.connect(world.env["DATABASE_URL"]) as other,
    ):
        far.execute("SELECT pg_current_xact_id()")  # another database's holds back nothing of this one's
        other.execute("SELECT pg_current_xact_id()")
        assert holders() == []
        for number in range(4):
            world.sql.execute(f"INSERT INTO {SMALL}.kept VALUES ({number})".encode())
        [holder] = holders()
        assert holder.name == str(other.info.backend_pid)
        assert holder.age >= 4
        assert holder.since


def test_a_standby_holds_vacuum_back_by_its_feedback(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diagnostics.storage._OLD", 3)
    xmin = world.count("SELECT pg_current_xact_id()::text::bigint")
    for number in range(4):
        world.sql.execute(f"INSERT INTO {SMALL}.kept VALUES ({number})".encode())
    url = urlsplit(world.env["DATABASE_URL"])._replace(query="replication=true&application_name=replica")
    standby = pq.PGconn.connect(url.geturl().encode())
    place = standby.exec_(b"IDENTIFY_SYSTEM").get_value(0, 2) or b""
    standby.exec_(b"START_REPLICATION PHYSICAL " + place)
    standby.put_copy_data(b"h" + struct.pack("!QIIII", 0, xmin, 0, 0, 0))
    standby.flush()

    def seen() -> list[tuple[str, str]]:
        with world.database.snapshot() as snapshot:
            return [(each.kind, each.name) for each in read_holders(snapshot)]

    eventually(lambda: seen() == [("standby", "replica")])
    standby.finish()
    eventually(lambda: seen() == [])


def test_what_is_hidden_from_a_role_is_not_taken_for_nothing(world: World) -> None:
    world.sql.execute("CREATE ROLE hermit LOGIN; CREATE ROLE other LOGIN")
    url = urlsplit(world.env["DATABASE_URL"])
    hermit, other = (url._replace(netloc=f"{name}@{url.hostname}:{url.port}") for name in ("hermit", "other"))
    seen = Postgres(hermit.geturl(), tag="tests")
    with (
        psycopg.connect(other.geturl()),
        seen.snapshot() as snapshot,
        pytest.raises(Denied, match="what 1 session holds back is hidden"),
    ):
        read_holders(snapshot)
    world.sql.execute("GRANT pg_read_all_stats TO hermit")
    with psycopg.connect(other.geturl()), seen.snapshot() as snapshot:
        assert read_holders(snapshot) == ()
    world.sql.execute("DROP ROLE hermit, other")


def test_a_schema_that_is_dropped_while_it_is_measured_takes_no_room(world: World) -> None:
    world.sql.execute("CREATE SCHEMA sandbox_00000000; CREATE TABLE sandbox_00000000.kept AS SELECT 1 AS id")
    with world.database.snapshot() as snapshot:
        read_catalog(snapshot)
        world.sql.execute("DROP SCHEMA sandbox_00000000 CASCADE")
        assert [size.name for size in read_sizes(snapshot)] == [BIG, SMALL]


def test_what_one_role_and_the_database_may_have_is_counted(world: World) -> None:
    with world.database.snapshot() as snapshot:
        assert connections(snapshot).quotas == ()
    world.sql.execute("CREATE ROLE few LOGIN CONNECTION LIMIT 2; ALTER DATABASE arrakis CONNECTION LIMIT 50")
    url = urlsplit(world.env["DATABASE_URL"])
    mine = url._replace(netloc=f"few@{url.hostname}:{url.port}")
    with (
        psycopg.connect(mine._replace(path="/postgres").geturl()),
        psycopg.connect(mine.geturl()),
        world.database.snapshot() as snapshot,
    ):
        [here, role] = connections(snapshot).quotas
    world.sql.execute("ALTER DATABASE arrakis CONNECTION LIMIT -1; DROP ROLE few")
    assert role == Quota(kind="role", name="few", most=2, used=2)
    assert role.full
    assert (here.kind, here.name, here.most, here.full) == ("database", "arrakis", 50, False)
    assert here.used >= 2
