"""Known causes: what a line of the logs says about what is wrong, what that means, and what to look at. A pure table.

A cause that the logs name is a suspicion. Its probe confirms it or rules it out, and only then is it called the cause.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["CAUSES", "Cause", "Probe", "match", "named"]

_UNSAID = "the log does not say why this step failed"


class Probe(StrEnum):
    """Which look at the patient confirms a cause."""

    POSTGRES = "postgres"
    """Does PostgreSQL answer?"""
    REDIS = "redis"
    """Does Redis answer a read? Whether it takes writes is not tried."""
    NATS = "nats"
    """Does NATS answer?"""
    NETWORK = "network"
    """Can each server be found, reached and trusted: name, port, TLS?"""
    LOGIN = "login"
    """Do the user and password in the secrets still fit?"""
    RIGHTS = "rights"
    """May the role do what it has to?"""
    CONNECTIONS = "connections"
    """How many of the database's connections are taken, and by whom?"""
    BLOCKERS = "blockers"
    """Does an object elsewhere rest on a sandbox's schema?"""
    LOCKS = "locks"
    """Which sessions hold what others wait for?"""
    LOCK_TABLE = "lock table"
    """How much of the table of locks is taken?"""
    DISK = "disk"
    """How much storage has the database left?"""
    MIGRATION = "migration"
    """Are the control tables and functions there?"""
    REGISTRY = "registry"
    """What state are the sandboxes' rows in?"""
    CACHE_MEMORY = "cache memory"
    """How full is Redis?"""
    STREAM = "stream"
    """Are the streams and consumers there, and do they move?"""
    TASK = "task"
    """Why did the last ECS tasks stop?"""
    ACCOUNT = "account"
    """Does AWS answer these credentials?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A known cause. `check` is what a person would do to see it; `pattern` is searched in a line's whole text."""

    key: str
    title: str
    meaning: str
    check: str
    probe: Probe
    pattern: re.Pattern[str]

    @property
    def step_only(self) -> bool:
        """Whether it says no more than which step failed: a probe that finds nothing does not rule that out."""
        return self.meaning == _UNSAID


def match(text: str) -> Cause | None:
    """Return the first, that is the most specific, cause that a line's text (message, error, code, step) tells of."""
    return next((cause for cause in CAUSES if cause.pattern.search(text)), None)


def named(key: str) -> Cause:
    """Return a cause by its key. Raises KeyError."""
    return _BY_KEY[key]


def _cause(key: str, probe: Probe, title: str, meaning: str, check: str, *patterns: str) -> Cause:
    pattern = re.compile("|".join(patterns), re.IGNORECASE | re.DOTALL)
    return Cause(key=key, title=title, meaning=meaning, check=check, probe=probe, pattern=pattern)


def _state(*codes: str) -> str:
    """Return the pattern of SQLSTATEs as our lines, Node's and psql's spell them; bare digits might be anything."""
    before = r"(?:SQLSTATE|\bcode[\"']?)[:=\s]{1,2}[\"']?|(?:ERROR|FATAL):\s{1,2}"
    return rf"(?:{before})(?:{'|'.join(codes)})\b"


def _of(server: str, words: str) -> str:
    """Return the pattern of lines about one server: its port or "… at" decides, words only where no other's is there."""
    port, others = _PORTS[server], "|".join(ports for name, ports in _PORTS.items() if name != server)
    mine, theirs = (
        rf"(?:{server} at |\b(?:{port})\b)",
        rf"(?:\b(?:PostgreSQL|Redis|NATS) at |\b(?:{others})\b)",
    )
    return rf"(?=.*{mine}|(?!.*{theirs}).*(?:{words}))"


_PORTS = {"PostgreSQL": "5432|6432", "Redis": "6379", "NATS": "4222"}
_ABOUT = {
    "PostgreSQL": _of("PostgreSQL", r"postgres|pgbouncer|database"),
    "Redis": _of("Redis", r"redis|valkey"),
    "NATS": _of("NATS", r"\bnats|jetstream"),
}
_REFUSED = r"(?=.*(?:ECONNREFUSED|connection[ _]refused))"
_SILENT = (
    r"(?=.*(?:ETIMEDOUT|ESOCKETTIMEDOUT|EHOSTUNREACH|ENETUNREACH|ECONNRESET|EPIPE|\btime(?:d )?[- ]?out\b"
    r"|CONNECT_TIMEOUT|CONNECTION_(?:CLOSED|ENDED|DESTROYED|TIMEOUT)|gave no answer|connection (?:is|was) closed"
    r"|closed the connection|connection reset|no route to host))"
)

_ECS = (
    _cause(
        "task-image",
        Probe.TASK,
        "the task's image cannot be pulled",
        "ECS cannot get the container's image, so no task starts at all",
        "aws ecs describe-tasks: stoppedReason; is the tag in ECR, may the execution role pull, is there a way to ECR?",
        r"CannotPull\w*Error|pull image manifest",
    ),
    _cause(
        "task-setup",
        Probe.TASK,
        "the task cannot be set up",
        "a secret, the log group or the network that the task needs could not be had before its container started",
        "aws ecs describe-tasks: stoppedReason; the execution role's rights to secrets and logs, the subnet's endpoints",
        r"ResourceInitializationError",
    ),
    _cause(
        "task-memory",
        Probe.TASK,
        "the task ran out of memory",
        "the container was killed for using more memory than its task definition allows",
        "aws ecs describe-tasks: containers[].reason and exitCode; raise `memory`, or find what grew",
        r"OutOfMemory(?:Error)?\b|OOMKilled|exit(?:ed)?(?: with)?(?: ?code)?[ :=]+137\b|heap out of memory",
    ),
    _cause(
        "task-failed",
        Probe.TASK,
        "the task itself fails",
        "the container could not start, or ended at once",
        "aws ecs describe-tasks: stoppedReason and exitCode; then the task's own log stream",
        r"CannotStartContainerError|TaskFailedToStart|Essential container in task exited",
        r"CannotCreateContainerError|ContainerRuntime(?:Timeout)?Error",
    ),
)

_POSTGRES = (
    _cause(
        "blockers",
        Probe.BLOCKERS,
        "objects elsewhere depend on a sandbox's schema",
        "a view, foreign key or function outside the schema rests on it, so it cannot be dropped without losing that too",
        "pg_depend: which objects, and whose; drop or move those by name, never with a blind CASCADE",
        _state("2BP01"),
        r"other objects depend on (?:it|them)|would take along",
    ),
    _cause(
        "lock-table-full",
        Probe.LOCK_TABLE,
        "PostgreSQL's table of locks is full",
        "too much was locked at once; a schema takes some 75 locks, and everybody shares one table",
        "SELECT count(*) FROM pg_locks against max_locks_per_transaction * (max_connections + max_prepared_transactions)",
        _state("53200"),
        r"out of shared memory|max_locks_per_transaction",
    ),
    _cause(
        "redis-connections",
        Probe.REDIS,
        "Redis takes no more clients",
        "as many clients are connected as Redis allows; new ones are turned away",
        "redis-cli INFO clients: connected_clients against maxclients; redis-cli CLIENT LIST: whose",
        r"max number of clients reached",
    ),
    _cause(
        "pool-full",
        Probe.POSTGRES,
        "PgBouncer has no connection left",
        "it takes no more clients, or all its connections to PostgreSQL are taken and whoever waited was turned away",
        "PgBouncer's console: SHOW POOLS, cl_waiting and maxwait; SHOW CONFIG, max_client_conn and default_pool_size",
        r"no more connections allowed|query_wait_timeout|max_client_conn",
    ),
    _cause(
        "too-many-connections",
        Probe.CONNECTIONS,
        "PostgreSQL has no connection left",
        "all of max_connections are taken; whoever comes now is turned away",
        "SELECT usename, application_name, state, count(*) FROM pg_stat_activity GROUP BY 1, 2, 3",
        _state("53300"),
        r"too many (?:clients|connections)|remaining connection slots",
    ),
    _cause(
        "disk-full",
        Probe.DISK,
        "the database's storage is full",
        "PostgreSQL cannot write; it may soon stop altogether",
        "CloudWatch AWS/RDS FreeStorageSpace; the largest schemas; inactive replication slots",
        _state("53100"),
        r"could not (?:extend|write to) file|No space left on device|\bENOSPC\b|disk (?:is )?full|storage.full",
    ),
    _cause(
        "locked",
        Probe.LOCKS,
        "another session holds a lock",
        "something waited for a lock in vain, or two sessions waited for each other",
        "pg_locks and pg_blocking_pids(pid): who holds it, since when, and whether it is idle in a transaction",
        _state("55P03", "40P01"),
        r"lock time-?out|could not (?:obtain|take the) lock|deadlock detected",
    ),
    _cause(
        "statement-timeout",
        Probe.LOCKS,
        "a statement was cancelled for taking too long",
        "a statement waited or worked longer than statement_timeout allows, or somebody cancelled it",
        "pg_stat_activity: wait_event of like statements; pg_locks: whether they wait for a lock",
        _state("57014"),
        r"canceling statement due to|statement time-?out",
    ),
    _cause(
        "postgres-restarting",
        Probe.POSTGRES,
        "PostgreSQL is going down or coming up",
        "the server is restarting, failing over, or somebody ended its sessions",
        "aws rds describe-events; it should answer again in a minute or two: pg_postmaster_start_time()",
        _state("57P01", "57P02", "57P03"),
        r"terminating connection due to|database system is (?:starting up|shutting down|in recovery)",
    ),
    _cause(
        "postgres-read-only",
        Probe.POSTGRES,
        "PostgreSQL takes no writes",
        "this is a replica, or the server was set to read only: after a failover the address may still lead to the old one",
        "SELECT pg_is_in_recovery(); SHOW default_transaction_read_only; where does DATABASE_URL's name lead?",
        _state("25006"),
        r"read-only transaction",
    ),
    _cause(
        "login-postgres",
        Probe.LOGIN,
        "PostgreSQL does not accept the login",
        "the password was rotated, the role is gone, or pg_hba.conf lets nobody in from there or without TLS",
        "compare the secret with the role's password; has the task been started since the rotation?",
        _state("28P01", "28000", "3D000"),
        r"password authentication failed|no pg_hba\.conf entry|SASL authentication failed|SASL: ",
        r"role \S+ does not exist|database \S+ does not exist",
    ),
    _cause(
        "missing-objects",
        Probe.MIGRATION,
        "a table, function or schema is missing",
        "the migration was not run here, or a schema is gone already",
        "psql -c '\\dt public.sandbox*' -c '\\df public.*sandbox*'; is it the right database?",
        _state("42P01", "42883", "3F000", "42703"),
        r"(?:relation|table|function|schema|column|type) \S+ does not exist|has no such thing",
    ),
    _cause(
        "schema-exists",
        Probe.REGISTRY,
        "a schema of that name exists already",
        "it was left behind: by an attempt that failed half way, or by a sandbox that is gone",
        "psql -c '\\dn sandbox_*'; rb-sb-003 says whose it is, and puts orphans into quarantine",
        _state("42P06"),
        r"schema \S+ already exists",
    ),
    _cause(
        "schema-lost",
        Probe.MIGRATION,
        "the function makes no schema of the name that is looked for",
        "create_sandbox_schema said nothing, and the schema is not there: its text is not the migration's, or the name differs",
        "psql -c '\\sf public.create_sandbox_schema' -c '\\dn sandbox_*'",
        r"succeeded but schema not found|said nothing, and made no schema",
    ),
)

_REDIS = (
    _cause(
        "redis-memory",
        Probe.CACHE_MEMORY,
        "Redis is out of memory",
        "maxmemory is reached and nothing may be evicted: writes are refused",
        "redis-cli INFO memory: used_memory, maxmemory, maxmemory_policy",
        r"\bOOM command not allowed|maxmemory",
    ),
    _cause(
        "redis-read-only",
        Probe.REDIS,
        "Redis takes no writes",
        "the connection leads to a replica, mostly after a failover, or the last save to disk failed",
        "redis-cli ROLE; redis-cli INFO persistence: rdb_last_bgsave_status",
        r"\bREADONLY\b|\bMISCONF\b|\bNOREPLICAS\b",
    ),
    _cause(
        "redis-loading",
        Probe.REDIS,
        "Redis is starting up",
        "it reads its data set, or its primary is away, and answers nothing until then",
        "redis-cli INFO persistence: loading, loading_eta_seconds; redis-cli INFO replication",
        r"\bLOADING\b.*(?:Redis|Valkey|dataset)|\bMASTERDOWN\b",
    ),
    _cause(
        "redis-cluster",
        Probe.REDIS,
        "Redis is a cluster, and a client takes it for one server",
        "keys live on other nodes than the one that was asked, or slots are served by none",
        "redis-cli CLUSTER INFO; is REDIS_URL a node's address where a cluster client is needed?",
        r"\bMOVED \d|\bASK \d+ |\bCROSSSLOT\b|\bCLUSTERDOWN\b|node of a cluster",
    ),
    _cause(
        "login-redis",
        Probe.LOGIN,
        "Redis does not accept the login",
        "the AUTH token was rotated, or is not sent",
        "compare the secret with ElastiCache's token; has the task been started since the rotation?",
        r"\bWRONGPASS\b|\bNOAUTH\b|invalid username-password|AUTH\b.*without any password",
    ),
    _cause(
        "rights-redis",
        Probe.RIGHTS,
        "the Redis user may not do this",
        "the user's ACL allows neither the command nor the key",
        "redis-cli ACL WHOAMI; redis-cli ACL GETUSER",
        r"\bNOPERM\b",
    ),
)

_AWS = (
    _cause(
        "aws-throttled",
        Probe.ACCOUNT,
        "AWS asks to come more slowly",
        "more calls are made than the account may make; it ends by itself when others stop",
        "CloudTrail or the callers' logs: who calls so often",
        r"Throttl(?:ing|ed)|Rate exceeded|TooManyRequestsException|RequestLimitExceeded|come more slowly",
    ),
    _cause(
        "aws-denied",
        Probe.ACCOUNT,
        "AWS refuses the role",
        "the role's policy does not allow the call, or its credentials have expired",
        "aws sts get-caller-identity from there; the role's policy and its trust",
        r"AccessDenied|not authorized to perform|ExpiredToken|UnrecognizedClient|security token .* (?:invalid|expired)",
        r"the access key is not valid|the login has expired",
    ),
)

_NATS = (
    _cause(
        "login-nats",
        Probe.LOGIN,
        "NATS does not accept the login",
        "the credentials are wrong, or the account may not use the subject",
        "compare the secret with the server's accounts; nats account info",
        r"Authorization Violation|AUTHORIZATION_VIOLATION|Permissions Violation",
    ),
    _cause(
        "stream-missing",
        Probe.STREAM,
        "a stream or consumer is missing",
        "nothing takes the events: the stream is gone (it is kept in memory only), or its consumer",
        "nats stream ls; nats consumer ls EVENTS",
        r"(?:stream|consumer) not found|no stream matches|no response from stream|503 No Responders",
        r"NatsError 503\b|no responders|consumer deleted",
    ),
    _cause(
        "stream-refused",
        Probe.STREAM,
        "the stream cannot be made",
        "the EventRouter asks for a stream of three replicas when it starts, and the server cannot make it so",
        "nats server list: are there three servers? nats stream ls: does another stream take sandbox.>?",
        r"replicas > 1 not supported|no suitable peers|subjects overlap",
    ),
    _cause(
        "stream-full",
        Probe.STREAM,
        "a stream takes no more",
        "a limit of the stream or of the server's memory is reached",
        "nats stream info EVENTS; nats account info",
        r"maximum (?:messages|bytes)[\w ]* exceeded|insufficient (?:resources|storage|memory)",
    ),
)


def _unreachable(server: str, probe: Probe, check: str, refused: str, silent: str) -> tuple[Cause, Cause]:
    """Return the two causes of a server that cannot be had; `refused` and `silent` are what only its client says."""
    key, about = server.lower().replace("postgresql", "postgres"), _ABOUT[server]
    return (
        _cause(
            f"{key}-refused",
            probe,
            f"{server} refuses connections",
            "nobody listens at that address: the server is down, restarting, or the address is wrong",
            check,
            rf"\A{_REFUSED}{about}",
            *filter(None, [refused]),
        ),
        _cause(
            f"{key}-silent",
            probe,
            f"{server} does not answer",
            "connections are lost or time out: it is overloaded or failing over, or the network does not let them through",
            check,
            rf"\A{_SILENT}{about}",
            *filter(None, [silent]),
        ),
    )


_SERVERS = (
    *_unreachable(
        "NATS",
        Probe.NATS,
        "nats server check connection; the broker's tasks; the security group of port 4222",
        r"no servers available",
        r"Nats(?:Connection|Timeout)?Error|JetStream does not answer",
    ),
    *_unreachable(
        "Redis",
        Probe.REDIS,
        "redis-cli PING; aws elasticache describe-events; the security group of port 6379",
        "",
        r"MaxRetriesPerRequest|max retries per request|Stream isn't writeable|Connection is closed\.",
    ),
    *_unreachable(
        "PostgreSQL",
        Probe.POSTGRES,
        "pg_isready; aws rds describe-events; the security group of ports 5432 and 6432",
        "",
        _state("08000", "08001", "08003", "08006"),
    ),
)

_NETWORK = (
    _cause(
        "name-resolution",
        Probe.NETWORK,
        "a server's name cannot be resolved",
        "the name in the address is wrong or gone, or the VPC's DNS does not answer",
        "getent hosts NAME from the task's subnet; compare the secret with the endpoint that RDS or ElastiCache names",
        r"\bENOTFOUND\b|\bEAI_AGAIN\b|getaddrinfo|could not translate host name|Name or service not known",
        r"Temporary failure in name resolution|failed to resolve host",
    ),
    _cause(
        "tls",
        Probe.NETWORK,
        "TLS cannot be agreed",
        "a certificate has expired, is not trusted or names another host, or one side speaks no TLS",
        "openssl s_client -connect HOST:PORT; the CA that the task trusts (NATS_TLS_CA, the RDS bundle)",
        r"\bERR_TLS|\bCERT_|SELF_SIGNED|UNABLE_TO_(?:VERIFY|GET_ISSUER)|DEPTH_ZERO|self[- ]signed certificate",
        r"certificate (?:verify failed|has expired)|wrong version number|SSL (?:error|SYSCALL|routines)|\bEPROTO\b",
        r"does not support SSL",
    ),
    _cause(
        "connection-refused",
        Probe.NETWORK,
        "a server refuses connections",
        "nobody listens at that address; the line does not say which server it is",
        "compare the address in the sample with DATABASE_URL, REDIS_URL and NATS_URL",
        rf"\A{_REFUSED}",
    ),
    _cause(
        "connection-silent",
        Probe.NETWORK,
        "a server does not answer",
        "connections are lost or time out; the line does not say to which server",
        "compare the address in the sample with DATABASE_URL, REDIS_URL and NATS_URL",
        rf"\A{_SILENT}",
    ),
    _cause(
        "rights",
        Probe.RIGHTS,
        "the role lacks a right",
        "a grant is missing, or an object belongs to another role than the one that does the work",
        "psql -c '\\dn+ sandbox*' -c '\\dp public.sandbox*': owner and grants, for the role in DATABASE_URL",
        _state("42501"),
        r"permission denied|must be owner of|\bEACCES\b|PostgreSQL refused",
    ),
    _cause(
        "redis-error",
        Probe.REDIS,
        "Redis did not do what it was told",
        "a command failed; the log does not say why, as an error's message is not written",
        "redis-cli PING; redis-cli INFO: memory, replication, clients",
        r"\bReplyError\b|Redis command ",
    ),
    _cause(
        "state",
        Probe.REGISTRY,
        "a sandbox is not in the state that this step expects",
        "somebody else changed or ended it meanwhile, or it was left half way",
        "SELECT id, name, status FROM public.sandboxes: what is stuck in creating or destroying",
        r"SANDBOX_00[47]|Invalid status transition|Sandbox not found",
    ),
    _cause(
        "taken",
        Probe.REGISTRY,
        "what was asked for is taken or used up",
        "the name or the guild belongs to another sandbox, or the owner has as many as allowed",
        "SELECT name, owner, status FROM public.sandboxes WHERE status <> 'destroyed'; sandbox_guild_mapping",
        r"SANDBOX_00[123]|reached max sandbox limit|is already mapped|name already exists",
        _state("23505"),
    ),
)


def _step(key: str, probe: Probe, title: str, pattern: str) -> Cause:
    """Return a cause that is no more than the step which failed: the last resort."""
    return _cause(key, probe, title, _UNSAID, "look at the sample, and at what its probe finds", pattern)


_CLEANUP = {
    "take": (Probe.REGISTRY, "taking the sandbox", r"at step (?:mark_destroying|take)\)"),
    "mappings": (
        Probe.POSTGRES,
        "ending guild mappings",
        r"at step (?:remove_guild_mappings|end mappings)\)",
    ),
    "routes": (Probe.REDIS, "deleting cached routes", r"at step invalidate_cache\)|Cached routes could not"),
    "keys": (
        Probe.REDIS,
        "deleting Redis keys",
        r"at step delete_redis_keys\)|Redis key cleanup failed|cleanup orphaned Redis keys|keys are left",
    ),
    "schema": (
        Probe.BLOCKERS,
        "dropping the schema",
        r"at step drop[_ ]schema\)|Failed to drop (?:sandbox |orphaned )?schema|schema during cleanup",
    ),
    "mark": (Probe.REGISTRY, "marking the sandbox destroyed", r"at step (?:mark_destroyed|finish)\)"),
    "expiry": (Probe.REGISTRY, "marking the sandbox expired", r"mark sandbox as expired"),
    "quarantine": (Probe.RIGHTS, "putting remains into quarantine", r"Remains and orphans left alone"),
    "job": (
        Probe.POSTGRES,
        "the job itself",
        r"cleanup job failed|error in sandbox cleanup job|Job failed|Database is gone|Expired sandbox cleanup failed",
    ),
    "sandbox": (
        Probe.REGISTRY,
        "ending a sandbox",
        r"Failed to cleanup sandbox|Sandbox cleanup failed|Error during sandbox destruction",
    ),
}

_STEPS = (
    *(
        _step(f"cleanup-{k}", probe, f"clean-up: {what} failed", p)
        for k, (probe, what, p) in _CLEANUP.items()
    ),
    _step(
        "provisioning",
        Probe.RIGHTS,
        "provisioning: creating the schema failed",
        r"Failed to create sandbox schema|Sandbox creation failed|SANDBOX_005",
    ),
    _step(
        "provisioning-look",
        Probe.POSTGRES,
        "provisioning: looking at the schemas failed",
        r"Failed to (?:check schema existence|get schema stats|list sandbox schemas)",
    ),
    _step("routing-payload", Probe.STREAM, "routing: an event is no JSON", r"Failed to parse event JSON"),
    _step("routing-loop", Probe.STREAM, "routing: reading events failed", r"Event router processing failed"),
    _step("routing", Probe.REDIS, "routing: an event was not delivered", r"Failed to route event"),
    _step("metrics", Probe.ACCOUNT, "metrics: a value could not be measured", r"Metric is unknown"),
)

CAUSES: tuple[Cause, ...] = (
    *_ECS,
    *_POSTGRES,
    *_REDIS,
    *_AWS,
    *_NATS,
    *_SERVERS,
    *_NETWORK,
    *_STEPS,
)
"""The most specific first."""

_BY_KEY = {cause.key: cause for cause in CAUSES}
