"""The routing's incidents in one lab: each cause is there when the servers are asked, and gone once it is relieved."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped, unused-ignore]
import psycopg
import pytest
import redis
from nats.aio.client import Client

from lab import control, gateway
from lab.incidents import INCIDENTS, routing
from lab.incidents.routing_world import STRAY, build, guilds
from sandbox.adapters.nats import Nats
from sandbox.model import Message
from sandbox.streams import Condition, Config, check, expected_consumers, expected_streams
from tests.integration.messaging import by_hand
from tests.waiting import eventually

ALARM = "arrakis-lab-sandbox-routing-errors"
GROUP = "/ecs/arrakis-worker"
MAPPED = guilds(build(datetime.now(UTC)))


class Scene:
    """The lab, looked at from outside."""

    def __init__(self, lab: control.Lab) -> None:
        self.lab, self.env = lab, lab.env
        self.nats = Nats(lab.env["NATS_URL"])
        self.redis = redis.Redis.from_url(lab.env["REDIS_URL"], decode_responses=True)
        session = boto3.Session("lab", "lab", region_name=lab.env["AWS_DEFAULT_REGION"])
        self.clients = {
            name: session.client(name, endpoint_url=lab.env["AWS_ENDPOINT_URL"])
            for name in ("ecs", "logs", "cloudwatch")
        }

    @contextmanager
    def incident(self, name: str) -> Iterator[None]:
        """Lay it out for the block; then relieve the lab of it, and see that all is well."""
        control.lay_out(self.lab, name)
        yield
        assert name in control.relieve(self.lab, name).relieved
        self.see_that_all_is_well()

    def see_that_all_is_well(self) -> None:
        """Ask every server."""
        expected: list[Config] = [*expected_streams(replicas=1), *expected_consumers()]
        assert {each.condition for each in check(self.nats, expected)} == {Condition.AS_EXPECTED}
        assert self.wrong_routes() == {}
        assert self.alarm() == "OK"
        assert self.errors() == Counter()
        assert self.metric(timedelta(minutes=50)) == 0
        assert self.rollout() == ("COMPLETED", 1, 0)
        [task] = self.tasks("RUNNING")
        assert (task["lastStatus"], task["group"]) == ("RUNNING", "service:arrakis-worker")
        assert self.tasks("STOPPED") == []
        eventually(lambda: all(self.waiting(each.stream, each.name) for each in expected_consumers()))
        self.see_that_events_arrive()

    def see_that_events_arrive(self) -> None:
        """Publish an event for each guild: it is stored for the guild's sandbox, taken, and comes no second time."""
        gateway.send(self.env["NATS_URL"], MAPPED, ("member.join",))
        wanted = {f"sandbox.{sandbox}.events.member.join" for sandbox in MAPPED.values()}
        eventually(lambda: wanted <= {each.subject for each in self.messages("SANDBOX", "sandbox.>")})
        assert copies(self.messages("EVENTS", "events.>")) == 1
        eventually(
            lambda: not self.left("EVENTS", "sandbox-event-router") + self.left("SANDBOX", "sandbox-consumer")
        )

    def wrong_routes(self) -> dict[str, tuple[str | None, float]]:
        """The cached routes that are not the table's, or have no end, with the milliseconds left."""
        found = dict[str, tuple[str | None, float]]()
        for key in self.redis.scan_iter("sandbox:route:*"):
            value: Any = self.redis.get(key)
            guild, left = str(key).rpartition(":")[2], int(self.redis.pttl(key))
            if value != str(MAPPED.get(guild, "__NULL__")) or not 0 < left <= 60_000:
                found[guild] = (value, left)
        return found

    def messages(self, stream: str, subject: str) -> list[Message]:
        return self.nats.messages(stream, subject, 1000)

    def last_event(self) -> int:
        state = self.nats.stream("EVENTS")
        return state.last_sequence if state else 0

    def left(self, stream: str, consumer: str) -> int:
        state = self.nats.consumer(stream, consumer)
        assert state is not None
        return state.pending + state.ack_pending

    def waiting(self, stream: str, consumer: str) -> int:
        state = self.nats.consumer(stream, consumer)
        return state.waiting_pulls if state else 0

    def service(self) -> Any:
        return self.clients["ecs"].describe_services(cluster="arrakis", services=["arrakis-worker"])[
            "services"
        ][0]

    def rollout(self) -> tuple[str, int, int]:
        """The newest deployment's state, and how many tasks run and are about to."""
        service = self.service()
        return service["deployments"][0]["rolloutState"], service["runningCount"], service["pendingCount"]

    def events(self) -> list[str]:
        """What ECS tells of the service, the newest first."""
        return [event["message"] for event in self.service()["events"]]

    def tasks(self, status: str) -> list[Any]:
        ecs = self.clients["ecs"]
        named = {"cluster": "arrakis", "serviceName": "arrakis-worker", "desiredStatus": status}
        arns = ecs.list_tasks(**named)["taskArns"]
        return list(ecs.describe_tasks(cluster="arrakis", tasks=arns)["tasks"]) if arns else []

    def lines(self, since: timedelta) -> list[dict[str, Any]]:
        start = int((datetime.now(UTC) - since).timestamp() * 1000)
        pages = (
            self.clients["logs"]
            .get_paginator("filter_log_events")
            .paginate(logGroupName=GROUP, startTime=start)
        )
        said = [event["message"] for page in pages for event in page["events"]]
        return [json.loads(line) for line in said if line.startswith("{")]

    def errors(self) -> Counter[tuple[str, str, str]]:
        """What has failed lately: by component, message and the error's code."""
        found = [line for line in self.lines(timedelta(minutes=50)) if line.get("level", 0) >= 50]
        return Counter((line["component"], line["msg"], line["error"]["code"]) for line in found)

    def alarm(self) -> str:
        [alarm] = self.clients["cloudwatch"].describe_alarms(AlarmNames=[ALARM])["MetricAlarms"]
        return str(alarm["StateValue"])

    def metric(self, since: timedelta) -> float:
        now = datetime.now(UTC)
        points = self.clients["cloudwatch"].get_metric_statistics(
            Namespace="Arrakis/Sandbox",
            MetricName="EventRoutingErrors",
            Dimensions=[{"Name": "Environment", "Value": "lab"}],
            StartTime=now - since,
            EndTime=now + timedelta(minutes=5),
            Period=300,
            Statistics=["Sum"],
        )["Datapoints"]
        return float(sum(point["Sum"] for point in points))

    def worker(self) -> int | None:
        """The process of the worker that was started last."""
        started = [
            line for line in self.lines(timedelta(hours=9)) if line.get("msg") == "Event router started"
        ]
        return int(started[-1]["pid"]) if started else None


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    home = tmp_path_factory.mktemp("lab") / "home"
    found = Scene(control.start(home, watch_parent=True))
    yield found
    last = found.worker()
    control.reset(home)
    # Nobody is told to end it: it ends with its parent.
    eventually(lambda: last is None or not Path("/proc", str(last)).exists())


def test_all_share_a_world_and_each_says_what_it_is() -> None:
    assert {each.world for each in routing.INCIDENTS} == {INCIDENTS["routes-stale"].world}
    assert all(each.summary and each.relieve for each in routing.INCIDENTS)


def test_the_world_is_the_same_each_time() -> None:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    assert build(now) == build(now)
    assert Counter(row.status for row in build(now).sandboxes) == {"running": 8, "expired": 1, "destroyed": 3}


def test_stale_routes_send_events_astray_and_in_circles(scene: Scene) -> None:
    with scene.incident("routes-stale"):
        wrong = scene.wrong_routes()
        assert {left for _, left in wrong.values()} == {-1}
        targets = [value for value, _ in wrong.values()]
        statuses = status_of(scene, [each for each in targets if each and "-" in each])
        assert sorted(statuses.values()) == ["destroyed", "destroyed", "running"]
        assert targets.count("__NULL__") == 2
        for target in statuses:
            assert scene.messages("SANDBOX", f"sandbox.{target}.>")
        nowhere = {guild for guild, (value, _) in wrong.items() if value == "__NULL__"}
        assert most_seen(scene.messages("EVENTS", "events.>")) in nowhere
        assert scene.errors() == Counter()


@pytest.mark.soak
def test_a_missing_stream_fails_every_event(scene: Scene) -> None:
    with scene.incident("stream-missing"):
        assert scene.nats.stream("SANDBOX") is None
        failed = ("EventRouter", "Failed to route event", "503")
        assert set(scene.errors()) == {failed}
        assert scene.errors()[failed] > 50
        assert scene.metric(timedelta(minutes=5)) > 50
        assert scene.alarm() == "ALARM"
        assert scene.rollout() == ("COMPLETED", 1, 0)


@pytest.mark.soak
def test_a_drifted_stream_refuses_some_events_and_soon_forgets_the_others(scene: Scene) -> None:
    with scene.incident("stream-drifted"):
        [drifted] = [each for each in check(scene.nats, expected_streams(replicas=1)) if each.drift]
        assert {each.field for each in drifted.drift} == {"subjects", "max_msgs", "max_age"}
        assert scene.nats.consumer("SANDBOX", "sandbox-consumer") is not None
        assert scene.alarm() == "ALARM"
        refused = {line["subject"] for line in scene.lines(timedelta(minutes=5)) if line.get("level") == 50}
        assert refused
        assert all(subject.startswith("events.member.") for subject in refused)
        gateway.send(scene.env["NATS_URL"], tuple(MAPPED) * 4, ("guild.join",))
        eventually(lambda: len(scene.messages("SANDBOX", "sandbox.>")) == 20)


@pytest.mark.soak
def test_a_worker_that_hangs_runs_and_serves_nobody(scene: Scene) -> None:
    with scene.incident("consumer-unserved"):
        hung = scene.worker()
        assert scene.rollout() == ("COMPLETED", 1, 0)
        assert scene.waiting("EVENTS", "sandbox-event-router") == 0
        before = scene.left("EVENTS", "sandbox-event-router")
        gateway.send(scene.env["NATS_URL"], MAPPED)
        assert scene.left("EVENTS", "sandbox-event-router") >= before + 5 * len(MAPPED) > 5 * len(MAPPED)
        assert Path("/proc", str(hung)).exists()
    assert scene.worker() != hung
    assert not Path("/proc", str(hung)).exists()


@pytest.mark.soak
def test_a_worker_that_cannot_start_is_tried_again_and_the_service_says_so(scene: Scene) -> None:
    with scene.incident("worker-stopped"):
        service = scene.service()
        assert (service["desiredCount"], service["runningCount"]) == (1, 0)
        assert service["deployments"][0]["rolloutState"] == "IN_PROGRESS"
        assert service["deployments"][0]["failedTasks"] > 0
        stopped = [task for task in scene.tasks("STOPPED") if task["stopCode"] == "EssentialContainerExited"]
        assert {task["containers"][0]["exitCode"] for task in stopped} == {1}
        assert scene.errors()["NatsClient", "Failed to start worker (NATS mode)", "CONNECTION_REFUSED"] > 0
        assert scene.waiting("EVENTS", "sandbox-event-router") == 0
        eventually(lambda: any("unable to consistently start" in text for text in scene.events()))


@pytest.mark.soak
def test_events_of_production_circle(scene: Scene) -> None:
    with scene.incident("events-looping"):
        assert most_seen(scene.messages("EVENTS", "events.>")) == STRAY
        before = scene.last_event()
        eventually(lambda: scene.last_event() > before + 20)
        assert scene.wrong_routes() == {}


@pytest.mark.soak
def test_a_new_deployment_replaces_the_worker_and_makes_what_is_missing(scene: Scene) -> None:
    ecs, named = scene.clients["ecs"], {"cluster": "arrakis", "service": "arrakis-worker"}
    former, [task] = scene.worker(), scene.tasks("RUNNING")
    by_hand(scene.env["NATS_URL"], delete_sandbox)
    ecs.update_service(**named, forceNewDeployment=True)
    assert [each["status"] for each in scene.service()["deployments"]] == ["PRIMARY", "ACTIVE"]
    assert scene.rollout()[0] == "IN_PROGRESS"
    eventually(lambda: scene.rollout() == ("COMPLETED", 1, 0))
    assert scene.events()[0] == "(service arrakis-worker) has reached a steady state."
    assert scene.worker() != former
    [gone] = scene.tasks("STOPPED")
    assert (gone["taskArn"], gone["stopCode"]) == (task["taskArn"], "ServiceSchedulerInitiated")
    assert scene.nats.consumer("SANDBOX", "sandbox-consumer") is not None

    ecs.update_service(**named, desiredCount=0)
    eventually(lambda: scene.rollout()[1:] == (0, 0))
    assert scene.tasks("RUNNING") == []
    ecs.update_service(**named, desiredCount=1)
    eventually(lambda: scene.rollout() == ("COMPLETED", 1, 0))
    scene.see_that_events_arrive()


def status_of(scene: Scene, sandboxes: list[str]) -> dict[str, str]:
    """What the table says of these sandboxes."""
    with psycopg.connect(scene.env["DATABASE_URL"]) as connection:
        rows = connection.execute(
            "SELECT id::text, status::text FROM sandboxes WHERE id = ANY(%s::uuid[])", (sandboxes,)
        )
        return {str(sandbox): str(status) for sandbox, status in rows}


async def delete_sandbox(client: Client) -> None:
    await client.jetstream().delete_stream("SANDBOX")


def copies(messages: list[Message]) -> int:
    """How often the event that was seen most often was seen."""
    return max(Counter(each.data for each in messages).values(), default=0)


def most_seen(messages: list[Message]) -> str:
    """The guild of the event that was seen most often, which has to be more than twice."""
    [(data, times)] = Counter(each.data for each in messages).most_common(1)
    assert times > 2
    return str(json.loads(data)["guild_id"])
