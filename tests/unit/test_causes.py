"""What the logs say is matched with the cause it tells of, however it is said."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from diagnostics.causes import CAUSES, Probe, match, named
from diagnostics.loglines import parse

AT = datetime(2026, 3, 1, tzinfo=UTC)


def key_of(text: str) -> str | None:
    cause = match(text)
    return cause.key if cause else None


def logged(message: str, error: object, **more: object) -> str | None:
    """Return the cause of a pino line as the deployed system writes it."""
    return key_of(parse(AT, json.dumps({"level": 50, "msg": message, "error": error, **more})).text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("connect ECONNREFUSED 10.0.1.5:5432", "postgres-refused"),
        ("connect ECONNREFUSED 10.0.1.5:6432", "postgres-refused"),
        ("connect ECONNREFUSED 10.0.1.5:6379", "redis-refused"),
        ("connect ECONNREFUSED 10.0.1.5:4222", "nats-refused"),
        ("connect ECONNREFUSED 10.0.1.5:41234", "connection-refused"),
        ("Redis key cleanup failed: connect ECONNREFUSED 10.0.1.5:5432", "postgres-refused"),
        ("Redis key cleanup failed: connect ECONNREFUSED 10.0.1.5:41234", "redis-refused"),
        ("[ioredis] Unhandled error event: Error: connect ECONNREFUSED 127.0.0.1:41234", "redis-refused"),
        ("PostgreSQL at 127.0.0.1:41234/arrakis: connection refused", "postgres-refused"),
        ("Redis at 127.0.0.1:41234: Error 111 connecting. Connection refused.", "redis-refused"),
        ("NATS at 127.0.0.1:41234: connection refused", "nats-refused"),
        ("Failed to route event: NatsError 503: 503", "stream-missing"),
        ("Failed to route event: NatsError 409: Consumer Deleted", "stream-missing"),
        ("Failed to route event: NatsError TIMEOUT", "nats-silent"),
        ("replicas > 1 not supported in non-clustered mode", "stream-refused"),
        ("NatsError 400: subjects overlap with an existing stream", "stream-refused"),
        ("keys are left: PostgreSQL at 127.0.0.1:41234: connection refused", "postgres-refused"),
        ("Redis does not answer: keys are left: PostgreSQL at h:1: connection refused", "postgres-refused"),
        (
            "MaxRetriesPerRequestError: Reached the max retries per request limit (which is 20).",
            "redis-silent",
        ),
        ("Error: Connection is closed.", "redis-silent"),
        ("connect ETIMEDOUT 10.0.1.5:6379", "redis-silent"),
        ("write CONNECT_TIMEOUT 10.0.1.5:5432", "postgres-silent"),
        ("PostgreSQL at h:1/x gave no answer within 5 s", "postgres-silent"),
        ("server closed the connection unexpectedly to the database", "postgres-silent"),
        ("connect ETIMEDOUT 10.0.1.5:41234", "connection-silent"),
        ("NatsError: TIMEOUT", "nats-silent"),
        ("nats: no servers available for connection", "nats-refused"),
        ("cannot drop schema sandbox_x because other objects depend on it", "blockers"),
        ("SANDBOX_006: dropping sandbox_x would take along view public.report", "blockers"),
        ("sorry, too many clients already", "too-many-connections"),
        ("FATAL: remaining connection slots are reserved for superusers", "too-many-connections"),
        ("FATAL: no more connections allowed (max_client_conn)", "pool-full"),
        ('"code": "53300": no more connections allowed', "pool-full"),
        ("PostgreSQL at h:6432/x: query_wait_timeout", "pool-full"),
        ("ERR max number of clients reached", "redis-connections"),
        ('could not extend file "base/1/2": No space left on device', "disk-full"),
        ("write ENOSPC", "disk-full"),
        ("permission denied for schema public", "rights"),
        ("must be owner of schema sandbox_x", "rights"),
        ('password authentication failed for user "app"', "login-postgres"),
        ("no pg_hba.conf entry for host", "login-postgres"),
        ("WRONGPASS invalid username-password pair", "login-redis"),
        ("NOAUTH Authentication required.", "login-redis"),
        ("NOPERM this user has no permissions", "rights-redis"),
        ("Authorization Violation", "login-nats"),
        ("canceling statement due to lock timeout", "locked"),
        ("PostgreSQL could not take the lock: canceling statement due to lock timeout", "locked"),
        ("deadlock detected", "locked"),
        ("canceling statement due to statement timeout", "statement-timeout"),
        ("out of shared memory", "lock-table-full"),
        ("You might need to increase max_locks_per_transaction.", "lock-table-full"),
        ('relation "sandboxes" does not exist', "missing-objects"),
        ("function create_sandbox_schema(text) does not exist", "missing-objects"),
        ('schema "sandbox_x" does not exist', "missing-objects"),
        ('role "app" does not exist', "login-postgres"),
        ("OOM command not allowed when used memory > 'maxmemory'", "redis-memory"),
        ("READONLY You can't write against a read only replica.", "redis-read-only"),
        ("LOADING Redis is loading the dataset in memory", "redis-loading"),
        ("MOVED 3999 10.0.0.2:6379", "redis-cluster"),
        ("getaddrinfo ENOTFOUND db.internal", "name-resolution"),
        ("getaddrinfo EAI_AGAIN cache.internal", "name-resolution"),
        ("self-signed certificate in certificate chain", "tls"),
        ("SSL error: certificate verify failed", "tls"),
        ("CannotPullContainerError: pull image manifest has been retried", "task-image"),
        ("ResourceInitializationError: unable to pull secrets", "task-setup"),
        ("OutOfMemoryError: Container killed due to memory usage", "task-memory"),
        ("container exited with code 137", "task-memory"),
        ("FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory", "task-memory"),
        ("Essential container in task exited", "task-failed"),
        ("ThrottlingException: Rate exceeded", "aws-throttled"),
        ("AccessDeniedException: is not authorized to perform: logs:PutLogEvents", "aws-denied"),
        ("AWS ecs:list_clusters: the access key is not valid (InvalidClientTokenId)", "aws-denied"),
        ("AWS: the login has expired: Error loading SSO Token", "aws-denied"),
        ("NATS at h:41234: JetStream does not answer", "nats-silent"),
        ("terminating connection due to administrator command", "postgres-restarting"),
        ("the database system is starting up", "postgres-restarting"),
        ("cannot execute UPDATE in a read-only transaction", "postgres-read-only"),
        ("stream not found", "stream-missing"),
        ("maximum messages exceeded", "stream-full"),
        ("Invalid status transition: destroyed -> expired", "state"),
        ("SANDBOX_001: name exists", "taken"),
        ("ERROR:  53300: sorry", "too-many-connections"),
        ('"code": "53300"', "too-many-connections"),
        ("took 53300 ms", None),
        ("exit code 1137", None),
        ("hello", None),
    ],
)
def test_the_cause_that_a_text_tells_of(text: str, key: str | None) -> None:
    assert key_of(text) == key


@pytest.mark.parametrize(
    ("error", "key"),
    [
        ({"name": "PostgresError", "code": "2BP01", "detail": "view v depends on table t"}, "blockers"),
        ({"name": "PostgresError", "code": "53300"}, "too-many-connections"),
        ({"name": "PostgresError", "code": "53100"}, "disk-full"),
        ({"name": "PostgresError", "code": "53200"}, "lock-table-full"),
        ({"name": "PostgresError", "code": "42501"}, "rights"),
        ({"name": "PostgresError", "code": "28P01"}, "login-postgres"),
        ({"name": "PostgresError", "code": "28000"}, "login-postgres"),
        ({"name": "PostgresError", "code": "55P03"}, "locked"),
        ({"name": "PostgresError", "code": "40P01"}, "locked"),
        ({"name": "PostgresError", "code": "57014"}, "statement-timeout"),
        ({"name": "PostgresError", "code": "42P01"}, "missing-objects"),
        ({"name": "PostgresError", "code": "42883"}, "missing-objects"),
        ({"name": "PostgresError", "code": "3F000"}, "missing-objects"),
        ({"name": "PostgresError", "code": "57P01"}, "postgres-restarting"),
        ({"name": "PostgresError", "code": "57P03"}, "postgres-restarting"),
        (
            {"code": "ECONNREFUSED", "syscall": "connect", "address": "10.0.1.5", "port": 5432},
            "postgres-refused",
        ),
        (
            {"code": "ECONNREFUSED", "syscall": "connect", "address": "10.0.1.5", "port": 6379},
            "redis-refused",
        ),
        ({"name": "ReplyError", "command": {"name": "del"}}, "redis-error"),
        ({"code": "ENOTFOUND", "syscall": "getaddrinfo", "hostname": "db"}, "name-resolution"),
    ],
)
def test_an_error_without_its_message_is_known_by_its_code(error: Mapping[str, object], key: str) -> None:
    assert logged("Failed to route event", error) == key


STEPS = {
    "mark_destroying": "cleanup-take",
    "remove_guild_mappings": "cleanup-mappings",
    "invalidate_cache": "cleanup-routes",
    "delete_redis_keys": "cleanup-keys",
    "drop_schema": "cleanup-schema",
    "mark_destroyed": "cleanup-mark",
}


@pytest.mark.parametrize("step", STEPS)
def test_a_clean_up_that_says_no_more_than_its_steps(step: str) -> None:
    names = list(STEPS)
    done = names[: names.index(step)]
    assert logged("Sandbox cleanup failed", {}, stepsCompleted=done) == STEPS[step]


@pytest.mark.parametrize(
    ("step", "key"),
    [
        ("take", "cleanup-take"),
        ("end mappings", "cleanup-mappings"),
        ("drop schema", "cleanup-schema"),
        ("finish", "cleanup-mark"),
    ],
)
def test_our_own_clean_up_names_its_step(step: str, key: str) -> None:
    assert logged("Sandbox cleanup failed", {"type": "ArrakisError", "message": "no"}, step=step) == key


@pytest.mark.parametrize(
    ("message", "key"),
    [
        ("Failed to cleanup sandbox", "cleanup-sandbox"),
        ("Redis key cleanup failed", "cleanup-keys"),
        ("Failed to cleanup orphaned Redis keys", "cleanup-keys"),
        ("Keys are left: nobody can tell whose they are", "cleanup-keys"),
        ("Redis does not answer: keys are left for the next run", "cleanup-keys"),
        ("Failed to drop orphaned schema", "cleanup-schema"),
        ("Failed to drop sandbox schema", "cleanup-schema"),
        ("Error processing schema during cleanup", "cleanup-schema"),
        ("Expired sandbox cleanup failed", "cleanup-job"),
        ("Sandbox cleanup job failed", "cleanup-job"),
        ("Database is gone: cleanup ends here", "cleanup-job"),
        ("Job failed unexpectedly", "cleanup-job"),
        ("Fatal error in sandbox cleanup job: Error: x", "cleanup-job"),
        ("Error during sandbox destruction", "cleanup-sandbox"),
        ("Failed to mark sandbox as expired", "cleanup-expiry"),
        ("Remains and orphans left alone", "cleanup-quarantine"),
        ("Failed to create sandbox schema", "provisioning"),
        ("Sandbox creation failed, cleaning up", "provisioning"),
        ("Failed to check schema existence", "provisioning-look"),
        ("Failed to get schema stats", "provisioning-look"),
        ("Failed to list sandbox schemas", "provisioning-look"),
        ("Failed to route event", "routing"),
        ("Failed to parse event JSON", "routing-payload"),
        ("Event router processing failed", "routing-loop"),
        ("Metric is unknown", "metrics"),
    ],
)
def test_a_message_alone_names_the_step(message: str, key: str) -> None:
    assert logged(message, {}) == key


def test_every_cause_is_complete_and_named_once() -> None:
    keys = [cause.key for cause in CAUSES]
    assert len(set(keys)) == len(keys)
    assert all(cause.title and cause.meaning and cause.check for cause in CAUSES)
    assert [named(key) for key in keys] == list(CAUSES)
    assert {cause.probe for cause in CAUSES} == set(Probe)
