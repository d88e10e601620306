"""The clean-up job on real servers: what is due goes, what is not stays, one failure or a dead Redis stops nothing."""

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from sandbox import cleanup, lifecycle, routes
from sandbox.adapters.nats import Nats
from sandbox.adapters.postgres import Postgres
from sandbox.adapters.redis import Redis
from sandbox.cleanup import Report
from sandbox.errors import ArrakisError, Unreachable
from sandbox.joblog import logger
from sandbox.model import Sandbox
from tests.integration.world import NOW, World

DEAD = Redis("redis://127.0.0.1:1/0", timeout=1)
LATER = NOW + timedelta(hours=30)


@pytest.fixture(autouse=True)
def _empty(world: World) -> Iterator[None]:
    yield
    world.wipe()


def job(world: World, **changed: Any) -> tuple[cleanup.Job, io.StringIO]:
    said = io.StringIO()
    parts: dict[str, Any] = {
        "database": world.database,
        "keys": world.keys,
        "messaging": Nats(world.env["NATS_URL"]),
        "clock": lambda: LATER,
        "log": logger("CleanupProvider", level="debug", stream=said),
        "tag": "tests",
    }
    return cleanup.Job(**(parts | changed)), said


def run(world: World, *, orphaned: bool = False, **changed: Any) -> Report:
    return job(world, **changed)[0].run(orphaned=orphaned)


def family(world: World, sandbox: UUID) -> set[str]:
    return {key for key in world.key_names() if key.startswith(f"sandbox:{sandbox}")}


def test_what_is_over_goes_and_what_is_not_stays(world: World) -> None:
    over, marked, stays = (
        world.make("over", guilds=("1",)),
        world.make("marked"),
        world.make("stays", guilds=("2",)),
    )
    lifecycle.expire(world.database, world.keys, "marked", actor="chani", now=NOW)
    lifecycle.extend(world.database, world.keys, "stays", timedelta(hours=48), actor="chani", now=NOW)
    report = run(world)
    assert report == Report(cleaned=2)
    assert [world.status(each.id) for each in (over, marked, stays)] == ["destroyed", "destroyed", "running"]
    assert world.schemas() == {f"sandbox_{stays.id}"}
    assert world.key_names() == family(world, stays.id) | {"sandbox:route:2"}
    assert world.mapped() == {"2": stays.id}
    assert world.events(over.id)[2:] == ["status_changed", "sandbox_destroying", "sandbox_destroyed"]
    assert run(world) == Report()


@pytest.mark.parametrize("status", ["pending", "creating", "destroying"])
@pytest.mark.parametrize(("minutes", "goes"), [(59, False), (61, True)])
def test_what_is_stuck_for_over_an_hour_goes(world: World, status: str, minutes: int, goes: bool) -> None:
    stuck = world.write_row(
        "stuck", status, ago=timedelta(minutes=minutes) - timedelta(hours=30), ends=timedelta(hours=99)
    )
    world.sql.execute("SELECT create_sandbox_schema(%s)", (str(stuck),))
    assert run(world) == Report(cleaned=int(goes))
    assert world.status(stuck) == ("destroyed" if goes else status)
    assert world.schemas() == (set() if goes else {f"sandbox_{stuck}"})


def test_what_was_recorded_of_a_stuck_one_counts_as_progress(world: World) -> None:
    stuck = world.write_row("slow", "destroying", ago=timedelta(hours=5))
    at = LATER - timedelta(minutes=20)
    world.sql.execute(
        "INSERT INTO sandbox_audit_log (sandbox_id, event_type, actor, created_at)"
        " VALUES (%s, 'sandbox_destroying', 'chani', %s)",
        (stuck, at),
    )
    assert run(world) == Report()
    assert world.status(stuck) == "destroying"


@pytest.mark.parametrize("spelling", [str, lambda i: i.hex, lambda i: i.hex[:8]])
def test_what_destroyed_sandboxes_left_behind_goes(world: World, spelling: Any) -> None:
    by_schema, by_keys, by_guild = (world.write_row(f"left-{n}", "destroyed") for n in range(3))
    world.sql.execute("SELECT create_sandbox_schema(%s)", (spelling(by_schema),))
    world.redis.set(f"sandbox:{spelling(by_keys)}:x", 1)
    world.sql.execute("INSERT INTO sandbox_guild_mapping VALUES ('7', %s)", (by_guild,))
    world.redis.set("sandbox:route:7", str(by_guild))
    live = world.make("live")
    lifecycle.extend(world.database, world.keys, "live", timedelta(hours=48), actor="chani", now=NOW)
    assert run(world) == Report(cleaned=3)
    assert world.schemas() == {f"sandbox_{live.id}"}
    assert world.key_names() == family(world, live.id)
    assert world.mapped() == {}
    assert run(world) == Report()


def test_without_redis_it_goes_on_and_the_next_run_takes_the_keys(world: World) -> None:
    made = [world.make(f"over-{n}", guilds=(str(n),)) for n in range(3)]
    assert run(world, keys=DEAD) == Report(cleaned=3, keys_left=3)
    assert world.schemas() == set()
    assert len(world.key_names()) == 3 * (5 + 1)
    assert run(world) == Report(cleaned=3, routes=3)
    assert world.key_names() == set()
    assert {world.status(each.id) for each in made} == {"destroyed"}


def test_one_that_fails_does_not_stop_the_others(world: World) -> None:
    blocked, locked = world.make("a-blocked"), world.make("b-locked")
    others = [world.make(f"c-{n}") for n in range(3)]
    world.sql.execute(
        f'CREATE VIEW public.watching AS SELECT id FROM "sandbox_{blocked.id}".profiles'.encode()
    )
    with psycopg.connect(world.env["DATABASE_URL"]) as reader:
        reader.execute(f'SELECT FROM "sandbox_{locked.id}".profiles'.encode())
        running, said = job(world)
        assert running.run() == Report(cleaned=3, failed=2)
    assert {world.status(each.id) for each in others} == {"destroyed"}
    assert world.status(blocked.id) == world.status(locked.id) == "destroying"
    failed = [line for line in map(json.loads, said.getvalue().splitlines()) if line["level"] == 50]
    assert {line["name"] for line in failed} == {"a-blocked", "b-locked"}
    assert "view watching depends on" in str([line["error"] for line in failed])
    world.sql.execute("DROP VIEW public.watching")
    assert run(world, clock=lambda: datetime.now(UTC) + timedelta(hours=2)).cleaned == 2


def test_a_sandbox_extended_in_the_meantime_stays(world: World) -> None:
    made = world.make("late")
    moments = iter([LATER])  # the job's first look; then somebody extends it

    def clock() -> datetime:
        if first := next(moments, None):
            return first
        if world.one("SELECT expires_at FROM sandboxes WHERE id = %s", made.id) == NOW + timedelta(hours=24):
            lifecycle.extend(world.database, world.keys, "late", timedelta(hours=48), actor="chani", now=NOW)
        return LATER

    assert run(world, clock=clock) == Report()
    assert world.status(made.id) == "running"
    assert len(family(world, made.id)) == 5


def test_two_jobs_at_once_do_each_sandbox_once(world: World) -> None:
    made = [world.make(f"over-{n}") for n in range(30)]
    world.sql.execute("UPDATE sandboxes SET expires_at = now()")
    jobs = [job(world, clock=lambda: datetime.now(UTC))[0] for _ in range(2)]
    threads = [Thread(target=each.run) for each in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(each.report.cleaned for each in jobs) == len(made)
    assert sum(each.report.failed for each in jobs) == 0
    assert world.schemas() == world.key_names() == set()
    for each in made:
        assert world.events(each.id).count("sandbox_destroying") == 1
        assert world.events(each.id).count("sandbox_destroyed") == 1


def test_a_dead_database_is_an_error_and_touches_nothing(world: World) -> None:
    made = world.make("over")
    with pytest.raises(Unreachable):
        run(world, database=Postgres("postgresql://nobody@127.0.0.1:1/x", tag="tests", timeout=1))
    assert len(family(world, made.id)) == 5


class _Dying(Postgres):
    """A database that goes away after some transactions."""

    left = 0

    def transaction(self) -> Any:
        type(self).left -= 1
        if type(self).left < 0:
            raise Unreachable("PostgreSQL is gone")
        return super().transaction()


@pytest.mark.parametrize("lasts", [0, 1, 4, 5, 7])
def test_a_database_that_dies_ends_the_job_and_the_next_one_does_the_rest(world: World, lasts: int) -> None:
    for number in range(4):
        world.make(f"over-{number}")
    _Dying.left = lasts
    report = run(world, database=_Dying(world.env["DATABASE_URL"], tag="tests"))
    assert report.cleaned == max(0, lasts - 4)
    assert report.cleaned + report.failed == 4
    assert run(world, clock=lambda: datetime.now(UTC) + timedelta(hours=40)).cleaned == 4 - report.cleaned
    assert world.schemas() == world.key_names() == set()


def test_routes_that_the_table_contradicts_are_deleted(world: World) -> None:
    made = world.make("routed", guilds=("1", "2"))
    lifecycle.extend(world.database, world.keys, "routed", timedelta(hours=48), actor="chani", now=NOW)
    cached = {
        "1": str(made.id),
        "2": routes.NOWHERE,
        "3": str(uuid4()),
        "4": routes.NOWHERE,
        "5": str(made.id),
    }
    for guild, value in cached.items():
        world.redis.set(f"sandbox:route:{guild}", value)
    assert run(world).routes == 3
    assert {key for key in world.key_names() if "route" in key} == {"sandbox:route:1", "sandbox:route:4"}


@pytest.fixture
def orphans(world: World) -> tuple[str, str, Sandbox]:
    """A schema and a family of nobody's, and a sandbox that stays."""
    schema, token = uuid4(), uuid4()
    world.sql.execute("SELECT create_sandbox_schema(%s)", (str(schema),))
    world.sql.execute(
        "SELECT 1"
    )  # or this session's last statement would name the schema, and so be its user
    world.redis.execute_command(  # type: ignore[no-untyped-call]
        "RESTORE", f"sandbox:{token}:x", 0, world_dump(world), "IDLETIME", 7200
    )
    live = world.make("live")
    lifecycle.extend(world.database, world.keys, "live", timedelta(hours=48), actor="chani", now=NOW)
    return f"sandbox_{schema}", str(token), live


def world_dump(world: World) -> bytes:
    """Return the payload of a key."""
    world.redis.set("template", "x")
    payload = world.redis.dump("template")
    world.redis.delete("template")
    assert isinstance(payload, bytes)
    return payload


def test_orphans_are_left_alone_unless_asked_for(world: World, orphans: tuple[str, str, Sandbox]) -> None:
    before = world.schemas() | world.key_names()
    assert run(world) == Report()
    assert world.schemas() | world.key_names() == before


def test_orphans_are_put_into_quarantine_never_deleted(
    world: World, orphans: tuple[str, str, Sandbox]
) -> None:
    schema, token, live = orphans
    assert run(world, orphaned=True) == Report(quarantined=2)
    stamp = f"{LATER:%Y%m%d%H%M%S}"
    assert world.schemas() == {f"sandbox_{live.id}", f"quarantine_{stamp}_{schema.removeprefix('sandbox_')}"}
    assert world.key_names() == family(world, live.id) | {f"quarantine:{stamp}:sandbox:{token}:x"}


def test_orphans_in_use_are_left_alone(world: World, orphans: tuple[str, str, Sandbox]) -> None:
    schema, token, _ = orphans
    world.redis.get(f"sandbox:{token}:x")
    with psycopg.connect(world.env["DATABASE_URL"]) as reader:
        reader.execute(f'SELECT FROM "{schema}".profiles'.encode())
        assert run(world, orphaned=True) == Report(orphans_left=2)
    assert schema in world.schemas()


@pytest.mark.parametrize("dead", ["redis", "nats"])
def test_orphans_are_left_alone_when_nobody_can_tell_who_uses_them(
    world: World, orphans: tuple[str, str, Sandbox], dead: str
) -> None:
    changed: dict[str, Any] = (
        {"keys": DEAD} if dead == "redis" else {"messaging": Nats("nats://127.0.0.1:1", timeout=1)}
    )
    assert run(world, orphaned=True, **changed).quarantined == 0
    assert orphans[0] in world.schemas()


def test_too_many_orphans_to_be_true_are_left_alone(world: World) -> None:
    for _ in range(6):
        world.sql.execute("SELECT create_sandbox_schema(%s)", (str(uuid4()),))
    assert run(world, orphaned=True) == Report(orphans_left=6)
    assert len([name for name in world.schemas() if name.startswith("sandbox_")]) == 6


def test_a_log_level_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ArrakisError, match="LOG_LEVEL='loud' is no level"):
        logger("x", level="loud", stream=io.StringIO())
    assert logger("x", level="WARN", stream=io.StringIO()).level == logging.WARNING
