"""The AWS part of RB-SB-003: alarms, the metric that rose, two hours of logs, the clean-up's schedule."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import boto3  # type: ignore[import-untyped, unused-ignore]
from botocore.config import Config  # type: ignore[import-untyped, unused-ignore]

from lab.incidents.world import World

__all__ = ["lay_out"]

_PREFIX = "arrakis-lab"
_NAMESPACE = "Arrakis/Sandbox"
_DIMENSIONS = [{"Name": "Environment", "Value": "lab"}]
_POINTS = 24  # one every 15 minutes for six hours
_QUARTER = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Alarm:
    name: str
    metric: str
    statistic: str
    period: int
    evaluations: int
    threshold: int
    state: str = "OK"


_ALARMS = (
    _Alarm(
        name="sandbox-count-high",
        metric="ActiveSandboxCount",
        statistic="Maximum",
        period=300,
        evaluations=2,
        threshold=100,
    ),
    _Alarm(
        name="sandbox-cleanup-failures",
        metric="CleanupFailures",
        statistic="Sum",
        period=900,
        evaluations=1,
        threshold=0,
    ),
    _Alarm(
        name="sandbox-orphaned-resources",
        metric="OrphanedResourceCount",
        statistic="Maximum",
        period=900,
        evaluations=4,
        threshold=5,
        state="ALARM",
    ),
    _Alarm(
        name="sandbox-routing-errors",
        metric="EventRoutingErrors",
        statistic="Sum",
        period=300,
        evaluations=2,
        threshold=50,
    ),
    _Alarm(
        name="sandbox-schema-failures",
        metric="SchemaCreationErrors",
        statistic="Sum",
        period=300,
        evaluations=1,
        threshold=3,
    ),
)


def lay_out(env: Mapping[str, str], world: World) -> None:
    """Write it all through the AWS API at AWS_ENDPOINT_URL."""
    session = boto3.Session(
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        region_name=env["AWS_DEFAULT_REGION"],
    )
    config = Config(connect_timeout=2, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2})

    def client(service: str) -> Any:
        return session.client(service, endpoint_url=env["AWS_ENDPOINT_URL"], config=config)

    cloudwatch = client("cloudwatch")
    counts = _metric(cloudwatch, world)
    for alarm in _ALARMS:
        _alarm(cloudwatch, alarm, counts)
    logs = client("logs")
    for group, lines in _log_lines(world).items():
        _log(logs, f"/ecs/{_PREFIX}/{group}", lines)
    rule = {"Name": "arrakis-sandbox-cleanup", "ScheduleExpression": "rate(15 minutes)", "State": "ENABLED"}
    client("events").put_rule(**rule)


def _metric(cloudwatch: Any, world: World) -> list[int]:
    """OrphanedResourceCount rises from 1 to 10, seven schemas and three key families."""
    counts = [1 + 9 * index // (_POINTS - 1) for index in range(_POINTS)]
    data = [
        {
            "MetricName": "OrphanedResourceCount",
            "Dimensions": _DIMENSIONS,
            "Timestamp": world.now - _QUARTER * (_POINTS - 1 - index),
            "Value": float(count),
            "Unit": "Count",
        }
        for index, count in enumerate(counts)
    ]
    cloudwatch.put_metric_data(Namespace=_NAMESPACE, MetricData=data)
    return counts


def _alarm(cloudwatch: Any, alarm: _Alarm, counts: list[int]) -> None:
    cloudwatch.put_metric_alarm(
        AlarmName=f"{_PREFIX}-{alarm.name}",
        Namespace=_NAMESPACE,
        MetricName=alarm.metric,
        Dimensions=_DIMENSIONS,
        Statistic=alarm.statistic,
        Period=alarm.period,
        EvaluationPeriods=alarm.evaluations,
        Threshold=float(alarm.threshold),
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="notBreaching",
    )
    reason = "Threshold Crossed: no datapoints were received and missing data is treated as NonBreaching."
    if alarm.state == "ALARM":
        last = ", ".join(f"{count:.1f}" for count in counts[: -alarm.evaluations - 1 : -1])
        reason = (
            f"Threshold Crossed: {alarm.evaluations} out of the last {alarm.evaluations} datapoints [{last}] "
            f"were greater than the threshold ({alarm.threshold:.1f})."
        )
    cloudwatch.set_alarm_state(
        AlarmName=f"{_PREFIX}-{alarm.name}", StateValue=alarm.state, StateReason=reason, StateReasonData="{}"
    )


def _log(logs: Any, group: str, lines: list[tuple[datetime, str]]) -> None:
    stream = f"{group.rsplit('/', 1)[1]}/lab/0001"
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName=stream)
    events = [{"timestamp": int(at.timestamp() * 1000), "message": line} for at, line in sorted(lines)]
    logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)


def _log_lines(world: World) -> dict[str, list[tuple[datetime, str]]]:
    """Two hours of lines, oldest first; each group has plain ones and JSON ones, as in production."""
    now = world.now
    ids = [str(row.id) for row in world.sandboxes]
    worker, cleanup, api = [], [], []
    for step in range(8):
        at, sandbox = now - _QUARTER * (7 - step) - timedelta(minutes=5), ids[step % len(ids)]
        cleanup.append((at, "INFO Starting sandbox cleanup job"))
        cleanup.append(_pino(at + timedelta(seconds=2), 30, "CleanupProvider", "Cleanup finished", failed=0))
        worker.append((at + timedelta(seconds=30), f"INFO routed 412 events, last to sandbox {sandbox}"))
        worker.append(_pino(at + timedelta(seconds=40), 30, "EventRouter", "Event routed", sandboxId=sandbox))
        api.append((at + timedelta(seconds=50), "INFO GET /sandboxes 200 31ms"))
        api.append(_pino(at + timedelta(minutes=1), 30, "SandboxManager", "Listed sandboxes", count=14))
    remains = next(str(row.id) for row in world.sandboxes if row.status == "destroyed")
    timeout = {"type": "Error", "message": "canceling statement due to lock timeout", "code": "55P03"}
    failed = now - timedelta(minutes=110)
    cleanup.append(
        _pino(failed, 50, "CleanupProvider", "Failed to drop schema", sandboxId=remains, error=timeout)
    )
    cleanup.append(
        (failed + timedelta(seconds=1), f"ERROR Sandbox {remains} marked destroyed with its schema left")
    )
    worker.append(_pino(now - timedelta(minutes=70), 40, "RouteProvider", "Route cache miss rate is high"))
    api.append((now - timedelta(minutes=45), "WARN slow query: sandbox list took 812 ms"))
    return {"worker": worker, "sandbox-cleanup": cleanup, "api": api}


def _pino(at: datetime, level: int, component: str, message: str, **more: object) -> tuple[datetime, str]:
    line = {"level": level, "time": int(at.timestamp() * 1000), "pid": 1, "hostname": "ip-10-0-3-17.lab"}
    return at, json.dumps({**line, "component": component, "msg": message, **more}, separators=(",", ":"))
