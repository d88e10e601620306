"""What the migration makes and what a role needs, in databases where one thing at a time is not so."""

from collections.abc import Iterator, Sequence

import psycopg
import pytest

from diagnostics import migration
from diagnostics.migration import Fault, What, faults, parts, read_items
from diagnostics.rights import Right, Rights, read_rights
from sandbox.adapters.postgres import Postgres
from tests.integration.world import World

Base = psycopg.Connection[tuple[object, ...]]

APP = "arrakis_app"
CREATE = "create_sandbox_schema(p_sandbox_id text)"


@pytest.fixture(scope="module")
def template(world: World) -> str:
    """Return the name of a database in which the migration ran, and nothing else; the role of the system is there."""
    world.sql.execute("CREATE DATABASE migrated")
    Postgres(_address(world, "migrated"), tag="tests").script(migration.MIGRATION)
    world.sql.execute(f"CREATE ROLE {APP} LOGIN; CREATE ROLE operator LOGIN; CREATE ROLE owner".encode())
    return "migrated"


@pytest.fixture
def base(world: World, template: str) -> Iterator[Base]:
    """Return a connection to a copy of it."""
    world.sql.execute(f"CREATE DATABASE copied TEMPLATE {template}".encode())
    with psycopg.connect(_address(world, "copied"), autocommit=True) as connection:
        yield connection
    world.sql.execute("DROP DATABASE copied WITH (FORCE)")


def _address(world: World, name: str, user: str = "lab") -> str:
    place = world.env["DATABASE_URL"].rpartition("@")[2].rpartition("/")[0]
    return f"postgresql://{user}@{place}/{name}"


def found(world: World) -> tuple[Fault, ...]:
    """Return what is wrong in the copy."""
    with Postgres(_address(world, "copied"), tag="tests").snapshot() as snapshot:
        return faults(read_items(snapshot))


# ---- the migration's objects


def test_where_the_migration_ran_nothing_is_wrong(world: World, template: str) -> None:
    with Postgres(_address(world, template), tag="tests").snapshot() as snapshot:
        items = read_items(snapshot)
    assert faults(items) == ()
    expected = {(item.kind, item.name, item.text) for part in parts() for item in part.items}
    assert {(item.kind, item.name, item.text) for item in items} == expected


def test_where_it_did_not_all_is_missing(world: World) -> None:
    with Postgres(_address(world, "postgres"), tag="tests").snapshot() as snapshot:
        missing = faults(read_items(snapshot))
    assert [fault.name for fault in missing] == [part.name for part in parts()]
    assert [fault.part for fault in missing] == list(parts())
    assert {fault.what for fault in missing} == {What.MISSING}


TABLES = ("sandboxes", "sandbox_guild_mapping", "sandbox_audit_log")
_ITEMS = [(part, item) for part in parts() for item in part.items]


@pytest.mark.parametrize("table", TABLES)
def test_each_column_is_missed_and_the_table(world: World, base: Base, table: str) -> None:
    names = [item.name for part, item in _ITEMS if part.name == table and item.kind == "column"]
    for number, name in enumerate(names[:-1], 1):
        base.execute(f"ALTER TABLE {table} DROP COLUMN {name.partition('.')[2]} CASCADE".encode())
        missing = [fault for fault in found(world) if fault.kind == "column"]
        assert [fault.name for fault in missing] == names[:number]
        assert {(fault.what, fault.part, fault.fatal) for fault in missing} == {(What.MISSING, None, True)}
    base.execute(f"DROP TABLE {table} CASCADE".encode())
    [whole] = [fault for fault in found(world) if fault.fatal]
    assert (whole.kind, whole.name, whole.what, bool(whole.part)) == ("table", table, What.MISSING, True)


def test_each_constraint_is_missed(world: World, base: Base) -> None:
    query = """SELECT conrelid::regclass::text, conname::text FROM pg_constraint
        WHERE conrelid = ANY (%s::regclass[]) AND contype IN ('p', 'u', 'f') ORDER BY contype = 'p', 1, 2"""
    names = base.execute(query, (list(TABLES),)).fetchall()
    for number, (table, name) in enumerate(names, 1):
        base.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}".encode())
        missing = found(world)
        assert [(fault.kind, fault.what, fault.fatal) for fault in missing] == [
            ("constraint", What.MISSING, False)
        ] * number
        assert table in {fault.name for fault in missing}
    assert len(names) == sum(item.kind == "constraint" for _, item in _ITEMS)


@pytest.mark.parametrize("name", [part.name for part in parts() if part.kind == "index"])
def test_each_index_is_missed_and_told_when_it_is_invalid(world: World, base: Base, name: str) -> None:
    base.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", (name,))
    [fault] = found(world)
    assert (fault.kind, fault.name, fault.what) == ("index", name, What.INVALID)
    base.execute(f"DROP INDEX {name}".encode())
    [fault] = found(world)
    assert (fault.kind, fault.name, fault.what, fault.fatal) == ("index", name, What.MISSING, False)
    assert fault.part
    base.execute(fault.part.statement.encode())
    assert found(world) == ()


@pytest.mark.parametrize("name", [part.name for part in parts() if part.kind == "function"])
def test_each_function_is_missed(world: World, base: Base, name: str) -> None:
    plain = name.partition("(")[0]
    base.execute(f"DROP FUNCTION public.{plain}(text)".encode())
    [fault] = found(world)
    assert (fault.kind, fault.name, fault.what, fault.fatal) == ("function", name, What.MISSING, True)
    assert fault.part
    base.execute(fault.part.statement.encode())
    assert found(world) == ()


@pytest.mark.parametrize(
    ("change", "kind", "name", "told"),
    [
        (
            "ALTER TABLE sandboxes ALTER name TYPE text",
            "column",
            "sandboxes.name",
            "it is text NOT NULL, and should be varchar(64) NOT NULL",
        ),
        (
            "ALTER TABLE sandboxes ALTER owner DROP NOT NULL",
            "column",
            "sandboxes.owner",
            "it is varchar(64), and should be varchar(64) NOT NULL",
        ),
        (
            "ALTER TABLE sandboxes ALTER metadata DROP DEFAULT",
            "column",
            "sandboxes.metadata",
            "it is jsonb NOT NULL, and should be jsonb NOT NULL DEFAULT '{}'",
        ),
        (
            "ALTER TYPE sandbox_status ADD VALUE 'parked' AFTER 'running'",
            "type",
            "sandbox_status",
            "it is pending, creating, running, parked, expired, destroying, destroyed, and should be "
            "pending, creating, running, expired, destroying, destroyed",
        ),
        (
            "CREATE OR REPLACE FUNCTION create_sandbox_schema(p_sandbox_id text) RETURNS void LANGUAGE plpgsql"
            " AS 'BEGIN END'",
            "function",
            CREATE,
            "its text is not the migration's",
        ),
    ],
    ids=["type", "null", "default", "labels", "body"],
)
def test_what_is_otherwise_is_told(
    world: World, base: Base, change: str, kind: str, name: str, told: str
) -> None:
    base.execute(change.encode())
    [fault] = found(world)
    assert (fault.kind, fault.name, fault.what, fault.told) == (kind, name, What.DIFFERENT, told)
    assert (fault.fatal, fault.part) == (False, None)


def test_what_there_is_besides_and_other_names_are_nobodys_concern(world: World, base: Base) -> None:
    base.execute(
        "ALTER TABLE sandboxes ADD region text; CREATE INDEX more ON sandboxes (region);"
        "ALTER INDEX idx_sandboxes_owner RENAME TO by_owner;"
        "ALTER TABLE sandboxes RENAME CONSTRAINT sandboxes_name_unique TO other"
    )
    assert found(world) == ()


def test_another_search_path_changes_nothing(world: World, base: Base) -> None:
    base.execute("ALTER DATABASE copied SET search_path = pg_catalog")
    assert found(world) == ()


# ---- rights


def rights(world: World, deployed: str = APP, user: str = "lab") -> Rights:
    """Return what is granted in the copy, as a user sees it."""
    with Postgres(_address(world, "copied", user), tag="tests").snapshot() as snapshot:
        return read_rights(snapshot, deployed=deployed)


def told(lacking: Sequence[Right]) -> list[str]:
    """Return the statements that give what is lacking."""
    return [right.statement for right in lacking]


def test_a_new_role_lacks_what_the_public_has_not(world: World, base: Base) -> None:
    seen = rights(world)
    assert seen.creator == APP
    tables = [
        f"GRANT {privilege} ON TABLE public.{table} TO {APP}"
        for table in sorted(TABLES)
        for privilege in ("INSERT", "SELECT", "UPDATE")
    ]
    assert told(seen.lacking(APP)) == [f"GRANT CREATE ON DATABASE copied TO {APP}", *tables]
    assert told(seen.lacking("lab")) == []
    for statement in told(seen.lacking(APP)):
        base.execute(statement.encode())
    assert told(rights(world).lacking(APP)) == []


def test_what_the_public_has_lost_is_lacking(world: World, base: Base) -> None:
    base.execute(
        "REVOKE USAGE ON SCHEMA public FROM PUBLIC; GRANT CREATE ON DATABASE copied TO arrakis_app;"
        "REVOKE EXECUTE ON FUNCTION create_sandbox_schema(text) FROM PUBLIC;"
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO arrakis_app"
    )
    lacking = rights(world).lacking(APP)
    assert told(lacking) == [
        f"GRANT EXECUTE ON FUNCTION public.create_sandbox_schema(text) TO {APP}",
        f"GRANT USAGE ON SCHEMA public TO {APP}",
    ]
    assert [right.taking for right in lacking] == [
        f"REVOKE EXECUTE ON FUNCTION public.create_sandbox_schema(text) FROM {APP}",
        f"REVOKE USAGE ON SCHEMA public FROM {APP}",
    ]


def test_of_a_function_with_its_owners_rights_the_owner_needs_them(world: World, base: Base) -> None:
    base.execute(
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO arrakis_app;"
        "ALTER FUNCTION create_sandbox_schema(text) OWNER TO owner;"
        "ALTER FUNCTION create_sandbox_schema(text) SECURITY DEFINER"
    )
    assert told(rights(world).lacking(APP)) == ["GRANT CREATE ON DATABASE copied TO owner"]


def test_only_who_owns_or_may_pass_on_can_grant(world: World, base: Base) -> None:
    assert all(right.may_grant for right in rights(world).lacking(APP))
    assert not any(right.may_grant for right in rights(world, user="operator").lacking(APP))
    base.execute("GRANT CREATE ON DATABASE copied TO operator WITH GRANT OPTION")
    granting = [right for right in rights(world, user="operator").lacking(APP) if right.may_grant]
    assert [(right.kind, right.owner) for right in granting] == [("database", "lab")]


def test_a_role_that_is_not_there_is_said_to_be_not_there(world: World, base: Base) -> None:
    seen = rights(world, deployed="nobody", user="operator")
    assert (seen.role.deployed_exists, seen.role.may_act, seen.creator) == (False, False, "operator")
    assert told(seen.lacking(seen.creator))[0] == "GRANT CREATE ON DATABASE copied TO operator"


def test_who_may_act_as_the_systems_role(world: World, base: Base) -> None:
    assert rights(world).role.may_act
    assert not rights(world, user="operator").role.may_act
    world.sql.execute("GRANT arrakis_app TO operator")
    seen = rights(world, user="operator")
    world.sql.execute("REVOKE arrakis_app FROM operator")
    assert seen.role.may_act
    assert (seen.role.superuser, seen.role.may_migrate, seen.role.recovering) == (False, False, False)


def test_names_that_need_quotes_are_quoted(world: World, base: Base) -> None:
    world.sql.execute('CREATE ROLE "odd; name"')
    [first, *_] = rights(world, deployed="odd; name").lacking("odd; name")
    world.sql.execute('DROP ROLE "odd; name"')
    assert first.statement == 'GRANT CREATE ON DATABASE copied TO "odd; name"'


def test_a_database_that_takes_no_writes_says_so(world: World, base: Base) -> None:
    assert not rights(world).role.read_only
    base.execute("ALTER DATABASE copied SET default_transaction_read_only = on")
    assert rights(world).role.read_only
