"""ECS as far as the clean-up job and the worker go: `run_task` really runs them, and what is told of a task is true.

The task's one container is `python -m lab.job` or `lab.worker`, whatever command the request or the definition names. Its
output goes to the log group of the definition's awslogs configuration, its embedded metrics to CloudWatch. Tasks of other
families, and of a worker that is not told where NATS is, stay moto's.
"""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moto.cloudwatch.models import cloudwatch_backends
from moto.core.responses import ActionResult
from moto.ecs import models
from moto.ecs.models import EC2ContainerServiceBackend
from moto.ecs.responses import EC2ContainerServiceResponse
from moto.logs.models import logs_backends

from lab.names import CLEANUP, WORKER, WORKER_READY
from lab.processes import SERVER_ENV

__all__ = ["Task", "install", "program_of"]

_REPOSITORY = Path(__file__).resolve().parent.parent
_PROGRAMS = {CLEANUP: "lab.job", WORKER: "lab.worker"}
_VARIABLES = ("DATABASE_URL", "REDIS_URL", "NATS_URL", "LOG_LEVEL", "CLEANUP_ORPHANED", "ARRAKIS_ENV")
"""All that a definition or a request may set: a request must not get to choose what this machine runs."""


_STOP_SECONDS = 2.0  # after which a container that was told to end is killed; ECS gives it 30


def program_of(definition: models.TaskDefinition) -> str | None:
    """Return the module that a definition's task really runs; None where it is moto's alone."""
    variables: Any = definition.container_definitions[0].get("environment") or []
    if definition.family == WORKER and "NATS_URL" not in {pair["name"] for pair in variables}:
        return None
    return _PROGRAMS.get(definition.family)


class Task(models.Task):
    """A task that runs a program if its definition has one. A thread watches over its process.

    A worker is pending until it says that it routes. `ordered` is whether somebody had the task stopped.
    """

    def __init__(
        self, cluster: models.Cluster, task_definition: models.TaskDefinition, *args: Any, **named: Any
    ) -> None:
        super().__init__(cluster, task_definition, *args, **named)
        self.created_at = datetime.now(UTC)
        self._definition = task_definition
        self._program = program_of(task_definition)
        self._now = "PENDING"
        self._process: subprocess.Popen[str] | None = None
        self.ordered = False
        if self._program:
            self.containers[0].exitCode = None  # type: ignore[assignment]
            # The process ends with the thread that starts it, so that one has to wait for it.
            threading.Thread(target=self._live, daemon=True).start()

    @property
    def status(self) -> str | None:
        """What it is doing; moto's own tasks move on by being looked at."""
        return self._now if self._program else super().status

    @status.setter
    def status(self, value: str) -> None:
        """Take an order from stop_task."""
        if not self._program:
            super(Task, type(self)).status.fset(self, value)  # type: ignore[attr-defined]
        elif self._process and not self.ordered:
            self.ordered = True
            self._process.terminate()
            end = threading.Timer(_STOP_SECONDS, self._process.kill)  # nothing to one that has ended
            end.daemon = True
            end.start()

    def _live(self) -> None:
        container = self._definition.container_definitions[0]
        write = _log_of(self, container)
        with subprocess.Popen(
            [sys.executable, "-m", str(self._program)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=_REPOSITORY,
            env={**SERVER_ENV, **_environment(container, self.overrides)},
        ) as self._process:
            if self._program != _PROGRAMS[WORKER]:
                self._run()
            for line in self._process.stdout or ():
                write(line.rstrip("\n"))
                self._measure(line)
                if self._now == "PENDING" and WORKER_READY in line:
                    self._run()
        self._end(self._process.returncode)

    def _run(self) -> None:
        self.started_at = datetime.now(UTC)
        self._now = self.containers[0].last_status = "RUNNING"

    def _end(self, code: int) -> None:
        self.containers[0].exitCode = code if code >= 0 else 128 - code
        self.containers[0].last_status = "STOPPED"
        by = "ServiceSchedulerInitiated" if self.group.startswith("service:") else "UserInitiated"
        self.stop_code = by if self.stopped_reason else "EssentialContainerExited"
        self.stopped_reason = self.stopped_reason or "Essential container in task exited"
        self.stopped_at = datetime.now(UTC)
        self.desired_status = self._now = "STOPPED"

    def _measure(self, line: str) -> None:
        """Publish what a line of embedded metric format says."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            said = json.loads(line)
            backend = cloudwatch_backends[self._account_id][self.region_name]
            for directive in said["_aws"]["CloudWatchMetrics"]:
                backend.put_metric_data(directive["Namespace"], list(_points(said, directive)))


def install() -> None:
    """Put it into moto, once per process; a second call changes nothing."""
    if models.Task is Task:
        return
    models.Task = Task  # type: ignore[misc]
    EC2ContainerServiceResponse.run_task = _once_a_token(  # type: ignore[method-assign]
        EC2ContainerServiceResponse.run_task
    )
    EC2ContainerServiceBackend.list_tasks = _listing(  # type: ignore[method-assign]
        EC2ContainerServiceBackend.list_tasks
    )


def _once_a_token(run: Callable[..., ActionResult]) -> Callable[..., ActionResult]:
    """A request that is repeated with its clientToken gets the tasks that it got before."""
    done: dict[tuple[str, str], ActionResult] = {}
    one_at_a_time = threading.Lock()

    def run_once(self: EC2ContainerServiceResponse) -> ActionResult:
        token = (str(self._get_param("cluster", "default")), str(self._get_param("clientToken", "")))
        with one_at_a_time:
            if token not in done:
                answer = run(self)
                if not token[1]:
                    return answer
                done[token] = answer
            return done[token]

    return run_once


def _listing(listing: Callable[..., list[models.Task]]) -> Callable[..., list[models.Task]]:
    """Those that run, unless others are asked for; and those of one service, which moto does not tell apart."""

    def list_tasks(self: EC2ContainerServiceBackend, *args: Any, **named: Any) -> list[models.Task]:
        *others, service, desired = args
        found = listing(self, *others, service, desired or "RUNNING", **named)
        group = f"service:{(service or '').rpartition('/')[2]}"
        return [task for task in found if not service or task.group == group]

    return list_tasks


def _environment(container: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, str]:
    """The container's variables, the request's last."""
    own = [each for each in overrides.get("containerOverrides", ()) if each.get("name") == container["name"]]
    pairs = [pair for each in (container, *own) for pair in each.get("environment", ())]
    return {pair["name"]: pair["value"] for pair in pairs if pair["name"] in _VARIABLES}


def _log_of(task: Task, container: Mapping[str, Any]) -> Callable[[str], None]:
    """Returns how to write a line to the task's log stream, which is named as awslogs names it."""
    options = container["logConfiguration"]["options"]
    group = options["awslogs-group"]
    stream = f"{options['awslogs-stream-prefix']}/{container['name']}/{task.id}"
    backend = logs_backends[task._account_id][task.region_name]
    backend.create_log_stream(group, stream)

    def write(line: str) -> None:
        backend.put_log_events(group, stream, [{"timestamp": int(time.time() * 1000), "message": line}])

    return write


def _points(said: Mapping[str, Any], directive: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    at = datetime.fromtimestamp(said["_aws"]["Timestamp"] / 1000, UTC).replace(
        tzinfo=None
    )  # as moto keeps them
    for names in directive["Dimensions"]:
        dimensions = [{"Name": name, "Value": said[name]} for name in names]
        for metric in directive["Metrics"]:
            yield {
                "MetricName": metric["Name"],
                "Unit": metric["Unit"],
                "Value": said[metric["Name"]],
                "Timestamp": at,
                "Dimensions": dimensions,
            }
