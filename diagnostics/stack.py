"""What the deployed AWS resources of one environment are called, and who answers for them."""

from dataclasses import dataclass

__all__ = ["Stack"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The names, by default the runbook page's own; an environment's file says its own under [stack].

    Alarms are recognised by the end of their name, and `alarm_prefix` tells one environment's from another's. An instance
    or cache that is not named is the only one that the account has in its region. `database_role` is the role that the deployed
    system creates sandboxes as; `stream_replicas` how many replicas its streams have, None where nobody laid that down.
    `journal_log_group` is where the journal is anchored, None where that is not wanted.
    """

    alarm_prefix: str = ""
    cleanup_logs: str = "/ecs/arrakis-sandbox-cleanup"
    worker_logs: str = "/ecs/arrakis-worker"
    api_logs: str = "/ecs/arrakis-api"
    cluster: str = "arrakis"
    worker_service: str = "arrakis-worker"
    cleanup_family: str = "arrakis-sandbox-cleanup"
    cleanup_rule: str = "arrakis-sandbox-cleanup"
    database_instance: str | None = None
    cache: str | None = None
    database_role: str = "arrakis_app"
    stream_replicas: int | None = None
    journal_log_group: str | None = None
    escalation: str = "the team that owns the sandboxes"
