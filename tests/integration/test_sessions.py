"""Sessions that are in the way: each is ended only while it is what was planned, and by a role that may."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from urllib.parse import urlsplit

import psycopg
import pytest

from diagnostics.sessions import Session, read_sessions
from runbooks.engine.errors import LeaseHeld
from runbooks.engine.gate import Gate
from runbooks.engine.model import Action, Reversibility, State
from runbooks.remedies.sessions import EndSession, Why, cancel_query, end_session
from sandbox.adapters.postgres import Postgres
from sandbox.errors import ArrakisError
from tests.integration.gated import Gated, gated
from tests.integration.world import World
from tests.waiting import eventually

Client = psycopg.Connection[tuple[object, ...]]
LIMIT = "runbooks.remedies.sessions.IDLE_LIMIT"


@pytest.fixture(scope="module")
def opened(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    """Return the remedies, beside two roles that are no superusers and a table of theirs."""
    world.sql.execute(
        "CREATE ROLE chani LOGIN; CREATE ROLE stilgar LOGIN; CREATE TABLE public.spice AS SELECT 1 AS id;"
        "GRANT ALL ON public.spice TO chani"
    )
    with gated(world.env, tmp_path_factory.mktemp("state")) as remedies:
        yield remedies


@pytest.fixture
def gate(opened: Gated, monkeypatch: pytest.MonkeyPatch) -> Gated:
    """Return the remedies, for which a transaction is idle for too long at once."""
    monkeypatch.setattr(LIMIT, timedelta(0))
    return opened


@contextmanager
def connected(world: World, user: str = "chani", application: str = "psql") -> Iterator[Client]:
    """Connect as somebody."""
    # Whoever is not ended as a test expects waits no longer than this for what others hold.
    options = "-c lock_timeout=10s"
    with psycopg.connect(address(world, user), application_name=application, options=options) as client:
        yield client


def address(world: World, user: str) -> str:
    """Return the database's address for a user."""
    url = urlsplit(world.env["DATABASE_URL"])
    return url._replace(netloc=f"{user}@{url.hostname}:{url.port}").geturl()


def session(world: World, client: Client) -> Session:
    """Return what is known of a client's session."""
    with world.database.snapshot() as snapshot:
        found = read_sessions(snapshot, tag="tests:remedies")
    return next(each for each in found if each.pid == client.info.backend_pid)


def idle(world: World, client: Client) -> Action:
    """Return the action that ends a client's session, which begins a transaction and does nothing."""
    client.execute("SELECT 'a secret' FROM public.spice")
    return end_session(session(world, client), reason="it is idle", why=Why.IDLE)


def alive(client: Client) -> bool:
    """Whether a client's session goes on."""
    try:
        client.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def waiting(world: World, *clients: Client, query: str = "LOCK public.spice") -> Iterator[None]:
    """Let clients ask, one after the other, for what they have to wait for, until it is given or they are ended."""
    with ThreadPoolExecutor() as pool:
        asked = []
        try:
            for client in clients:
                asked.append(pool.submit(client.execute, query.encode()))
                eventually(partial(_waits, world, client))
            yield
        except BaseException:
            for client in clients:  # or a failed test would wait for them for ever
                client.cancel()
            raise
    for each in asked:
        each.exception()


def _waits(world: World, client: Client) -> bool:
    return session(world, client).blocked_by != ()


def test_that_a_session_waits_is_seen_by_a_role_that_may_not_see_what_it_does(
    world: World, gate: Gated
) -> None:
    seen_by_stilgar = replace(world, database=Postgres(address(world, "stilgar"), tag="tests"))
    with connected(world) as root, connected(world) as second:
        root.execute("LOCK public.spice")
        with waiting(world, second):
            seen = session(seen_by_stilgar, second)
            assert (seen.state, seen.blocked_by) == ("?", (root.info.backend_pid,))
            second.cancel_safe()


# ---- ended


def test_what_is_said_of_the_session_that_is_ended(world: World, gate: Gated) -> None:
    with connected(world, application="a\x1b[2J") as client:
        action = idle(world, client)
        assert (action.verb, action.resource.id) == ("end session", str(client.info.backend_pid))
        assert action.reversibility is Reversibility.IRREVERSIBLE
        told = {name: action.before[name] for name in ("user", "database", "query", "why")}
    assert action.before["application"].isprintable()
    assert told == {
        "user": "chani",
        "database": "arrakis",
        "query": "SELECT '…' FROM public.spice",
        "why": "idle in transaction for more than 10 minutes",
    }


def test_an_idle_transaction_is_ended(world: World, gate: Gated) -> None:
    with connected(world) as client, connected(world) as other:
        action = idle(world, client)
        assert gate.state(action) == (State.BEFORE, "it is idle in transaction for 0 min")
        assert gate.in_use(action) is None
        assert gate.apply(action) == (State.AFTER, f"session {client.info.backend_pid} is gone")
        assert not alive(client)
        assert alive(other)
    assert gate.apply(action)[0] is State.AFTER  # a run that was taken up again


def test_one_that_is_idle_for_a_moment_is_left_alone(
    world: World, gate: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LIMIT, timedelta(minutes=10))
    with connected(world) as client:
        action = idle(world, client)
        assert gate.state(action) == (State.CHANGED, "it is idle in transaction now")
        left_alone(gate, action, client)


def left_alone(gate: Gated, action: Action, client: Client) -> None:
    """Insist that not even an apply in that very moment touches a session."""
    with pytest.raises(ArrakisError, match="not as planned any more"):
        gate.apply(action)
    assert alive(client)


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        (lambda client: client.execute("SELECT 2"), "it has worked since the plan"),
        (lambda client: client.commit(), "it is in another transaction now, or in none"),
        (
            lambda client: (client.commit(), client.execute("SELECT 1")),
            "it is in another transaction now, or in none",
        ),
    ],
    ids=["worked", "committed", "another"],
)
def test_one_that_has_moved_since_is_left_alone(
    world: World, gate: Gated, then: Callable[[Client], object], reason: str
) -> None:
    with connected(world) as client:
        action = idle(world, client)
        then(client)
        assert gate.state(action) == (State.CHANGED, reason)
        left_alone(gate, action, client)


def test_a_pid_that_another_session_has_now_is_left_alone(world: World, gate: Gated) -> None:
    with connected(world) as client:
        action = idle(world, client)
        earlier = {**action.before, "backend_start": "2026-01-01T00:00:00+00:00"}
        assert gate.apply(replace(action, before=earlier))[0] is State.AFTER
        assert alive(client)


@pytest.mark.parametrize(
    ("user", "application", "why"),
    [
        ("lab", "psql", "lab is a superuser"),
        ("chani", "arrakis-runbooks", "it is this toolkit's own"),
    ],
)
def test_a_superusers_and_our_own_are_spared(
    world: World, gate: Gated, user: str, application: str, why: str
) -> None:
    with connected(world, user, application) as client:
        action = idle(world, client)
        assert gate.in_use(action) == why
        left_alone(gate, action, client)


def test_a_role_that_may_not_is_told_so_and_touches_nothing(world: World, gate: Gated) -> None:
    seen_by_stilgar = replace(world, database=Postgres(address(world, "stilgar"), tag="tests"))
    with connected(world) as client:
        planned = idle(world, client)
        seen = session(seen_by_stilgar, client)
        assert seen.spared == "this role may signal no session of chani: GRANT pg_signal_backend or chani"
        world.sql.execute("GRANT pg_signal_backend TO stilgar")
        hidden = session(seen_by_stilgar, client).spared
        assert hidden == "since when it is connected is hidden from this role: GRANT pg_read_all_stats"
        other = replace(gate.read, sql=seen_by_stilgar.database)
        mine = EndSession(Gate(read=other, write=gate.write, fence=lambda _: None, tell=lambda _: None))
        assert mine.observe(planned).reason == f"cannot tell whether it is the same: {hidden}"
        assert alive(client)
    world.sql.execute("REVOKE pg_signal_backend FROM stilgar")


def test_nothing_is_ended_once_the_lease_is_lost(world: World, gate: Gated) -> None:
    with connected(world) as client:
        action = idle(world, client)
        world.sql.execute("UPDATE runbooks.lease SET token = token + 1")
        with pytest.raises(LeaseHeld):
            gate.apply(action)
        world.sql.execute("UPDATE runbooks.lease SET token = token - 1")
        assert alive(client)


# ---- what others wait for


def blocking(world: World, client: Client) -> Action:
    """Return the action that ends a session that others wait for."""
    return end_session(session(world, client), reason="others wait", why=Why.BLOCKING)


def test_the_root_of_those_who_wait_is_ended_and_nobody_else(world: World, gate: Gated) -> None:
    with connected(world) as root, connected(world) as second, connected(world) as third:
        root.execute("LOCK public.spice")
        with waiting(world, second, third):
            action, other = blocking(world, root), blocking(world, second)
            assert gate.state(action) == (State.BEFORE, "2 sessions wait for it")
            assert gate.state(other) == (State.CHANGED, "nobody waits for it alone any more")
            with pytest.raises(ArrakisError, match="left alone"):
                gate.apply(other)
            assert gate.apply(action)[0] is State.AFTER
            second.cancel_safe()
            third.cancel_safe()
        assert not alive(root)


def test_one_that_nobody_waits_for_any_more_is_left_alone(world: World, gate: Gated) -> None:
    with connected(world) as root:
        root.execute("LOCK public.spice")
        with connected(world) as second, waiting(world, second):
            action = blocking(world, root)
            second.cancel_safe()
        left_alone(gate, action, root)


def test_one_that_blocks_in_another_transaction_is_left_alone(world: World, gate: Gated) -> None:
    with connected(world) as root:
        root.execute("LOCK public.spice")
        with connected(world) as second, waiting(world, second):
            action = blocking(world, root)
            second.cancel_safe()
        root.commit()
        root.execute("LOCK public.spice")
        with connected(world) as third, waiting(world, third):
            assert gate.state(action) == (State.CHANGED, "it is in another transaction now, or in none")
            left_alone(gate, action, root)
            third.cancel_safe()


def test_one_that_blocks_others_and_works_again_is_left_alone(world: World, gate: Gated) -> None:
    with connected(world) as root:
        root.execute("LOCK public.spice")
        with connected(world) as second, waiting(world, second), ThreadPoolExecutor() as pool:
            action = blocking(world, root)
            assert gate.state(action)[0] is State.BEFORE
            asked = pool.submit(root.execute, "SELECT pg_sleep(60)")
            eventually(lambda: session(world, root).state == "active")
            assert gate.state(action) == (State.CHANGED, "it is active now: it works again")
            with pytest.raises(ArrakisError, match="not as planned any more"):
                gate.apply(action)
            assert session(world, root).state == "active"
            root.cancel_safe()
            asked.exception()
            second.cancel_safe()


# ---- cancelled


@contextmanager
def running(world: World, client: Client, query: str) -> Iterator[None]:
    """Let a client run a statement until it is cancelled or ended, with the table locked and somebody waiting for it."""
    client.execute("LOCK public.spice")
    with ThreadPoolExecutor() as pool, connected(world) as other, waiting(world, other):
        asked = pool.submit(client.execute, query.encode())
        eventually(lambda: session(world, client).state == "active")
        yield
        with suppress(psycopg.OperationalError):  # whoever ended it may be seen before it is asked
            client.cancel_safe()
        asked.exception()
        if not client.broken:
            client.rollback()


def cancelling(world: World, client: Client) -> Action:
    """Return the action that cancels what a client runs."""
    return cancel_query(session(world, client), reason="others wait", why=Why.BLOCKING)


def test_a_statement_that_others_wait_for_is_cancelled(world: World, gate: Gated) -> None:
    with connected(world) as client, running(world, client, "SELECT pg_sleep(60)"):
        action = cancelling(world, client)
        assert (action.verb, gate.state(action)) == ("cancel query", (State.BEFORE, "1 session waits for it"))
        assert gate.in_use(action) is None
        assert gate.apply(action) == (
            State.AFTER,
            "it is idle in transaction (aborted), and nobody waits for it",
        )
        assert session(world, client).backend_start


def test_another_statement_than_the_planned_one_is_not_cancelled(world: World, gate: Gated) -> None:
    with connected(world) as client:
        with running(world, client, "SELECT pg_sleep(60)"):
            action = cancelling(world, client)
        with running(world, client, "SELECT pg_sleep(60)"):
            assert gate.apply(action) == (State.AFTER, "it does not run that statement any more")
            assert session(world, client).state == "active"


STUBBORN = """DO $$ BEGIN PERFORM pg_sleep(60);
    EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(60); END $$"""


def test_one_that_runs_on_all_the_same_is_told(
    world: World, gate: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runbooks.remedies.sessions._PATIENCE", 0.2)
    with connected(world) as client, running(world, client, STUBBORN):
        action = cancelling(world, client)
        with pytest.raises(ArrakisError, match="was told to stop, and runs on"):
            gate.apply(action)
        world.sql.execute("SELECT pg_terminate_backend(%s)", (client.info.backend_pid,))


def unheeding(world: World, client: Client) -> Action:
    """Return the action that ends a session whose statement was cancelled in vain."""
    return end_session(session(world, client), reason="it runs on", why=Why.UNHEEDED)


def test_one_that_runs_on_all_the_same_is_ended(world: World, gate: Gated) -> None:
    with connected(world) as client, running(world, client, STUBBORN):
        action = unheeding(world, client)
        client.cancel_safe()
        assert gate.state(action) == (State.BEFORE, "1 session waits for it")
        assert gate.apply(action)[0] is State.AFTER


def test_one_that_runs_another_statement_by_now_is_left_alone(world: World, gate: Gated) -> None:
    with (
        connected(world) as client,
        running(world, client, "SELECT pg_sleep(1)"),
        ThreadPoolExecutor() as pool,
    ):
        action = unheeding(world, client)
        eventually(lambda: session(world, client).state != "active")
        asked = pool.submit(client.execute, "SELECT pg_sleep(60)")
        eventually(lambda: session(world, client).state == "active")
        assert gate.state(action) == (State.CHANGED, "it does not run that statement any more")
        with pytest.raises(ArrakisError, match="not as planned any more"):
            gate.apply(action)
        client.cancel_safe()
        asked.exception()
