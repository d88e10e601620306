"""PostgreSQL as a patient: what strangers write is shown without its values, and cannot move a cursor."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from diagnostics.postgres import Connections, InTheWay, connections, in_the_way, last_events
from tests.integration.world import World

SCHEMA = "sandbox_3f2b8c1e"


@pytest.fixture(scope="module", autouse=True)
def _schema(world: World) -> Iterator[None]:
    world.sql.execute(f"CREATE SCHEMA {SCHEMA}; CREATE TABLE {SCHEMA}.kept (id int)")
    yield
    world.wipe()


def holder_after(world: World, statement: str, *, application: str = "grafana") -> InTheWay:
    """Return what is said of a session that has run a statement, and is idle in its transaction."""
    with psycopg.connect(world.env["DATABASE_URL"], application_name=application) as session:
        session.execute(statement.encode())
        with world.database.snapshot() as snapshot:
            [found] = in_the_way(snapshot, [SCHEMA], tag="tests")
        session.rollback()
    return found


@pytest.mark.parametrize(
    ("statement", "how"),
    [
        (f"SELECT FROM {SCHEMA}.kept", "holds AccessShareLock"),
        (f"SELECT FROM {SCHEMA}.kept FOR SHARE", "holds RowShareLock"),
        (f"LOCK {SCHEMA}.kept", "holds AccessExclusiveLock"),
        (f"CREATE TABLE {SCHEMA}.new ()", "holds AccessShareLock on the schema"),
        (
            f"DROP SCHEMA {SCHEMA} CASCADE",
            "holds AccessExclusiveLock, holds AccessExclusiveLock on the schema",
        ),
    ],
)
def test_which_lock_is_held_is_told(world: World, statement: str, how: str) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    found = holder_after(world, statement)
    assert (found.schema, found.how, found.query) == (SCHEMA, how, statement)
    moments = [found.backend_start, found.transaction_since, found.since]
    told = [each for each in moments if each and each.utcoffset() == timedelta(0)]
    assert len(told) == 3
    assert before < told[0] <= told[1] <= told[2] < datetime.now(UTC)


def test_of_no_schema_nobody_is_in_the_way(world: World) -> None:
    with psycopg.connect(world.env["DATABASE_URL"]) as session, world.database.snapshot() as snapshot:
        session.execute(f"LOCK {SCHEMA}.kept".encode())
        assert in_the_way(snapshot, [], tag="tests") == []
        assert in_the_way(snapshot, ["sandbox_3f2b8c1f"], tag="tests") == []


def test_what_a_stranger_wrote_moves_no_cursor(world: World) -> None:
    found = holder_after(
        world, f"/* \x1b[2J\u202egone\x07\n */\r\nLOCK  {SCHEMA}.kept", application="a\x1b[1m\u202eb\n"
    )
    assert found.query == f"/* \\x1b[2J\\u202egone\\x07 */ LOCK {SCHEMA}.kept"
    assert found.application.isprintable()
    assert found.application.startswith("a")


SECRETS = {
    "plain": "SELECT 'S3CRET', 7",
    "with a quote": "SELECT 'it''s S3CRET'",
    "escaped": r"SELECT E'it\'s S3CRET'",
    "a backslash alone": r"SELECT 'C:\', 'S3CRET'",
    "in dollars": "ALTER ROLE chani PASSWORD $$S3CRET$$",
    "in named dollars": "SELECT $a_1$ $$ it's S3CRET $a_1$",
    "cut": "SELECT 'S3CRET and so on",
    "cut in dollars": "SELECT $$S3CRET and so on",
    "behind a name with a quote": """SELECT "it's", 'S3CRET'""",
    "behind a name with quotes": """SELECT "it""'s", 'S3CRET\'""",
    "behind a remark": "SELECT 1 -- don't\n, 'S3CRET'",
    "behind a longer remark": "SELECT /* don't */ 'S3CRET'",
}


@pytest.mark.parametrize("query", SECRETS.values(), ids=SECRETS)
def test_no_value_of_a_statement_is_shown(query: str) -> None:
    shown = in_the_way_with(query).query
    assert "S3CRET" not in shown
    assert "'…'" in shown
    assert shown.split()[0] == query.split()[0]


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        (f"""SELECT "a'b"  FROM\n{SCHEMA}.kept""", f"""SELECT "a'b" FROM {SCHEMA}.kept"""),
        ("SELECT $1, a$b$c, 7 -- don't", "SELECT $1, a$b$c, 7 -- don't"),
        ("<insufficient privilege>", "<insufficient privilege>"),
        ("", ""),
    ],
)
def test_what_is_no_value_stays(query: str, shown: str) -> None:
    assert in_the_way_with(query).query == shown


def in_the_way_with(query: str) -> InTheWay:
    return InTheWay(
        schema=SCHEMA,
        pid=1,
        user="lab",
        application="",
        state="idle",
        how="",
        since=None,
        transaction_since=None,
        backend_start=None,
        query=query,
        statement="",
    )


def test_connections_left_are_never_fewer_than_none(world: World) -> None:
    assert Connections(used=99, limit=100, reserved=3, groups=()).left == 0
    assert Connections(used=90, limit=100, reserved=3, groups=()).left == 7
    with world.database.snapshot() as snapshot:
        seen = connections(snapshot)
    assert 0 < seen.left < seen.limit == world.count("SHOW max_connections")


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ('{"keysLeft": true}', {"keysLeft": True}),
        ('"{\\"keysLeft\\": true}"', {"keysLeft": True}),
        ('"no JSON at all"', {}),
        ('"[1]"', {}),
        ("[1]", {}),
        ("7", {}),
        ("null", {}),
    ],
)
def test_details_of_any_form_are_read(world: World, stored: str, read: dict[str, object]) -> None:
    row = world.write_row("logged", "running")
    for age, details in ((2, '{"older": 1}'), (1, stored)):
        world.sql.execute(
            "INSERT INTO sandbox_audit_log (sandbox_id, event_type, actor, details, created_at)"
            " VALUES (%s, 'status_changed', 'chani', %s, now() - %s * interval '1 hour')",
            (row, details, age),
        )
    with world.database.snapshot() as snapshot:
        found = last_events(snapshot, [row, UUID(int=4)])
    world.sql.execute("DELETE FROM sandboxes")
    assert {id: (entry.event, entry.details) for id, entry in found.items()} == {
        row: ("status_changed", read)
    }
    assert found[row].at.utcoffset() == timedelta(0)
