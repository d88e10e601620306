"""What a login needs to look at the things that the procedures look at, and to make the changes that they propose.

Each bundle is in its system's own words, and stands for one thing that is read or one kind of change: a procedure's page joins
those that it reads with `|`, and each remedy names the one that it takes. Words of PostgreSQL are what follows GRANT: `SELECT ON public.sandboxes`, or the role of which one has
to be a member. `owner of public.sandboxes` means membership in the role that owns it, for which there is no grant; the name may
end in a star. Of NATS only publishing is named here; whoever asks has to hear the answer as well, on `_INBOX.>`. What every login
of AWS may, sts:GetCallerIdentity, is not named.
"""

from diagnostics.policies import PASSING
from diagnostics.privileges import ON_CLUSTERS
from runbooks.engine.page import Rights

__all__ = [
    "ALARM",
    "ARCHIVE",
    "ARCHIVING",
    "AUDIT_LOG",
    "CACHE",
    "CLEANING",
    "CORRECTING",
    "DELETING_KEYS",
    "DROPPING_SCHEMAS",
    "ENLARGING",
    "GRANTING",
    "HALTING",
    "INDEXING",
    "INSTANCE",
    "JOB",
    "JOURNAL",
    "KEYS",
    "KEY_SERVER",
    "KEY_SIZES",
    "KEY_USE",
    "LISTENERS",
    "LOGS",
    "MAINTAINING",
    "MAKING_CONSUMERS",
    "MAKING_STREAMS",
    "MAPPINGS",
    "MESSAGES",
    "MIGRATING",
    "OVERDUE",
    "QUARANTINING_KEYS",
    "QUARANTINING_SCHEMAS",
    "REDIS",
    "RESTARTING",
    "ROUTES",
    "RUNNING",
    "SANDBOXES",
    "SCALING",
    "SCHEDULE",
    "SCHEDULING",
    "SERVER",
    "SERVICE",
    "SESSIONS",
    "SIGNALLING",
    "STOPS",
    "STREAMS",
    "TAGS",
    "TASKS",
    "TRIMMING",
    "TRYING_THE_WAY",
    "UNROUTING",
    "USE",
    "WORKERS",
]


def _postgres(*words: str) -> Rights:
    return Rights(postgres=frozenset(words))


def _redis(*words: str) -> Rights:
    return Rights(redis=frozenset(words) | ON_CLUSTERS)


def _nats(*subjects: str) -> Rights:
    return Rights(nats=frozenset(subjects))


def _aws(*actions: str) -> Rights:
    return Rights(aws=frozenset(actions))


def _of_streams(verb: str) -> tuple[str, ...]:
    return tuple(f"$JS.API.STREAM.{verb}.{name}" for name in ("SANDBOX", "EVENTS"))


def _of_consumers(verb: str) -> tuple[str, ...]:
    consumers = ("SANDBOX.sandbox-consumer", "EVENTS.sandbox-event-router")
    return tuple(f"$JS.API.CONSUMER.{verb}.{name}" for name in consumers)


# ---- looking: PostgreSQL

SANDBOXES = _postgres("USAGE ON SCHEMA public", "SELECT ON public.sandboxes")
"""The sandboxes' rows. When the rows in their schemas were last written is told to who may read those; nothing rests on it."""

MAPPINGS = _postgres("USAGE ON SCHEMA public", "SELECT ON public.sandbox_guild_mapping")
AUDIT_LOG = _postgres("USAGE ON SCHEMA public", "SELECT ON public.sandbox_audit_log")
SESSIONS = _postgres("pg_read_all_stats")
"""Who is connected, what they run and whom they wait for: of others' sessions all of it is hidden without."""

SERVER = _postgres("pg_monitor")
"""The files of the write-ahead log, and all that SESSIONS is."""

JOURNAL = _postgres("USAGE ON SCHEMA runbooks", "SELECT ON runbooks.journal")
STOPS = _postgres(
    "USAGE ON SCHEMA runbooks", "SELECT ON runbooks.stops", "SELECT ON runbooks.stopped_sandboxes"
)

# ---- looking: Redis and NATS

REDIS = _redis("+get", "%R~sandbox:*")
"""Whether it answers: it is asked for a cached route, which need not be there."""

KEYS = _redis("+scan")
KEY_USE = _redis("+object|idletime", "%R~sandbox:*")
KEY_SIZES = _redis("+memory|usage", "%R~sandbox:*")
ROUTES = REDIS | _redis("+scan", "+pttl")
KEY_SERVER = _redis("+ping", "+slowlog|get", "+latency|latest")
LISTENERS = _nats("$SYS.REQ.SERVER.PING.CONNZ", "$JS.API.CONSUMER.LIST.SANDBOX")
STREAMS = _nats(*_of_streams("INFO"), *_of_consumers("INFO"))
WORKERS = _nats("$JS.API.STREAM.INFO.SANDBOX", "$JS.API.CONSUMER.INFO.SANDBOX.sandbox-consumer")
MESSAGES = _nats("$JS.API.STREAM.MSG.GET.SANDBOX", "$JS.API.STREAM.MSG.GET.EVENTS")

# ---- looking: AWS

ALARM = _aws("cloudwatch:DescribeAlarms", "cloudwatch:DescribeAlarmHistory", "cloudwatch:GetMetricData")
LOGS = _aws("logs:FilterLogEvents")
INSTANCE = _aws("rds:DescribeDBInstances", "rds:DescribeEvents", "cloudwatch:GetMetricData")
CACHE = _aws(
    "elasticache:DescribeReplicationGroups",
    "elasticache:DescribeCacheClusters",
    "elasticache:DescribeEvents",
    "cloudwatch:GetMetricData",
)
SERVICE = _aws("ecs:DescribeServices")
TASKS = _aws("ecs:ListTasks", "ecs:DescribeTasks")
SCHEDULE = _aws("events:DescribeRule")
JOB = (
    SCHEDULE
    | TASKS
    | _aws("events:ListTargetsByRule", "ecs:DescribeTaskDefinition", "ec2:DescribeSecurityGroups")
)
"""The clean-up's schedule, what it starts, how its tasks ended, and whether they are let in at the servers."""

TAGS = _aws("events:ListTagsForResource", "ecs:ListTagsForResource")
SCALING = _aws("application-autoscaling:DescribeScalableTargets")
ARCHIVE = _aws("s3:ListBucket")
"""For `--archive s3://…` alone."""

OVERDUE = SANDBOXES | AUDIT_LOG | SESSIONS | REDIS | ALARM | JOB | SERVICE | LOGS | INSTANCE | CACHE
"""All that is looked at of sandboxes that are over, and of the job that should have taken them away."""

# ---- changing: sandboxes and what they leave

CLEANING = _postgres(
    "UPDATE ON public.sandboxes",
    "INSERT ON public.sandbox_audit_log",
    "SELECT ON public.sandbox_guild_mapping",
    "UPDATE ON public.sandbox_guild_mapping",
    "DELETE ON public.sandbox_guild_mapping",
    "owner of sandbox_*",
) | _redis("+scan", "+unlink", "~sandbox:*")
_ROWS = _postgres("UPDATE ON public.sandboxes")  # held while it is made sure that none of them owns a name
USE = SESSIONS | KEYS | KEY_USE | LISTENERS
"""Who uses what no sandbox owns: looked at once more before any of it is touched."""

QUARANTINING_SCHEMAS = USE | _ROWS | _postgres("CREATE ON DATABASE", "owner of sandbox_*")
"""What is renamed keeps its owner: the same one gives it its name back."""

QUARANTINING_KEYS = USE | _ROWS | _redis("+scan", "+renamenx", "~sandbox:*", "~quarantine:*")
DROPPING_SCHEMAS = USE | _ROWS | _postgres("owner of sandbox_*", "owner of quarantine_*")
DELETING_KEYS = USE | _ROWS | _redis("+scan", "+unlink", "~sandbox:*", "~quarantine:*")

# ---- changing: the database

SIGNALLING = _postgres("pg_signal_backend")
GRANTING = _postgres("owner of the database", "owner of public.sandboxes")
"""A right that is lacking is granted by the owner of what it is about: whether this login may is asked before it is proposed."""

MIGRATING = _postgres("CREATE ON SCHEMA public", "owner of public.sandboxes")
MAINTAINING = _postgres(
    "owner of public.sandboxes", "owner of public.sandbox_guild_mapping", "owner of public.sandbox_audit_log"
)
INDEXING = MAINTAINING | _postgres("CREATE ON SCHEMA public")
TRIMMING = _postgres("INSERT ON public.sandbox_audit_log", "DELETE ON public.sandbox_audit_log")

# ---- changing: streams, routes, services

UNROUTING = _redis("+unlink", "+set", "~sandbox:*")
MAKING_STREAMS = _nats(*_of_streams("CREATE"), *_of_streams("DELETE"))
MAKING_CONSUMERS = _nats(*_of_consumers("CREATE"), *_of_consumers("DELETE"))
CORRECTING = _nats(*_of_streams("UPDATE"))
TRYING_THE_WAY = _nats("sandbox.*.events.>", "$JS.API.STREAM.MSG.DELETE.SANDBOX")
"""An event of nobody's that is followed to the workers, and taken away again where it was left."""

RESTARTING = _aws("ecs:UpdateService")
SCHEDULING = _aws("events:EnableRule", "events:DisableRule")
RUNNING = _aws("ecs:RunTask", PASSING)
"""For `--via ecs` alone: the clean-up's own task run, which is handed its roles."""

ENLARGING = _aws("rds:ModifyDBInstance")
HALTING = (
    _postgres(
        "UPDATE ON public.sandboxes",
        "INSERT ON public.sandbox_audit_log",
        "SELECT ON public.sandbox_guild_mapping",
        "SELECT ON public.sandbox_audit_log",
        "INSERT ON runbooks.stops",
        "UPDATE ON runbooks.stops",
        "INSERT ON runbooks.stopped_sandboxes",
        "UPDATE ON runbooks.stopped_sandboxes",
    )
    | _redis("+get", "+unlink", "~sandbox:*")
    | _aws(
        "events:EnableRule",
        "events:DisableRule",
        "events:TagResource",
        "events:UntagResource",
        "ecs:UpdateService",
        "ecs:TagResource",
        "ecs:UntagResource",
        "application-autoscaling:RegisterScalableTarget",
    )
)
ARCHIVING = _aws("s3:GetObject", "s3:PutObject")
"""For `--archive s3://…` alone."""
