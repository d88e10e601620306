"""What a login needs to look at the things that the procedures look at, and to make the changes that they propose.

Each bundle is in its system's own words, and stands for one thing that is read or one kind of change; a procedure's page joins
those that it uses with `|`. Words of PostgreSQL are what follows GRANT: `SELECT ON public.sandboxes`, or the role of which one has
to be a member. `owner of public.sandboxes` means membership in the role that owns it, for which there is no grant; the name may
end in a star. Of NATS only publishing is named here; whoever asks has to hear the answer as well, on `_INBOX.>`. What every login
of AWS may, sts:GetCallerIdentity, is not named.
"""

from runbooks.engine.page import Rights

__all__ = [
    "ALARM",
    "APPLYING",
    "ARCHIVE",
    "ARCHIVING",
    "AUDIT_LOG",
    "CACHE",
    "CLEANING",
    "DROPPING",
    "ENLARGING",
    "GRANTING",
    "HALTING",
    "HANDING_OVER",
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
    "MAPPINGS",
    "MESSAGES",
    "OVERDUE",
    "QUARANTINING",
    "REDIS",
    "RESTARTING",
    "ROUTES",
    "ROUTING",
    "SANDBOXES",
    "SCALING",
    "SCHEDULING",
    "SERVER",
    "SERVICE",
    "SESSIONS",
    "SIGNALLING",
    "STOPS",
    "STREAMS",
    "TAGS",
    "TRIMMING",
    "USE",
    "WORKERS",
]

# Where Redis is a cluster, its nodes are asked who has which keys before anything else.
_CLUSTER = frozenset({"+cluster|info", "+cluster|nodes", "+cluster|slots", "+info"})


def _postgres(*words: str) -> Rights:
    return Rights(postgres=frozenset(words))


def _redis(*words: str) -> Rights:
    return Rights(redis=frozenset(words) | _CLUSTER)


def _nats(*subjects: str) -> Rights:
    return Rights(nats=frozenset(subjects))


def _of_streams(verb: str) -> tuple[str, ...]:
    """What is asked of JetStream about both streams and their consumers."""
    consumers = ("SANDBOX.sandbox-consumer", "EVENTS.sandbox-event-router")
    streams = tuple(f"$JS.API.STREAM.{verb}.{name}" for name in ("SANDBOX", "EVENTS"))
    return streams + tuple(f"$JS.API.CONSUMER.{verb}.{name}" for name in consumers)


def _aws(*actions: str) -> Rights:
    return Rights(aws=frozenset(actions))


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
STREAMS = _nats(*_of_streams("INFO"))
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
JOB = SCHEDULE | TASKS | _aws("events:ListTargetsByRule", "ec2:DescribeSecurityGroups")
"""The clean-up's schedule, how its tasks ended, and whether they are let in at the servers."""

TAGS = _aws("events:ListTagsForResource", "ecs:ListTagsForResource")
SCALING = _aws("application-autoscaling:DescribeScalableTargets")
ARCHIVE = _aws("s3:ListBucket")
"""For `--archive s3://…` alone."""

OVERDUE = SANDBOXES | AUDIT_LOG | SESSIONS | REDIS | ALARM | JOB | SERVICE | LOGS | INSTANCE | CACHE
"""All that is looked at of sandboxes that are over, and of the job that should have taken them away."""

# ---- changing: the engine's own part in every run

APPLYING = _postgres(
    "USAGE ON SCHEMA runbooks",
    "SELECT ON runbooks.lease",
    "UPDATE ON runbooks.lease",
    "SELECT ON runbooks.journal",
    "INSERT ON runbooks.journal",
    "SELECT ON runbooks.used_plans",
    "INSERT ON runbooks.used_plans",
    "SELECT ON runbooks.stops",
    "SELECT ON runbooks.stopped_sandboxes",
)
"""The lease, the plan's single use and the journal's mirror. Where the schema is missing, CREATE ON DATABASE makes it once."""

HANDING_OVER = _nats(
    "$JS.API.STREAM.INFO.RUNBOOKS",
    "$JS.API.STREAM.CREATE.RUNBOOKS",
    "$JS.API.STREAM.PURGE.RUNBOOKS",
    "$JS.API.CONSUMER.LIST.RUNBOOKS",
    "$JS.API.CONSUMER.INFO.RUNBOOKS.*",
    "$JS.API.CONSUMER.CREATE.RUNBOOKS.*",
    "$JS.API.CONSUMER.DELETE.RUNBOOKS.*",
    "$JS.API.CONSUMER.MSG.NEXT.RUNBOOKS.*",
    "$JS.ACK.RUNBOOKS.>",
    "runbooks.work.>",
)
"""The work queue, for `--distributed` alone."""

# ---- changing: sandboxes and what they leave

CLEANING = _postgres(
    "UPDATE ON public.sandboxes",
    "INSERT ON public.sandbox_audit_log",
    "SELECT ON public.sandbox_guild_mapping",
    "UPDATE ON public.sandbox_guild_mapping",
    "DELETE ON public.sandbox_guild_mapping",
    "owner of sandbox_*",
) | _redis("+scan", "+unlink", "~sandbox:*")
USE = SESSIONS | KEYS | KEY_USE | LISTENERS
"""Who uses what no sandbox owns: looked at once more before any of it is touched."""

QUARANTINING = (
    USE
    | _postgres(
        "UPDATE ON public.sandboxes", "CREATE ON DATABASE", "owner of sandbox_*", "owner of quarantine_*"
    )
    | _redis("+scan", "+renamenx", "~sandbox:*", "~quarantine:*")
)
DROPPING = (
    USE
    | _postgres("UPDATE ON public.sandboxes", "owner of sandbox_*", "owner of quarantine_*")
    | _redis("+scan", "+unlink", "~sandbox:*", "~quarantine:*")
)

# ---- changing: the database

SIGNALLING = _postgres("pg_signal_backend")
GRANTING = _postgres("owner of the database", "owner of public.sandboxes", "CREATE ON SCHEMA public")
"""A right that is lacking is granted by its owner; what the migration makes is made in the schema public."""

INDEXING = _postgres(
    "owner of public.sandboxes",
    "owner of public.sandbox_guild_mapping",
    "owner of public.sandbox_audit_log",
    "CREATE ON SCHEMA public",
)
TRIMMING = _postgres(
    "INSERT ON public.sandbox_audit_log",
    "DELETE ON public.sandbox_audit_log",
    "owner of public.sandboxes",
    "owner of public.sandbox_guild_mapping",
    "owner of public.sandbox_audit_log",
)

# ---- changing: streams, routes, services

ROUTING = _nats(
    *_of_streams("CREATE"),
    *_of_streams("DELETE"),
    "$JS.API.STREAM.UPDATE.SANDBOX",
    "$JS.API.STREAM.UPDATE.EVENTS",
    "$JS.API.STREAM.MSG.DELETE.SANDBOX",
    "sandbox.*.events.>",
) | _redis("+unlink", "+set", "~sandbox:*")
RESTARTING = _aws("ecs:UpdateService")
SCHEDULING = _aws(
    "events:EnableRule", "events:DisableRule", "ecs:DescribeTaskDefinition", "ecs:RunTask", "iam:PassRole"
)
"""The clean-up's schedule enabled again, and with `--via ecs` its task run, which is handed its roles."""

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
    | _redis("+unlink", "~sandbox:*")
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
