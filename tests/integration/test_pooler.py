"""PgBouncer's pools, through a real one; and where none is."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from threading import Thread

import psycopg
import pytest

from diagnostics.pooler import Pool, Pooler, read_pooler
from sandbox.adapters.pgbouncer import PgBouncer
from sandbox.errors import Denied, Unreachable
from tests.integration.pgbouncer import pooled
from tests.integration.world import World
from tests.waiting import eventually


@pytest.fixture(scope="module")
def address(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the database's address through PgBouncer, with three connections."""
    with pooled(world.env["DATABASE_URL"], tmp_path_factory.mktemp("pgbouncer")) as through:
        yield through


def look(address: str) -> Pooler:
    """Return what PgBouncer says."""
    seen = read_pooler(PgBouncer(address))
    assert seen is not None
    return seen


def mine(address: str) -> Pool:
    """Return the pool of the lab's user."""
    [pool] = [each for each in look(address).pools if (each.database, each.user) == ("arrakis", "lab")]
    return pool


def test_who_has_a_connection_and_who_waits_for_one(address: str) -> None:
    before = mine(address)
    assert (before.mode, before.size, before.waiting, before.exhausted) == ("transaction", 3, 0, False)
    held = [psycopg.connect(address) for _ in range(3)]
    for each in held:
        each.execute("SELECT 1")
    fourth = psycopg.connect(address, autocommit=True)
    waiting = Thread(target=fourth.execute, args=("SELECT 1",))
    waiting.start()
    eventually(lambda: mine(address).exhausted)
    seen = mine(address)
    assert (seen.busy, seen.idle, seen.waiting) == (3, 0, 1)
    eventually(lambda: mine(address).longest_wait > timedelta(0))
    for each in held:
        each.close()
    waiting.join()
    fourth.close()
    eventually(lambda: not mine(address).waiting)


def test_how_many_clients_there_may_be(address: str) -> None:
    seen = look(address)
    assert seen.most_clients == 200
    assert seen.clients
    assert not seen.full
    assert "pgbouncer" not in {pool.database for pool in seen.pools}


def test_postgresql_itself_is_no_pooler(world: World) -> None:
    assert read_pooler(PgBouncer(world.env["DATABASE_URL"])) is None


def test_where_nothing_listens_nothing_is_known() -> None:
    with pytest.raises(Unreachable, match=r"PgBouncer at 127.0.0.1:1: its console does not answer"):
        PgBouncer("postgresql://lab:S3CRET@127.0.0.1:1/arrakis").show("POOLS")


def test_a_console_that_is_not_for_us_says_so(world: World, tmp_path: Path) -> None:
    with (
        pooled(world.env["DATABASE_URL"], tmp_path, console=False) as through,
        pytest.raises(Denied, match="is not for this user") as raised,
    ):
        read_pooler(PgBouncer(through))
    assert "stats_users" in raised.value.hint
