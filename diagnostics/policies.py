"""What AWS is asked to learn what the credentials may do: for each action that looks, a cheap call of it; for others, a policy's word.

AWS decides whether a call is allowed before it looks whether there is such a thing: an answer that there is none is a yes.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from diagnostics.stack import Stack
from sandbox.ports import AwsReader

__all__ = [
    "PASSING",
    "TO_TASKS",
    "Place",
    "Question",
    "passing",
    "place_of",
    "principal",
    "questions",
    "resource",
    "simulate",
    "simulations",
]

PASSING = "iam:PassRole"
"""Handing a role on: it is no call, but takes a right to each role that is handed on, and to whom."""

TO_TASKS = {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
"""To whom roles are handed here, as conditions of policies name it."""

_MINUTE = timedelta(minutes=1)
_FEWEST = 20  # that RDS and ElastiCache let one ask for
_NOBODY = "0" * 32  # no task's id
_Call = tuple[str, Mapping[str, Any]]  # an operation and its parameters
_UPON = " on "
_CONTEXT = [
    {"ContextKeyName": key, "ContextKeyType": "string", "ContextKeyValues": [value]}
    for key, value in TO_TASKS.items()
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where things are, for their ARNs."""

    partition: str
    region: str
    account: str

    def arn(self, service: str, rest: str) -> str:
        """Return the ARN of something."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{rest}"


def place_of(arn: str, region: str | None) -> Place:
    """Return where somebody with this ARN works."""
    _, partition, _, _, account, *_ = arn.split(":")
    return Place(partition=partition, region=region or "", account=account)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A call of AWS that looks."""

    service: str
    operation: str
    params: Mapping[str, Any]


def questions(stack: Stack, place: Place, *, now: datetime) -> Mapping[str, list[Question]]:
    """Return, for each action that a diagnosis needs, the calls that show whether it is allowed."""
    few, recent = {"MaxRecords": _FEWEST}, {"Duration": 1}
    logs = (stack.cleanup_logs, stack.worker_logs, stack.api_logs)
    found: dict[str, list[_Call]] = {
        "cloudwatch:DescribeAlarms": [("describe_alarms", {"MaxRecords": 1})],
        "cloudwatch:DescribeAlarmHistory": [("describe_alarm_history", {"MaxRecords": 1})],
        "cloudwatch:GetMetricData": [("get_metric_data", _metric(now))],
        "logs:FilterLogEvents": [("filter_log_events", _last(name, now)) for name in logs],
        "rds:DescribeDBInstances": [("describe_db_instances", few)],
        "rds:DescribeEvents": [("describe_events", recent)],
        "elasticache:DescribeReplicationGroups": [("describe_replication_groups", few)],
        "elasticache:DescribeCacheClusters": [("describe_cache_clusters", few)],
        "elasticache:DescribeEvents": [("describe_events", recent)],
        "ec2:DescribeSecurityGroups": [("describe_security_groups", {"MaxResults": 5})],
        **_about_tasks(stack, place),
    }
    return {action: [_question(action, *call) for call in calls] for action, calls in found.items()}


def passing(role: str) -> str:
    """Return the right to hand one role on, by its ARN."""
    return f"{PASSING}{_UPON}{role}"


def simulations(stack: Stack, place: Place, rights: Collection[str]) -> Mapping[str, list[str]]:
    """Return what a policy is asked about: by the resource's ARN, the rights upon it. Which bucket, and which role, has to be said."""
    found: dict[str, list[str]] = {}
    for right in sorted(each for each in rights if not each.startswith("s3:") and each != PASSING):
        action, _, named = right.partition(_UPON)
        found.setdefault(named or resource(action, stack, place), []).append(right)
    return found


def resource(action: str, stack: Stack, place: Place, *, revision: str = "1") -> str:
    """Return the ARN of what an action that changes something has to do with; `*` where AWS knows none, or it is named later."""
    arns = {
        "events": place.arn("events", f"rule/{stack.cleanup_rule}"),
        "ecs": place.arn("ecs", f"service/{stack.cluster}/{stack.worker_service}"),
        "rds": place.arn("rds", f"db:{stack.database_instance or '*'}"),
        "ecs:RunTask": place.arn("ecs", f"task-definition/{stack.cleanup_family}:{revision}"),
    }
    return arns.get(action) or arns.get(action.partition(":")[0], "*")


def simulate(aws: AwsReader, arn: str, target: str, rights: Collection[str]) -> dict[str, bool | None]:
    """Return which rights upon a target the policies of whoever has this ARN give; None where they ask for what is not known here.

    Raises Denied where one may not ask.
    """
    actions = {right: right.partition(_UPON)[0] for right in rights}
    context = {"ContextEntries": _CONTEXT} if PASSING in actions.values() else {}
    found = aws.read(
        "iam",
        "simulate_principal_policy",
        PolicySourceArn=principal(arn),
        ActionNames=list(actions.values()),
        ResourceArns=[target],
        **context,
    )
    told = {each["EvalActionName"]: _allowed(each) for each in found["EvaluationResults"]}
    return {right: told.get(action) for right, action in actions.items()}


def _allowed(result: Mapping[str, Any]) -> bool | None:
    """A refusal for want of a condition's value, such as a tag or whether there was a second factor, is none of the real call."""
    if result["EvalDecision"] == "allowed":
        return True
    upon = [result, *result.get("ResourceSpecificResults", ())]
    return None if any(each.get("MissingContextValues") for each in upon) else False


def principal(arn: str) -> str:
    """Return the ARN whose policies count: of a session, its role's. A role's path is not told, and taken for none."""
    parts = arn.split(":", 5)
    if parts[2] != "sts":
        return arn
    role = parts[5].split("/")[1]
    return f"arn:{parts[1]}:iam::{parts[4]}:role/{role}"


def _about_tasks(stack: Stack, place: Place) -> dict[str, list[_Call]]:
    """What is asked about the clean-up's schedule, its tasks, and the service beside them."""
    group = {"cluster": stack.cluster}
    rule = place.arn("events", f"rule/{stack.cleanup_rule}")
    service = place.arn("ecs", f"service/{stack.cluster}/{stack.worker_service}")
    scalable = {"ServiceNamespace": "ecs", "MaxResults": 1}
    return {
        "events:DescribeRule": [("describe_rule", {"Name": stack.cleanup_rule})],
        "events:ListTargetsByRule": [("list_targets_by_rule", {"Rule": stack.cleanup_rule})],
        "events:ListTagsForResource": [("list_tags_for_resource", {"ResourceARN": rule})],
        "ecs:DescribeServices": [("describe_services", {**group, "services": [stack.worker_service]})],
        "ecs:ListTasks": [("list_tasks", {**group, "family": stack.cleanup_family})],
        "ecs:DescribeTaskDefinition": [
            ("describe_task_definition", {"taskDefinition": stack.cleanup_family})
        ],
        "ecs:DescribeTasks": [("describe_tasks", {**group, "tasks": [_NOBODY]})],
        "ecs:ListTagsForResource": [("list_tags_for_resource", {"resourceArn": service})],
        "application-autoscaling:DescribeScalableTargets": [("describe_scalable_targets", scalable)],
    }


def _question(action: str, operation: str, params: Mapping[str, Any]) -> Question:
    return Question(service=action.partition(":")[0], operation=operation, params=params)


def _metric(now: datetime) -> Mapping[str, Any]:
    metric = {"Namespace": "Arrakis/Sandbox", "MetricName": "ActiveSandboxCount"}
    query = {"Id": "m1", "MetricStat": {"Metric": metric, "Period": 300, "Stat": "Maximum"}}
    return {"MetricDataQueries": [query], "StartTime": now - 5 * _MINUTE, "EndTime": now}


def _last(log_group: str, now: datetime) -> Mapping[str, Any]:
    begin = int((now - _MINUTE).timestamp() * 1000)
    return {"logGroupName": log_group, "startTime": begin, "limit": 1}
