"""Every kind of thing that can rest on a sandbox's schema: cleared alone, made again as it was, by whatever name."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psycopg
import pytest
from psycopg import sql

from sandbox import schemas
from sandbox.errors import ArrakisError, Busy
from sandbox.schemas import Blocker
from tests.integration.world import World

SCHEMA = "sandbox_00000000-0000-4000-8000-00000000cafe"  # as we name them: it wants quotes
HOME = f'"{SCHEMA}"'

OUTSIDE = """
WITH own AS (
    SELECT n.oid FROM pg_namespace AS n WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', %(schema)s)
), relation AS (
    SELECT c.*, c.oid::regclass::text AS called FROM pg_class AS c WHERE c.relnamespace IN (SELECT oid FROM own)
)
SELECT format('%%s %%s %%s %%s', relkind, called, reloptions, relacl) FROM relation
UNION ALL SELECT called || ' is ' || pg_get_viewdef(oid) FROM relation WHERE relkind IN ('v', 'm')
UNION ALL SELECT called || ' is ' || pg_get_indexdef(oid) FROM relation WHERE relkind IN ('i', 'I')
UNION ALL SELECT called || ' holds ' || pg_get_expr(relpartbound, oid) FROM relation WHERE relispartition AND relkind = 'r'
UNION ALL SELECT called || ' is of ' || i.inhparent::regclass FROM relation JOIN pg_inherits AS i ON i.inhrelid = oid
UNION ALL SELECT format('%%s.%%I %%s %%s', called, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull)
    FROM relation JOIN pg_attribute AS a ON a.attrelid = oid AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL SELECT format('%%s.%%I is %%s', called, a.attname, pg_get_expr(d.adbin, d.adrelid))
    FROM relation JOIN pg_attrdef AS d ON d.adrelid = relation.oid
    JOIN pg_attribute AS a ON a.attrelid = relation.oid AND a.attnum = d.adnum
UNION ALL SELECT format('%%s.%%I %%s', called, x.conname, pg_get_constraintdef(x.oid))
    FROM relation JOIN pg_constraint AS x ON x.conrelid = relation.oid
UNION ALL SELECT format('%%s %%s %%s', called, pg_get_triggerdef(t.oid), t.tgenabled)
    FROM relation JOIN pg_trigger AS t ON t.tgrelid = relation.oid AND NOT t.tgisinternal
UNION ALL SELECT format('%%s %%s %%s', called, pg_get_ruledef(r.oid), r.ev_enabled)
    FROM relation JOIN pg_rewrite AS r ON r.ev_class = relation.oid
UNION ALL SELECT format('%%s.%%I %%s %%s %%s %%s %%s', called, polname, polcmd, polpermissive, polroles::regrole[],
        pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
    FROM relation JOIN pg_policy ON polrelid = relation.oid
UNION ALL SELECT format('%%s %%s', pg_get_functiondef(f.oid), f.proacl)
    FROM pg_proc AS f WHERE f.pronamespace IN (SELECT oid FROM own) AND f.prokind <> 'a'
"""
"""All that there is outside of the schema, a line a thing."""


@dataclass(frozen=True)
class Case:
    """What is made, the kind and the name that it is told by, and whether a statement clears it, and what is its part.

    {s} is the sandbox's schema; {r}, {t} and {n} are another schema, a table in it, and the thing itself.
    """

    made: str
    kind: str
    name: str
    clears: bool = True
    part: str = "no other line holds this"


TABLE = "CREATE TABLE {r}.{t} (id int, note text); INSERT INTO {r}.{t} VALUES (1, 'one'), (2, 'two');"
YES = "CREATE FUNCTION {s}.yes(int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT true';"
FIRE = "CREATE FUNCTION {s}.fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
CASES: Mapping[str, Case] = {
    "view": Case(
        "CREATE VIEW {r}.{n} WITH (security_barrier, check_option = local) AS SELECT id FROM {s}.kept",
        "view",
        "{r}.{n}",
    ),
    "view with a trigger": Case(
        "CREATE VIEW {r}.{n} AS SELECT id FROM {s}.kept;"
        "CREATE FUNCTION {r}.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER x INSTEAD OF INSERT ON {r}.{n} FOR EACH ROW EXECUTE FUNCTION {r}.f()",
        "view",
        "{r}.{n}",
    ),
    "materialized view": Case(
        "CREATE MATERIALIZED VIEW {r}.{n} AS SELECT id FROM {s}.kept; CREATE UNIQUE INDEX ON {r}.{n} (id)",
        "materialized view",
        "{r}.{n}",
    ),
    "rule": Case(
        TABLE + "CREATE RULE {n} AS ON INSERT TO {r}.{t} DO ALSO INSERT INTO {s}.kept VALUES (NEW.id)",
        "rule",
        "{r}.{t}.{n}",
    ),
    "disabled rule": Case(
        TABLE + "CREATE RULE {n} AS ON INSERT TO {r}.{t} DO ALSO INSERT INTO {s}.kept VALUES (NEW.id);"
        "ALTER TABLE {r}.{t} DISABLE RULE {n}",
        "rule",
        "{r}.{t}.{n}",
    ),
    "foreign key": Case(
        "CREATE TABLE {r}.{t} (id int CONSTRAINT {n} REFERENCES {s}.kept ON DELETE CASCADE DEFERRABLE);"
        "INSERT INTO {r}.{t} VALUES (1)",
        "foreign key",
        "{r}.{t}.{n}",
    ),
    "foreign key of a table with partitions": Case(
        "CREATE TABLE {r}.{t} (id int, CONSTRAINT {n} FOREIGN KEY (id) REFERENCES {s}.kept) PARTITION BY LIST (id);"
        "CREATE TABLE {r}.p PARTITION OF {r}.{t} FOR VALUES IN (1); INSERT INTO {r}.{t} VALUES (1)",
        "foreign key",
        "{r}.{t}.{n}",
    ),
    "foreign key to a table with partitions": Case(
        "CREATE TABLE {s}.w (id int PRIMARY KEY) PARTITION BY LIST (id); CREATE TABLE {s}.w1 PARTITION OF {s}.w DEFAULT;"
        "CREATE TABLE {r}.{t} (id int CONSTRAINT {n} REFERENCES {s}.w); INSERT INTO {r}.{t} VALUES (NULL)",
        "foreign key",
        "{r}.{t}.{n}",
    ),
    "check": Case(
        TABLE + YES + "ALTER TABLE {r}.{t} ADD CONSTRAINT {n} CHECK ({s}.yes(id))",
        "constraint",
        "{r}.{t}.{n}",
    ),
    "check that a child has too": Case(
        TABLE + YES + "CREATE TABLE {r}.c () INHERITS ({r}.{t}); INSERT INTO {r}.c VALUES (1);"
        "ALTER TABLE {r}.{t} ADD CONSTRAINT {n} CHECK ({s}.yes(id))",
        "constraint",
        "{r}.{t}.{n}",
    ),
    "exclusion": Case(
        TABLE
        + YES
        + "ALTER TABLE {r}.{t} ADD CONSTRAINT {n} EXCLUDE USING btree (id WITH =) WHERE ({s}.yes(id))",
        "index",
        "{r}.{n}",
        clears=False,
    ),
    "trigger": Case(
        TABLE
        + FIRE
        + "CREATE TRIGGER {n} AFTER UPDATE OF note ON {r}.{t} FOR EACH ROW EXECUTE FUNCTION {s}.fire()",
        "trigger",
        "{r}.{t}.{n}",
    ),
    "disabled trigger": Case(
        TABLE + FIRE + "CREATE TRIGGER {n} AFTER DELETE ON {r}.{t} FOR EACH ROW EXECUTE FUNCTION {s}.fire();"
        "ALTER TABLE {r}.{t} DISABLE TRIGGER {n}",
        "trigger",
        "{r}.{t}.{n}",
    ),
    "constraint trigger": Case(
        TABLE + FIRE + "CREATE CONSTRAINT TRIGGER {n} AFTER DELETE ON {r}.{t} DEFERRABLE FOR EACH ROW"
        " EXECUTE FUNCTION {s}.fire()",
        "trigger",
        "{r}.{t}.{n}",
    ),
    "policy": Case(
        TABLE + YES + "CREATE POLICY {n} ON {r}.{t} FOR UPDATE USING ({s}.yes(id)) WITH CHECK (id > 0)",
        "policy",
        "{r}.{t}.{n}",
    ),
    "default": Case(
        TABLE + "CREATE SEQUENCE {s}.q; ALTER TABLE {r}.{t} ADD {n} bigint DEFAULT nextval('{s}.q')",
        "default",
        "{r}.{t}.{n}",
    ),
    "default beside a child's own": Case(
        TABLE
        + "CREATE SEQUENCE {s}.q; ALTER TABLE {r}.{t} ADD {n} bigint; CREATE TABLE {r}.c () INHERITS ({r}.{t});"
        "INSERT INTO {r}.c VALUES (1);"
        "ALTER TABLE ONLY {r}.{t} ALTER {n} SET DEFAULT nextval('{s}.q'); ALTER TABLE {r}.c ALTER {n} SET DEFAULT 7",
        "default",
        "{r}.{t}.{n}",
    ),
    "index": Case(TABLE + YES + "CREATE INDEX {n} ON {r}.{t} ({s}.yes(id)) WHERE id > 0", "index", "{r}.{n}"),
    "index of a table with partitions": Case(
        YES
        + "CREATE TABLE {r}.{t} (id int) PARTITION BY LIST (id); CREATE TABLE {r}.p PARTITION OF {r}.{t} DEFAULT;"
        "INSERT INTO {r}.{t} VALUES (1); CREATE INDEX {n} ON {r}.{t} ({s}.yes(id))",
        "index",
        "{r}.{n}",
        part="p_yes_idx",
    ),
    "function's argument": Case(
        "CREATE FUNCTION {r}.{n}(it {s}.kept, y int DEFAULT 1) RETURNS int LANGUAGE sql AS 'SELECT $1.id + 100 % $2'",
        "function",
        "{r}.{n}({s}.kept,integer)",
    ),
    "function's result": Case(
        "CREATE FUNCTION {r}.{n}() RETURNS SETOF {s}.kept LANGUAGE plpgsql AS 'BEGIN RETURN; END'",
        "function",
        "{r}.{n}()",
    ),
    "function's body": Case(
        "CREATE FUNCTION {r}.{n}() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM {s}.kept; END",
        "function",
        "{r}.{n}()",
    ),
    "procedure": Case(
        "CREATE PROCEDURE {r}.{n}(it {s}.kept) LANGUAGE sql AS 'SELECT 1'", "procedure", "{r}.{n}({s}.kept)"
    ),
    "aggregate": Case(
        "CREATE FUNCTION {s}.step(int, int) RETURNS int LANGUAGE sql AS 'SELECT $1 + $2';"
        "CREATE AGGREGATE {r}.{n}(int) (SFUNC = {s}.step, STYPE = int)",
        "aggregate",
        "{r}.{n}(integer)",
        clears=False,
    ),
    "child": Case(
        "CREATE TABLE {r}.{n} (own int) INHERITS ({s}.kept); INSERT INTO {r}.{n} VALUES (7, 'x', 8)",
        "table",
        "{r}.{n}",
    ),
    "child of two": Case(
        "CREATE TABLE {r}.{t} (id int); CREATE TABLE {r}.{n} () INHERITS ({r}.{t}, {s}.kept);"
        "INSERT INTO {r}.{n} VALUES (1)",
        "table",
        "{r}.{n}",
    ),
    "partition with keys": Case(
        "CREATE TABLE {s}.w (id int PRIMARY KEY) PARTITION BY LIST (id); CREATE INDEX ON {s}.w (id);"
        "CREATE TABLE {r}.{n} PARTITION OF {s}.w FOR VALUES IN (1); INSERT INTO {s}.w VALUES (1)",
        "table",
        "{r}.{n}",
    ),
    "column of a row type": Case(
        TABLE + "ALTER TABLE {r}.{t} ADD {n} {s}.kept[]", "column", "{r}.{t}.{n}", clears=False
    ),
    "typed table": Case(
        "CREATE TYPE {s}.pair AS (a int); CREATE TABLE {r}.{n} OF {s}.pair", "table", "{r}.{n}", clears=False
    ),
    "domain": Case(
        "CREATE DOMAIN {s}.small AS int; CREATE DOMAIN {r}.{n} AS {s}.small", "type", "{r}.{n}", clears=False
    ),
    "statistics": Case(
        TABLE + YES + "CREATE STATISTICS {r}.{n} ON id, ({s}.yes(id)) FROM {r}.{t}",
        "statistics object",
        "{r}.{n}",
        clears=False,
    ),
}
PLAIN = {"s": HOME, "r": "reporting", "t": "orders", "n": "overview"}
ODD = {"s": HOME, "r": '"Re ""port"" 100%"', "t": '"T\'a; -- %s"', "n": '"N ""x"" %(y)s \\ Ünder"'}


@pytest.fixture(autouse=True)
def _home(world: World) -> Iterator[None]:
    """Make the schema, and others beside it that have nothing to do with it."""
    world.sql.execute(
        f"CREATE SCHEMA {HOME}; CREATE TABLE {HOME}.kept (id int PRIMARY KEY, name text);"
        f"INSERT INTO {HOME}.kept VALUES (1, 'a'); CREATE SCHEMA reporting; CREATE SCHEMA {ODD['r']};"
        "CREATE SCHEMA bystander; CREATE TABLE bystander.kept (id int PRIMARY KEY);"
        "CREATE VIEW bystander.overview AS SELECT id FROM bystander.kept".encode()
    )
    yield
    made = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|public$|information_schema$)'"
    for (name,) in world.sql.execute(made).fetchall():
        world.sql.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(str(name))))


def make(world: World, text: str, names: Mapping[str, str] = PLAIN) -> None:
    world.sql.execute(text.format_map(names).encode())


def outside(world: World) -> set[str]:
    """Return all that there is outside of the schema."""
    return {str(line) for (line,) in world.sql.execute(OUTSIDE.encode(), {"schema": SCHEMA}) if line}


def found(world: World) -> list[Blocker]:
    with world.database.snapshot() as snapshot:
        return schemas.blockers(snapshot, [SCHEMA])


def drop(world: World, name: str) -> None:
    schemas.drop_blocker(world.database, SCHEMA, name, fence=lambda _: None)


@pytest.mark.parametrize("names", [pytest.param(PLAIN, marks=pytest.mark.soak), ODD], ids=["plain", "odd"])
@pytest.mark.parametrize("what", CASES)
def test_what_rests_on_a_schema_goes_alone_and_can_be_made_again(
    world: World, what: str, names: Mapping[str, str]
) -> None:
    case = CASES[what]
    make(world, case.made, names)
    before = outside(world)
    [blocker] = found(world)
    assert (blocker.schema, blocker.kind, blocker.name) == (SCHEMA, case.kind, case.name.format_map(names))
    assert bool(blocker.statement) == case.clears, blocker.statement
    if not case.clears:
        with pytest.raises(ArrakisError, match=r"no statement drops .* safely"):
            drop(world, blocker.name)
        assert outside(world) == before
        return
    drop(world, blocker.name)
    gone = before - outside(world)
    assert gone
    assert all(names["n"].strip('"') in line or case.part in line for line in gone)
    assert outside(world) < before
    assert found(world) == []
    world.sql.execute(blocker.definition.encode())
    assert outside(world) == before
    assert found(world) == [blocker]


@pytest.mark.parametrize("what", [what for what, case in CASES.items() if case.clears])
def test_what_a_statement_clears_loses_no_row_of_anybodys(world: World, what: str) -> None:
    make(world, CASES[what].made)
    tables = [
        str(name)
        for (name,) in world.sql.execute(
            "SELECT oid::regclass FROM pg_class WHERE relkind = 'r' AND relnamespace = 'reporting'::regnamespace"
        )
    ]
    rows = {name: world.count(f"SELECT count(*) FROM ONLY {name}") for name in tables}
    world.sql.execute(found(world)[0].statement.encode())  # as an operator would, by hand
    with world.database.transaction() as transaction:
        schemas.drop(world.database, transaction, [SCHEMA])
    assert SCHEMA not in world.schemas()
    assert {name: world.count(f"SELECT count(*) FROM ONLY {name}") for name in tables} == rows


@pytest.mark.parametrize(
    "place",
    [
        '"Sandbox_3F2B8C1E"',
        "quarantine_20260101000000_3f2b8c1e",
        '"pending_00000000-0000-4000-8000-00000000beef"',
        "runbooks",
    ],
)
def test_what_is_another_sandboxs_or_our_own_is_not_cleared(world: World, place: str) -> None:
    make(world, f"CREATE SCHEMA {place}; CREATE VIEW {place}.watching AS SELECT id FROM {{s}}.kept")
    before = outside(world)
    [blocker] = found(world)
    assert (blocker.name, blocker.statement) == (f"{place}.watching", "")
    with pytest.raises(ArrakisError, match=r"no statement drops view .*watching safely"):
        drop(world, blocker.name)
    assert outside(world) == before


@pytest.mark.parametrize("name", ["bystander.overview", "overview", "reporting.gone"])
def test_what_does_not_rest_on_the_schema_is_not_cleared(world: World, name: str) -> None:
    make(world, CASES["view"].made)
    before = outside(world)
    with pytest.raises(ArrakisError, match=f"no {name} rests on {SCHEMA} any more"):
        drop(world, name)
    assert outside(world) == before


@pytest.mark.parametrize(
    "member",
    ["TABLE {s}.kept", "SEQUENCE {s}.numbers", "FUNCTION {s}.yes(int)"],
    ids=["table", "sequence", "function"],
)
def test_an_extension_goes_with_any_member_of_it(world: World, member: str) -> None:
    make(world, f"CREATE SEQUENCE {{s}}.numbers; {YES} ALTER EXTENSION plpgsql ADD {member}")
    try:
        with world.database.snapshot() as snapshot:
            assert schemas.dependents(snapshot, [SCHEMA]) == {SCHEMA: ["extension plpgsql"]}
    finally:
        make(world, f"ALTER EXTENSION plpgsql DROP {member}")


def test_an_operator_class_elsewhere_goes_with_what_it_uses(world: World) -> None:
    make(
        world,
        "CREATE FUNCTION {s}.before(int, int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 - $2';"
        "CREATE OPERATOR CLASS reporting.order FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=,"
        " OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 {s}.before(int, int)",
    )
    with world.database.snapshot() as snapshot:
        [told] = schemas.dependents(snapshot, [SCHEMA])[SCHEMA]
    assert "reporting" in told


def test_what_somebody_reads_is_not_cleared(world: World) -> None:
    make(world, CASES["view"].made)
    with psycopg.connect(world.env["DATABASE_URL"]) as reader:
        reader.execute("SELECT FROM reporting.overview")
        with pytest.raises(Busy, match="could not take the lock"):
            drop(world, "reporting.overview")
    assert [each.name for each in found(world)] == ["reporting.overview"]


def test_a_definition_that_somebody_keeps_from_being_read_is_unknown(world: World) -> None:
    make(world, CASES["view"].made)
    with psycopg.connect(world.env["DATABASE_URL"]) as changer:
        changer.execute("ALTER VIEW reporting.overview SET (security_barrier)")
        with pytest.raises(Busy):
            found(world)
        with world.database.snapshot() as snapshot:  # that it rests there is told without a lock
            assert schemas.dependents(snapshot, [SCHEMA]) == {SCHEMA: ["view reporting.overview"]}


def test_a_definition_says_who_owned_it_and_may_use_it(world: World) -> None:
    make(world, CASES["view"].made)
    world.sql.execute(
        "CREATE ROLE analyst; CREATE ROLE reader; GRANT SELECT ON reporting.overview TO reader;"
        "ALTER VIEW reporting.overview OWNER TO analyst"
    )
    [blocker] = found(world)
    assert blocker.definition.splitlines()[-1].startswith("-- owner analyst, rights {")
    assert "reader=r/analyst" in blocker.definition
    world.sql.execute("DROP OWNED BY analyst, reader; DROP ROLE analyst, reader")


def test_what_a_partition_keeps_of_its_parent_is_seen_when_it_is_detached(world: World) -> None:
    make(
        world,
        "CREATE TABLE {s}.w (id int PRIMARY KEY REFERENCES {s}.kept) PARTITION BY LIST (id);"
        "CREATE TABLE reporting.p PARTITION OF {s}.w FOR VALUES IN (1); CREATE TABLE reporting.o (id int REFERENCES reporting.p)",
    )
    assert [each.name for each in found(world)] == ["reporting.p"]
    drop(world, "reporting.p")
    [kept] = found(world)
    assert (kept.kind, kept.statement) == (
        "foreign key",
        "ALTER TABLE reporting.p DROP CONSTRAINT w_id_fkey;",
    )
    drop(world, kept.name)
    assert found(world) == []
