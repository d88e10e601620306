"""The clean-up job on real servers: what is due goes, what is not stays, one failure or a dead Redis stops nothing."""

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from sandbox import cleanup, lifecycle, routes
from sandbox.adapters.postgres import Postgres
from sandbox.adapters.redis import Redis
from sandbox.cleanup import Report
from sandbox.errors import ArrakisError, SandboxError, Unreachable
from sandbox.joblog import logger
from tests.integration.hand import holding
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
        "clock": lambda: LATER,
        "log": logger("CleanupProvider", level="debug", stream=said),
    }
    return cleanup.Job(**(parts | changed)), said


def run(world: World, **changed: Any) -> Report:
    """Run a job, and return what it did; what is left for the quarantine is looked at elsewhere."""
    return replace(job(world, **changed)[0].run(), orphans=None)


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
def test_what_destroyed_sandboxes_left_behind_is_reported_and_their_guilds_are_freed(
    world: World, spelling: Any
) -> None:
    by_schema, by_keys, by_guild = (world.write_row(f"left-{n}", "destroyed") for n in range(3))
    world.sql.execute("SELECT create_sandbox_schema(%s)", (spelling(by_schema),))
    world.redis.set(f"sandbox:{spelling(by_keys)}:x", 1)
    world.sql.execute("INSERT INTO sandbox_guild_mapping VALUES ('7', %s)", (by_guild,))
    world.redis.set("sandbox:route:7", str(by_guild))
    report = job(world)[0].run()
    assert [(each.kind, each.token) for each in report.orphans or ()] == [
        ("schema", spelling(by_schema)),
        ("keys", spelling(by_keys)),
    ]
    assert replace(report, orphans=None) == Report(finished=1)
    assert world.mapped() == {}
    assert world.key_names() == {f"sandbox:{spelling(by_keys)}:x"}
    assert world.schemas() == {f"sandbox_{spelling(by_schema)}"}
    assert run(world) == Report()


@pytest.mark.soak
def test_without_redis_it_goes_on_and_the_next_run_takes_the_keys(world: World) -> None:
    made = [world.make(f"over-{n}", guilds=(str(n),)) for n in range(3)]
    assert run(world, keys=DEAD) == Report(cleaned=3, keys_left=3)
    assert world.schemas() == set()
    assert len(world.key_names()) == 3 * (5 + 1)
    assert run(world) == Report(finished=3, routes=3)
    assert run(world) == Report()
    assert world.key_names() == set()
    assert {world.status(each.id) for each in made} == {"destroyed"}


class Dying(Redis):
    """A Redis that is gone when it is gone through once more."""

    passes = 0

    def scan(self, pattern: str) -> Iterator[list[bytes]]:
        self.passes += 1
        if self.passes > 1:
            raise Unreachable("Redis is gone")
        return super().scan(pattern)


def test_a_redis_that_dies_before_the_keys_are_deleted_leaves_them_to_the_next_run(world: World) -> None:
    over = [world.make(name, guilds=(name,)) for name in ("1", "2")]
    assert run(world, keys=Dying(world.env["REDIS_URL"])) == Report(cleaned=2, keys_left=2)
    assert [world.status(each.id) for each in over] == ["destroyed"] * 2
    assert all(family(world, each.id) for each in over)
    assert run(world) == Report(finished=2)
    assert world.key_names() == set()


def test_one_that_somebody_holds_is_passed_over_and_the_others_go(world: World) -> None:
    held, goes = world.make("held"), world.make("goes")
    with holding(world, "SELECT FROM sandboxes WHERE id = %s FOR UPDATE", held.id):
        assert run(world) == Report(cleaned=1)
    assert [world.status(each.id) for each in (held, goes)] == ["running", "destroyed"]
    assert family(world, held.id)
    assert run(world) == Report(cleaned=1)


def test_one_that_fails_does_not_stop_the_others_and_is_tried_again(world: World) -> None:
    blocked, locked = world.make("a-blocked", guilds=("5",)), world.make("b-locked")
    others = [world.make(f"c-{n}") for n in range(3)]
    world.sql.execute("UPDATE sandboxes SET expires_at = now()")
    world.sql.execute(
        f'CREATE VIEW public.watching AS SELECT id FROM "sandbox_{blocked.id}".profiles'.encode()
    )
    with psycopg.connect(world.env["DATABASE_URL"]) as reader:
        reader.execute(f'SELECT FROM "sandbox_{locked.id}".profiles'.encode())
        running, said = job(world, clock=lambda: datetime.now(UTC))
        assert replace(running.run(), orphans=None) == Report(cleaned=3, failed=2)
    assert {world.status(each.id) for each in others} == {"destroyed"}
    assert world.status(blocked.id) == "expired"  # nothing of it is taken, but it gets no more events
    assert len(family(world, blocked.id)) == 5
    assert world.mapped() == {"5": blocked.id}
    assert "sandbox:route:5" not in world.key_names()
    assert world.status(locked.id) == "destroying"
    failed = [line for line in map(json.loads, said.getvalue().splitlines()) if line["level"] == 50]
    assert {line["name"] for line in failed} == {"a-blocked", "b-locked"}
    assert "would take along view watching" in str([line["error"] for line in failed])
    again = run(world, clock=lambda: datetime.now(UTC) + timedelta(minutes=6))
    assert again == Report(cleaned=1, failed=1)  # still blocked, and still counted
    world.sql.execute("DROP VIEW public.watching")
    assert run(world, clock=lambda: datetime.now(UTC)) == Report(cleaned=1)


@pytest.mark.soak
def test_keys_that_were_left_are_deleted_once_and_never_what_was_given_back(world: World) -> None:
    made = [world.make(f"over-{n}") for n in range(2)]
    assert run(world, keys=DEAD).keys_left == 2
    spared = job(world)[0].run(spared=[str(made[0].id)])
    assert (spared.finished, len(spared.orphans or ())) == (1, 1)
    assert family(world, made[0].id)
    assert not family(world, made[1].id)
    world.redis.set(f"sandbox:{made[1].id}:later", 1)
    later = job(world)[0].run(spared=[str(made[0].id)])
    assert (later.finished, len(later.orphans or ())) == (0, 2)
    assert family(world, made[1].id) == {f"sandbox:{made[1].id}:later"}


def test_keys_of_any_spelling_stop_nothing(world: World) -> None:
    made = world.make("over", guilds=("6",))
    odd = (b"sandbox:\x00bad:x", b"sandbox:\xff\xfe:x", b"sandbox:'; --:x", b"sandbox:" + b"f" * 5000)
    for key in odd:
        world.redis.set(key, 1)
    world.redis.set(b"sandbox:route:\x00", str(made.id))
    world.redis.set("sandbox:route:8", str(made.id))
    assert run(world) == Report(cleaned=1, routes=2)
    assert set(world.redis.scan_iter(count=1000)) == set(odd)


@pytest.mark.soak
def test_a_schema_too_large_for_the_lock_table_does_not_stop_the_others(world: World) -> None:
    large = world.make("a-large")
    world.sql.execute("UPDATE sandboxes SET expires_at = now() - interval '1 hour'")
    world.make("b-other")
    world.sql.execute("UPDATE sandboxes SET expires_at = now() WHERE name = 'b-other'")
    for start in range(0, 12_000, 2_000):
        world.sql.execute(
            f"DO $$ BEGIN FOR n IN {start}..{start + 1999} LOOP"
            f" EXECUTE format('CREATE TABLE %I.t%s ()', 'sandbox_{large.id}', n); END LOOP; END $$".encode()
        )
    try:
        assert run(world, clock=lambda: datetime.now(UTC)) == Report(cleaned=1, failed=1)
    finally:
        for start in range(0, 12_000, 1_000):
            names = ", ".join(f'"sandbox_{large.id}".t{n}' for n in range(start, start + 1000))
            world.sql.execute(f"DROP TABLE {names}".encode())


def test_an_end_that_never_comes_stops_nothing(world: World) -> None:
    for number, never in enumerate(("infinity", "-infinity", "20000-01-01")):
        made = world.write_row(f"never-{number}", "running")
        world.sql.execute("UPDATE sandboxes SET expires_at = %s WHERE id = %s", (never, made))
    over = world.make("over")
    assert run(world).cleaned >= 1
    assert world.status(over.id) == "destroyed"
    listed = lifecycle.register_guild(world.database, world.keys, "never-0", "77", actor="chani")
    assert listed.sandbox.expires_at is None
    with pytest.raises(SandboxError, match="no end that could be moved"):
        lifecycle.extend(
            world.database, world.keys, "never-0", timedelta(hours=1), actor="chani", now=datetime.now(UTC)
        )


def test_a_sandbox_extended_in_the_meantime_stays(world: World) -> None:
    made = world.make("late")

    class Somebody(logging.Handler):
        """Extends it after the job has looked, and before it acts."""

        def emit(self, record: logging.LogRecord) -> None:
            if record.msg == "Sandboxes due for cleanup":
                lifecycle.extend(
                    world.database, world.keys, "late", timedelta(hours=48), actor="chani", now=NOW
                )

    log = logger("CleanupProvider", level="debug", stream=io.StringIO())
    log.addHandler(Somebody())
    assert run(world, log=log) == Report()
    assert world.status(made.id) == "running"
    assert len(family(world, made.id)) == 5


@pytest.mark.soak
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
    """A database that goes away after some transactions; with `lives_on` only one session is ended."""

    left = 0
    lives_on = False

    def transaction(self) -> Any:
        type(self).left -= 1
        if type(self).left == -1 or (type(self).left < 0 and not self.lives_on):
            raise Unreachable("PostgreSQL is gone")
        return super().transaction()

    def snapshot(self) -> Any:
        if type(self).left < 0 and not self.lives_on:
            raise Unreachable("PostgreSQL is gone")
        return super().snapshot()


@pytest.mark.parametrize("lasts", [1, 5, *(pytest.param(each, marks=pytest.mark.soak) for each in (0, 4, 7))])
def test_a_database_that_dies_ends_the_job_and_the_next_one_does_the_rest(world: World, lasts: int) -> None:
    for number in range(4):
        world.make(f"over-{number}")
    world.sql.execute("UPDATE sandboxes SET expires_at = now()")
    _Dying.left, _Dying.lives_on = lasts, False
    report = run(
        world, database=_Dying(world.env["DATABASE_URL"], tag="tests"), clock=lambda: datetime.now(UTC)
    )
    assert report.cleaned == max(0, lasts - 4)
    assert report.cleaned + report.failed == 4
    later = datetime.now(UTC) + timedelta(minutes=6)
    assert run(world, clock=lambda: later).cleaned == 4 - report.cleaned
    assert world.schemas() == world.key_names() == set()


@pytest.mark.parametrize("lasts", [1, 5])
def test_a_session_that_is_ended_is_one_failure(world: World, lasts: int) -> None:
    for number in range(4):
        world.make(f"over-{number}")
    _Dying.left, _Dying.lives_on = lasts, True
    report = run(world, database=_Dying(world.env["DATABASE_URL"], tag="tests"))
    assert (report.cleaned, report.failed) == (3, 1)


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


def test_a_log_level_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ArrakisError, match="LOG_LEVEL='loud' is no level"):
        logger("x", level="loud", stream=io.StringIO())
    assert logger("x", level="WARN", stream=io.StringIO()).level == logging.WARNING
