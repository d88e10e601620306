"""ECS services as far as the worker goes: one whose task definition says where NATS is really runs its tasks.

A steward keeps as many running as are desired, rolls a deployment (the old task is stopped while the new one starts, as
with a minimum of 0 % healthy), tries again after a failure, later each time, and tells the truth in the service's
counts, deployments and events. A service of any other definition stays moto's, which only counts.
"""

import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from moto.ecs.models import EC2ContainerServiceBackend, Service

from lab.ecs import Task, program_of

__all__ = ["install"]

_PAUSE = 0.05
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 16.0  # seconds before a task that failed is followed by another
_KEPT_EVENTS = 100
_stewards: dict[str, "_Steward"] = {}


class _Steward:
    """Looks after a service, from a deployment on for as long as the moto process lives. `service` is moto's: what is told."""

    def __init__(self, service: Service, backend: EC2ContainerServiceBackend) -> None:
        self.service, self._backend = service, backend
        self._tasks: list[Task] = []  # those that have not been seen to end
        self._delay, self._not_before = _FIRST_DELAY, 0.0
        self._lock = threading.RLock()
        self.deploy()
        threading.Thread(target=self._work, daemon=True, name=f"steward of {service.name}").start()

    def deploy(self) -> None:
        """Begin a deployment of the service's definition as it is now."""
        with self._lock:
            definition = self._backend.describe_task_definition(str(self.service.task_definition))
            self.service.task_definition = definition.arn
            now = datetime.now(UTC).replace(tzinfo=None)  # as moto keeps them
            identity = f"ecs-svc/{random.SystemRandom().randrange(10**18, 10**19)}"
            for former in self.service.deployments:
                former["status"] = "ACTIVE"
            first: dict[str, Any] = {**self.service.deployments[0], "id": identity, "status": "PRIMARY"}
            first |= {"taskDefinition": definition.arn, "createdAt": now, "updatedAt": now, "failedTasks": 0}
            first |= {"rolloutState": "IN_PROGRESS"}
            first |= {"rolloutStateReason": f"ECS deployment {identity} in progress."}
            self.service.deployments.insert(0, first)
            self._delay, self._not_before = _FIRST_DELAY, 0.0
            self.look()

    def look(self) -> None:
        """Take one step towards what is desired, and tell how things are."""
        with self._lock:
            primary, wanted = self.service.deployments[0], self.service.desired_count
            self._bury(primary)
            current = [task for task in self._tasks if task.started_by == primary["id"]]
            surplus = [task for task in self._tasks if task not in current] + current[wanted:]
            for task in surplus:
                self._stop(task, primary)
            if len(current) < wanted and time.monotonic() >= self._not_before:
                current.append(self._start(primary))
            self._count(wanted)
            running = [task for task in current if task.status == "RUNNING"]
            if running:
                self._delay = _FIRST_DELAY
            if primary["rolloutState"] == "IN_PROGRESS" and len(running) == len(self._tasks) == wanted:
                self._complete(primary)

    def _work(self) -> None:
        while True:
            self.look()
            time.sleep(_PAUSE)

    def _bury(self, primary: dict[str, Any]) -> None:
        """Let go of the tasks that have ended; one of the newest deployment that nobody stopped has failed."""
        for task in [task for task in self._tasks if task.status == "STOPPED"]:
            self._tasks.remove(task)
            if task.ordered or task.started_by != primary["id"]:
                continue
            primary["failedTasks"] += 1
            self._not_before = time.monotonic() + self._delay
            self._delay = min(2 * self._delay, _LONGEST_DELAY)
            if primary["failedTasks"] > 1:
                self._tell("is unable to consistently start tasks successfully.")

    def _start(self, primary: dict[str, Any]) -> Task:
        [task] = self._backend.run_task(
            self.service.cluster_name,
            primary["taskDefinition"],
            1,
            None,
            primary["id"],
            None,
            "FARGATE",
            networking_configuration=self.service.network_configuration,
            group=f"service:{self.service.name}",
        )
        assert isinstance(task, Task)
        self._tasks.append(task)
        self._tell(f"has started 1 tasks: (task {task.id}).")
        return task

    def _stop(self, task: Task, primary: dict[str, Any]) -> None:
        if task.ordered:
            return
        reason = f"Scaling activity initiated by (deployment {primary['id']})"
        self._backend.stop_task(self.service.cluster_name, task.id, reason)
        self._tell(f"has stopped 1 running tasks: (task {task.id}).")

    def _count(self, wanted: int) -> None:
        for deployment in self.service.deployments:
            mine = [task for task in self._tasks if task.started_by == deployment["id"]]
            running = len([task for task in mine if task.status == "RUNNING"])
            is_first = deployment["status"] == "PRIMARY"
            deployment |= {"runningCount": running, "desiredCount": wanted if is_first else 0}
            deployment["pendingCount"] = len(mine) - running
        told: list[Any] = self.service.deployments
        self.service.running_count = sum(each["runningCount"] for each in told)
        self.service.pending_count = sum(each["pendingCount"] for each in told)

    def _complete(self, primary: dict[str, Any]) -> None:
        self.service.deployments[:] = [primary]
        primary["rolloutState"] = "COMPLETED"
        primary["rolloutStateReason"] = f"ECS deployment {primary['id']} completed."
        primary["updatedAt"] = datetime.now(UTC).replace(tzinfo=None)
        self._tell(f"(deployment {primary['id']}) deployment completed.")
        self._tell("has reached a steady state.")

    def _tell(self, what: str) -> None:
        event = {
            "id": str(uuid4()),
            "createdAt": datetime.now(UTC),
            "message": f"(service {self.service.name}) {what}",
        }
        self.service.events = [event, *self.service.events][:_KEPT_EVENTS]


def install() -> None:
    """Put it into moto, once per process; a second call changes nothing."""
    current = EC2ContainerServiceBackend.update_service
    if not hasattr(current, "really"):
        EC2ContainerServiceBackend.update_service = _really(current)  # type: ignore[method-assign]


def _really(update: Callable[..., Service]) -> Callable[..., Service]:
    def update_service(self: EC2ContainerServiceBackend, properties: dict[str, Any]) -> Service:
        anew = bool(properties.get("force_new_deployment") or properties.get("task_definition"))
        service = update(self, properties)
        definition = self.describe_task_definition(str(service.task_definition))
        if service.arn not in _stewards:
            if program_of(definition) is None:
                return service
            _stewards[service.arn] = _Steward(service, self)
        elif anew:
            _stewards[service.arn].deploy()
        else:
            _stewards[service.arn].look()
        return service

    update_service.really = True  # type: ignore[attr-defined]
    return update_service
