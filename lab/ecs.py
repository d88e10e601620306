"""ECS as far as the clean-up job goes: `run_task` really runs it, and what is told of a task is true.

The task's one container is `python -m lab.job`, whatever command the request or the definition names. Its output goes
to the log group of the definition's awslogs configuration, its embedded metrics to CloudWatch. Tasks of other
families stay moto's.
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

from lab.names import CLEANUP
from lab.processes import SERVER_ENV

__all__ = ["install"]

_REPOSITORY = Path(__file__).resolve().parent.parent
_VARIABLES = ("DATABASE_URL", "REDIS_URL", "LOG_LEVEL", "CLEANUP_ORPHANED", "ARRAKIS_ENV")
"""All that a definition or a request may set: a request must not get to choose what this machine runs."""


class _Task(models.Task):
    """A task that runs the job if it is of the clean-up's family. A thread watches over its process."""

    def __init__(
        self, cluster: models.Cluster, task_definition: models.TaskDefinition, *args: Any, **named: Any
    ) -> None:
        super().__init__(cluster, task_definition, *args, **named)
        self.created_at = datetime.now(UTC)
        self._definition = task_definition
        self._real = task_definition.family == CLEANUP
        self._now = "PENDING"
        self._process: subprocess.Popen[str] | None = None
        if self._real:
            self.containers[0].exitCode = None  # type: ignore[assignment]
            # The process ends with the thread that starts it, so that one has to wait for it.
            threading.Thread(target=self._live, daemon=True).start()

    @property
    def status(self) -> str | None:
        """What it is doing; moto's own tasks move on by being looked at."""
        return self._now if self._real else super().status

    @status.setter
    def status(self, value: str) -> None:
        """Take an order from stop_task."""
        if not self._real:
            models.Task.status.fset(self, value)  # type: ignore[attr-defined]
        elif self._process:
            self._process.terminate()

    def _live(self) -> None:
        container = self._definition.container_definitions[0]
        write = _log_of(self, container)
        with subprocess.Popen(
            [sys.executable, "-m", "lab.job"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=_REPOSITORY,
            env={**SERVER_ENV, **_environment(container, self.overrides)},
        ) as self._process:
            self.started_at = datetime.now(UTC)
            self._now = self.containers[0].last_status = "RUNNING"
            for line in self._process.stdout or ():
                write(line.rstrip("\n"))
                self._measure(line)
        self._end(self._process.returncode)

    def _end(self, code: int) -> None:
        self.containers[0].exitCode = code if code >= 0 else 128 - code
        self.containers[0].last_status = "STOPPED"
        self.stop_code = "UserInitiated" if self.stopped_reason else "EssentialContainerExited"
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
    if models.Task is _Task:
        return
    models.Task = _Task  # type: ignore[misc]
    EC2ContainerServiceResponse.run_task = _once_a_token(  # type: ignore[method-assign]
        EC2ContainerServiceResponse.run_task
    )
    EC2ContainerServiceBackend.list_tasks = _running_by_default(  # type: ignore[method-assign]
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


def _running_by_default(listing: Callable[..., list[models.Task]]) -> Callable[..., list[models.Task]]:
    def list_tasks(self: EC2ContainerServiceBackend, *args: Any, **named: Any) -> list[models.Task]:
        *others, desired = args
        return listing(self, *others, desired or "RUNNING", **named)

    return list_tasks


def _environment(container: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, str]:
    """The container's variables, the request's last."""
    own = [each for each in overrides.get("containerOverrides", ()) if each.get("name") == container["name"]]
    pairs = [pair for each in (container, *own) for pair in each.get("environment", ())]
    return {pair["name"]: pair["value"] for pair in pairs if pair["name"] in _VARIABLES}


def _log_of(task: _Task, container: Mapping[str, Any]) -> Callable[[str], None]:
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
