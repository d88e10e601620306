"""What the lab's AWS resources are called: as on the runbook page, so that they are found without any configuration."""

__all__ = [
    "CACHE",
    "CLEANUP",
    "CLEANUP_LOGS",
    "CLUSTER",
    "CONTAINER",
    "INSTANCE",
    "LOG_GROUPS",
    "REGION",
    "WORKER",
]

REGION = "eu-central-1"
CLUSTER = "arrakis"
WORKER = "arrakis-worker"
CLEANUP = "arrakis-sandbox-cleanup"
"""The clean-up job: its task definition's family, and the rule that runs it."""
CONTAINER = "sandbox-cleanup"
CLEANUP_LOGS = "/ecs/arrakis-sandbox-cleanup"
LOG_GROUPS = (CLEANUP_LOGS, "/ecs/arrakis-worker", "/ecs/arrakis-api")
INSTANCE = "arrakis-lab"
CACHE = "arrakis-lab"
