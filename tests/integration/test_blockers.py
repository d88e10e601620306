"""What keeps a sandbox from going, on a real server: what rests on its schema, and who holds it; cleared one by one."""

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta

import psycopg
import pytest

from diagnostics.postgres import InTheWay, connections, in_the_way, last_events
from sandbox import removal, schemas
from sandbox.adapters.postgres import Postgres
from sandbox.errors import ArrakisError, Blocked, Busy
from sandbox.model import Sandbox
from sandbox.ports import SqlTransaction
from sandbox.schemas import Blocker
from tests.integration.world import NOW, World
from tests.waiting import eventually

NONE = timedelta(0)


@pytest.fixture
def made(world: World) -> Iterator[tuple[Sandbox, str]]:
    """Return a sandbox with its quoted schema, and a schema `reporting` beside it."""
    world.sql.execute("CREATE SCHEMA reporting")
    sandbox = world.make("watched")
    yield sandbox, f'"{sandbox.schema_name}"'
    world.sql.execute("DROP SCHEMA reporting CASCADE")
    world.wipe()


def look(world: World, *sandboxes: Sandbox) -> list[Blocker]:
    with world.database.snapshot() as snapshot:
        return schemas.blockers(snapshot, [str(each.schema_name) for each in sandboxes])


def unfenced(transaction: SqlTransaction) -> None:
    """Hold no lease."""


def clear(world: World, sandbox: Sandbox, name: str) -> None:
    schemas.drop_blocker(world.database, str(sandbox.schema_name), name, fence=unfenced)


def run(world: World, statements: str) -> None:
    world.sql.execute(statements.encode())


CLEARED = {
    "view": (
        "CREATE VIEW reporting.overview AS SELECT id FROM {s}.profiles",
        "reporting.overview",
        "DROP VIEW reporting.overview;",
    ),
    "materialized view": (
        "CREATE MATERIALIZED VIEW reporting.daily AS SELECT id FROM {s}.profiles;"
        "CREATE UNIQUE INDEX daily_id ON reporting.daily (id)",
        "reporting.daily",
        "DROP MATERIALIZED VIEW reporting.daily;",
    ),
    "foreign key": (
        "CREATE TABLE reporting.orders (profile uuid REFERENCES {s}.profiles)",
        "reporting.orders.orders_profile_fkey",
        "ALTER TABLE reporting.orders DROP CONSTRAINT orders_profile_fkey;",
    ),
    "function": (
        "CREATE FUNCTION reporting.first(tier text) RETURNS SETOF {s}.profiles LANGUAGE sql"
        " AS 'SELECT NULL::{s}.profiles'",
        "reporting.first(pg_catalog.text)",
        "DROP FUNCTION reporting.first(pg_catalog.text);",
    ),
    "trigger": (
        "CREATE FUNCTION {s}.noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TABLE reporting.orders (id int);"
        "CREATE TRIGGER noted AFTER INSERT ON reporting.orders FOR EACH ROW EXECUTE FUNCTION {s}.noted()",
        "reporting.orders.noted",
        "DROP TRIGGER noted on reporting.orders;",
    ),
    "policy": (
        "CREATE FUNCTION {s}.may() RETURNS bool LANGUAGE sql AS 'SELECT true';"
        "CREATE TABLE reporting.orders (id int); CREATE POLICY mine ON reporting.orders FOR SELECT USING ({s}.may())",
        "reporting.orders.mine",
        "DROP POLICY mine on reporting.orders;",
    ),
    "default": (
        "CREATE SEQUENCE {s}.numbers; CREATE TABLE reporting.orders (id int DEFAULT nextval('{s}.numbers'))",
        "reporting.orders.id",
        "ALTER TABLE ONLY reporting.orders ALTER COLUMN id DROP DEFAULT;",
    ),
    "index": (
        "CREATE FUNCTION {s}.folded(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';"
        "CREATE TABLE reporting.orders (name text); CREATE INDEX by_name ON reporting.orders ({s}.folded(name))",
        "reporting.by_name",
        "DROP INDEX reporting.by_name;",
    ),
    "rule": (
        "CREATE TABLE reporting.orders (id uuid);"
        "CREATE RULE copied AS ON DELETE TO reporting.orders DO ALSO DELETE FROM {s}.profiles WHERE id = OLD.id",
        "reporting.orders.copied",
        "DROP RULE copied on reporting.orders;",
    ),
    "table": (
        "CREATE TABLE reporting.kept () INHERITS ({s}.badges); INSERT INTO reporting.kept (community_id, profile_id, badge_type)"
        " VALUES (gen_random_uuid(), gen_random_uuid(), 'x')",
        "reporting.kept",
        "ALTER TABLE reporting.kept NO INHERIT {s}.badges;",
    ),
    "constraint": (
        "CREATE FUNCTION {s}.fine(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';"
        "CREATE TABLE reporting.orders (id int CHECK ({s}.fine(id)))",
        "reporting.orders.orders_id_check",
        "ALTER TABLE reporting.orders DROP CONSTRAINT orders_id_check;",
    ),
    "partition": (
        "CREATE TABLE {s}.parts (id int) PARTITION BY LIST (id);"
        "CREATE TABLE reporting.one PARTITION OF {s}.parts FOR VALUES IN (1); INSERT INTO reporting.one VALUES (1)",
        "reporting.one",
        "ALTER TABLE {s}.parts DETACH PARTITION reporting.one;",
    ),
}
"""What rests on a sandbox's schema, the name by which it is named, and the statement that clears it."""


@pytest.mark.parametrize("kind", CLEARED)
def test_a_named_object_goes_alone_and_could_be_made_again(
    world: World, made: tuple[Sandbox, str], kind: str
) -> None:
    sandbox, quoted = made
    arrange, name, statement = CLEARED[kind]
    run(world, arrange.format(s=quoted))
    run(world, f"CREATE VIEW reporting.stays AS SELECT id FROM {quoted}.communities")
    found, stays = sorted(look(world, sandbox), key=lambda each: each.name == "reporting.stays")
    assert (found.name, found.statement) == (name, statement.format(s=quoted))
    assert found.kind == ("table" if kind == "partition" else kind)
    assert (found.schema, found.place) == (sandbox.schema_name, "reporting")
    with pytest.raises(Blocked, match="would take along"):
        removal.destroy(world.database, world.keys, "watched", actor="chani", now=NOW)

    clear(world, sandbox, name)
    assert look(world, sandbox) == [stays]
    run(world, found.definition)
    assert {each.name: each.definition for each in look(world, sandbox)} == {
        name: found.definition,
        "reporting.stays": stays.definition,
    }
    clear(world, sandbox, name)
    clear(world, sandbox, "reporting.stays")
    assert removal.destroy(world.database, world.keys, "watched", actor="chani", now=NOW).schemas
    for table in {"table": ["kept"], "partition": ["one"]}.get(kind, []):
        assert world.count(f"SELECT count(*) FROM reporting.{table}") == 1  # detached, with its rows


NOT_OURS = {
    "column": "CREATE TYPE {s}.mood AS ENUM ('calm'); CREATE TABLE reporting.hurt (id int, mood {s}.mood)",
    "part of production's": "CREATE TABLE reporting.hurt (id int) PARTITION BY LIST (id);"
    "CREATE TABLE {s}.p1 PARTITION OF reporting.hurt FOR VALUES IN (1)",
    "restrictive policy": "CREATE FUNCTION {s}.may() RETURNS bool LANGUAGE sql AS 'SELECT true';"
    "CREATE TABLE reporting.hurt (id int);"
    "CREATE POLICY alone ON reporting.hurt AS RESTRICTIVE USING ({s}.may())",
    "generated column": "CREATE FUNCTION {s}.twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1';"
    "CREATE TABLE reporting.hurt (id int, two int GENERATED ALWAYS AS ({s}.twice(id)) STORED)",
    "another sandbox's": 'CREATE SCHEMA "sandbox_0badcafe"; CREATE VIEW "sandbox_0badcafe".hurt AS SELECT id FROM {s}.profiles',
    "the control plane's": "CREATE FUNCTION {s}.hurt() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
    "CREATE TRIGGER hurt AFTER INSERT ON public.sandboxes FOR EACH ROW EXECUTE FUNCTION {s}.hurt()",
    "two of one name": "CREATE FUNCTION {s}.fine(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';"
    "CREATE FUNCTION {s}.noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
    "CREATE TABLE reporting.hurt (id int CONSTRAINT same CHECK ({s}.fine(id)));"
    "CREATE TRIGGER same AFTER INSERT ON reporting.hurt FOR EACH ROW EXECUTE FUNCTION {s}.noted()",
}


@pytest.mark.parametrize("what", NOT_OURS)
def test_what_cannot_be_cleared_without_loss_is_named_and_stays(
    world: World, made: tuple[Sandbox, str], what: str
) -> None:
    sandbox, quoted = made
    run(world, NOT_OURS[what].format(s=quoted))
    before = look(world, sandbox)
    assert before
    assert all("hurt" in each.name for each in before)
    assert what == "two of one name" or [each.statement for each in before] == [""]
    with pytest.raises(ArrakisError, match="no statement drops"):
        clear(world, sandbox, before[0].name)
    assert look(world, sandbox) == before
    run(world, f"DROP SCHEMA {quoted} CASCADE; DROP SCHEMA IF EXISTS sandbox_0badcafe CASCADE")


def test_what_rests_on_a_blocker_is_seen_and_goes_first(world: World, made: tuple[Sandbox, str]) -> None:
    sandbox, quoted = made
    run(
        world,
        f"CREATE VIEW reporting.z_first AS SELECT id FROM {quoted}.profiles;"
        "CREATE VIEW reporting.second AS SELECT id FROM reporting.z_first;"
        "CREATE MATERIALIZED VIEW reporting.third AS SELECT id FROM reporting.second;"
        "CREATE FUNCTION reporting.fourth() RETURNS SETOF reporting.third LANGUAGE sql AS 'TABLE reporting.third'",
    )
    names = [each.name for each in look(world, sandbox)]
    assert names == ["reporting.fourth()", "reporting.third", "reporting.second", "reporting.z_first"]
    with pytest.raises(Busy, match=r"view reporting\.second depends on view reporting\.z_first"):
        clear(world, sandbox, "reporting.z_first")
    assert [each.name for each in look(world, sandbox)] == names
    for name in names:
        clear(world, sandbox, name)
    assert look(world, sandbox) == []


def test_views_in_a_circle_are_seen_and_refused(world: World, made: tuple[Sandbox, str]) -> None:
    sandbox, quoted = made
    run(
        world,
        f"CREATE VIEW reporting.one AS SELECT id FROM {quoted}.profiles;"
        "CREATE VIEW reporting.two AS SELECT id FROM reporting.one;"
        f"CREATE OR REPLACE VIEW reporting.one AS SELECT p.id FROM {quoted}.profiles AS p, reporting.two",
    )
    assert {each.name for each in look(world, sandbox)} == {"reporting.one", "reporting.two"}
    with pytest.raises(Busy, match="depends on"):
        clear(world, sandbox, "reporting.one")


def test_the_blockers_of_several_schemas_are_told_apart(world: World, made: tuple[Sandbox, str]) -> None:
    sandbox, quoted = made
    other = world.make("other")
    run(world, f"CREATE VIEW reporting.mine AS SELECT id FROM {quoted}.profiles")
    run(world, f'CREATE VIEW reporting.theirs AS SELECT id FROM "{other.schema_name}".profiles')
    found = {(each.schema, each.name) for each in look(world, sandbox, other)}
    assert found == {(sandbox.schema_name, "reporting.mine"), (other.schema_name, "reporting.theirs")}
    with pytest.raises(ArrakisError, match=r"no reporting\.theirs rests on"):
        clear(world, sandbox, "reporting.theirs")
    assert world.one("SELECT to_regclass('reporting.theirs') IS NOT NULL") is True


def test_a_name_that_wants_quotes_is_cleared(world: World, made: tuple[Sandbox, str]) -> None:
    sandbox, quoted = made
    run(world, f'CREATE VIEW reporting."Q1; DROP {{0}} %s ""x""" AS SELECT id FROM {quoted}.profiles')
    [found] = look(world, sandbox)
    assert found.name == 'reporting."Q1; DROP {0} %s ""x"""'
    clear(world, sandbox, found.name)
    assert look(world, sandbox) == []


def test_without_the_lease_nothing_is_cleared(world: World, made: tuple[Sandbox, str]) -> None:
    sandbox, quoted = made
    run(world, f"CREATE VIEW reporting.overview AS SELECT id FROM {quoted}.profiles")

    def lost(transaction: SqlTransaction) -> None:
        raise ArrakisError("the lease is lost")

    with pytest.raises(ArrakisError, match="the lease is lost"):
        schemas.drop_blocker(world.database, str(sandbox.schema_name), "reporting.overview", fence=lost)
    assert len(look(world, sandbox)) == 1


def test_what_was_replaced_since_the_plan_is_not_cleared(world: World, made: tuple[Sandbox, str]) -> None:
    sandbox, quoted = made
    run(world, f"CREATE VIEW reporting.overview AS SELECT id FROM {quoted}.profiles")
    [planned] = look(world, sandbox)
    run(world, f"CREATE OR REPLACE VIEW reporting.overview AS SELECT id FROM {quoted}.profiles LIMIT 1")

    def drop(definition: str) -> None:
        schemas.drop_blocker(
            world.database,
            str(sandbox.schema_name),
            "reporting.overview",
            fence=lambda _: None,
            definition=definition,
        )

    with pytest.raises(ArrakisError, match=r"view reporting.overview was replaced since the plan"):
        drop(planned.definition)
    [now] = look(world, sandbox)
    drop(now.definition)
    assert look(world, sandbox) == []


@contextmanager
def session(world: World, *statements: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Yield a session that has run these, and is idle in its transaction."""
    with closing(psycopg.connect(world.env["DATABASE_URL"], application_name="grafana")) as opened:
        for statement in statements:
            opened.execute(statement.encode())
        yield opened
        with suppress(psycopg.OperationalError):  # it may have been ended
            opened.rollback()


def holders(
    world: World, sandbox: Sandbox, *, patience: timedelta = NONE, tag: str = "tests"
) -> list[InTheWay]:
    with world.database.snapshot() as snapshot:
        return in_the_way(
            snapshot, [str(sandbox.schema_name)], tag=tag, sandboxes=[sandbox.id], patience=patience
        )


def test_who_holds_a_schema_is_named_with_what_ends_it(world: World, made: tuple[Sandbox, str]) -> None:
    sandbox, quoted = made
    with session(world, f"UPDATE {quoted}.profiles SET tier = 'it''s secret' WHERE tier = E'a\\'b'") as other:
        [found] = holders(world, sandbox, patience=timedelta(hours=1))  # idle: nobody waits for it
        assert (found.schema, found.sandbox) == (sandbox.schema_name, None)
        assert (found.pid, found.application) == (other.info.backend_pid, "grafana")
        assert (found.state, found.user) == ("idle in transaction", "lab")
        assert "holds RowExclusiveLock" in found.how
        assert found.query == f"UPDATE {quoted}.profiles SET tier = '…' WHERE tier = '…'"
        moments = [found.backend_start, found.transaction_since, found.since]
        assert moments == sorted(moment for moment in moments if moment)
        assert world.one(found.statement) is True
        eventually(lambda: not holders(world, sandbox))


def test_who_reads_another_schema_or_is_ours_is_in_nobodys_way(
    world: World, made: tuple[Sandbox, str]
) -> None:
    sandbox, quoted = made
    other = world.make("other")
    with session(world, f'SELECT FROM "{other.schema_name}".profiles'):
        assert holders(world, sandbox) == []
    with session(world, f"/* tests */ SELECT FROM {quoted}.profiles"):
        assert holders(world, sandbox) == []
        assert len(holders(world, sandbox, tag="somebody's")) == 1


def test_who_waits_stands_behind_who_holds_and_a_moment_is_forgiven(
    world: World, made: tuple[Sandbox, str]
) -> None:
    sandbox, quoted = made
    waiting = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
    with (
        closing(psycopg.connect(world.env["DATABASE_URL"], autocommit=True)) as waiter,
        session(world, f"SELECT FROM {quoted}.badges") as holder,
    ):
        waiter.execute("SET lock_timeout = '20s'")  # whatever fails below
        waiter.pgconn.send_query(f"DROP TABLE {quoted}.badges".encode())
        eventually(lambda: world.count(waiting, waiter.info.backend_pid) == 1)
        first, second = holders(world, sandbox)
        assert (first.pid, second.pid) == (holder.info.backend_pid, waiter.info.backend_pid)
        assert "awaits AccessExclusiveLock" in second.how
        assert [each.pid for each in holders(world, sandbox, patience=timedelta(hours=1))] == [first.pid]
        assert world.one(second.statement) is True


def test_who_holds_a_sandboxs_row_is_named(world: World, made: tuple[Sandbox, str]) -> None:
    sandbox, _ = made
    other = world.make("other")
    lock = "SELECT FROM public.sandboxes WHERE name = '{}' FOR NO KEY UPDATE"
    with session(world, lock.format("other")):
        assert holders(world, sandbox) == []
        assert [each.sandbox for each in holders(world, other)] == [other.id]
    with session(
        world, "UPDATE public.sandboxes SET last_activity_at = now() WHERE name = 'watched'"
    ) as holder:
        [found] = holders(world, sandbox)
        assert (found.schema, found.sandbox, found.pid) == ("", sandbox.id, holder.info.backend_pid)
        assert found.how == "holds its row in public.sandboxes"


def test_who_is_in_the_way_is_told_to_a_role_that_may_not_see_what_they_run(
    world: World, made: tuple[Sandbox, str]
) -> None:
    sandbox, quoted = made
    run(world, "CREATE ROLE onlooker LOGIN; GRANT SELECT ON public.sandboxes TO onlooker")
    onlooker = Postgres(world.env["DATABASE_URL"].replace("lab@", "onlooker@"), tag="tests")
    with session(world, f"SELECT FROM {quoted}.profiles") as holder, onlooker.snapshot() as snapshot:
        [found] = in_the_way(snapshot, [str(sandbox.schema_name)], tag="tests")
        counted = connections(snapshot)
        assert (found.pid, found.state) == (holder.info.backend_pid, "?")
    assert "insufficient privilege" in found.query
    assert counted.used >= 3  # it, the holder, and the test's own
    run(world, "REVOKE ALL ON public.sandboxes FROM onlooker; DROP ROLE onlooker")


def test_connections_are_counted_by_who_has_them(world: World) -> None:
    def counted() -> dict[str, int]:
        with world.database.snapshot() as snapshot:
            seen = connections(snapshot)
        assert seen.used == sum(group.count for group in seen.groups)
        assert seen.left == seen.limit - seen.reserved - seen.used
        assert (seen.limit, seen.reserved > 0) == (world.count("SHOW max_connections"), True)
        return {group.application: group.count for group in seen.groups}

    assert "grafana" not in counted()
    with session(world, "SELECT 1"), session(world, "SELECT 1"):
        assert counted()["grafana"] == 2


def test_the_last_event_is_read_in_both_forms(world: World, made: tuple[Sandbox, str]) -> None:
    sandbox, _ = made
    silent, quiet = world.write_row("silent", "running"), world.make("quiet")
    world.sql.execute(
        "INSERT INTO sandbox_audit_log (sandbox_id, event_type, actor, details, created_at) VALUES"
        " (%s, 'status_changed', 'cleanup', to_jsonb('{\"to\": \"expired\"}'::text), now() + interval '1 minute'),"
        " (%s, 'status_changed', 'nobody', '{}', 'infinity')",
        (sandbox.id, sandbox.id),
    )
    with world.database.snapshot() as snapshot:
        found = last_events(snapshot, [sandbox.id, silent, quiet.id])
        assert last_events(snapshot, []) == {}
    assert set(found) == {sandbox.id, quiet.id}
    entry = found[sandbox.id]
    assert (entry.name, entry.event, entry.actor) == ("watched", "status_changed", "cleanup")
    assert entry.details == {"to": "expired"}
    assert found[quiet.id].details["name"] == "quiet"
