"""What the clean-up does with what it may not delete: quarantine, by RB-SB-003's own plan, guards and journal."""

from dataclasses import replace
from uuid import uuid4

import psycopg
import pytest

from tests.acceptance.dump import age, dump
from tests.acceptance.engineer import Engineer
from tests.acceptance.test_jobs import log
from tests.conftest import StartLab


@pytest.fixture(scope="module")
def engineer(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> Engineer:
    """Return an engineer at a lab where no sandbox is over, and orphans and remains are all there is to do."""
    lab = start_lab()
    with psycopg.connect(lab.env["DATABASE_URL"], autocommit=True) as sql:
        sql.execute(
            "UPDATE sandboxes SET status = 'running', expires_at = now() + interval '1 day' WHERE status = 'expired'"
        )
    return Engineer(lab, tmp_path_factory.mktemp("state"), ARRAKIS_ENV="lab")


def quarantined(engineer: Engineer, *args: str) -> tuple[set[str], str]:
    """Clean up; return what went into quarantine, and the run that gives it back."""
    answer = engineer.call("cleanup", *args)
    assert answer.code == 0, answer.said
    lines = log(answer)
    [done] = [line for line in lines if line["msg"] == "Put into quarantine"]
    assert done["undo"] == f"invoke undo --run {done['run']}"
    return {line["orphan"] for line in lines if line["msg"] == "Quarantine"}, done["run"]


def forget(engineer: Engineer) -> None:
    """Let it be unknown that anything was given back, so that the next test finds what this one found."""
    with psycopg.connect(engineer.lab.env["DATABASE_URL"], autocommit=True) as sql:
        sql.execute("TRUNCATE runbooks.journal")


@pytest.mark.soak
def test_what_destroyed_sandboxes_left_can_be_given_back_and_then_stays(engineer: Engineer) -> None:
    before = dump(engineer.lab)
    went, run = quarantined(engineer)
    assert len(went) == 3
    after = dump(engineer.lab)
    assert went <= set(before.schemas) - set(after.schemas) | before.tokens() - after.tokens()
    engineer.undo(run)
    kept = dump(engineer.lab)
    assert went <= set(kept.schemas) | kept.tokens()
    age(engineer.lab, went & kept.tokens())
    again = engineer.call("cleanup")
    assert again.code == 0, again.said
    assert "quarantine" not in again.err.lower()
    assert dump(engineer.lab) == replace(kept, keys=dump(engineer.lab).keys)
    assert dump(engineer.lab).tokens() == kept.tokens()
    forget(engineer)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("variables", "args"),
    [({}, ["--orphaned"]), ({"CLEANUP_ORPHANED": "true"}, [])],
    ids=["option", "variable"],
)
def test_orphans_when_asked_for(engineer: Engineer, variables: dict[str, str], args: list[str]) -> None:
    went, run = quarantined(engineer.but(**variables), *args)
    assert len(went) >= 7
    engineer.undo(run)
    tokens = dump(engineer.lab).tokens()
    assert went & tokens
    age(engineer.lab, went & tokens)
    forget(engineer)


def test_nobody_can_tell_who_uses_them(engineer: Engineer) -> None:
    before = dump(engineer.lab)
    answer = engineer.but(NATS_URL="nats://127.0.0.1:1").call("cleanup", "--orphaned")
    assert answer.code == 3, answer.said
    assert any("cannot tell" in line.get("reason", "") for line in log(answer))
    assert set(dump(engineer.lab).schemas) == set(before.schemas)


def test_too_many_orphans_to_be_true(engineer: Engineer) -> None:
    with psycopg.connect(engineer.lab.env["DATABASE_URL"], autocommit=True) as sql:
        made = [str(uuid4()) for _ in range(20)]
        for each in made:
            sql.execute(f'CREATE SCHEMA "sandbox_{each}"'.encode())
        sql.execute("SELECT 1")
        before = set(dump(engineer.lab).schemas)
        answer = engineer.call("cleanup", "--orphaned")
        assert answer.code == 5, answer.said
        [refused] = [line for line in log(answer) if line["level"] == 50]
        assert "blast radius" in refused["error"]["message"]
        assert set(dump(engineer.lab).schemas) == before
        for each in made:
            sql.execute(f'DROP SCHEMA "sandbox_{each}"'.encode())


def test_a_role_that_may_not_see_whether_a_stop_is_raised_cleans_nothing_up(engineer: Engineer) -> None:
    with psycopg.connect(engineer.lab.env["DATABASE_URL"], autocommit=True) as sql:
        sql.execute("CREATE SCHEMA IF NOT EXISTS runbooks")
        sql.execute("CREATE ROLE plain_job LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO plain_job")
    before = dump(engineer.lab)
    plain = engineer.but(DATABASE_URL=engineer.lab.env["DATABASE_URL"].replace("lab@", "plain_job@"))
    answer = plain.call("cleanup")
    assert answer.code == 1, answer.said
    [failed] = [line for line in log(answer) if line["level"] > 30]
    assert "cannot tell whether an emergency stop is raised" in failed["error"]["message"]
    assert "GRANT USAGE ON SCHEMA runbooks" in failed["error"]["hint"]
    assert dump(engineer.lab) == before
    with psycopg.connect(engineer.lab.env["DATABASE_URL"], autocommit=True) as sql:
        sql.execute("DROP OWNED BY plain_job; DROP ROLE plain_job")
