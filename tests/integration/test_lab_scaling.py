"""Autoscaling in the lab, where a worker really runs: it starts what is stopped in the wrong order, and not what is in the right one."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3  # type: ignore[import-untyped, unused-ignore]
import pytest

from diagnostics.compute import read_service
from diagnostics.scaling import Scaling, read_scaling
from lab import control
from lab.incidents.cloud import Account
from lab.names import CLUSTER, REGION, WORKER, WORKER_LOGS, WORKER_READY
from runbooks.engine.environment import resolve
from runbooks.engine.gate import Gate
from runbooks.engine.model import Remedy, State
from runbooks.engine.systems import readers, writers
from runbooks.remedies import remedies
from runbooks.remedies.stopping import stopping
from runbooks.remedies.tags import Stop
from sandbox.adapters.aws import Aws
from sandbox.errors import Unreachable
from tests.waiting import eventually

LIMITS = Scaling(minimum=1, maximum=4)
NAMED: dict[str, Any] = {
    "ServiceNamespace": "ecs",
    "ResourceId": f"service/{CLUSTER}/{WORKER}",
    "ScalableDimension": "ecs:service:DesiredCount",
}
SUSPENDED = dict.fromkeys(
    ("DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended"), True
)


class Scene:
    """A lab whose worker's service runs a real worker, looked at from outside."""

    def __init__(self, lab: control.Lab) -> None:
        self.account, self.endpoint = Account(lab.env), lab.env["AWS_ENDPOINT_URL"]
        variables = {name: lab.env[name] for name in ("DATABASE_URL", "REDIS_URL", "NATS_URL")}
        variables["ARRAKIS_ENV"] = "lab"
        self.account.update_worker(taskDefinition=self.account.define(WORKER, variables), desiredCount=1)
        self.scaling = boto3.client("application-autoscaling")

    def workers(self) -> set[int]:
        """The processes of all workers that run now."""
        logs = self.account.client("logs")
        said = logs.filter_log_events(logGroupName=WORKER_LOGS)["events"]
        started = [json.loads(each["message"]) for each in said if WORKER_READY in each["message"]]
        return {line["pid"] for line in started if Path("/proc", str(line["pid"])).exists()}

    def runs(self, count: int) -> bool:
        """Whether so many tasks run and should, by ECS and in truth."""
        service = self.account.worker()
        told = service["desiredCount"], service["runningCount"], service["pendingCount"]
        return told == (count, count, 0) and len(self.workers()) == count

    def register(self, **changes: Any) -> None:
        self.scaling.register_scalable_target(**NAMED, **changes)

    def scale(self, by: int) -> None:
        """Let autoscaling act now."""
        with urlopen(Request(f"{self.endpoint}/moto-api/scale?by={by}", method="POST"), timeout=5) as answer:
            assert answer.status == 200


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[control.Lab]:
    home = tmp_path_factory.mktemp("lab") / "home"
    started = control.start(home, watch_parent=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_PROFILE", raising=False)
        for name, value in started.env.items():
            patch.setenv(name, value)
        yield started
    control.reset(home)


@pytest.fixture(scope="module")
def scene(lab: control.Lab) -> Scene:
    found = Scene(lab)
    eventually(lambda: found.runs(1))
    return found


@pytest.fixture
def remedy(lab: control.Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Remedy:
    """Return the remedy of somebody whose database is down."""
    down = {**lab.env, "DATABASE_URL": "postgresql://lab@127.0.0.1:1/arrakis"}
    environment = resolve(None, down, tmp_path, tmp_path)
    read = readers(environment, tag="tests:scaling", timeout=5)
    write = writers(environment, tag="tests:scaling", actor="chani", timeout=5)
    gate = Gate(
        read=read, write=write, fence=lambda _: pytest.fail("asks for the lease"), tell=lambda _: None
    )
    with pytest.raises(Unreachable), gate.lease():
        pass
    monkeypatch.setattr("runbooks.remedies.stopping._LONGEST_POLL", 0.25)
    return remedies(gate)["stop service"]


def test_in_the_wrong_order_the_worker_starts_again_and_in_the_right_one_it_does_not(scene: Scene) -> None:
    [former] = scene.workers()
    scene.account.update_worker(desiredCount=0)
    eventually(lambda: scene.runs(0))
    scene.register(SuspendedState=SUSPENDED)
    assert scene.account.worker()["desiredCount"] == 1
    eventually(lambda: scene.runs(1))
    assert scene.workers() != {former}

    scene.register(MinCapacity=0)
    scene.account.update_worker(desiredCount=0)
    scene.register(MaxCapacity=4)
    eventually(lambda: scene.runs(0))
    scene.account.update_worker(desiredCount=1)
    scene.register(MinCapacity=1, SuspendedState=dict.fromkeys(SUSPENDED, False))
    eventually(lambda: scene.runs(1))


def test_a_stop_ends_every_worker_without_postgresql_and_its_undoing_starts_as_many(
    scene: Scene, remedy: Remedy
) -> None:
    aws = Aws(region=REGION)
    scene.scale(1)
    eventually(lambda: scene.runs(2))
    service = read_service(aws, cluster=CLUSTER, name=WORKER)
    scaling = read_scaling(aws, cluster=CLUSTER, service=WORKER)
    assert service
    assert scaling == LIMITS
    action = stopping(service, scaling, Stop(id="stop-1", by="chani", at=datetime.now(UTC)), cluster=CLUSTER)
    remedy.apply(action)
    assert scene.runs(0)
    scene.scale(1)
    scene.register(MaxCapacity=4)
    assert remedy.observe(action).state is State.AFTER
    remedy.revert(action)
    assert scene.runs(2)
    assert remedy.observe(action).state is State.BEFORE
    assert read_scaling(aws, cluster=CLUSTER, service=WORKER) == LIMITS
