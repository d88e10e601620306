"""Who uses a schema, on a real server: a lock is seen by any role, and what is hidden is not taken for nothing."""

from datetime import timedelta

import psycopg
import pytest

from sandbox import schemas
from sandbox.adapters.postgres import Postgres
from sandbox.errors import ArrakisError, Denied
from sql import load
from tests.conftest import StartLab

QUIET = timedelta(minutes=15)
NAME = "sandbox_0123456789ab"
STATEMENT = load("read/schemas/dependents")


@pytest.fixture(scope="module")
def url(start_lab: StartLab) -> str:
    made = start_lab().env["DATABASE_URL"]
    with psycopg.connect(made, autocommit=True) as admin:
        admin.execute(f"CREATE SCHEMA {NAME}; CREATE TABLE {NAME}.kept (id int PRIMARY KEY)")
        admin.execute("CREATE ROLE plain LOGIN")
    return made


def users(url: str) -> list[schemas.SchemaUser]:
    with Postgres(url, tag="tests:own").snapshot() as snapshot:
        return schemas.users(snapshot, [NAME], tag="tests:own", recent=QUIET)


def test_a_session_in_a_transaction_is_seen(url: str) -> None:
    with psycopg.connect(url, application_name="stilgar") as session:
        session.execute(f"SELECT FROM {NAME}.kept")
        found = users(url)
    assert {user.application for user in found} == {"stilgar"}
    assert any(user.how == "holds AccessShareLock" for user in found)


def test_what_others_hide_is_unknown_not_nothing(url: str) -> None:
    with psycopg.connect(url) as session:
        session.execute(f"SELECT FROM {NAME}.kept")
        with pytest.raises(Denied, match="hides what"):
            users(url.replace("lab@", "plain@"))


def test_what_elsewhere_depends_on_a_schema_is_named_and_keeps_it(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"CREATE VIEW public.watching AS SELECT id FROM {NAME}.kept")
        admin.execute(f"CREATE TABLE public.pointing (id int REFERENCES {NAME}.kept)")
    database = Postgres(url, tag="tests:own")
    with database.snapshot() as snapshot:
        found = schemas.dependents(snapshot, [NAME])
    assert found == {NAME: ["foreign key pointing_id_fkey of pointing", "view watching"]}
    with pytest.raises(ArrakisError, match="would take along foreign key"):
        schemas.drop_orphan(database, NAME, token="0123456789ab", oid=None, fence=lambda _: None)
    with psycopg.connect(url) as admin:
        assert admin.execute("SELECT to_regclass('public.watching') IS NOT NULL").fetchone() == (True,)


CASCADES = {
    "view public.hurt": "CREATE VIEW public.hurt AS SELECT id FROM {s}.kept",
    "materialized view": "CREATE MATERIALIZED VIEW public.hurt AS SELECT id FROM {s}.kept",
    "view of a function": "CREATE FUNCTION {s}.f() RETURNS int LANGUAGE sql AS 'SELECT 1';"
    "CREATE VIEW public.hurt AS SELECT {s}.f()",
    "foreign key": "CREATE TABLE public.hurt (id int REFERENCES {s}.kept)",
    "column of a type": "CREATE TYPE {s}.mood AS ENUM ('a'); CREATE TABLE public.hurt (id int, m {s}.mood)",
    "column of a domain": "CREATE DOMAIN {s}.d AS int; CREATE TABLE public.hurt (id {s}.d)",
    "column of a row type": "CREATE TABLE public.hurt (id int, k {s}.kept)",
    "child": "CREATE TABLE public.hurt () INHERITS ({s}.kept)",
    "part of production's": "CREATE TABLE public.hurt (id int) PARTITION BY LIST (id);"
    "CREATE TABLE {s}.p1 PARTITION OF public.hurt FOR VALUES IN (1)",
    "child of production's": "CREATE TABLE public.hurt (id int); CREATE TABLE {s}.c () INHERITS (public.hurt)",
    "default": "CREATE SEQUENCE {s}.q; CREATE TABLE public.hurt (id int DEFAULT nextval('{s}.q'))",
    "trigger": "CREATE FUNCTION {s}.t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
    "CREATE TABLE public.hurt (id int);"
    "CREATE TRIGGER x AFTER INSERT ON public.hurt FOR EACH ROW EXECUTE FUNCTION {s}.t()",
    "index": "CREATE FUNCTION {s}.i(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';"
    "CREATE TABLE public.hurt (id int); CREATE INDEX hurt_i ON public.hurt ({s}.i(id))",
    "check": "CREATE FUNCTION {s}.c(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';"
    "CREATE TABLE public.hurt (id int CHECK ({s}.c(id)))",
    "policy": "CREATE FUNCTION {s}.p() RETURNS bool LANGUAGE sql AS 'SELECT true'; CREATE TABLE public.hurt (id int);"
    "CREATE POLICY pol ON public.hurt USING ({s}.p())",
    "function's argument": "CREATE TYPE {s}.a AS (x int);"
    "CREATE FUNCTION public.hurt({s}.a) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "cast": "CREATE TYPE public.hurt AS (x int);"
    "CREATE FUNCTION {s}.f(public.hurt) RETURNS text LANGUAGE sql AS 'SELECT 1::text';"
    "CREATE CAST (public.hurt AS text) WITH FUNCTION {s}.f(public.hurt)",
    "array of it": "CREATE TABLE public.hurt (id {s}.kept[])",
}
"""What DROP … CASCADE would take along or empty in production, each made in a schema of its own."""

HARMLESS = {
    "as it is made": "SELECT public.create_sandbox_schema('{t}')",
    "refers to production's": "CREATE TABLE IF NOT EXISTS public.ref (id int PRIMARY KEY);"
    "CREATE SCHEMA {s}; CREATE TABLE {s}.x (id int REFERENCES public.ref, t text)",
    "all sorts": "CREATE SCHEMA {s}; CREATE TABLE {s}.big (id serial PRIMARY KEY, t text, e int GENERATED ALWAYS AS IDENTITY);"
    "CREATE TYPE {s}.mood AS ENUM ('a'); CREATE TABLE {s}.own (m {s}.mood, b {s}.big);"
    "CREATE FUNCTION {s}.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
    "CREATE TRIGGER x AFTER INSERT ON {s}.big FOR EACH ROW EXECUTE FUNCTION {s}.f();"
    "CREATE VIEW {s}.v AS SELECT * FROM {s}.big; CREATE MATERIALIZED VIEW {s}.mv AS SELECT * FROM {s}.v;"
    "CREATE FUNCTION {s}.c({s}.big) RETURNS text LANGUAGE sql AS 'SELECT 1::text';"
    "CREATE CAST ({s}.big AS text) WITH FUNCTION {s}.c({s}.big);"
    "CREATE VIEW {s}.of_public AS SELECT * FROM public.ref;"
    "CREATE TABLE {s}.parts (id int) PARTITION BY LIST (id); CREATE TABLE {s}.p1 PARTITION OF {s}.parts DEFAULT;"
    'CREATE PUBLICATION "pub_{t}" FOR TABLE {s}.big; CREATE STATISTICS {s}.st ON id, t FROM {s}.big;'
    "ALTER DEFAULT PRIVILEGES IN SCHEMA {s} GRANT SELECT ON TABLES TO PUBLIC",
}


@pytest.mark.parametrize("what", CASCADES)
def test_whatever_cascade_would_take_along_is_seen(url: str, what: str) -> None:
    schema = "sandbox_00000000-0000-4000-8000-00000000cafe"  # as we name them: it wants quotes
    quoted = f'"{schema}"'
    with psycopg.connect(url) as admin:  # and rolled back
        admin.execute(f"CREATE SCHEMA {quoted}; CREATE TABLE {quoted}.kept (id int PRIMARY KEY)".encode())
        admin.execute(CASCADES[what].format(s=quoted).encode())
        found = [str(row) for row in admin.execute(STATEMENT, {"schemas": [schema]})]
        admin.rollback()
    assert len(found) == 1, found
    assert "hurt" in found[0]


@pytest.mark.parametrize("what", HARMLESS)
def test_what_is_a_sandboxs_own_is_no_obstacle(url: str, what: str) -> None:
    token = "00000000-0000-4000-8000-00000000beef"
    with psycopg.connect(url) as admin:
        admin.execute(b"CREATE TABLE IF NOT EXISTS public.ref (id int PRIMARY KEY)")
        admin.execute(HARMLESS[what].format(s=f'"sandbox_{token}"', t=token).encode())
        found = admin.execute(STATEMENT, {"schemas": [f"sandbox_{token}"]}).fetchall()
        admin.rollback()
    assert found == []
