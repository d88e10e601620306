"""What the pages of the emergency stop and its resume say alike: what both look at, and by which figures."""

from diagnostics.scaling import SEE_SCALING, SEE_TAGS
from runbooks import looks, rights
from runbooks.emergency.evidence import SEE_ROWS, SEE_STOP
from runbooks.engine.page import Look, Threshold
from runbooks.remedies import taking
from runbooks.remedies.marking import MarkSandboxes, RaiseStop
from runbooks.remedies.stopping import PATIENCE, DisableRule, StopService

__all__ = ["LOOKS", "READS", "THRESHOLDS", "WRITES"]

READS = (
    rights.SANDBOXES
    | rights.MAPPINGS
    | rights.AUDIT_LOG
    | rights.STOPS
    | rights.SCHEDULE
    | rights.SERVICE
    | rights.SCALING
    | rights.TAGS
)
WRITES = taking(RaiseStop, DisableRule, StopService, MarkSandboxes)

LOOKS = (
    Look(what="the stop flag, and what it stopped", command=SEE_STOP),
    looks.RULE,
    looks.SERVICE,
    Look(what="its autoscaling", command=SEE_SCALING.format(cluster="CLUSTER", name="WORKER_SERVICE")),
    Look(what="what a stop wrote on the schedule", command=SEE_TAGS.format(of="events", arn="RULE_ARN")),
    Look(what="what a stop wrote on the service", command=SEE_TAGS.format(of="ecs", arn="SERVICE_ARN")),
    Look(what="the sandboxes that run", command=SEE_ROWS),
)

THRESHOLDS = (
    Threshold(
        name="the service is watched for",
        value=f"{PATIENCE / 60:.0f} minutes",
        meaning="if it does not run as it should by then, the step has failed, and the others go on",
    ),
)
