"""How long things take on real servers: the status command's steps, Redis' answers and its own records, CloudWatch's metrics."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3  # type: ignore[import-untyped, unused-ignore]
import pytest
import redis

from diagnostics.latency import histogram, read_redis, sample, state_of, time_status
from diagnostics.load import read_cache_load, read_database_load
from lab.names import CACHE, INSTANCE, REGION
from sandbox.adapters.aws import Aws
from sandbox.adapters.nats import Nats
from sandbox.adapters.redis import Redis
from sandbox.errors import Busy, Denied, SandboxCode, SandboxError
from tests.integration.world import NOW, World
from tests.waiting import eventually

FOREVER = "while true do end"
WORK = "for n = 1, 3000000 do end"


@pytest.fixture(autouse=True)
def forgotten(world: World) -> Iterator[None]:
    """Let Redis remember nothing of the tests before."""
    yield
    world.wipe()
    world.redis.config_set("slowlog-log-slower-than", 10_000)
    world.redis.config_set("latency-monitor-threshold", 0)
    world.redis.slowlog_reset()
    world.redis.latency_reset()


@contextmanager
def script(world: World) -> Iterator[None]:
    """Run a script that never ends, which Redis says to everybody who asks, until SCRIPT KILL."""
    world.redis.config_set("busy-reply-threshold", 10)
    with redis.Redis.from_url(world.env["REDIS_URL"]) as client:

        def run() -> None:
            with pytest.raises(redis.ResponseError, match="killed"):
                client.eval(FOREVER, 0)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            eventually(lambda: is_busy(world))
            yield
        finally:
            world.redis.script_kill()
            thread.join(10)
            world.redis.config_set("busy-reply-threshold", 5000)


def is_busy(world: World) -> bool:
    try:
        world.redis.ping()
    except redis.ResponseError as error:
        return "BUSY" in str(error)
    return False


def status(world: World, name: str = "") -> Any:
    nats = Nats(world.env["NATS_URL"], timeout=5)
    return time_status(world.database, world.keys, nats, sandbox=name, now=NOW)


# ---- the status command


def test_the_newest_that_runs_is_asked_for_and_each_step_is_timed(world: World) -> None:
    world.write_row("young", "creating")
    world.write_row("old", "running", ago=timedelta(hours=3))
    world.write_row("newer", "running", ago=timedelta(hours=2))
    seen = status(world)
    assert (seen.what, seen.sandbox, seen.locked) == ("the status of newer", "newer", False)
    assert [step.name for step in seen.steps] == ["look-up", "routes", "keys", "events"]
    assert all(step.seconds is not None and 0 < step.seconds <= seen.seconds for step in seen.steps)
    assert status(world, "young").sandbox == "young"


def test_without_a_sandbox_the_listing_is_timed(world: World) -> None:
    world.write_row("gone", "destroyed")
    seen = status(world)
    assert (seen.what, seen.sandbox) == ("the listing, as no sandbox is alive", "")
    assert [step.name for step in seen.steps] == ["listing"]


def test_a_name_that_no_sandbox_has_is_refused(world: World) -> None:
    with pytest.raises(SandboxError) as told:
        status(world, "nobody")
    assert told.value.code is SandboxCode.NOT_FOUND


# ---- Redis


def test_pings_are_sampled_within_the_time_that_is_given(world: World) -> None:
    seen = sample(world.keys, count=50, seconds=0.2)
    assert 1 <= len(seen.milliseconds) <= 50
    assert list(seen.milliseconds) == sorted(seen.milliseconds)
    assert 0 < seen.percentile(0.5) <= seen.percentile(0.95) <= seen.percentile(0.99) <= seen.most
    assert sum(count for _, count in histogram(seen)) == len(seen.milliseconds)


def test_a_script_that_blocks_redis_is_said_to_do_so(world: World) -> None:
    with script(world):
        for ask in (
            world.keys.ping,
            world.keys.info,
            lambda: world.keys.slow_commands(9),
            world.keys.latency_events,
        ):
            with pytest.raises(Busy, match="a script blocks it") as told:
                ask()
            assert "SCRIPT KILL" in told.value.hint
    assert world.keys.ping() > 0


def test_slow_commands_are_told_without_their_values(world: World) -> None:
    world.redis.config_set("slowlog-log-slower-than", 0)
    world.redis.set("a:key", "a secret")
    world.redis.set("k" * 200, "a secret")
    world.redis.eval("return 'a secret'", 1, "a secret")
    world.redis.config_set("slowlog-log-slower-than", -1)
    found = world.keys.slow_commands(10)
    told = [each.command for each in found]
    assert told == ["EVAL", "SET " + "k" * 60 + "…", "SET a:key", "CONFIG"]
    assert not any("secret" in each for each in told)
    assert all(each.client.startswith("127.0.0.1:") and 0 <= each.seconds < 5 for each in found)
    assert abs(found[0].at - datetime.now(UTC)) < timedelta(minutes=1)
    assert len(world.keys.slow_commands(1)) == 1


def test_latency_events_are_those_that_redis_watched_for(world: World) -> None:
    assert world.keys.latency_events() == []
    world.redis.config_set("latency-monitor-threshold", 1)
    while not world.keys.latency_events():
        world.redis.eval(WORK, 0)
    [event] = [each for each in world.keys.latency_events() if each.event == "command"]
    assert 0.001 <= event.seconds <= event.longest


def test_the_servers_state_is_read(world: World) -> None:
    world.redis.set("one", 1)
    seen = read_redis(world.keys)
    assert (seen.keys, seen.node, seen.most_memory, seen.memory_used) == (1, "", None, None)
    assert seen.clients >= 1
    assert seen.product.split()[0] in ("valkey", "redis")
    assert abs(seen.now - datetime.now(UTC)) < timedelta(minutes=1)
    assert (seen.evicted, seen.blocked, seen.policy) == (0, 0, "noeviction")


def test_redis_7_says_the_same_in_its_words() -> None:
    seen = state_of(
        {
            "redis_version": "7.0.15",
            "used_memory": 90,
            "maxmemory": 100,
            "maxclients": 10,
            "latest_fork_usec": 2500,
            "db0": {"keys": 3, "expires": 1},
            "db1": {"keys": 4},
            "cluster_node": "10.0.0.1:6379",
        }
    )
    assert (seen.product, seen.memory_used, seen.most_clients, seen.keys) == ("redis 7.0.15", 0.9, 10, 7)
    assert (seen.fork_seconds, seen.node) == (0.0025, "10.0.0.1:6379")


def test_what_a_user_may_not_ask_is_denied_for_itself(world: World) -> None:
    world.redis.acl_setuser("liet", enabled=True, nopass=True, commands=["+ping", "+slowlog"])
    port = world.redis.connection_pool.connection_kwargs["port"]
    limited = Redis(f"redis://liet:x@127.0.0.1:{port}/0", timeout=5)
    assert limited.ping() > 0
    assert limited.slow_commands(1) == []
    for ask in (limited.info, limited.latency_events):
        with pytest.raises(Denied):
            ask()
    world.redis.acl_deluser("liet")


# ---- CloudWatch


def put(world: World, namespace: str, dimension: tuple[str, str], **metrics: float) -> None:
    client = boto3.client(
        "cloudwatch",
        endpoint_url=world.env["AWS_ENDPOINT_URL"],
        region_name=REGION,
        aws_access_key_id="lab",
        aws_secret_access_key="lab",
    )
    name, value = dimension
    client.put_metric_data(
        Namespace=namespace,
        MetricData=[
            {
                "MetricName": metric,
                "Dimensions": [{"Name": name, "Value": value}],
                "Timestamp": NOW - timedelta(minutes=10),
                "Value": number,
            }
            for metric, number in metrics.items()
        ],
    )


def test_the_servers_load_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in world.env.items():
        monkeypatch.setenv(variable, value)
    aws = Aws(region=REGION, timeout=5)
    put(
        world,
        "AWS/RDS",
        ("DBInstanceIdentifier", INSTANCE),
        CPUUtilization=91.0,
        CPUCreditBalance=0.0,
        ReadLatency=0.004,
    )
    put(
        world,
        "AWS/ElastiCache",
        ("CacheClusterId", f"{CACHE}-001"),
        EngineCPUUtilization=12.0,
        CPUCreditBalance=0.0,
    )
    instance, load = read_database_load(aws, identifier=None, now=NOW)
    assert (instance.identifier, load.name, load.instance_class) == (INSTANCE, INSTANCE, "db.t4g.medium")
    assert (load.cpu, load.busy, load.credits, load.spent) == (91.0, True, 0.0, True)
    assert (load.throttled_when_spent, load.last("ReadLatency"), load.last("DBLoad")) == (False, 0.004, None)
    cache, [node] = read_cache_load(aws, identifier=None, now=NOW)
    assert (cache.identifier, node.name, node.instance_class) == (CACHE, f"{CACHE}-001", "cache.t4g.small")
    assert (node.cpu, node.busy, node.spent, node.throttled_when_spent) == (12.0, False, True, True)


class _Narrow:
    """An account of which one metric may not be read."""

    def __init__(self, aws: Aws, refused: str) -> None:
        self._aws, self._refused = aws, refused

    def read(self, service: str, operation: str, /, **params: object) -> Mapping[str, Any]:
        if self._refused in str(params):
            raise Denied("no cloudwatch for you")
        return self._aws.read(service, operation, **params)


def test_a_metric_that_may_not_be_read_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in world.env.items():
        monkeypatch.setenv(variable, value)
    aws = Aws(region=REGION, timeout=5)
    _, load = read_database_load(_Narrow(aws, "CPUCreditBalance"), identifier=None, now=NOW)
    assert (load.unread, load.credits, load.spent) == (("CPUCreditBalance",), None, False)
    _, [node] = read_cache_load(aws, identifier=None, now=NOW)
    assert node.unread == ()
