"""The scheduled jobs as a container runs them: what they log, print, publish, and how they end."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import psycopg
import pytest
import redis

from tests.acceptance.dump import dump
from tests.acceptance.engineer import Answer, Engineer
from tests.conftest import StartLab

DEAD = {
    "DATABASE_URL": "postgresql://lab@127.0.0.1:1/arrakis",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
}


@pytest.fixture(scope="module")
def engineer(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> Engineer:
    """Return an engineer at a lab that is named, as its metrics have to be."""
    return Engineer(start_lab(), tmp_path_factory.mktemp("state"), ARRAKIS_ENV="lab")


@pytest.fixture
def due(engineer: Engineer) -> str:
    """A running sandbox that is past its end, with keys; returns its id."""
    with psycopg.connect(engineer.lab.env["DATABASE_URL"], autocommit=True) as sql:
        made = str(
            sql.execute(
                "INSERT INTO sandboxes (name, owner, status, schema_name, expires_at)"
                " VALUES ('due-' || gen_random_uuid(), 'chani', 'running', 'x' || gen_random_uuid(), now()) RETURNING id"
            ).fetchone()[0]  # type: ignore[index]
        )
        sql.execute("SELECT create_sandbox_schema(%s)", (made,))
    with redis.Redis.from_url(engineer.lab.env["REDIS_URL"]) as keys:
        keys.set(f"sandbox:{made}:x", 1)
    return made


def log(answer: Answer) -> list[dict[str, Any]]:
    """Every line of the log, each of which is JSON in the deployed form."""
    lines = [json.loads(line) for line in answer.err.splitlines()]
    assert lines
    assert all({"level", "time", "pid", "hostname", "component", "msg"} <= set(line) for line in lines)
    return lines


def emitted(answer: Answer) -> dict[str, Any]:
    """The one line of embedded metric format on stdout."""
    [line] = answer.out.splitlines()
    found: dict[str, Any] = json.loads(line)
    [directive] = found.pop("_aws")["CloudWatchMetrics"]
    assert directive["Namespace"] == "Arrakis/Sandbox"
    assert directive["Dimensions"] == [["Environment"]]
    assert {metric["Name"] for metric in directive["Metrics"]} == set(found) - {"Environment"}
    assert found.pop("Environment") == "lab"
    assert found.pop("CleanupDurationMs") >= 0
    return found


def published(engineer: Engineer, metric: str) -> list[float]:
    """What was put into CloudWatch in the last minutes, with the dimension that the alarms want."""
    env = engineer.lab.env
    client = boto3.client(
        "cloudwatch",
        endpoint_url=env["AWS_ENDPOINT_URL"],
        region_name=env["AWS_DEFAULT_REGION"],
        aws_access_key_id="lab",
        aws_secret_access_key="lab",
    )
    now = datetime.now(UTC)
    points = client.get_metric_statistics(
        Namespace="Arrakis/Sandbox",
        MetricName=metric,
        Dimensions=[{"Name": "Environment", "Value": "lab"}],
        StartTime=now - timedelta(minutes=10),
        EndTime=now + timedelta(minutes=1),
        Period=60,
        Statistics=["Minimum", "Maximum"],
    )["Datapoints"]
    return [point[which] for point in points for which in ("Minimum", "Maximum")]


def test_a_clean_up_says_what_it_did(engineer: Engineer, due: str) -> None:
    answer = engineer.cold("cleanup")
    assert answer.code == 0, answer.said
    cleaned = [line for line in log(answer) if line["msg"] == "Sandbox cleaned up"]
    assert emitted(answer) == {"SandboxesCleanedUp": len(cleaned), "CleanupFailures": 0}
    [line] = [line for line in cleaned if line["sandboxId"] == due]
    assert (line["level"], line["component"], line["keys"]) == (30, "CleanupProvider", 1)
    with psycopg.connect(engineer.lab.env["DATABASE_URL"]) as sql:
        assert sql.execute("SELECT status::text FROM sandboxes WHERE id = %s", (due,)).fetchone() == (
            "destroyed",
        )
        actors = sql.execute("SELECT DISTINCT actor FROM sandbox_audit_log WHERE sandbox_id = %s", (due,))
        assert actors.fetchall() == [("sandbox-cleanup",)]


@pytest.mark.soak
def test_without_redis_the_keys_are_left_and_counted(engineer: Engineer, due: str) -> None:
    blind = engineer.but(REDIS_URL=DEAD["REDIS_URL"])
    answer = blind.call("cleanup")
    assert answer.code == 5, answer.said
    assert emitted(answer)["CleanupFailures"] == 0
    assert log(answer)[-1]["keys_left"] >= 1
    assert blind.call("cleanup").code == 3  # nothing is due; but who can tell what was left?
    assert log(engineer.call("cleanup"))[-1]["finished"] >= 1
    with redis.Redis.from_url(engineer.lab.env["REDIS_URL"]) as keys:
        assert not keys.exists(f"sandbox:{due}:x")


@pytest.mark.parametrize(
    ("variables", "code"),
    [
        ({"DATABASE_URL": DEAD["DATABASE_URL"]}, 3),
        ({"REDIS_URL": "nonsense"}, 1),
        ({"DATABASE_URL": "postgresql://chani:s3c/ret@127.0.0.1:1/x"}, 1),
        ({"NATS_TLS_CA": "/nowhere"}, 0),  # which this job does not need
    ],
)
def test_a_job_that_can_do_nothing_has_failed_and_says_so(
    engineer: Engineer, variables: dict[str, str], code: int
) -> None:
    answer = engineer.but(**variables).call("cleanup")
    assert answer.code == code, answer.said
    assert emitted(answer)["CleanupFailures"] == (1 if code else 0)
    assert [line["level"] for line in log(answer) if line["level"] > 50] == ([60] if code else [])
    assert "s3c" not in answer.said
    assert "ret@" not in answer.said


def test_a_log_level_that_does_not_exist_stops_nothing(engineer: Engineer) -> None:
    assert engineer.but(LOG_LEVEL="error").call("cleanup").err == ""
    first, *others = log(engineer.but(LOG_LEVEL="loud").call("cleanup"))
    assert (first["level"], first["error"]["message"]) == (40, "LOG_LEVEL='loud' is no level")
    assert {line["level"] for line in others} == {30}


def test_orphan_detection_names_and_publishes_and_changes_nothing(engineer: Engineer) -> None:
    before = dump(engineer.lab)
    answer = engineer.cold("orphan-detection")
    assert answer.code == 2, answer.said
    named = {line["orphan"] for line in log(answer) if line["msg"] == "Orphaned resource"}
    assert {line["kind"] for line in log(answer) if line["msg"] == "Orphaned resource"} == {"schema", "keys"}
    assert len(named) >= 7
    assert len(named) in published(engineer, "OrphanedResourceCount")
    assert answer.out == ""
    assert dump(engineer.lab) == before


def test_without_a_name_nothing_is_published(engineer: Engineer) -> None:
    nameless = engineer.but(ARRAKIS_ENV=None)
    for job in ("publish-metrics", "orphan-detection"):
        answer = nameless.call(job)
        assert answer.code == 1
        assert "no alarm watches one without" in answer.err


def test_publish_metrics_feeds_the_blind_alarms(engineer: Engineer) -> None:
    answer = engineer.cold("publish-metrics")
    assert answer.code == 0, answer.said
    with psycopg.connect(engineer.lab.env["DATABASE_URL"]) as sql:
        live = sql.execute("SELECT count(*) FROM sandboxes WHERE status <> 'destroyed'").fetchone()
        guilds = sql.execute("SELECT count(*) FROM sandbox_guild_mapping").fetchone()
    assert live
    assert guilds
    assert live[0] in published(engineer, "ActiveSandboxCount")
    assert guilds[0] in published(engineer, "GuildMappingCount")
    assert published(engineer, "OrphanedResourceCount")


@pytest.mark.soak
def test_what_cannot_be_told_is_not_published(engineer: Engineer) -> None:
    answer = engineer.but(REDIS_URL=DEAD["REDIS_URL"]).call("publish-metrics", "--timeout", "4")
    assert answer.code == 3
    [unknown] = [line for line in log(answer) if line["level"] == 50]
    assert unknown["metric"] == "OrphanedResourceCount"
    [done] = [line for line in log(answer) if line["msg"] == "Metrics published"]
    assert set(done["values"]) == {"ActiveSandboxCount", "GuildMappingCount"}


def test_without_aws_publishing_is_an_error(engineer: Engineer) -> None:
    answer = engineer.but(AWS_ENDPOINT_URL=DEAD["AWS_ENDPOINT_URL"]).call("publish-metrics")
    assert answer.code == 3
    assert log(answer)[-1]["level"] == 60
