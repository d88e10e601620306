"""Every incident's cause is really there, and both runbooks name it first; relieved of it, they say that all is well."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped, unused-ignore]
import psycopg
import pytest
import redis

from lab import control
from lab.incidents import INCIDENTS
from lab.incidents.overdue import VIEWS
from lab.incidents.overdue_world import OVERDUE, Plot, build, count_at
from tests.acceptance.engineer import Engineer
from tests.waiting import eventually

HOUR = timedelta(hours=1)
RUNNING, ALL = 99, 105
RUNBOOKS = ("rb-sb-001", "rb-sb-002")
COUNT, FAILURES = "arrakis-lab-sandbox-count-high", "arrakis-lab-sandbox-cleanup-failures"


class Scene:
    """A lab with an incident, looked at from outside."""

    def __init__(self, lab: control.Lab, engineer: Engineer) -> None:
        self.lab, self.env, self.engineer = lab, lab.env, engineer

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.env["AWS_ENDPOINT_URL"],
            region_name=self.env["AWS_DEFAULT_REGION"],
            aws_access_key_id="lab",
            aws_secret_access_key="lab",
        )

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.env["DATABASE_URL"], connect_timeout=2) as connection:
            return connection.execute(statement.encode()).fetchall()

    def statuses(self) -> dict[str, int]:
        return dict(
            self.sql("SELECT status::text, count(*) FROM sandboxes WHERE status <> 'destroyed' GROUP BY 1")
        )

    def overdue(self) -> list[str]:
        found = self.sql("SELECT id::text FROM sandboxes WHERE status <> 'destroyed' AND expires_at < now()")
        return [row for (row,) in found]

    def ringing(self) -> set[str]:
        alarms = self.client("cloudwatch").describe_alarms(StateValue="ALARM")["MetricAlarms"]
        return {alarm["AlarmName"] for alarm in alarms}

    def tasks(self) -> list[tuple[str, int, str]]:
        """How the clean-up's tasks ended: by what, with which exit code, started by whom."""
        ecs = self.client("ecs")
        arns = ecs.list_tasks(cluster="arrakis", family="arrakis-sandbox-cleanup", desiredStatus="STOPPED")[
            "taskArns"
        ]
        if not arns:
            return []
        tasks = ecs.describe_tasks(cluster="arrakis", tasks=arns)["tasks"]
        assert all(task["startedAt"] <= task["stoppedAt"] for task in tasks)
        return [(task["stopCode"], task["containers"][0]["exitCode"], task["startedBy"]) for task in tasks]

    def log(self) -> tuple[list[dict[str, Any]], list[str]]:
        """The clean-up's log: its JSON lines, and the others."""
        group = "/ecs/arrakis-sandbox-cleanup"
        pages = self.client("logs").get_paginator("filter_log_events").paginate(logGroupName=group)
        lines = [event["message"] for page in pages for event in page["events"]]
        parsed = [json.loads(line) for line in lines if line.startswith("{")]
        return parsed, [line for line in lines if not line.startswith("{")]

    def errors(self) -> Counter[str]:
        return Counter(line["msg"] for line in self.log()[0] if line.get("level", 0) >= 50)

    def children(self, module: str) -> list[int]:
        """The lab's processes that run a module."""
        return [
            int(entry.name)
            for entry in Path("/proc").glob("[0-9]*")
            if module in words_of(entry) and self.lab.pid in ancestors(entry)
        ]

    def run_task(self, **more: Any) -> str:
        """Run the clean-up as an operator would; the task's ARN."""
        [target] = self.client("events").list_targets_by_rule(Rule="arrakis-sandbox-cleanup")["Targets"]
        network = target["EcsParameters"]["NetworkConfiguration"]["awsvpcConfiguration"]
        placed = {"subnets": network["Subnets"], "securityGroups": network["SecurityGroups"]}
        [task] = self.client("ecs").run_task(
            cluster="arrakis",
            taskDefinition="arrakis-sandbox-cleanup",
            launchType="FARGATE",
            networkConfiguration={"awsvpcConfiguration": placed},
            **more,
        )["tasks"]
        return str(task["taskArn"])

    def see_that_it_is_named_first(self, cause: str) -> None:
        """Ask both runbooks."""
        for runbook in RUNBOOKS:
            answer = self.engineer.call(runbook, "--json")
            assert answer.code in (2, 3), answer.said
            first = answer.document["findings"][0]
            assert (first["check"], first["severity"]) == ("cause", "critical"), answer.out
            assert cause in first["summary"]

    def see_that_all_is_well(self) -> None:
        """Ask both runbooks."""
        for runbook in RUNBOOKS:
            answer = self.engineer.call(runbook, "--json")
            wrong = [each for each in answer.document["findings"] if each["severity"] != "ok"]
            assert (answer.code, answer.document["outcome"], wrong) == (0, "healthy", [])

    def relieve(self) -> None:
        """Relieve the lab, and see that all is well."""
        [name] = self.lab.incidents
        assert self.lab.relieved == ()
        runs = len(self.tasks())
        relieved = control.relieve(self.lab, name)
        assert relieved.relieved == (name,)
        assert self.tasks()[runs:] == [("EssentialContainerExited", 0, "events-rule/arrakis-sandbox-cleanup")]
        assert self.client("ecs").list_tasks(cluster="arrakis")["taskArns"] == []
        assert self.statuses() == {"running": RUNNING}
        assert self.overdue() == []
        assert self.ringing() == set()
        self.see_that_all_is_well()
        assert control.relieve(relieved, name) == relieved
        assert len(self.tasks()) == runs + 1


def words_of(process: Path) -> list[str]:
    try:
        return (process / "cmdline").read_text().split("\0")
    except OSError:
        return []


def ancestors(process: Path) -> list[int]:
    found: list[int] = []
    try:
        while (parent := int((process / "stat").read_text().rpartition(")")[2].split()[1])) > 1:
            found.append(parent)
            process = Path("/proc", str(parent))
    except OSError:
        pass
    return found


@pytest.fixture
def lay_out(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Scene]]:
    """Return how to lay an incident out in a lab that ends with the test."""

    def start(name: str) -> Scene:
        lab = control.lay_out(control.start(tmp_path, watch_parent=True), name)
        return Scene(lab, Engineer(lab, tmp_path_factory.mktemp("state")))

    yield start
    control.reset(tmp_path)


def failed_once(scene: Scene) -> bool:
    """Whether the schedule ran the job under the cause, and it failed."""
    return scene.tasks() == [("EssentialContainerExited", 1, "events-rule/arrakis-sandbox-cleanup")]


def see_that_a_task_is_the_job_and_nothing_that_a_request_makes_up(scene: Scene, proof: Path) -> None:
    pairs = {
        "DATABASE_URL": "postgresql://lab@127.0.0.1:1/arrakis",
        "LOG_LEVEL": "error",
        "PYTHONHOME": "/nowhere",
    }
    override = {
        "name": "sandbox-cleanup",
        "command": ["touch", str(proof)],
        "environment": [{"name": name, "value": value} for name, value in pairs.items()],
    }
    more = {"overrides": {"containerOverrides": [override]}, "startedBy": "chani", "clientToken": "once"}
    before = len(scene.log()[0])
    assert scene.run_task(**more) == scene.run_task(**more)
    eventually(lambda: scene.tasks() == [("EssentialContainerExited", 1, "chani")])
    assert not proof.exists()
    said, plain = scene.log()
    assert [line["msg"] for line in said[before:] if "msg" in line] == ["Sandbox cleanup job failed"]
    assert "connection refused" in plain[-1]
    assert len(scene.overdue()) == OVERDUE


@pytest.mark.soak
def test_the_rule_is_disabled_and_nothing_else_is_wrong(
    lay_out: Callable[[str], Scene], tmp_path_factory: pytest.TempPathFactory
) -> None:
    scene = lay_out("rule-disabled")
    assert scene.client("events").describe_rule(Name="arrakis-sandbox-cleanup")["State"] == "DISABLED"
    assert scene.statuses() == {"running": RUNNING + 2, "expired": 4}
    assert len(scene.overdue()) == OVERDUE
    assert scene.ringing() == {COUNT}
    assert scene.tasks() == []
    said, _ = scene.log()
    assert scene.errors() == Counter()
    last = datetime.fromtimestamp(max(line["time"] for line in said) / 1000, UTC)
    assert datetime.now(UTC) - last > 2.9 * HOUR
    scene.see_that_it_is_named_first("rule arrakis-sandbox-cleanup is disabled")

    proof = tmp_path_factory.mktemp("proof") / "touched"
    see_that_a_task_is_the_job_and_nothing_that_a_request_makes_up(scene, proof)
    assert scene.ringing() == {COUNT, FAILURES}
    scene.relieve()
    assert scene.client("events").describe_rule(Name="arrakis-sandbox-cleanup")["State"] == "ENABLED"


@pytest.mark.soak
def test_the_task_looks_for_its_database_where_none_is(lay_out: Callable[[str], Scene]) -> None:
    scene = lay_out("task-failing")
    assert failed_once(scene)
    assert scene.errors()["Sandbox cleanup job failed"] == 9
    assert scene.ringing() == {COUNT, FAILURES}
    assert len(scene.overdue()) == OVERDUE
    scene.see_that_it_is_named_first("the clean-up task fails: sandbox-cleanup exited with 1")

    scene.relieve()
    ecs = scene.client("ecs")
    defined = ecs.describe_task_definition(taskDefinition="arrakis-sandbox-cleanup")["taskDefinition"]
    [container] = defined["containerDefinitions"]
    assert {"name": "DATABASE_URL", "value": scene.env["DATABASE_URL"]} in container["environment"]
    assert defined["revision"] == 3


@pytest.mark.soak
def test_no_connection_is_left_not_even_for_a_superuser(lay_out: Callable[[str], Scene]) -> None:
    scene = lay_out("connections-exhausted")
    for _ in range(5):
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            psycopg.connect(scene.env["DATABASE_URL"], connect_timeout=2)
    [actor] = scene.children("lab.actors")
    assert control.start(scene.lab.home).pid == scene.lab.pid
    assert scene.children("lab.actors") == [actor]
    assert failed_once(scene)
    _, plain = scene.log()
    assert any("too many clients" in line for line in plain)
    assert scene.ringing() == {COUNT, FAILURES}
    scene.see_that_it_is_named_first("PostgreSQL has no connection left")

    scene.relieve()
    assert scene.children("lab.actors") == []


@pytest.mark.soak
def test_views_elsewhere_rest_on_two_schemas(lay_out: Callable[[str], Scene]) -> None:
    scene = lay_out("foreign-view")
    for view in VIEWS:
        assert scene.sql(f"SELECT count(*) FROM reporting.{view}")
    assert failed_once(scene)
    assert scene.statuses() == {"running": RUNNING, "expired": 2}
    assert scene.ringing() == {COUNT, FAILURES}
    mine = set(scene.overdue())
    told = [line for line in scene.log()[0] if line.get("level") == 50]
    assert {line["sandboxId"] for line in told} == mine
    assert sum("reporting." in json.dumps(line["error"]) for line in told) == 2
    scene.see_that_it_is_named_first("cannot be dropped: view reporting.")

    scene.relieve()
    assert scene.sql("SELECT count(*) FROM pg_views WHERE schemaname = 'reporting'") == [(0,)]
    schemas = {name for (name,) in scene.sql("SELECT nspname::text FROM pg_namespace")}
    assert schemas.isdisjoint(f"sandbox_{each}" for each in mine)


@pytest.mark.soak
def test_an_open_transaction_holds_two_schemas_until_its_session_ends(
    lay_out: Callable[[str], Scene],
) -> None:
    scene = lay_out("lock-held")
    holders = """SELECT n.nspname::text, a.state, a.pid FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
        JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_stat_activity a ON a.pid = l.pid
        WHERE c.relname = 'profiles' AND l.mode = 'RowExclusiveLock'"""
    held = scene.sql(holders)
    assert {schema.removeprefix("sandbox_") for schema, _, _ in held} == set(scene.overdue())
    assert {state for _, state, _ in held} == {"idle in transaction"}
    assert failed_once(scene)
    assert scene.statuses() == {"running": RUNNING, "destroying": 2}
    assert scene.ringing() == {COUNT, FAILURES}
    scene.see_that_it_is_named_first(f" is held: session {held[0][2]} of ")

    scene.relieve()
    assert scene.sql(holders) == []
    # Another one, which somebody ends by hand: nobody takes it again.
    [(live,)] = scene.sql("SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'sandbox\\_%' LIMIT 1")
    (scene.lab.home / "scene.json").write_text(json.dumps({"actors": {"lock": [live]}}))
    eventually(lambda: scene.sql(holders) != [])
    scene.sql(f"SELECT pg_terminate_backend({scene.sql(holders)[0][2]})")
    eventually(lambda: scene.children("lab.actors") == [])
    assert scene.sql(holders) == []


@pytest.mark.soak
def test_redis_is_down_on_purpose_and_comes_back_with_its_data(lay_out: Callable[[str], Scene]) -> None:
    scene = lay_out("redis-stopped")
    keys = redis.Redis.from_url(scene.env["REDIS_URL"])
    with pytest.raises(redis.ConnectionError, match="refused"):
        keys.ping()
    again = control.start(scene.lab.home)
    assert (again.pid, again.env) == (scene.lab.pid, scene.env)
    with pytest.raises(redis.ConnectionError, match="refused"):
        keys.ping()
    assert failed_once(scene)
    assert scene.errors()["Redis key cleanup failed"] == 8 * OVERDUE
    assert len(scene.overdue()) == OVERDUE
    assert scene.ringing() == {COUNT, FAILURES}
    mine = scene.overdue()
    scene.see_that_it_is_named_first("Redis refuses connections")

    scene.relieve()
    assert keys.exists("session:00000", "session:04999") == 2
    assert not any(keys.keys(f"sandbox:{each}:*") for each in mine)
    keys.close()


@pytest.mark.soak
def test_a_lab_has_one_incident_and_only_a_cause_can_be_removed(
    lay_out: Callable[[str], Scene],
) -> None:
    scene = lay_out("rb-sb-003")
    with pytest.raises(control.LabError, match="has the incident rb-sb-003 already: reset it"):
        control.lay_out(scene.lab, "rule-disabled")
    with pytest.raises(control.LabError, match="does not have the incident rule-disabled"):
        control.relieve(scene.lab, "rule-disabled")
    with pytest.raises(control.LabError, match="its runbook puts it right"):
        control.relieve(scene.lab, "rb-sb-003")

    # Actors and tasks end with the lab, even in the middle of their work.
    [(due,)] = scene.sql("SELECT id::text FROM sandboxes WHERE status = 'expired'")
    (scene.lab.home / "scene.json").write_text(json.dumps({"actors": {"lock": [f"sandbox_{due}"]}}))
    eventually(lambda: scene.sql("SELECT state FROM pg_stat_activity WHERE application_name = 'psql'") != [])
    scene.run_task()
    eventually(lambda: bool(scene.children("lab.job")))
    both = [*scene.children("lab.job"), *scene.children("lab.actors")]
    assert len(both) == 2
    assert control.stop(scene.lab.home)
    eventually(lambda: not any(words_of(Path("/proc", str(pid))) for pid in both))


def test_the_world_is_the_same_each_time_and_has_grown_over_the_limit() -> None:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    plot = Plot(overdue=[26 * HOUR, 15 * HOUR, 7 * HOUR, 3 * HOUR, 2 * HOUR, HOUR], worked_until=27 * HOUR)
    world = build(now, plot)
    assert world == build(now, plot)
    counts = [count_at(world, now - index * HOUR) for index in (24, 6, 2, 0)]
    assert counts[0] < counts[1] <= 100 < counts[2] < counts[3] == ALL
    over = [row for row in world.sandboxes if row.status != "destroyed" and row.expires_at <= now]
    assert [now - row.expires_at for row in over] == plot.overdue
    assert all(row.expires_at - row.created_at == timedelta(hours=row.ttl_hours) for row in world.sandboxes)
    owned = Counter(row.owner for row in world.sandboxes if row.status != "destroyed")
    assert sorted(share for share in owned.values() if share > 5) == [7, 9, 14]
    forms = Counter(row.metadata_as_string for row in world.sandboxes)
    assert min(forms.values()) > 50


def test_every_incident_says_what_it_is_about() -> None:
    assert set(INCIDENTS) >= {
        "rb-sb-003",
        "rule-disabled",
        "task-failing",
        "connections-exhausted",
        "foreign-view",
        "lock-held",
        "redis-stopped",
    }
    assert all(incident.summary for incident in INCIDENTS.values())
