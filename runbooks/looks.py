"""What several procedures look at, as their pages tell it: each by the very command that its finding carries.

A word in capitals stands for a name; those of `[stack]` in an environment's file are the same word in small letters.
"""

from diagnostics import alarms, compute, postgres, reach, routes, servers, sessions
from runbooks import logged
from runbooks.engine.page import Look

__all__ = [
    "ACCESS",
    "CACHE",
    "CONNECTIONS",
    "DEFINITION",
    "INSTANCE",
    "MAPPINGS",
    "NATS",
    "POSTGRES",
    "REDIS",
    "RULE",
    "SERVICE",
    "SESSIONS",
    "TASKS",
    "WAITING",
    "alarm",
    "log",
]

RULE = Look(what="the clean-up's schedule", command=compute.SEE_RULE.format(name="CLEANUP_RULE"))
DEFINITION = Look(
    what="what the clean-up's task is told, and which roles it is handed",
    command=compute.SEE_DEFINITION.format(name="CLEANUP_FAMILY"),
)
TASKS = Look(
    what="how the clean-up's task ended lately",
    command=compute.SEE_TASKS.format(cluster="CLUSTER", family="CLEANUP_FAMILY"),
)
SERVICE = Look(
    what="the worker service, which the EventRouter runs in",
    command=compute.SEE_SERVICE.format(cluster="CLUSTER", name="WORKER_SERVICE"),
)
INSTANCE = Look(
    what="the database, as RDS sees it",
    command=servers.SEE_INSTANCE.format(identifier="DATABASE_INSTANCE"),
)
CACHE = Look(what="Redis, as ElastiCache sees it", command=servers.SEE_CACHE)
ACCESS = Look(
    what="whether security groups let the clean-up's task in",
    command=servers.SEE_ACCESS.format(groups="SECURITY_GROUPS"),
)
POSTGRES = Look(what="whether PostgreSQL answers", command=reach.SEE_POSTGRES)
REDIS = Look(what="whether Redis answers", command=reach.SEE_REDIS)
NATS = Look(what="whether NATS answers", command=reach.SEE_NATS)
CONNECTIONS = Look(what="who has the connections", command=postgres.SEE_CONNECTIONS)
SESSIONS = Look(what="the sessions, and what they run", command=postgres.SEE_SESSIONS)
WAITING = Look(what="who waits for whom", command=sessions.SEE_WAITING)
MAPPINGS = Look(what="which guild belongs to which sandbox", command=routes.SEE_MAPPINGS)


def alarm(suffix: str) -> Look:
    """Return how the alarm is seen whose name ends so."""
    what = "the alarm, its state and why; PREFIX- is `alarm_prefix` there"
    return Look(what=what, command=alarms.SEE_ALARM.format(name=f"PREFIX-{suffix}"))


def log(whose: str, group: str) -> Look:
    """Return how the last hours of a log group are seen, by its word under `[stack]`."""
    return Look(what=f"what {whose} logged", command=logged.SEE_LOG.format(name=group.upper()))
