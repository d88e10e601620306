"""Who uses a schema, on a real server: a lock is seen by any role, and what is hidden is not taken for nothing."""

from datetime import timedelta

import psycopg
import pytest

from sandbox import schemas
from sandbox.adapters.postgres import Postgres
from sandbox.errors import ArrakisError, Denied
from tests.conftest import StartLab

QUIET = timedelta(minutes=15)
NAME = "sandbox_0123456789ab"


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
        found = schemas.dependents(snapshot, NAME)
    assert found == ["foreign key pointing_id_fkey of pointing", "view watching"]
    with pytest.raises(ArrakisError, match="depends on"):
        schemas.drop_orphan(database, NAME, token="0123456789ab", fence=lambda _: None)
    with psycopg.connect(url) as admin:
        assert admin.execute("SELECT to_regclass('public.watching') IS NOT NULL").fetchone() == (True,)
