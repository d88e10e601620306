"""What runs the jobs and the workers: EventBridge rules, ECS tasks and services."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from diagnostics.alarms import pages
from sandbox.errors import ArrakisError, Missing
from sandbox.ports import AwsReader

__all__ = [
    "SEE_DEFINITION",
    "SEE_RULE",
    "SEE_SERVICE",
    "SEE_TASKS",
    "Deployment",
    "Rule",
    "Scheduled",
    "Service",
    "TaskDefinition",
    "TaskRun",
    "TaskTarget",
    "read_definition",
    "read_rule",
    "read_service",
    "read_tasks",
]

SEE_RULE = "aws events describe-rule --name {name}  # events:DescribeRule"
SEE_TASKS = (
    "aws ecs list-tasks --cluster {cluster} --family {family} --desired-status STOPPED  # ecs:ListTasks"
)
SEE_DEFINITION = "aws ecs describe-task-definition --task-definition {name}  # ecs:DescribeTaskDefinition"
SEE_SERVICE = "aws ecs describe-services --cluster {cluster} --services {name}  # ecs:DescribeServices"

_BATCH = 100  # tasks that one describe_tasks takes
_EVENTS = 10
# By SIGKILL or SIGTERM: ECS ends with them what still runs when an essential container has exited.
# What a rule may say besides; but for the first letter run_task calls it the same.
_MORE = (
    "EnableECSManagedTags",
    "EnableExecuteCommand",
    "Group",
    "PlacementConstraints",
    "PlacementStrategy",
    "PlatformVersion",
    "PropagateTags",
    "ReferenceId",
    "Tags",
)
_ROLES = ("taskRoleArn", "executionRoleArn")
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDefinition:
    """What a task is made of: its containers as ECS describes them, and the roles that ECS is handed for it, as ECS calls them."""

    arn: str
    containers: Sequence[Mapping[str, Any]]
    roles: Mapping[str, str]

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "TaskDefinition":
        """Read a definition of describe_task_definition."""
        return cls(
            arn=raw["taskDefinitionArn"],
            containers=raw["containerDefinitions"],
            roles={name: raw[name] for name in _ROLES if raw.get(name)},
        )

    def handed(self, overrides: Mapping[str, Any]) -> list[str]:
        """Return the ARNs of the roles that a task is handed; one that is written without its account is the definition's."""
        _, partition, _, _, account, *_ = self.arn.split(":")
        own = {name: str(overrides[name]) for name in _ROLES if overrides.get(name)}
        roles = {**self.roles, **own}.values()
        return sorted(
            {role if ":" in role else f"arn:{partition}:iam::{account}:role/{role}" for role in roles}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTarget:
    """A task that a rule starts, as the rule has it; `network`, `capacity` and `overrides` as ecs.run_task takes them.

    `launch_type` is None where a capacity provider decides: `capacity` then, or the cluster's own. `more` are run_task's
    other parameters, by name, such as platformVersion, group and tags: without them it is not the same task. What is made of an
    event when it comes is not in `overrides`: the task is `transformed` then.
    """

    cluster: str
    task_definition: str
    launch_type: str | None
    network: Mapping[str, Any]
    count: int
    capacity: Sequence[Mapping[str, Any]]
    overrides: Mapping[str, Any]
    more: Mapping[str, Any] = field(default_factory=dict)
    transformed: bool = False

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "TaskTarget":
        """Read a target of list_targets_by_rule that has EcsParameters. Raises ArrakisError for an Input that no overrides are in."""
        parameters = raw["EcsParameters"]
        return cls(
            cluster=raw["Arn"],
            task_definition=parameters["TaskDefinitionArn"],
            launch_type=parameters.get("LaunchType"),
            network=_camel(parameters.get("NetworkConfiguration") or {}),
            count=parameters.get("TaskCount", 1),
            capacity=_camel(parameters.get("CapacityProviderStrategy") or ()),
            overrides=_overrides(raw.get("Input") or "{}"),
            more=_camel({name: parameters[name] for name in _MORE if parameters.get(name)}),
            transformed="InputTransformer" in raw or raw.get("InputPath", "$") != "$",
        )

    @property
    def definition(self) -> str:
        """The task definition's family, with its revision where the rule names one."""
        return _short(self.task_definition)

    @property
    def family(self) -> str:
        """The task definition's family, whatever its revision."""
        return self.definition.partition(":")[0]

    @property
    def security_groups(self) -> tuple[str, ...]:
        """The groups that the task is in; none where it has no network of its own."""
        return _groups(self.network)


Scheduled = tuple[TaskTarget, TaskDefinition]
"""A task as a schedule starts it, and what it is made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """An EventBridge rule, and the ECS tasks that it starts; `state` is EventBridge's own word."""

    name: str
    enabled: bool
    schedule: str
    targets: tuple[TaskTarget, ...]
    arn: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRun:
    """One run of a task. Moments are UTC, and None until they come; `exits` are the containers' names and exit codes."""

    id: str
    status: str
    started_by: str
    created_at: datetime | None
    started_at: datetime | None
    stopped_at: datetime | None
    stop_code: str
    reason: str
    exits: tuple[tuple[str, int | None], ...]
    definition: str

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "TaskRun":
        """Read a task of describe_tasks. A container's own reason (out of memory, no image) joins the task's."""
        containers = raw.get("containers", ())
        reasons = [raw.get("stoppedReason"), *(container.get("reason") for container in containers)]
        return cls(
            id=_short(raw["taskArn"]),
            status=raw["lastStatus"],
            started_by=raw.get("startedBy", ""),
            created_at=raw.get("createdAt"),
            started_at=raw.get("startedAt"),
            stopped_at=raw.get("stoppedAt"),
            stop_code=raw.get("stopCode", ""),
            reason="; ".join(dict.fromkeys(reason for reason in reasons if reason)),
            exits=tuple((container["name"], container.get("exitCode")) for container in containers),
            definition=_short(raw["taskDefinitionArn"]),
        )

    @property
    def ended(self) -> bool:
        """Whether it has stopped."""
        return self.status == "STOPPED"

    @property
    def failed(self) -> bool:
        """Whether it has stopped otherwise than well: see `failure`. One that still runs has not failed."""
        return bool(self.failure)

    @property
    def failure(self) -> str:
        """How it failed, in words: with which exit codes, or that it stopped before there were any. Empty if it has not.

        The task does not say which of its containers is essential: any that did not exit with 0 counts.
        """
        if not self.ended:
            return ""
        codes = [f"{name} exited with {code}" for name, code in self.exits if code]
        never = [name for name, code in self.exits if code is None]
        if never or not self.exits:
            codes.append(f"stopped before {', '.join(never) or 'a container'} had an exit code")
        if not codes:
            return ""
        why = ": ".join(filter(None, (self.stop_code, self.reason)))
        return ", ".join(codes) + (f" ({why})" if why else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One deployment of a service; `rollout` is empty where ECS does not steer it."""

    id: str
    status: str
    rollout: str
    desired: int
    running: int
    pending: int
    failed: int
    definition: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """An ECS service; `events` are its last ten, the newest first, UTC."""

    name: str
    status: str
    desired: int
    running: int
    pending: int
    deployments: tuple[Deployment, ...]
    events: tuple[tuple[datetime, str], ...]
    security_groups: tuple[str, ...]
    definition: str
    arn: str = ""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "Service":
        """Read a service of describe_services."""
        events = sorted(
            ((event["createdAt"], event["message"]) for event in raw.get("events", ())), reverse=True
        )
        return cls(
            name=raw["serviceName"],
            status=raw["status"],
            desired=raw["desiredCount"],
            running=raw["runningCount"],
            pending=raw["pendingCount"],
            deployments=tuple(map(_deployment, raw.get("deployments", ()))),
            events=tuple(events[:_EVENTS]),
            security_groups=_groups(raw.get("networkConfiguration", {})),
            definition=_short(raw.get("taskDefinition", "")),
            arn=raw.get("serviceArn", ""),
        )

    @property
    def primary(self) -> Deployment | None:
        """The deployment that its tasks are to be of; None where ECS does not steer it."""
        return next((each for each in self.deployments if each.status == "PRIMARY"), None)

    @property
    def family(self) -> str:
        """Its task definition's family, whatever its revision."""
        return self.definition.partition(":")[0]

    @property
    def stable(self) -> bool:
        """Whether as many run as should, and nothing is under way, as `aws ecs wait services-stable` means it.

        One that should run none and runs none is stable too: look at `desired`.
        """
        settled = self.running == self.desired and not self.pending
        return self.status == "ACTIVE" and settled and len(self.deployments) == 1


def read_rule(aws: AwsReader, name: str) -> Rule | None:
    """Return a rule of the default bus with the ECS tasks among its targets; None where there is no such rule.

    Raises Unreachable, Throttled or Denied.
    """
    try:
        raw = aws.read("events", "describe_rule", Name=name)
    except Missing:
        return None
    found = pages(aws, "events", "list_targets_by_rule", token="NextToken", Rule=name)
    targets = [target for page in found for target in page["Targets"]]
    return Rule(
        name=raw["Name"],
        enabled=raw["State"] != "DISABLED",
        schedule=raw.get("ScheduleExpression", ""),
        targets=tuple(TaskTarget.of(target) for target in targets if "EcsParameters" in target),
        arn=raw["Arn"],
        state=raw["State"],
    )


def read_definition(aws: AwsReader, name: str) -> TaskDefinition | None:
    """Return a task definition by its name, with a revision or, as a schedule takes it then, the newest.

    None where ECS starts no task of it: there is none, or it was deregistered. Raises Unreachable, Throttled or Denied.
    """
    try:
        raw = aws.read("ecs", "describe_task_definition", taskDefinition=name)["taskDefinition"]
    except Missing:
        return None
    return TaskDefinition.of(raw) if raw.get("status", "ACTIVE") == "ACTIVE" else None


def read_tasks(aws: AwsReader, *, cluster: str, family: str) -> tuple[TaskRun, ...]:
    """Return the runs of a task family, those under way and those that have stopped, the newest first.

    ECS keeps a stopped task for about an hour: an empty answer says nothing about the time before. Raises Missing if there
    is no such cluster, Unreachable, Throttled or Denied.
    """
    arns: dict[str, None] = {}  # a task that stops between the two listings is in both
    for status in ("RUNNING", "STOPPED"):
        listed = pages(
            aws, "ecs", "list_tasks", token="nextToken", cluster=cluster, family=family, desiredStatus=status
        )
        arns.update(dict.fromkeys(arn for page in listed for arn in page["taskArns"]))
    names, runs = list(arns), []
    for start in range(0, len(names), _BATCH):
        described = aws.read("ecs", "describe_tasks", cluster=cluster, tasks=names[start : start + _BATCH])
        runs += [TaskRun.of(raw) for raw in described["tasks"]]
    return tuple(sorted(runs, key=lambda run: run.created_at or run.started_at or _LONG_AGO, reverse=True))


def read_service(aws: AwsReader, *, cluster: str, name: str) -> Service | None:
    """Return a service; None where the cluster has none of this name. One that was deleted is INACTIVE for a while.

    Raises Missing if there is no such cluster, Unreachable, Throttled or Denied.
    """
    answer = aws.read("ecs", "describe_services", cluster=cluster, services=[name])
    if answer["services"]:
        return Service.of(answer["services"][0])
    reasons = {str(failure.get("reason")) for failure in answer.get("failures", ())}
    if reasons != {"MISSING"}:
        raise ArrakisError(f"AWS ecs:describe_services: {name}: {', '.join(sorted(reasons)) or 'no answer'}")
    return None


def _deployment(raw: Mapping[str, Any]) -> Deployment:
    return Deployment(
        id=raw["id"],
        status=raw["status"],
        rollout=raw.get("rolloutState", ""),
        desired=raw["desiredCount"],
        running=raw["runningCount"],
        pending=raw["pendingCount"],
        failed=raw.get("failedTasks", 0),
        definition=_short(raw["taskDefinition"]),
    )


def _groups(network: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(network.get("awsvpcConfiguration", {}).get("securityGroups", ()))


def _overrides(told: str) -> Mapping[str, Any]:
    try:
        found = json.loads(told)
    except ValueError:
        found = None
    containers = found.get("containerOverrides") or () if isinstance(found, Mapping) else None
    if not isinstance(containers, Sequence) or not all(isinstance(each, Mapping) for each in containers):
        raise ArrakisError("what the rule tells its task is none of the overrides that ECS takes")
    return dict(found)


def _camel(value: Any) -> Any:
    """EventBridge writes `SecurityGroups` where ECS wants `securityGroups`."""
    if isinstance(value, Mapping):
        return {key[0].lower() + key[1:]: _camel(member) for key, member in value.items()}
    return [_camel(member) for member in value] if isinstance(value, list | tuple) else value


def _short(arn: str) -> str:
    """The end of an ARN: a task's id, a definition's family:revision. ECS takes it wherever it takes the ARN."""
    return arn.rpartition("/")[2]
