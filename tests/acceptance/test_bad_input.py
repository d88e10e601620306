"""Bad input: one clear line with the next step, exit 1, and neither a traceback nor a password."""

from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from tests.acceptance.engineer import Answer, Engineer

PASSWORD = "shai-hulud"
POSTGRES, REDIS, NATS = "DATABASE_URL", "REDIS_URL", "NATS_URL"


def plain(answer: Answer) -> str:
    """What was said, once it is one line and a next step."""
    assert answer.code == 1, answer.said
    assert "Traceback" not in answer.said
    assert PASSWORD not in answer.said
    said, following = answer.err.strip().splitlines()
    assert following.startswith("  next: ")
    return said + following


def pointed(engineer: Engineer, *, database: str | None = None, user: str | None = None) -> str:
    """The lab's PostgreSQL, with another database or role."""
    parts = urlsplit(engineer.lab.env[POSTGRES])
    place = parts.netloc.rpartition("@")[2]
    netloc = f"{user}:{PASSWORD}@{place}" if user else parts.netloc
    return urlunsplit(parts._replace(netloc=netloc, path=f"/{database}" if database else parts.path))


@pytest.fixture
def admin(engineer: Engineer) -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
    with psycopg.connect(engineer.lab.env[POSTGRES], autocommit=True) as connection:
        yield connection


def test_no_environment_at_all(engineer: Engineer) -> None:
    nowhere = engineer.but(DATABASE_URL=None, REDIS_URL=None, NATS_URL=None, AWS_ENDPOINT_URL=None)
    said = plain(nowhere.call("rb-sb-003"))
    assert "no environment is named" in said
    assert "lab rb-sb-003" in said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("rb-sb-001", "--via", "lambda"), "--via takes library or ecs, not 'lambda'"),
        (("rb-sb-002", "--via", ""), "--via takes library or ecs, not ''"),
        (
            ("rb-sb-002", "--drop-object", "reporting.nothing"),
            "no object 'reporting.nothing' rests on a schema",
        ),
    ],
)
def test_an_option_that_cannot_be_meant(engineer: Engineer, args: tuple[str, ...], said: str) -> None:
    assert said in plain(engineer.call(*args))


def test_an_unknown_environment(engineer: Engineer) -> None:
    assert "there is no environment 'arrakeen'" in plain(engineer.call("rb-sb-003", "--env", "arrakeen"))


@pytest.mark.parametrize("variable", [REDIS, NATS])
def test_an_address_is_missing(engineer: Engineer, variable: str) -> None:
    assert f"{variable} is not set" in plain(engineer.but(**{variable: None}).call("rb-sb-003"))


@pytest.mark.parametrize("variable", [POSTGRES, REDIS, NATS])
@pytest.mark.parametrize(
    "url", [f"chani:{PASSWORD}", f"x://chani:{PASSWORD}@", f"x://chani:{PASSWORD}@h:port"]
)
def test_a_malformed_address(engineer: Engineer, variable: str, url: str) -> None:
    said = plain(engineer.but(**{variable: url}).call("rb-sb-003"))
    assert f"{variable} is malformed" in said


def test_a_plan_that_does_not_exist(engineer: Engineer) -> None:
    assert "there is no plan dune" in plain(engineer.call("apply", "--plan", "dune", "--yes"))


@pytest.mark.parametrize("task", ["resume", "undo"])
def test_a_run_that_does_not_exist(engineer: Engineer, task: str) -> None:
    assert "there is no run dune" in plain(engineer.call(task, "--run", "dune", "--yes"))


def test_a_role_without_rights(engineer: Engineer, admin: "psycopg.Connection[tuple[object, ...]]") -> None:
    admin.execute(f"CREATE ROLE fremen LOGIN PASSWORD '{PASSWORD}'")
    said = plain(engineer.but(DATABASE_URL=pointed(engineer, user="fremen")).call("rb-sb-003"))
    assert "sandboxes" in said


def test_a_database_without_the_tables(
    engineer: Engineer, admin: "psycopg.Connection[tuple[object, ...]]"
) -> None:
    admin.execute("CREATE DATABASE desert")
    said = plain(engineer.but(DATABASE_URL=pointed(engineer, database="desert")).call("rb-sb-003"))
    assert "sandboxes" in said


def test_an_error_is_a_document_too(engineer: Engineer) -> None:
    answer = engineer.call("apply", "--plan", "dune", "--yes", "--json")
    assert answer.code == 1
    assert answer.document["outcome"] == "error"
    assert "there is no plan dune" in answer.document["error"]["message"]
    assert answer.document["error"]["hint"]
