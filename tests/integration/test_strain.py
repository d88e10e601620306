"""What others feel, as a real server has it: waits, work, a standby that is slow, and commits that wait for it."""

import struct
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from time import monotonic
from urllib.parse import urlsplit

import psycopg
import pytest

from diagnostics.strain import Bounds, Limits, Strain, measure
from runbooks.engine.errors import Stopped
from runbooks.engine.lease import Lease, prepare
from runbooks.engine.stops import raise_stop
from runbooks.engine.throttle import Throttle
from sandbox.adapters.postgres import Postgres
from sandbox.errors import Missing
from sandbox.ports import APPLICATION
from tests.integration.world import World
from tests.waiting import eventually

Client = psycopg.Connection[tuple[object, ...]]
# The machine that the tests run on may be slow as it likes.
WAITS_ALONE = Limits(commit=Bounds(slow=60, pause=60))
IN_CALM = Strain(lock_waits=0, active=0, lately=0, lag=None, behind=None, commit=0)


@pytest.fixture(scope="module", autouse=True)
def _tables(world: World) -> None:
    with pytest.raises(Missing):
        measure(world.database)  # nothing was ever applied here
    prepare(world.database)
    world.sql.execute(
        "CREATE TABLE public.spice AS SELECT 1 AS id; CREATE ROLE chani LOGIN; GRANT ALL ON public.spice TO chani;"
        "GRANT USAGE ON SCHEMA runbooks TO chani; GRANT SELECT, UPDATE ON runbooks.lease TO chani"
    )


def seen(world: World) -> Strain:
    """Return what is measured, but for how long the commit took, and who was at work lately: this test was."""
    return replace(measure(world.database), commit=0, lately=0)


@contextmanager
def connected(world: World, application: str = "psql", user: str = "lab") -> Iterator[Client]:
    """Connect as somebody, who waits no longer than this for what others hold."""
    options = "-c lock_timeout=10s"
    with psycopg.connect(
        address(world, user), application_name=application, options=options, autocommit=True
    ) as client:
        yield client


def address(world: World, user: str) -> str:
    """Return the database's address for a user."""
    url = urlsplit(world.env["DATABASE_URL"])
    return url._replace(netloc=f"{user}@{url.hostname}:{url.port}").geturl()


@contextmanager
def running(client: Client, query: str) -> Iterator[None]:
    """Let a client run what does not end by itself, until this ends."""
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(client.execute, query.encode())
        try:
            yield
        finally:
            client.cancel()
            asked.exception(10)


@contextmanager
def locked(world: World, *waiting: Client) -> Iterator[None]:
    """Hold a lock that clients wait for."""
    with connected(world) as holder, holder.transaction():
        holder.execute("LOCK public.spice")
        with ThreadPoolExecutor() as pool:
            asked = [pool.submit(client.execute, b"SELECT id FROM public.spice") for client in waiting]
            try:
                pids = [client.info.backend_pid for client in waiting]
                waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = ANY (%s)"
                eventually(lambda: world.count(waits, pids) == len(waiting))
                yield
            finally:
                for client in waiting:
                    client.cancel()
                for each in asked:
                    each.exception(10)


# ---- sessions


def test_who_waits_for_a_lock_is_counted_and_whoever_is_ours_is_not(world: World) -> None:
    with connected(world) as other, connected(world, APPLICATION) as ours:
        assert seen(world) == IN_CALM
        with locked(world, other, ours):
            assert seen(world) == replace(IN_CALM, lock_waits=1, active=1)


def test_who_is_at_work_is_counted_but_no_statement_that_bears_our_tag(world: World) -> None:
    with connected(world) as other, connected(world) as pooled:
        with (
            running(other, "SELECT pg_sleep(60)"),
            running(pooled, f"/* {APPLICATION}:x */ SELECT pg_sleep(60)"),
        ):
            eventually(
                lambda: world.count("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 2
            )
            assert seen(world) == replace(IN_CALM, active=1)
        with other.transaction():
            other.execute("SELECT 1")
            assert seen(world) == IN_CALM  # it is idle in its transaction


def test_who_did_anything_lately_is_counted_and_whoever_holds_still_is_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(world) as other, connected(world, APPLICATION) as ours:
        ours.execute("SELECT 1")
        other.execute("SELECT 1")
        assert (measure(world.database).lately or 0) >= 1
        monkeypatch.setattr("diagnostics.strain._RECENT", timedelta(seconds=0.2))
        eventually(lambda: measure(world.database).lately == 0)
        ours.execute("SELECT 1")
        assert measure(world.database).lately == 0
        with running(other, "SELECT pg_sleep(60)"):
            eventually(lambda: measure(world.database).lately == 1)


def test_a_plain_role_sees_who_waits_and_says_what_it_does_not_see(world: World) -> None:
    plain = Postgres(address(world, "chani"), tag="tests")
    with connected(world) as other, Standby(world), locked(world, other):
        eventually(lambda: measure(world.database).behind is not None)
        found = measure(plain)
    assert (found.lock_waits, found.active, found.lately, found.lag, found.behind) == (1, 0, None, None, None)
    assert [hidden.partition(" (")[0] for hidden in found.hidden] == [
        "how many sessions of other roles are at work",
        "how far standbys are behind",
    ]


# ---- the commit


def test_the_commit_is_a_real_one_and_leaves_the_lease_as_it_was(world: World) -> None:
    row = "SELECT ctid::text || xmin || lease FROM runbooks.lease"
    before = world.one(row)
    written = world.one("SELECT pg_current_wal_insert_lsn()")
    assert 0 < measure(world.database).commit < 2
    assert world.one("SELECT pg_current_wal_flush_lsn() > %s::pg_lsn", written) is True
    assert world.one(row) == before


def test_neither_a_worker_s_fence_nor_a_heartbeat_is_waited_for(world: World) -> None:
    for held in ("SELECT FROM runbooks.lease FOR SHARE", "UPDATE runbooks.lease SET heartbeat = now()"):
        with connected(world) as other, other.transaction():
            other.execute(held.encode())
            measure(world.database)  # after two seconds it would be Busy


# ---- standbys


class Standby:
    """What the server takes for a standby: it gets the WAL, and says how much of it it has replayed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._link = psycopg.connect(world.env["DATABASE_URL"], replication="true", autocommit=True)

    def __enter__(self) -> "Standby":
        at = self._now()
        self._link.pgconn.exec_(f"START_REPLICATION PHYSICAL {at}".encode())
        self.replayed(at)
        return self

    def __exit__(self, *_: object) -> None:
        self._link.close()

    def replayed(self, lsn: str | None = None) -> None:
        """Say that all up to here, or all that there is, was written, flushed and replayed."""
        high, _, low = (lsn or self._now()).partition("/")
        at = (int(high, 16) << 32) + int(low, 16)
        self._link.pgconn.put_copy_data(b"r" + struct.pack(">QQQQB", at, at, at, 0, 0))
        while self._link.pgconn.flush():
            pass

    def _now(self) -> str:
        return str(self._world.one("SELECT pg_current_wal_flush_lsn()"))


def test_the_worst_standby_says_how_far_they_are_behind(world: World) -> None:
    with Standby(world) as slow, Standby(world) as quick:
        eventually(lambda: world.count("SELECT count(replay_lsn) FROM pg_stat_replication") == 2)
        assert seen(world).lag == pytest.approx(0, abs=1)
        world.sql.execute("INSERT INTO public.spice SELECT generate_series(1, 20000)")
        quick.replayed()
        eventually(lambda: (seen(world).behind or 0) > 1_000_000)
        slow.replayed()
        eventually(lambda: (seen(world).behind or 0) < 100_000)
        assert (seen(world).lag or 0) > 0
    eventually(lambda: seen(world) == IN_CALM)


@pytest.fixture
def synchronous(world: World) -> Iterator[None]:
    """Let commits wait for a standby."""
    try:
        world.sql.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        world.sql.execute("SELECT pg_reload_conf()")
        yield
    finally:
        world.sql.execute("ALTER SYSTEM RESET synchronous_standby_names")
        world.sql.execute("SELECT pg_reload_conf()")


def test_a_commit_waits_for_a_synchronous_standby_as_everybody_s_does(
    world: World, synchronous: None
) -> None:
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    with Standby(world) as standby, ThreadPoolExecutor() as pool:
        eventually(
            lambda: world.count("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == 1
        )
        measured: Future[Strain] = pool.submit(measure, world.database)
        eventually(lambda: world.count(waits) == 1)
        began = monotonic()
        assert not measured.done()
        waited = monotonic() - began
        eventually(partial(_acknowledged, standby, measured))
        assert measured.result(10).commit > waited


def _acknowledged(standby: Standby, measured: Future[Strain]) -> bool:
    standby.replayed()
    return measured.done()


# ---- the throttle


def test_it_pauses_while_others_wait_says_why_and_an_emergency_stop_ends_the_pause(world: World) -> None:
    told: list[str] = []
    with (
        Lease.held(world.database, holder="chani", run="run-1") as lease,
        Throttle(
            world.database, tell=told.append, check=lease.check, share=4, limits=WAITS_ALONE, every=0.1
        ) as throttle,
        connected(world) as a,
        connected(world) as b,
        connected(world) as c,
        connected(world) as d,
        ThreadPoolExecutor() as pool,
    ):
        throttle.pause()
        with locked(world, a, b, c, d):
            eventually(lambda: told == ["paused: 4 sessions wait for locks, 0 before we began"])
            resting = pool.submit(throttle.pause)
            assert not resting.done()
        resting.result(10)
        assert told[1].startswith("goes on")  # slowly, if some still waited
        with locked(world, a, b, c, d):
            eventually(lambda: told[-1].startswith("paused"))
            resting = pool.submit(throttle.pause)
            with world.database.transaction() as transaction:
                raise_stop(transaction, id="s", by="chani", reason="fire", halting=True, parts={}, over={})
            began = monotonic()
            assert isinstance(resting.exception(10), Stopped)
            assert monotonic() - began < 1
