"""What the drivers must not do: repeat a secret, fail on a value they cannot hold."""

import json

import pytest

from sandbox import registry
from sandbox.adapters.postgres import Postgres
from sandbox.errors import ArrakisError, Unreachable
from sandbox.model import Status
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
