"""What autoscaling may do to an ECS service, and the tags that a service or a rule bears."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sandbox.ports import AwsReader

__all__ = ["SEE_SCALING", "SEE_TAGS", "Scaling", "parameters", "read_scaling", "read_tags", "target"]

SEE_SCALING = (
    "aws application-autoscaling describe-scalable-targets --service-namespace ecs"
    " --resource-ids service/{cluster}/{name}  # application-autoscaling:DescribeScalableTargets"
)
SEE_TAGS = "aws {of} list-tags-for-resource --resource-arn {arn}  # {of}:ListTagsForResource"

_DIMENSION = "ecs:service:DesiredCount"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """The limits, in tasks, that autoscaling keeps a service within, and what of it is suspended.

    `in_suspended` and `out_suspended` are what its policies do, to fewer tasks and to more; `scheduled_suspended` is what its
    scheduled actions do.
    """

    minimum: int
    maximum: int
    in_suspended: bool = False
    out_suspended: bool = False
    scheduled_suspended: bool = False

    @property
    def suspended(self) -> tuple[str, ...]:
        """What is suspended, in words: in, out, scheduled."""
        told = (
            ("in", self.in_suspended),
            ("out", self.out_suspended),
            ("scheduled", self.scheduled_suspended),
        )
        return tuple(name for name, held in told if held)

    @property
    def halted(self) -> "Scaling":
        """The same with nothing left for it to do: no task has to run, and all of it is suspended."""
        return replace(self, minimum=0, in_suspended=True, out_suspended=True, scheduled_suspended=True)

    def holds(self, desired: int) -> bool:
        """Whether a count of tasks is within the limits."""
        return self.minimum <= desired <= self.maximum

    def clamped(self, desired: int) -> int:
        """The count that registering these limits makes of one: each registration pulls it into them."""
        return min(max(desired, self.minimum), self.maximum)

    def __str__(self) -> str:
        """Say it in words."""
        return f"{self.minimum} to {self.maximum} tasks, suspended: {', '.join(self.suspended) or 'nothing'}"


def target(*, cluster: str, service: str) -> dict[str, str]:
    """Return what names a service to Application Auto Scaling; it takes the cluster's name, not its ARN."""
    resource = f"service/{cluster.rpartition('/')[2]}/{service}"
    return {"ServiceNamespace": "ecs", "ResourceId": resource, "ScalableDimension": _DIMENSION}


def parameters(scaling: Scaling) -> dict[str, Any]:
    """Return a Scaling as register_scalable_target takes it."""
    suspended = {
        "DynamicScalingInSuspended": scaling.in_suspended,
        "DynamicScalingOutSuspended": scaling.out_suspended,
        "ScheduledScalingSuspended": scaling.scheduled_suspended,
    }
    return {"MinCapacity": scaling.minimum, "MaxCapacity": scaling.maximum, "SuspendedState": suspended}


def read_scaling(aws: AwsReader, *, cluster: str, service: str) -> Scaling | None:
    """Return what autoscaling may do to a service; None where it does not watch it. Raises Unreachable, Throttled or Denied."""
    named = target(cluster=cluster, service=service)
    wanted = {"ResourceIds": [named.pop("ResourceId")], **named}
    found = aws.read("application-autoscaling", "describe_scalable_targets", **wanted)["ScalableTargets"]
    if not found:
        return None
    suspended = found[0].get("SuspendedState") or {}
    return Scaling(
        minimum=found[0]["MinCapacity"],
        maximum=found[0]["MaxCapacity"],
        in_suspended=suspended.get("DynamicScalingInSuspended", False),
        out_suspended=suspended.get("DynamicScalingOutSuspended", False),
        scheduled_suspended=suspended.get("ScheduledScalingSuspended", False),
    )


def read_tags(aws: AwsReader, arn: str) -> Mapping[str, str]:
    """Return the tags of a rule of EventBridge or a service of ECS, whose ARN has to be the long one with the cluster in it.

    Raises Missing if there is no such thing, Unreachable, Throttled or Denied.
    """
    if arn.split(":")[2] == "events":
        found = aws.read("events", "list_tags_for_resource", ResourceARN=arn)["Tags"]
        return {tag["Key"]: tag["Value"] for tag in found}
    found = aws.read("ecs", "list_tags_for_resource", resourceArn=arn)["tags"]
    return {tag["key"]: tag["value"] for tag in found}
