"""What the drivers must not do: repeat a secret, take a part for the whole, fail on a value they cannot hold."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from lab import binaries
from lab.processes import HOST, free_ports, spawn
from sandbox import keyspace, registry
from sandbox.adapters.postgres import Postgres
from sandbox.adapters.redis import Redis
from sandbox.errors import ArrakisError, Denied, Unreachable
from sandbox.model import Status
from tests.acceptance.engineer import eventually
from tests.integration.world import World


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:S3cr3t/pw@127.0.0.1:1/x",
        "postgresql://u:S3cr3t@pw@127.0.0.1:1/x",
        "postgresql://u:S3cr@etpw@127.0.0.1:1/x",
        "postgresql://u:S3cr3t/pw",
        "postgresql://u:p@127.0.0.1:1/x?port=S3cr3t",
        "postgresql://u:p@127.0.0.1:1/x?sslmode=S3cr3t",
        "postgresql://u:S3cr3t?pw@127.0.0.1:1/x",
        "S3cr3t pw",
        "host=127.0.0.1 port=1 password=S3cr3t dbname=x sslmode=S3cr3t",
    ],
)
def test_no_part_of_a_password_is_repeated(url: str) -> None:
    with pytest.raises(ArrakisError) as told, Postgres(url, tag="tests", timeout=2).snapshot():
        pass
    said = f"{told.value} {told.value.hint}"
    assert "S3cr" not in said
    assert "pw" not in said
    assert "etpw" not in said


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("postgresql://u:p@db.example:6432/arrakis", "db.example:6432/arrakis"),
        ("postgresql://u:p%2F%40@db.example/arrakis", "db.example:5432/arrakis"),
        ("postgresql://u@[::1]:5433/x", "::1:5433/x"),
        ("postgresql:///x?host=/var/run/postgresql", "/var/run/postgresql:5432/x"),
        ("host=db.example dbname=x", "db.example:5432/x"),
    ],
)
def test_where_an_address_leads(url: str, where: str) -> None:
    assert Postgres(url, tag="tests").host == where


def test_a_refused_connection_says_so() -> None:
    with (
        pytest.raises(Unreachable, match="connection refused"),
        Postgres("postgresql://u@127.0.0.1:1/x", tag="tests", timeout=2).snapshot(),
    ):
        pass


def test_rows_that_python_cannot_hold_are_read(world: World) -> None:
    ends = ("infinity", "-infinity", "20000-01-01", "0044-03-15 BC")
    for number, end in enumerate(ends):
        made = world.write_row(f"odd-{number}", "running")
        world.sql.execute("UPDATE sandboxes SET expires_at = %s WHERE id = %s", (end, made))
    deep = world.write_row("deep", "running")
    nested = json.dumps("[" * 50_000)
    world.sql.execute("UPDATE sandboxes SET metadata = %s WHERE id = %s", (nested, deep))
    with world.database.snapshot() as snapshot:
        rows = {row.name: row for row in registry.listing(snapshot, owner=None, statuses=list(Status))}
    assert [rows[f"odd-{number}"].expires_at for number in range(len(ends))] == [None] * len(ends)
    assert rows["deep"].metadata == {}
    assert rows["deep"].expires_at


@contextlib.contextmanager
def node(folder: Path) -> Iterator[int]:
    """A node of a cluster that has all slots, so that it answers."""
    [port] = free_ports(1)
    options = ["--cluster-enabled", "yes", "--save", "", "--dir", folder, "--bind", HOST]
    process = spawn([binaries.redis(), "--port", port, *options], log=folder / "log")
    try:
        with redis.Redis(host=HOST, port=port) as client:
            eventually(lambda: _answers(client))
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        yield port
    finally:
        process.terminate()
        process.wait()


def _answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_a_node_of_a_cluster_is_not_taken_for_all_of_it(tmp_path: Path) -> None:
    with node(tmp_path) as port, pytest.raises(Denied, match="node of a cluster"):
        keyspace.survey(Redis(f"redis://{HOST}:{port}"))
