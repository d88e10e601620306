"""Create and destroy on real servers: all of it or nothing, safe to repeat, harmless to neighbours."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
import redis

from lab import control
from sandbox import keyspace, lifecycle
from sandbox.adapters.postgres import Postgres
from sandbox.adapters.redis import Redis
from sandbox.errors import SandboxError
from sandbox.lifecycle import Request
from sandbox.naming import schema_for

NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)


@dataclass(frozen=True)
class World:
    """Connections of the test's own beside the library's."""

    database: Postgres
    keys: Redis
    sql: psycopg.Connection[tuple[object, ...]]
    redis: "redis.Redis"

    def one(self, query: str, *params: object) -> object:
        """Return the first value of a query."""
        row = self.sql.execute(query, params or None).fetchone()
        return row[0] if row else None

    def count(self, query: str, *params: object) -> int:
        """Return a count."""
        return int(str(self.one(query, *params)))

    def schema_exists(self, name: str) -> bool:
        """Whether a schema exists."""
        return self.count("SELECT count(*) FROM pg_namespace WHERE nspname = %s", name) == 1


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    lab = control.start(tmp_path_factory.mktemp("lab"), watch_parent=True)
    try:
        database = Postgres(lab.env["DATABASE_URL"], tag="tests")
        database.script("migrations/0001_control_tables")
        database.script("migrations/0001_control_tables")  # it must run where everything exists already
        with (
            psycopg.connect(lab.env["DATABASE_URL"], autocommit=True) as sql,
            redis.Redis.from_url(lab.env["REDIS_URL"]) as client,
        ):
            yield World(database, Redis(lab.env["REDIS_URL"]), sql, client)
    finally:
        control.stop(lab.home)


def request_for(name: str, *, owner: str | None = None, guilds: tuple[str, ...] = ()) -> Request:
    return Request(id=uuid4(), name=name, owner=owner or name, now=NOW, guilds=guilds)


def events(world: World, sandbox: UUID) -> list[str]:
    rows = world.sql.execute(
        "SELECT event_type FROM sandbox_audit_log WHERE sandbox_id = %s ORDER BY created_at", (sandbox,)
    )
    return [str(row[0]) for row in rows]


def test_what_is_created_is_whole(world: World) -> None:
    made = lifecycle.create(world.database, request_for("whole", guilds=("100", "101")))
    assert made.schema_name == schema_for(made.id)
    assert world.schema_exists(schema_for(made.id))
    assert world.one("SELECT status::text FROM sandboxes WHERE id = %s", made.id) == "running"
    assert world.count("SELECT count(*) FROM sandbox_guild_mapping WHERE sandbox_id = %s", made.id) == 2
    assert events(world, made.id) == ["sandbox_created"]


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (request_for("twin"), request_for("twin", owner="else"), "SANDBOX_001"),
        (
            request_for("guild-a", guilds=("200",)),
            request_for("guild-b", guilds=("201", "200")),
            "SANDBOX_003",
        ),
    ],
)
def test_a_refused_create_leaves_nothing(world: World, first: Request, second: Request, code: str) -> None:
    lifecycle.create(world.database, first)
    with pytest.raises(SandboxError, match=code):
        lifecycle.create(world.database, second)
    assert world.count("SELECT count(*) FROM sandboxes WHERE id = %s", second.id) == 0
    assert not world.schema_exists(schema_for(second.id))
    assert world.count("SELECT count(*) FROM sandbox_guild_mapping WHERE guild_id = '201'") == 0


def test_a_failed_schema_leaves_nothing(world: World) -> None:
    request = request_for("blocked")
    world.sql.execute(f'CREATE SCHEMA "{schema_for(request.id)}"'.encode())
    with pytest.raises(SandboxError, match="SANDBOX_005"):
        lifecycle.create(world.database, request)
    assert world.count("SELECT count(*) FROM sandboxes WHERE id = %s", request.id) == 0


def test_an_owner_has_five_and_no_more(world: World) -> None:
    for number in range(5):
        lifecycle.create(world.database, request_for(f"many-{number}", owner="duncan"))
    with pytest.raises(SandboxError, match="SANDBOX_002"):
        lifecycle.create(world.database, request_for("many-5", owner="duncan"))
    lifecycle.destroy(world.database, world.keys, "many-0", actor="duncan", now=NOW)
    lifecycle.create(world.database, request_for("many-5", owner="duncan"))


@pytest.mark.parametrize("ttl", [timedelta(minutes=59), timedelta(hours=169)])
def test_a_ttl_out_of_bounds_is_refused(world: World, ttl: timedelta) -> None:
    request = Request(id=uuid4(), name="ttl", owner="ttl", now=NOW, ttl=ttl)
    with pytest.raises(SandboxError, match="at least 1 h and at most 168 h"):
        lifecycle.create(world.database, request)


def test_destroying_takes_all_of_it_and_nothing_else(world: World) -> None:
    gone = lifecycle.create(world.database, request_for("gone", guilds=("300",)))
    stays = lifecycle.create(world.database, request_for("stays", guilds=("301",)))
    for row, guild in ((gone, "300"), (stays, "301")):
        world.redis.mset({f"sandbox:{row.id}:session:{n}": n for n in range(2500)})
        world.redis.set(f"sandbox:route:{guild}", str(row.id))
    lifecycle.destroy(world.database, world.keys, "gone", actor="chani", now=NOW)
    assert not world.schema_exists(schema_for(gone.id))
    assert world.schema_exists(schema_for(stays.id))
    families = keyspace.survey(world.keys).families
    assert str(gone.id) not in families
    assert families[str(stays.id)] == 2500
    assert world.redis.exists("sandbox:route:300") == 0
    assert world.redis.exists("sandbox:route:301") == 1
    assert events(world, gone.id) == ["sandbox_created", "sandbox_destroying", "sandbox_destroyed"]
    again = lifecycle.destroy(world.database, world.keys, "gone", actor="chani", now=NOW)
    assert again.id == gone.id
    assert events(world, gone.id) == ["sandbox_created", "sandbox_destroying", "sandbox_destroyed"]


def test_a_sandbox_as_deployed_is_destroyed_with_the_schema_that_really_exists(world: World) -> None:
    made = lifecycle.create(world.database, request_for("deployed"))
    world.sql.execute(
        "UPDATE sandboxes SET schema_name = %s WHERE id = %s", (f"sandbox_{made.hex[:8]}", made.id)
    )
    lifecycle.destroy(world.database, world.keys, "deployed", actor="chani", now=NOW)
    assert not world.schema_exists(schema_for(made.id))


def test_a_name_held_by_a_destroyed_row_says_so(world: World) -> None:
    lifecycle.create(world.database, request_for("held"))
    lifecycle.destroy(world.database, world.keys, "held", actor="held", now=NOW)
    with pytest.raises(SandboxError, match="a destroyed sandbox still holds this name"):
        lifecycle.create(world.database, request_for("held"))


def test_destroying_what_does_not_exist_says_so(world: World) -> None:
    with pytest.raises(SandboxError, match="SANDBOX_004"):
        lifecycle.destroy(world.database, world.keys, "nobody", actor="chani", now=NOW)
