"""Every change of a sandbox on real servers: all of it or nothing, safe to repeat, harmless to neighbours."""

import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from threading import Thread, Timer
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import psycopg
import pytest

from lab.processes import free_ports
from sandbox import keyspace, lifecycle, removal, routes
from sandbox.adapters.postgres import Postgres
from sandbox.adapters.redis import Redis
from sandbox.errors import ArrakisError, Blocked, SandboxError
from sandbox.lifecycle import Request
from sandbox.model import TRANSITIONS, Status
from sandbox.naming import schema_for
from tests.integration.world import NOW, World, request_for
from tests.waiting import eventually

HOUR = timedelta(hours=1)


def test_what_is_created_is_whole(world: World) -> None:
    made = lifecycle.create(world.database, world.keys, request_for("whole", guilds=("101", "100"))).sandbox
    assert made.schema_name == schema_for(made.id)
    assert schema_for(made.id) in world.schemas()
    assert world.status(made.id) == "running"
    assert {guild for guild, sandbox in world.mapped().items() if sandbox == made.id} == {"100", "101"}
    assert world.events(made.id) == ["sandbox_created", "guild_registered", "guild_registered"]
    kind = "SELECT jsonb_typeof(metadata) || metadata::text FROM sandboxes WHERE id = %s"
    assert world.one(kind, made.id) == 'object{"ttlHours": 24, "createdBy": "whole", "createdFrom": "cli"}'


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (request_for("twin"), request_for("twin", owner="else"), "SANDBOX_001"),
        (
            request_for("guild-a", guilds=("200",)),
            request_for("guild-b", guilds=("201", "200")),
            "SANDBOX_003: guild 200 is mapped to guild-a of guild-a",
        ),
    ],
)
def test_a_refused_create_leaves_nothing(world: World, first: Request, second: Request, code: str) -> None:
    lifecycle.create(world.database, world.keys, first)
    with pytest.raises(SandboxError, match=code):
        lifecycle.create(world.database, world.keys, second)
    assert world.count("SELECT count(*) FROM sandboxes WHERE id = %s", second.id) == 0
    assert schema_for(second.id) not in world.schemas()
    assert "201" not in world.mapped()


def test_a_failed_schema_leaves_nothing(world: World) -> None:
    request = request_for("blocked")
    world.sql.execute(f'CREATE SCHEMA "{schema_for(request.id)}"'.encode())
    with pytest.raises(SandboxError, match="SANDBOX_005"):
        lifecycle.create(world.database, world.keys, request)
    assert world.count("SELECT count(*) FROM sandboxes WHERE id = %s", request.id) == 0


def test_an_owner_has_five_and_no_more(world: World) -> None:
    for number in range(5):
        lifecycle.create(world.database, world.keys, request_for(f"many-{number}", owner="duncan"))
    with pytest.raises(SandboxError, match="SANDBOX_002"):
        lifecycle.create(world.database, world.keys, request_for("many-5", owner="duncan"))
    removal.destroy(world.database, world.keys, "many-0", actor="duncan", now=NOW)
    lifecycle.create(world.database, world.keys, request_for("many-5", owner="duncan"))


@pytest.mark.parametrize("ttl", [timedelta(minutes=59), timedelta(hours=169)])
def test_a_ttl_out_of_bounds_is_refused(world: World, ttl: timedelta) -> None:
    request = Request(id=uuid4(), name="ttl", owner="ttl", now=NOW, ttl=ttl)
    with pytest.raises(SandboxError, match="at least 1 h and at most 168 h"):
        lifecycle.create(world.database, world.keys, request)


def test_destroying_takes_all_of_it_and_nothing_else(world: World) -> None:
    gone, stays = world.make("gone", guilds=("300",)), world.make("stays", guilds=("301",))
    spellings = (str(gone.id), gone.hex[:8], gone.hex, str(gone.id).upper())
    world.redis.mset({f"sandbox:{token}:session:x{n}": n for n in range(2500) for token in spellings})
    done = removal.destroy(world.database, world.keys, "gone", actor="chani", now=NOW)
    assert (done.schemas, done.guilds, done.keys) == ([schema_for(gone.id)], ("300",), 10_005)
    assert done.unsettled is None
    assert schema_for(gone.id) not in world.schemas()
    assert schema_for(stays.id) in world.schemas()
    families = keyspace.survey(world.keys).families
    assert not set(families) & set(spellings)
    assert families[str(stays.id)] == 5
    assert world.redis.exists("sandbox:route:300") == 0
    assert world.redis.exists("sandbox:route:301") == 1
    assert "300" not in world.mapped()
    events = ["sandbox_created", "guild_registered", "sandbox_destroying", "sandbox_destroyed"]
    assert world.events(gone.id) == events
    again = removal.destroy(world.database, world.keys, "gone", actor="chani", now=NOW)
    assert (again.sandbox.id, again.schemas, again.keys) == (gone.id, [], 0)
    assert world.events(gone.id) == events


@pytest.mark.parametrize("spelling", [str, lambda i: i.hex, lambda i: i.hex[:8], lambda i: i.hex[:12]])
def test_a_schema_is_dropped_under_any_naming(world: World, spelling: Callable[[UUID], str]) -> None:
    made = world.write_row(f"as-{spelling(uuid4())[:20].strip('-')}", "running")
    world.sql.execute("SELECT create_sandbox_schema(%s)", (spelling(made),))
    name = str(world.one("SELECT name FROM sandboxes WHERE id = %s", made))
    done = removal.destroy(world.database, world.keys, name, actor="chani", now=NOW)
    assert done.schemas == [f"sandbox_{spelling(made)}"]
    assert world.status(made) == "destroyed"


def test_a_schema_that_another_sandbox_could_own_is_left_alone(world: World) -> None:
    one = world.write_row("twin-one", "running")
    other = UUID(one.hex[:8] + uuid4().hex[8:])
    world.sql.execute(
        "INSERT INTO sandboxes (id, name, owner, status, schema_name, expires_at)"
        " VALUES (%s, 'twin-other', 'liet', 'running', 'elsewhere', now() + interval '1 hour')",
        (other,),
    )
    world.sql.execute("SELECT create_sandbox_schema(%s)", (one.hex[:8],))
    world.redis.set(f"sandbox:{one.hex[:8]}:x", 1)
    done = removal.destroy(world.database, world.keys, "twin-one", actor="chani", now=NOW)
    assert (done.schemas, done.keys) == ([], 0)
    assert f"sandbox_{one.hex[:8]}" in world.schemas()
    assert world.redis.exists(f"sandbox:{one.hex[:8]}:x") == 1


@pytest.mark.parametrize("name", ["public", "production", "sandboxes", "runbooks"])
def test_a_row_that_names_a_schema_of_productions_does_not_take_it_along(world: World, name: str) -> None:
    world.sql.execute(f'CREATE SCHEMA IF NOT EXISTS "{name}"'.encode())
    made = world.write_row(f"grasping-{name}", "running")
    world.sql.execute("UPDATE sandboxes SET schema_name = %s WHERE id = %s", (name, made))
    done = removal.destroy(world.database, world.keys, f"grasping-{name}", actor="chani", now=NOW)
    assert done.schemas == []
    assert world.one("SELECT to_regnamespace(%s) IS NOT NULL", f'"{name}"') is True
    assert world.status(made) == "destroyed"


@pytest.mark.parametrize("status", ["pending", "creating", "expired", "destroying"])
def test_every_status_can_be_destroyed_by_allowed_changes(world: World, status: str) -> None:
    made = world.write_row(f"from-{status}", status)
    world.sql.execute("UPDATE sandboxes SET schema_name = %s WHERE id = %s", (f"pending_{made}", made))
    removal.destroy(world.database, world.keys, f"from-{status}", actor="chani", now=NOW)
    assert world.status(made) == "destroyed"
    changes = world.sql.execute(
        "SELECT details->>'from', details->>'to' FROM sandbox_audit_log WHERE sandbox_id = %s AND details ? 'to'"
        " ORDER BY created_at",
        (made,),
    ).fetchall()
    assert changes[-1] == ("destroying", "destroyed")
    assert all(Status(str(new)) in TRANSITIONS[Status(str(old))] for old, new in changes)


def test_what_depends_on_a_schema_keeps_all_of_it(world: World) -> None:
    made = world.make("watched", guilds=("320",))
    world.sql.execute(
        f'CREATE VIEW public.watching AS SELECT id FROM "{schema_for(made.id)}".profiles'.encode()
    )
    before = world.key_names()
    with pytest.raises(Blocked, match="SANDBOX_006: dropping sandbox_"):
        removal.destroy(world.database, world.keys, "watched", actor="chani", now=NOW)
    assert schema_for(made.id) in world.schemas()
    assert world.status(made.id) == "running"
    assert world.key_names() == before
    assert world.events(made.id) == ["sandbox_created", "guild_registered"]
    world.sql.execute("DROP VIEW public.watching")
    removal.destroy(world.database, world.keys, "watched", actor="chani", now=NOW)
    assert world.status(made.id) == "destroyed"


def test_what_is_about_to_depend_on_a_schema_is_not_taken_along(world: World) -> None:
    made = world.make("raced")
    world.sql.execute(f'CREATE VIEW "{schema_for(made.id)}".sv AS SELECT 1 AS id'.encode())
    with psycopg.connect(world.env["DATABASE_URL"]) as rival:
        rival.execute(f'CREATE VIEW public.raced AS SELECT * FROM "{schema_for(made.id)}".sv'.encode())
        with pytest.raises(SandboxError, match="SANDBOX_006: raced: PostgreSQL could not take the lock"):
            removal.destroy(world.database, world.keys, "raced", actor="chani", now=NOW)
        rival.commit()
    with pytest.raises(Blocked, match="would take along view raced"):
        removal.destroy(world.database, world.keys, "raced", actor="chani", now=NOW)
    assert world.one("SELECT to_regclass('public.raced') IS NOT NULL") is True
    world.sql.execute("DROP VIEW public.raced")
    removal.destroy(world.database, world.keys, "raced", actor="chani", now=NOW)
    assert world.status(made.id) == "destroyed"


def test_what_is_committed_just_before_the_drop_is_not_taken_along(world: World) -> None:
    made = world.make("late-view")

    class Late(Postgres):
        """A database where somebody makes a view after the first question, and is done at once."""

        def transaction(self) -> Any:
            if world.status(made.id) == "destroying":
                view = (
                    f'CREATE OR REPLACE VIEW public.late AS SELECT id FROM "{schema_for(made.id)}".profiles'
                )
                world.sql.execute(view.encode())
            return super().transaction()

    late = Late(world.env["DATABASE_URL"], tag="tests")
    with pytest.raises(
        SandboxError, match=r"SANDBOX_006: late-view: dropping .* take along view late"
    ) as told:
        removal.destroy(late, world.keys, "late-view", actor="chani", now=NOW)
    assert not isinstance(told.value, Blocked)  # part of it is done: its keys are gone
    assert world.one("SELECT to_regclass('public.late') IS NOT NULL") is True
    world.sql.execute("DROP VIEW public.late")


def test_a_sandbox_under_load_can_be_destroyed(world: World) -> None:
    made = world.make("busy")
    query = (
        f'SELECT pg_sleep(0.02) FROM (SELECT count(*) FROM "{schema_for(made.id)}".profiles) AS x'.encode()
    )
    asked: list[int] = [0] * 4

    def ask(number: int) -> None:
        with psycopg.connect(world.env["DATABASE_URL"], autocommit=True) as client, suppress(psycopg.Error):
            while True:
                client.execute(query)
                asked[number] += 1

    clients = [Thread(target=ask, args=(number,)) for number in range(4)]
    for client in clients:
        client.start()
    eventually(lambda: all(asked))
    assert removal.destroy(world.database, world.keys, "busy", actor="chani", now=NOW).schemas
    for client in clients:
        client.join()
    assert world.status(made.id) == "destroyed"


def test_a_plain_role_takes_away_what_another_role_made_in_its_schema(world: World) -> None:
    world.sql.execute("CREATE ROLE svc LOGIN; CREATE ROLE dev LOGIN; GRANT CREATE ON DATABASE arrakis TO svc")
    world.sql.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO svc")
    address = urlsplit(world.env["DATABASE_URL"])
    plain = Postgres(f"postgresql://svc@{address.hostname}:{address.port}{address.path}", tag="tests")
    made = lifecycle.create(plain, world.keys, request_for("shared-box")).sandbox
    schema = f'"{schema_for(made.id)}"'
    world.sql.execute(
        f"GRANT ALL ON SCHEMA {schema} TO dev; SET ROLE dev; CREATE TABLE {schema}.mine (); RESET ROLE".encode()
    )
    assert removal.destroy(plain, world.keys, "shared-box", actor="svc", now=NOW).schemas
    assert schema_for(made.id) not in world.schemas()


def test_a_creation_that_python_cannot_hold_is_long_ago(world: World) -> None:
    made = world.make("ancient")
    world.sql.execute("UPDATE sandboxes SET created_at = '-infinity' WHERE id = %s", (made.id,))
    with pytest.raises(SandboxError, match="SANDBOX_002: ancient cannot be extended"):
        lifecycle.extend(world.database, world.keys, "ancient", HOUR, actor="chani", now=NOW)
    with pytest.raises(SandboxError, match="SANDBOX_001"):
        lifecycle.create(world.database, world.keys, request_for("ancient"))


def test_a_session_in_another_time_zone_does_not_move_the_limit(world: World) -> None:
    made = world.make("zoned")
    created = datetime(2026, 10, 24, 12, tzinfo=UTC)  # the night after, Berlin's clocks go back
    world.sql.execute(
        "UPDATE sandboxes SET created_at = %s, expires_at = %s WHERE id = %s",
        (created, created + 24 * HOUR, made.id),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGTZ", "Europe/Berlin")
        row = lifecycle.extend(
            world.database, world.keys, "zoned", 200 * HOUR, actor="c", now=created
        ).sandbox
    assert row.expires_at == created + 168 * HOUR
    ends = (
        "SELECT details->>'to' FROM sandbox_audit_log WHERE sandbox_id = %s AND event_type = 'ttl_extended'"
    )
    assert world.one(ends, made.id) == "2026-10-31T12:00:00+00:00"


def test_a_schema_in_another_case_belongs_to_the_row_that_names_it(world: World) -> None:
    other, live = uuid4(), world.write_row("case-live", "running")
    head = other.hex[:8]
    world.sql.execute(
        "UPDATE sandboxes SET schema_name = %s WHERE id = %s", (f"sandbox_{head.upper()}", live)
    )
    world.sql.execute(
        "INSERT INTO sandboxes (id, name, owner, status, schema_name, expires_at)"
        " VALUES (%s, 'case-other', 'liet', 'running', 'elsewhere-case', now())",
        (other,),
    )
    world.sql.execute("SELECT create_sandbox_schema(%s)", (head,))
    done = removal.destroy(world.database, world.keys, "case-other", actor="chani", now=NOW)
    assert done.schemas == []
    assert f"sandbox_{head}" in world.schemas()


@pytest.mark.soak
def test_without_redis_a_sandbox_goes_and_its_keys_are_left(world: World) -> None:
    made = world.make("keyless", guilds=("310",))
    dead = Redis("redis://127.0.0.1:1/0", timeout=1)
    done = removal.destroy(world.database, dead, "keyless", actor="chani", now=NOW)
    assert "Redis" in str(done.unsettled)
    assert world.status(made.id) == "destroyed"
    assert world.redis.exists("sandbox:route:310", f"sandbox:{made.id}:session:1") == 2
    again = removal.destroy(world.database, world.keys, "keyless", actor="chani", now=NOW)
    assert again.keys == 5
    assert world.redis.exists(f"sandbox:{made.id}:session:1") == 0


def test_a_name_held_by_a_destroyed_row_says_so(world: World) -> None:
    world.make("held")
    removal.destroy(world.database, world.keys, "held", actor="held", now=NOW)
    with pytest.raises(SandboxError, match="SANDBOX_001: held: a destroyed sandbox still holds this name"):
        lifecycle.create(world.database, world.keys, request_for("held"))


def test_a_guild_is_registered_once_and_its_route_forgotten(world: World) -> None:
    made = world.make("reg")
    world.redis.set("sandbox:route:400", routes.NOWHERE)
    first = lifecycle.register_guild(world.database, world.keys, "reg", "400", actor="chani")
    again = lifecycle.register_guild(world.database, world.keys, "reg", "400", actor="chani")
    assert (first.changed, again.changed) == (True, False)
    assert world.redis.exists("sandbox:route:400") == 0
    assert world.events(made.id) == ["sandbox_created", "guild_registered"]
    world.make("reg-other")
    for change in (lifecycle.register_guild, lifecycle.unregister_guild):
        with pytest.raises(SandboxError, match="SANDBOX_003: guild 400 is mapped to reg of reg"):
            change(world.database, world.keys, "reg-other", "400", actor="chani")
    world.redis.set("sandbox:route:400", str(made.id))
    ended = lifecycle.unregister_guild(world.database, world.keys, "reg", "400", actor="chani")
    assert ended.changed
    assert world.redis.exists("sandbox:route:400") == 0
    assert not lifecycle.unregister_guild(world.database, world.keys, "reg", "400", actor="chani").changed


def test_a_mapping_that_a_destroyed_sandbox_left_behind_is_taken_over(world: World) -> None:
    left = world.write_row("left-behind", "destroyed")
    world.sql.execute("INSERT INTO sandbox_guild_mapping VALUES ('410', %s)", (left,))
    made = world.make("heir")
    assert lifecycle.register_guild(world.database, world.keys, "heir", "410", actor="chani").changed
    assert world.mapped()["410"] == made.id


@pytest.mark.parametrize("status", ["pending", "creating", "expired", "destroying", "destroyed"])
def test_only_a_running_sandbox_takes_a_guild(world: World, status: str) -> None:
    world.write_row(f"no-guild-{status}", status)
    with pytest.raises(SandboxError, match="SANDBOX_007"):
        lifecycle.register_guild(world.database, world.keys, f"no-guild-{status}", "420", actor="chani")
    assert "420" not in world.mapped()


@pytest.mark.soak
def test_without_redis_a_registration_stands_and_says_what_is_unsettled(world: World) -> None:
    made = world.make("settled")
    dead = Redis("redis://127.0.0.1:1/0", timeout=1)
    change = lifecycle.register_guild(world.database, dead, "settled", "430", actor="chani")
    assert "Redis" in str(change.unsettled)
    assert world.mapped()["430"] == made.id


def test_a_redis_that_is_away_for_a_moment_is_waited_for(world: World) -> None:
    made = world.make("patient")
    world.redis.set("sandbox:route:431", routes.NOWHERE)
    [port] = free_ports(1)
    with ExitStack() as ends:
        back = Timer(0.3, forward, args=(port, urlsplit(world.env["REDIS_URL"]).port, ends))
        back.start()
        away = Redis(f"redis://127.0.0.1:{port}/0")
        change = lifecycle.register_guild(world.database, away, "patient", "431", actor="chani")
        back.join()
    assert change.unsettled is None
    assert routes.look_up(world.database, world.keys, "431").sandbox == made.id


def forward(port: int, to: int, ends: ExitStack) -> None:
    """Take one connection on a port and hand it on, until what was entered into `ends` is closed."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        here, _ = listener.accept()
    there = socket.create_connection(("127.0.0.1", to))
    for one, other in ((here, there), (there, here)):
        pump = Thread(target=_pump, args=(one, other))
        pump.start()
        ends.callback(pump.join)
    for end in (here, there):
        ends.enter_context(end)
        ends.callback(end.shutdown, socket.SHUT_RDWR)


def _pump(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)


def test_extending_adds_up_to_the_limit_and_no_further(world: World) -> None:
    made = world.make("long")
    longer = lifecycle.extend(world.database, world.keys, "long", 48 * HOUR, actor="chani", now=NOW)
    assert longer.sandbox.expires_at == NOW + 72 * HOUR
    capped = lifecycle.extend(world.database, world.keys, "long", 168 * HOUR, actor="chani", now=NOW)
    assert capped.sandbox.expires_at == NOW + 168 * HOUR
    assert world.one("SELECT expires_at FROM sandboxes WHERE id = %s", made.id) == NOW + 168 * HOUR
    with pytest.raises(SandboxError, match="SANDBOX_002"):
        lifecycle.extend(world.database, world.keys, "long", HOUR, actor="chani", now=NOW)
    assert world.events(made.id)[1:] == ["ttl_extended", "ttl_extended"]


def test_an_expired_sandbox_runs_again_and_its_guilds_with_it(world: World) -> None:
    made = world.make("again", guilds=("440",))
    ended = lifecycle.expire(world.database, world.keys, "again", actor="chani", now=NOW)
    assert ended.sandbox.status is Status.EXPIRED
    assert world.redis.exists("sandbox:route:440") == 0
    assert routes.look_up(world.database, world.keys, "440").sandbox is None
    late = NOW + 30 * HOUR
    back = lifecycle.extend(world.database, world.keys, "again", 2 * HOUR, actor="chani", now=late)
    assert back.sandbox.expires_at == late + 2 * HOUR
    assert world.status(made.id) == "running"
    assert routes.look_up(world.database, world.keys, "440").sandbox == made.id
    assert world.events(made.id)[2:] == ["status_changed", "status_changed", "ttl_extended"]


@pytest.mark.parametrize("status", ["pending", "creating", "destroying", "destroyed"])
def test_an_illegal_change_changes_nothing(world: World, status: str) -> None:
    made = world.write_row(f"illegal-{status}", status)
    before = world.one("SELECT sandboxes::text FROM sandboxes WHERE id = %s", made)
    with pytest.raises(SandboxError, match="SANDBOX_007"):
        lifecycle.extend(world.database, world.keys, f"illegal-{status}", HOUR, actor="chani", now=NOW)
    with pytest.raises(SandboxError, match="SANDBOX_007"):
        lifecycle.expire(world.database, world.keys, f"illegal-{status}", actor="chani", now=NOW)
    assert world.one("SELECT sandboxes::text FROM sandboxes WHERE id = %s", made) == before
    assert world.events(made) == []


def test_a_look_up_is_the_event_routers(world: World) -> None:
    made = world.make("routed", guilds=("450",))
    world.redis.delete("sandbox:route:450")
    first, second = (routes.look_up(world.database, world.keys, "450") for _ in range(2))
    assert (first.sandbox, first.from_cache) == (made.id, False)
    assert (second.sandbox, second.from_cache) == (made.id, True)
    assert 0 < int(world.redis.pttl("sandbox:route:450")) <= 60_000
    assert routes.look_up(world.database, world.keys, "451").sandbox is None
    assert world.redis.get("sandbox:route:451") == b"__NULL__"
    assert routes.look_up(world.database, world.keys, "451").from_cache
    world.redis.set("sandbox:route:450", "nonsense")
    assert routes.look_up(world.database, world.keys, "450").sandbox == made.id
    dead = Redis("redis://127.0.0.1:1/0", timeout=1)
    assert routes.look_up(world.database, dead, "450").sandbox == made.id


NOTHING: Any = None  # whoever touched it would raise something else


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda: lifecycle.create(NOTHING, NOTHING, request_for("Bad Name")), "no name for"),
        (lambda: lifecycle.create(NOTHING, NOTHING, request_for("x", guilds=("1e3",))), "no guild id"),
        (lambda: lifecycle.register_guild(NOTHING, NOTHING, "x", "12a", actor="c"), "no guild id"),
        (lambda: lifecycle.unregister_guild(NOTHING, NOTHING, "x", "", actor="c"), "no guild id"),
        (
            lambda: lifecycle.extend(NOTHING, NOTHING, "a\nb", HOUR, actor="c", now=NOW),
            "can be no sandbox's name",
        ),
        (lambda: lifecycle.expire(NOTHING, NOTHING, "", actor="c", now=NOW), "can be no sandbox's name"),
        (
            lambda: removal.destroy(NOTHING, NOTHING, "x" * 65, actor="c", now=NOW),
            "can be no sandbox's name",
        ),
    ],
)
def test_bad_input_is_refused_before_anything_is_touched(change: Callable[[], object], why: str) -> None:
    with pytest.raises(ArrakisError, match=why):
        change()


def test_destroying_what_does_not_exist_says_so(world: World) -> None:
    with pytest.raises(SandboxError, match="SANDBOX_004"):
        removal.destroy(world.database, world.keys, "nobody", actor="chani", now=NOW)
