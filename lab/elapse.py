"""Time that passes for what an account remembers: what was logged, measured and stopped is suddenly older.

`curl -X POST 'ENDPOINT/moto-api/elapse?minutes=60'` asks for it. An alarm keeps its state: that is of now.
"""

import json
from datetime import timedelta
from typing import Any

from moto.cloudwatch.models import CloudWatchBackend, cloudwatch_backends
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ecs.models import EC2ContainerServiceBackend, ecs_backends
from moto.logs.models import LogsBackend, logs_backends
from moto.moto_api._internal import urls as moto_api

from lab.names import REGION

__all__ = ["install"]


def install() -> None:
    """Put it into moto, once per process; a second call changes nothing."""
    moto_api.url_paths["{0}/moto-api/elapse"] = _elapse  # type: ignore[assignment]


def _elapse(request: Any, _url: str, _headers: Any) -> tuple[int, dict[str, str], str]:
    passed = timedelta(minutes=int(request.args["minutes"]))
    _age_metrics(cloudwatch_backends[DEFAULT_ACCOUNT_ID][REGION], passed)
    _age_logs(logs_backends[DEFAULT_ACCOUNT_ID][REGION], passed)
    _age_services(ecs_backends[DEFAULT_ACCOUNT_ID][REGION], passed)
    return 200, {}, json.dumps({"status": "ok"})


def _age_metrics(backend: CloudWatchBackend, passed: timedelta) -> None:
    for point in backend.metric_data:
        point.timestamp -= passed


def _age_logs(backend: LogsBackend, passed: timedelta) -> None:
    for group in backend.groups.values():
        for stream in group.streams.values():
            for event in stream.events:
                event.timestamp -= passed // timedelta(milliseconds=1)


def _age_services(backend: EC2ContainerServiceBackend, passed: timedelta) -> None:
    """Of a service its events; of the tasks, ECS keeps those that have stopped for an hour or so."""
    for service in backend.services.values():
        for event in service.events:
            event["createdAt"] -= passed
    for tasks in backend.tasks.values():
        for arn in [arn for arn, task in tasks.items() if task.desired_status == "STOPPED"]:
            del tasks[arn]
