"""The lab for real: it starts once, ends whole, and its incident is what the runbook's page describes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped, unused-ignore]
import nats
import psycopg
import pytest
import redis

from lab import control
from lab.incidents import world
from lab.processes import answers
from tests.waiting import eventually

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def started_twice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[control.Lab, control.Lab]]:
    """Two starts at once in one home, from two threads that have ended since."""
    home = tmp_path_factory.mktemp("lab") / "home"
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: control.start(home, watch_parent=True), range(2))
    yield first, second
    control.stop(home)


@pytest.fixture(scope="module")
def incident(started_twice: tuple[control.Lab, control.Lab]) -> control.Lab:
    return control.lay_out(started_twice[0], "rb-sb-003")


def test_two_starts_at_once_give_one_lab_that_a_third_re_uses(
    started_twice: tuple[control.Lab, control.Lab],
) -> None:
    first, second = started_twice
    assert first.pid == second.pid == control.start(first.home).pid
    running = control.status(first.home)
    assert running is not None
    assert running.env == first.env
    assert set(running.versions) == {"postgres", "redis", "nats", "aws"}
    assert (first.home / "state.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.soak
def test_kill_9_leaves_no_server_and_a_stale_state_is_replaced(tmp_path: Path) -> None:
    first = control.start(tmp_path, watch_parent=True)
    before = server_pids(tmp_path)
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: not any(map(alive, before)))
    assert (tmp_path / "state.json").exists()
    assert control.status(tmp_path) is None

    second = control.start(tmp_path, watch_parent=True)
    after = server_pids(tmp_path)
    assert second.pid != first.pid
    assert control.stop(tmp_path) is True
    assert not any(map(alive, [second.pid, *after]))
    assert not (tmp_path / "state.json").exists()
    assert control.status(tmp_path) is None
    assert control.stop(tmp_path) is False


@pytest.mark.soak
def test_a_watched_parent_takes_the_lab_along_and_a_reset_forgets_it(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from lab import control; "
    code += (
        "control.start(Path(sys.argv[1]), watch_parent=True); print(open(sys.argv[1] + '/state.json').read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    state = json.loads(done.stdout)
    pids = [state["pid"], *(server["pid"] for server in state["servers"].values())]
    eventually(lambda: not any(map(alive, pids)))
    assert control.reset(tmp_path) is False
    assert not (tmp_path / "data").exists()


def test_a_missing_server_is_named_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_NATS_BIN", "/nowhere/nats-server")
    with pytest.raises(control.LabError, match="LAB_NATS_BIN=/nowhere/nats-server is not the program"):
        control.start(tmp_path, watch_parent=True)
    assert control.status(tmp_path) is None
    assert not (tmp_path / "state.json").exists()


def test_an_unknown_incident_is_refused_with_those_there_are(started_twice: tuple[control.Lab, ...]) -> None:
    with pytest.raises(control.LabError, match=r"choose one of .*\brb-sb-003\b"):
        control.lay_out(started_twice[0], "rb-sb-999")


def test_an_incident_is_laid_out_once_and_remembered(incident: control.Lab) -> None:
    assert control.lay_out(incident, "rb-sb-003").incidents == ("rb-sb-003",)
    running = control.status(incident.home)
    assert running is not None
    assert running.incidents == ("rb-sb-003",)


def test_the_world_is_the_same_each_time() -> None:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    assert world.build(now) == world.build(now)


def test_rows_schemas_and_orphans(incident: control.Lab) -> None:
    with psycopg.connect(incident.env["DATABASE_URL"]) as connection:
        statuses = dict(fetch(connection, "SELECT status::text, count(*) FROM sandboxes GROUP BY 1"))
        assert statuses == {"running": 11, "expired": 1, "creating": 1, "destroyed": 2}
        forms = dict(fetch(connection, "SELECT jsonb_typeof(metadata), count(*) FROM sandboxes GROUP BY 1"))
        assert forms == {"string": 8, "object": 7}
        assert fetch(connection, "SELECT count(*) FROM sandbox_guild_mapping") == [(11,)]
        created = "SELECT count(*) FROM sandbox_audit_log WHERE event_type = 'sandbox_created'"
        assert fetch(connection, created) == [(15,)]
        schemas = {name for (name,) in fetch(connection, "SELECT nspname FROM pg_namespace")}
        rows = fetch(connection, "SELECT id::text, schema_name FROM sandboxes WHERE status <> 'destroyed'")
    sandboxes = {name for name in schemas if name.startswith("sandbox")} - set(world.DECOY_SCHEMAS)
    assert set(world.DECOY_SCHEMAS) < schemas
    orphans = {name for name in sandboxes if not any(is_of(name, row_id) for row_id, _ in rows)}
    assert Counter(len(name) for name in orphans) == {44: 4, 40: 1, 16: 2}
    assert len(sandboxes) - len(orphans) == 13
    # Seven as deployed: the column names a schema that does not exist.
    assert sum(name not in schemas and name.startswith("sandbox_") for _, name in rows) == 7


def test_orphans_look_old_and_differ_in_size(incident: control.Lab) -> None:
    laid_out = world.build(incident.started_at)
    sizes = []
    with psycopg.connect(incident.env["DATABASE_URL"]) as connection:
        for orphan in laid_out.orphans:
            profiles = f'"sandbox_{orphan.schema_token}".profiles'
            [(count, newest)] = fetch(connection, f"SELECT count(*), max(updated_at) FROM {profiles}")
            sizes.append(count)
            assert newest < datetime.now(UTC) - timedelta(days=2)
    assert sizes == [orphan.profiles for orphan in laid_out.orphans]


def test_keys_of_all_types_and_orphans_that_look_idle(incident: control.Lab) -> None:
    laid_out = world.build(incident.started_at)
    with redis.Redis.from_url(incident.env["REDIS_URL"], decode_responses=True) as client:
        families = Counter(":".join(str(key).split(":")[:2]) for key in client.scan_iter(count=5000))
        assert families["sandbox:route"] == 12
        assert families["sandbox:cafe"] == families["sandboxes:list"] == 1
        assert sum(count for name, count in families.items() if name.startswith("session:")) == 5000
        for family in laid_out.families:
            names = [f"sandbox:{family.id}:{kind}" for kind in ("string", "hash", "set", "zset", "list")]
            assert families[f"sandbox:{family.id}"] == family.count
            assert 2000 <= family.count <= 4000
            for number, name in enumerate(names):
                assert client.type(f"{name}:{number}") == name.rpartition(":")[2]
                assert int(str(client.object("idletime", f"{name}:{number}"))) >= 7200
            assert client.ttl(f"{names[1]}:1") > 86_400
            assert client.ttl(f"{names[0]}:0") == -1
        assert sorted(families[f"sandbox:{row.id}"] for row in laid_out.sandboxes if row.keys) == sorted(
            row.keys for row in laid_out.sandboxes if row.keys
        )


def client(lab: control.Lab, service: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=lab.env["AWS_ENDPOINT_URL"],
        region_name=lab.env["AWS_DEFAULT_REGION"],
        aws_access_key_id=lab.env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=lab.env["AWS_SECRET_ACCESS_KEY"],
    )


async def consumers_of(url: str) -> dict[str, list[str]]:
    client = await nats.connect(url)
    try:
        jetstream = client.jetstream()
        return {
            stream.config.name or "": [
                each.name for each in await jetstream.consumers_info(stream.config.name or "")
            ]
            for stream in await jetstream.streams_info()
        }
    finally:
        await client.close()


def test_streams_and_consumers(incident: control.Lab) -> None:
    found = asyncio.run(consumers_of(incident.env["NATS_URL"]))
    assert found == {"SANDBOX": ["sandbox-consumer"], "EVENTS": ["sandbox-event-router"]}


def test_the_alarm_its_metric_the_logs_and_the_rule(incident: control.Lab) -> None:
    cloudwatch = client(incident, "cloudwatch")
    states = {each["AlarmName"]: each["StateValue"] for each in cloudwatch.describe_alarms()["MetricAlarms"]}
    assert Counter(states.values()) == {"OK": 4, "ALARM": 1}
    assert states["arrakis-lab-sandbox-orphaned-resources"] == "ALARM"
    history = cloudwatch.describe_alarm_history(AlarmName="arrakis-lab-sandbox-orphaned-resources")
    assert history["AlarmHistoryItems"]
    now = datetime.now(UTC)
    points = cloudwatch.get_metric_statistics(
        Namespace="Arrakis/Sandbox",
        MetricName="OrphanedResourceCount",
        Dimensions=[{"Name": "Environment", "Value": "lab"}],
        StartTime=now - timedelta(hours=7),
        EndTime=now + timedelta(minutes=15),
        Period=900,
        Statistics=["Maximum"],
    )["Datapoints"]
    values = [point["Maximum"] for point in sorted(points, key=lambda point: point["Timestamp"])]
    assert values[0] == 1
    assert values[-1] == 10
    assert all(value > 5 for value in values[-4:])
    logs = client(incident, "logs")
    pattern = '{ $.level >= 50 && $.component = "CleanupProvider" }'
    found = logs.filter_log_events(logGroupName="/ecs/arrakis-sandbox-cleanup", filterPattern=pattern)[
        "events"
    ]
    assert [json.loads(event["message"])["msg"] for event in found] == ["Failed to drop schema"]
    assert client(incident, "events").describe_rule(Name="arrakis-sandbox-cleanup")["State"] == "ENABLED"


def test_the_stack_stands_under_the_names_of_the_runbook_page(incident: control.Lab) -> None:
    groups = {each["logGroupName"] for each in client(incident, "logs").describe_log_groups()["logGroups"]}
    assert groups == {"/ecs/arrakis-sandbox-cleanup", "/ecs/arrakis-worker", "/ecs/arrakis-api"}
    ecs = client(incident, "ecs")
    [service] = ecs.describe_services(cluster="arrakis", services=["arrakis-worker"])["services"]
    assert (service["desiredCount"], service["runningCount"], service["pendingCount"]) == (1, 1, 0)
    assert "steady state" in service["events"][0]["message"]
    [target] = client(incident, "events").list_targets_by_rule(Rule="arrakis-sandbox-cleanup")["Targets"]
    named = target["EcsParameters"]["TaskDefinitionArn"]
    [container] = ecs.describe_task_definition(taskDefinition=named)["taskDefinition"]["containerDefinitions"]
    variables = {pair["name"]: pair["value"] for pair in container["environment"]}
    assert variables["ARRAKIS_ENV"] == "lab"
    assert variables["DATABASE_URL"] == incident.env["DATABASE_URL"]
    assert variables["REDIS_URL"] == incident.env["REDIS_URL"]
    options = container["logConfiguration"]["options"]
    assert options["awslogs-group"] == "/ecs/arrakis-sandbox-cleanup"


def test_the_tasks_may_reach_database_and_cache(incident: control.Lab) -> None:
    ecs, elasticache = client(incident, "ecs"), client(incident, "elasticache")
    [service] = ecs.describe_services(cluster="arrakis", services=["arrakis-worker"])["services"]
    [mine] = service["networkConfiguration"]["awsvpcConfiguration"]["securityGroups"]
    [instance] = client(incident, "rds").describe_db_instances()["DBInstances"]
    assert (instance["DBInstanceStatus"], instance["Engine"]) == ("available", "postgres")
    assert instance["EngineVersion"].startswith("15.")
    [cache] = elasticache.describe_replication_groups()["ReplicationGroups"]
    assert cache["Status"] == "available"
    [node] = elasticache.describe_cache_clusters(CacheClusterId=cache["MemberClusters"][0])["CacheClusters"]
    guarded = {
        instance["VpcSecurityGroups"][0]["VpcSecurityGroupId"]: 5432,
        node["SecurityGroups"][0]["SecurityGroupId"]: 6379,
    }
    groups = client(incident, "ec2").describe_security_groups(GroupIds=list(guarded))["SecurityGroups"]
    for group in groups:
        [rule] = group["IpPermissions"]
        assert rule["FromPort"] == rule["ToPort"] == guarded[group["GroupId"]]
        assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [mine]


def fetch(connection: psycopg.Connection[Any], statement: str) -> list[tuple[Any, ...]]:
    return connection.execute(statement.encode()).fetchall()


def is_of(schema: str, sandbox_id: str) -> bool:
    return sandbox_id.replace("-", "").startswith(schema.removeprefix("sandbox_").replace("-", ""))


def server_pids(home: Path) -> list[int]:
    servers = json.loads((home / "state.json").read_text())["servers"]
    assert all(answers(server["port"]) for server in servers.values())
    return [server["pid"] for server in servers.values()]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
