"""What the lab's AWS resources are called: as on the runbook page, so that they are found without any configuration."""

__all__ = [
    "APP",
    "CACHE",
    "CLEANUP",
    "CLEANUP_LOGS",
    "CLUSTER",
    "CONTAINER",
    "INSTANCE",
    "LOG_GROUPS",
    "MIGRATOR",
    "POOL",
    "REGION",
    "WORKER",
    "WORKER_LOGS",
    "WORKER_READY",
]

REGION = "eu-central-1"
CLUSTER = "arrakis"
WORKER = "arrakis-worker"
CLEANUP = "arrakis-sandbox-cleanup"
"""The clean-up job: its task definition's family, and the rule that runs it."""
CONTAINER = "sandbox-cleanup"
CLEANUP_LOGS = "/ecs/arrakis-sandbox-cleanup"
WORKER_LOGS = "/ecs/arrakis-worker"
WORKER_READY = "Event router started"
"""What the worker says once it routes."""
LOG_GROUPS = (CLEANUP_LOGS, WORKER_LOGS, "/ecs/arrakis-api")
INSTANCE = "arrakis-lab"
CACHE = "arrakis-lab"
APP = "arrakis_app"
"""The role that the deployed system creates sandboxes as."""
MIGRATOR = "arrakis_migrator"
"""The role that changes the control tables: it may what their owner may, and is no superuser."""
POOL = "arrakis_worker"
"""The role that the worker's pool of connections logs in as."""
