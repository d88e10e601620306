"""The recorders take down what goes over each wire, and tell what could have changed something from what only looks."""

from collections.abc import Iterator

import psycopg
import pytest
import redis

from lab.incidents.cloud import Account
from sandbox.adapters.nats import Nats
from sandbox.adapters.postgres import Postgres
from tests.integration.world import World
from tests.wires import Wires, recording


@pytest.fixture
def wires(world: World) -> Iterator[Wires]:
    """Return recorders on the wires of a lab."""
    with recording(world.env) as recorders:
        yield recorders


READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL timezone = 'UTC'"


@pytest.mark.parametrize(
    ("statements", "changes"),
    [
        ([READING, "SELECT 'DELETE; not', count(*) FROM public.sandboxes -- all", "COMMIT"], []),
        ([READING, "EXPLAIN SELECT 1", "ROLLBACK"], []),
        ([READING, "SELECT pg_terminate_backend(0)", "COMMIT"], ["SELECT pg_terminate_backend(0)"]),
        ([READING, "SELECT pg_advisory_xact_lock (1)", "COMMIT"], ["SELECT pg_advisory_xact_lock (1)"]),
        ([READING, "SET LOCAL role = 'lab'", "COMMIT"], ["SET LOCAL role = 'lab'"]),
        ([READING, "COMMIT", "SELECT 1"], ["SELECT 1"]),  # nothing makes sure of it any more
        (["/* READ ONLY */ BEGIN", "SELECT 1", "COMMIT"], ["BEGIN", "SELECT 1", "COMMIT"]),
    ],
)
def test_of_postgresql_what_is_not_read_only_could_change_something(
    wires: Wires, statements: list[str], changes: list[str]
) -> None:
    with psycopg.connect(wires.env["DATABASE_URL"], autocommit=True, prepare_threshold=None) as connection:
        for each in statements:
            connection.execute(each.encode())
    assert wires.postgres.changes() == changes


def test_statements_with_parameters_are_seen_as_well(wires: Wires) -> None:
    with Postgres(wires.env["DATABASE_URL"], tag="tests").transaction() as transaction:
        transaction.execute("write/registry/hold_owner", owner="chani")
    assert any(
        each.startswith("SELECT pg_catalog.pg_advisory_xact_lock(") for each in wires.postgres.changes()
    )
    assert set(wires.changes()) == {"PostgreSQL"}


def test_of_redis_the_server_itself_says_what_only_reads(wires: Wires) -> None:
    with redis.Redis.from_url(wires.env["REDIS_URL"], protocol=2) as client:
        client.get("sandbox:route:1")
        client.object("idletime", "sandbox:route:1")
        client.info()
        assert wires.redis.changes() == []
        client.set("sandbox:route:1", b"\r\n*1\r\n$8\r\nFLUSHALL\r\n")
        client.unlink("sandbox:route:1")
        client.config_set("maxmemory", 0)
    assert wires.redis.names() >= {"get", "object|idletime", "info", "set", "unlink", "config|set"}
    assert wires.redis.changes() == ["config|set", "set", "unlink"]


def test_of_nats_only_questions_and_the_ear_for_their_answers_change_nothing(wires: Wires) -> None:
    server = Nats(wires.env["NATS_URL"])
    assert server.stream("SANDBOX") is None
    server.subscriptions()
    assert wires.nats.changes() == []
    assert wires.nats.published() == {
        "$JS.API.STREAM.INFO.SANDBOX",
        "$JS.API.CONSUMER.LIST.SANDBOX",
        "$SYS.REQ.SERVER.PING.CONNZ",
    }
    server.delete_stream("SANDBOX")
    assert wires.nats.changes() == ["PUB $JS.API.STREAM.DELETE.SANDBOX"]


def test_of_aws_every_protocol_is_read(wires: Wires) -> None:
    account = Account(wires.env)
    account.client("logs").describe_log_groups()
    account.client("rds").describe_db_instances()
    account.client("cloudwatch").describe_alarms()
    account.client("s3").list_buckets()
    assert wires.aws.changes() == []
    account.client("events").disable_rule(Name="arrakis-sandbox-cleanup")
    account.client("events").enable_rule(Name="arrakis-sandbox-cleanup")
    where = {"LocationConstraint": wires.env["AWS_DEFAULT_REGION"]}
    account.client("s3").create_bucket(Bucket="made", CreateBucketConfiguration=where)
    account.client("s3").put_object(Bucket="made", Key="a/b", Body=b"x" * 100_000)
    account.client("s3").delete_object(Bucket="made", Key="a/b")
    account.client("s3").delete_bucket(Bucket="made")
    assert wires.aws.actions() >= {
        "logs:DescribeLogGroups",
        "rds:DescribeDBInstances",
        "cloudwatch:DescribeAlarms",
        "s3:PutObject",
    }
    assert len(wires.aws.changes()) == 6
