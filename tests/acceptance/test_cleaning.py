"""What RB-SB-001 and RB-SB-002 propose, applied: typed before, verified after, undone where it can be."""

from typing import Any

import boto3
import psycopg
import pytest

from lab import control
from lab.incidents.overdue import VIEWS
from tests.acceptance.dump import dump
from tests.acceptance.engineer import Engineer
from tests.conftest import StartLab

RULE = "arrakis-sandbox-cleanup"


def enabled(lab: control.Lab) -> bool:
    """Whether the clean-up is scheduled."""
    events = boto3.client(
        "events",
        endpoint_url=lab.env["AWS_ENDPOINT_URL"],
        region_name=lab.env["AWS_DEFAULT_REGION"],
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )
    return bool(events.describe_rule(Name=RULE)["State"] == "ENABLED")


def rows(lab: control.Lab, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    with psycopg.connect(lab.env["DATABASE_URL"]) as connection:
        return connection.execute(query.encode()).fetchall()


def live(lab: control.Lab) -> int:
    """Return how many sandboxes are not destroyed."""
    return int(rows(lab, "SELECT count(*) FROM sandboxes WHERE status <> 'destroyed'")[0][0])


def plan_of(engineer: Engineer, runbook: str, *args: str) -> dict[str, Any]:
    """Diagnose, and return the plan."""
    answer = engineer.call(runbook, "--json", *args)
    assert answer.code == 2, answer.said
    made: dict[str, Any] = answer.document["plan"]
    return made


@pytest.fixture
def disabled(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> Engineer:
    """Return an engineer at a lab whose clean-up was switched off."""
    return Engineer(start_lab("rule-disabled"), tmp_path_factory.mktemp("state"))


@pytest.fixture
def blocked(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> Engineer:
    """Return an engineer at a lab where views rest on two sandboxes that are over."""
    return Engineer(start_lab("foreign-view"), tmp_path_factory.mktemp("state"))


def test_one_by_one_typed_verified_measured_again_and_undone_where_it_can_be(disabled: Engineer) -> None:
    lab = disabled.lab
    before = dump(lab)
    made = plan_of(disabled, "rb-sb-001")
    assert dump(lab) == before
    assert [action["verb"] for action in made["actions"]] == ["clean up sandbox"] * 6 + ["enable rule"]
    unasked = disabled.call("apply", "--plan", made["id"], "--yes")
    assert (unasked.code, "it cannot be undone" in unasked.said) == (4, True)
    wrong = disabled.call("apply", "--plan", made["id"], typing="drop 7")
    assert wrong.code == 4
    assert dump(lab) == before

    applied = disabled.call("apply", "--plan", made["id"], "--json", typing="drop 6")
    assert applied.code == 0, applied.said
    run = applied.document["run"]
    assert run["outlook"][0]["summary"].startswith("99 sandboxes are not destroyed")
    assert {result["phase"] for result in run["results"]} == {"done"}
    assert "schemas dropped schemas=sandbox_" in applied.err  # every step is told
    assert (live(lab), enabled(lab)) == (99, True)
    gone = {action["before"]["id"] for action in made["actions"][:6]}
    after = dump(lab)
    assert {str(name) for (name,) in rows(lab, "SELECT id FROM sandboxes WHERE status = 'destroyed'")} >= gone
    assert before.tokens() - after.tokens() <= gone
    assert not gone & after.tokens()
    actors = rows(lab, "SELECT DISTINCT actor FROM sandbox_audit_log WHERE event_type = 'sandbox_destroyed'")
    assert ("chani",) in actors

    again = disabled.cold("rb-sb-001", "--json").document["findings"]
    assert [each["check"] for each in again if each["severity"] != "ok"] == ["runs"]  # none was since then
    control.relieve(lab, "rule-disabled")
    well = disabled.call("rb-sb-001")
    assert well.code == 0, well.said
    undone = disabled.call("undo", "--run", run["id"], "--yes")
    assert undone.code == 0, undone.said
    assert (live(lab), enabled(lab)) == (99, False)


@pytest.mark.soak
def test_by_the_deployed_task_which_is_watched_to_its_end(disabled: Engineer) -> None:
    lab = disabled.lab
    made = plan_of(disabled, "rb-sb-001", "--via", "ecs")
    assert [action["verb"] for action in made["actions"]] == ["run clean-up task", "enable rule"]
    one = disabled.call("apply", "--plan", made["id"], "--json", typing="drop 1")
    assert one.code == 4, one.said  # it takes six
    applied = disabled.call("apply", "--plan", made["id"], "--json", typing="drop 6")
    assert applied.code == 0, applied.said
    assert "ended; 6 of 6 sandboxes are gone" in applied.document["run"]["results"][0]["reason"]
    assert live(lab) == 99
    assert rows(lab, "SELECT 1 FROM sandbox_audit_log WHERE actor = 'sandbox-cleanup'")


@pytest.mark.soak
def test_an_object_elsewhere_goes_only_if_it_was_named(blocked: Engineer) -> None:
    lab = blocked.lab
    first = blocked.cold("rb-sb-002", "--json")
    assert first.document["plan"] is None
    left = [each["summary"] for each in first.document["findings"] if each["check"] == "left alone"]
    assert [
        f"--drop-object reporting.{view}" in said
        for view, said in zip(sorted(VIEWS), sorted(left), strict=True)
    ]
    other, named = VIEWS
    made = plan_of(blocked, "rb-sb-002", "--drop-object", f"reporting.{named}")
    assert [action["verb"] for action in made["actions"]] == ["drop object", "clean up sandbox"]
    assert "SELECT" in made["actions"][0]["before"]["definition"]
    applied = blocked.call("apply", "--plan", made["id"], typing="drop 2")
    assert applied.code == 0, applied.said
    views = rows(lab, "SELECT viewname FROM pg_views WHERE schemaname = 'reporting'")
    assert views == [(other,)]
    assert live(lab) == 100


@pytest.mark.soak
def test_what_was_extended_or_blocked_since_the_plan_is_left_alone(disabled: Engineer) -> None:
    lab = disabled.lab
    made = plan_of(disabled, "rb-sb-001")
    extended, watched = (action["before"]["id"] for action in made["actions"][:2])
    with psycopg.connect(lab.env["DATABASE_URL"]) as connection:
        connection.execute(
            "UPDATE sandboxes SET status = 'running', expires_at = now() + interval '1 hour' WHERE id = %s",
            (extended,),
        )
        connection.execute(
            f'CREATE VIEW public.watching AS SELECT id FROM "sandbox_{watched}".profiles'.encode()
        )
    applied = disabled.call("apply", "--plan", made["id"], "--json", typing="drop 6")
    assert applied.code == 5, applied.said
    results = applied.document["run"]["results"]
    assert [result["phase"] for result in results] == ["skipped"] * 2 + ["done"] * 4 + ["skipped"]
    assert "its CASCADE would take along view public.watching" in results[6]["reason"]
    assert "it is running until" in results[0]["reason"]
    assert "view watching rests on" in results[1]["reason"]
    assert live(lab) == 101
    assert rows(lab, "SELECT 1 FROM pg_views WHERE viewname = 'watching'")
