"""The AWS part that all incidents share: the five alarms, metrics with a history, log lines, and one run of the clean-up.

What stands in the account before anything happens is lab.stack's.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.request import Request, urlopen

import boto3  # type: ignore[import-untyped, unused-ignore]
from botocore.config import Config  # type: ignore[import-untyped, unused-ignore]

from lab.errors import LabError
from lab.incidents.telemetry import Lines, Series
from lab.names import CLEANUP, CLUSTER, INSTANCE, LOG_GROUPS, WORKER
from sandbox.metrics import ALARMS, NAMESPACE, Watch

__all__ = ["Account"]

_PREFIX = "arrakis-lab"
_DIMENSIONS = ({"Name": "Environment", "Value": "lab"},)
_INSTANCE = ({"Name": "DBInstanceIdentifier", "Value": INSTANCE},)
_RUN_SECONDS = 60.0


class Account:
    """The lab's AWS endpoint. Clients are made when first used: each one costs."""

    def __init__(self, env: Mapping[str, str]) -> None:
        """Take the lab's variables."""
        self._session = boto3.Session(
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
            region_name=env["AWS_DEFAULT_REGION"],
        )
        self._endpoint = env["AWS_ENDPOINT_URL"]
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """Return the client of a service."""
        if service not in self._clients:
            retries = {"mode": "standard", "total_max_attempts": 2}
            config = Config(connect_timeout=2, read_timeout=10, retries=retries)
            self._clients[service] = self._session.client(service, endpoint_url=self._endpoint, config=config)
        return self._clients[service]

    def measure(self, series: Iterable[Series], *, connections: Sequence[float], until: datetime) -> None:
        """Publish the sandboxes' metrics, and the database's of the last hours: its `connections`, and storage left."""
        cloudwatch = self.client("cloudwatch")
        ours = [point for each in series for point in each.points(_DIMENSIONS)]
        cloudwatch.put_metric_data(Namespace=NAMESPACE, MetricData=ours)
        storage = [61.0e9 - 4.0e6 * index for index in range(len(connections))]
        theirs = (
            Series(metric="DatabaseConnections", values=connections, until=until),
            Series(metric="FreeStorageSpace", values=storage, until=until, unit="Bytes"),
        )
        data = [point for each in theirs for point in each.points(_INSTANCE)]
        cloudwatch.put_metric_data(Namespace="AWS/RDS", MetricData=data)

    def alarm(self, ringing: Mapping[str, Sequence[float]]) -> None:
        """Set up all alarms; those of `ringing`, by name, are in ALARM for these last values."""
        cloudwatch = self.client("cloudwatch")
        for alarm in ALARMS.values():
            name = f"{_PREFIX}-{alarm.alarm}"
            cloudwatch.put_metric_alarm(
                AlarmName=name,
                Namespace=NAMESPACE,
                MetricName=alarm.metric,
                Dimensions=_DIMENSIONS,
                Statistic=alarm.statistic,
                Period=alarm.period,
                EvaluationPeriods=alarm.evaluations,
                Threshold=float(alarm.threshold),
                ComparisonOperator="GreaterThanThreshold",
                TreatMissingData="notBreaching",
            )
            state = "ALARM" if alarm.alarm in ringing else "OK"
            reason = _reason(alarm, ringing.get(alarm.alarm))
            cloudwatch.set_alarm_state(
                AlarmName=name, StateValue=state, StateReason=reason, StateReasonData="{}"
            )

    def log(self, lines: Lines) -> None:
        """Write lines into their groups."""
        logs = self.client("logs")
        for group in LOG_GROUPS:
            word = group.removeprefix("/ecs/arrakis-")
            events = [
                {"timestamp": int(at.timestamp() * 1000), "message": line} for at, line in sorted(lines[word])
            ]
            stream = f"ecs/{word}/0001"
            logs.create_log_stream(logGroupName=group, logStreamName=stream)
            logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)

    def define(self, family: str, variables: Mapping[str, str]) -> str:
        """Register a task definition anew with these variables besides those that it has; its ARN."""
        ecs = self.client("ecs")
        current = ecs.describe_task_definition(taskDefinition=family)["taskDefinition"]
        [container] = current["containerDefinitions"]
        said = {pair["name"]: pair["value"] for pair in container["environment"]} | dict(variables)
        container["environment"] = [{"name": name, "value": value} for name, value in said.items()]
        names = (
            "family",
            "requiresCompatibilities",
            "networkMode",
            "cpu",
            "memory",
            "taskRoleArn",
            "executionRoleArn",
        )
        kept = {name: current[name] for name in names}
        made = ecs.register_task_definition(**kept, containerDefinitions=[container])
        return str(made["taskDefinition"]["taskDefinitionArn"])

    def worker(self) -> Any:
        """The worker's service, as ECS describes it."""
        return self.client("ecs").describe_services(cluster=CLUSTER, services=[WORKER])["services"][0]

    def update_worker(self, **changes: Any) -> None:
        """Change the worker's service, as ecs.update_service has it."""
        self.client("ecs").update_service(cluster=CLUSTER, service=WORKER, **changes)

    def elapse(self, minutes: int) -> None:
        """Let time pass for what was logged, measured and stopped up to now."""
        request = Request(f"{self._endpoint}/moto-api/elapse?minutes={minutes}", method="POST")
        with urlopen(request, timeout=10):
            pass

    def run_cleanup(self) -> int:
        """Do what the schedule does: run the rule's target once, and wait for its end. The job's exit code.

        Raises LabError if it does not end within a minute.
        """
        ecs = self.client("ecs")
        [target] = self.client("events").list_targets_by_rule(Rule=CLEANUP)["Targets"]
        named = target["EcsParameters"]
        network = named["NetworkConfiguration"]["awsvpcConfiguration"]
        placed = {name[0].lower() + name[1:]: value for name, value in network.items()}
        [task] = ecs.run_task(
            cluster=CLUSTER,
            taskDefinition=named["TaskDefinitionArn"],
            launchType=named["LaunchType"],
            networkConfiguration={"awsvpcConfiguration": placed},
            startedBy=f"events-rule/{CLEANUP}",
        )["tasks"]
        deadline = time.monotonic() + _RUN_SECONDS
        while task["lastStatus"] != "STOPPED":
            if time.monotonic() > deadline:
                raise LabError(f"the clean-up's task does not end: {task['taskArn']}")
            time.sleep(0.05)
            [task] = ecs.describe_tasks(cluster=CLUSTER, tasks=[task["taskArn"]])["tasks"]
        code: int = task["containers"][0]["exitCode"]
        return code


def _reason(alarm: Watch, values: Sequence[float] | None) -> str:
    if values is None:
        return "Threshold Crossed: no datapoints were received and missing data is treated as NonBreaching."
    last = ", ".join(f"{value:.1f}" for value in values[: -alarm.evaluations - 1 : -1])
    return (
        f"Threshold Crossed: {alarm.evaluations} out of the last {alarm.evaluations} datapoints [{last}] "
        f"were greater than the threshold ({alarm.threshold:.1f})."
    )
