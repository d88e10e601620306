"""Reaching real servers: what answers, what refuses, what hangs; the error says how far it got."""

import contextlib
import socket
from collections.abc import Callable, Iterator

import psycopg
import pytest

from diagnostics import reach
from diagnostics.reach import Reach, reach_nats, reach_postgres, reach_redis
from lab.processes import HOST, free_ports
from sandbox.adapters.nats import Nats
from sandbox.adapters.postgres import Postgres
from sandbox.adapters.redis import Redis
from sandbox.errors import ArrakisError, Denied, Unreachable
from tests.integration.test_nats import USERS, server
from tests.integration.world import World
from tests.waiting import eventually

Probe = Callable[[str, float], Reach]

PROBES: dict[str, Probe] = {
    "postgresql": lambda place, timeout: reach_postgres(
        Postgres(f"postgresql://u@{place}/x", tag="tests", timeout=timeout)
    ),
    "redis": lambda place, timeout: reach_redis(Redis(f"redis://{place}/0", timeout=timeout)),
    "nats": lambda place, timeout: reach_nats(Nats(f"nats://{place}", timeout=timeout)),
}


def test_servers_that_answer(world: World) -> None:
    reached = [
        reach_postgres(world.database),
        reach_redis(world.keys),
        reach_nats(Nats(world.env["NATS_URL"])),
    ]
    assert [found.system for found in reached] == ["PostgreSQL", "Redis", "NATS"]
    assert [found.host for found in reached[:2]] == [world.database.host, world.keys.host]
    assert all(0 < found.connected_ms < 1000 and 0 < found.answered_ms < 5000 for found in reached)


@pytest.mark.parametrize("scheme", PROBES)
def test_a_closed_port_is_the_networks_or_the_servers_fault(scheme: str) -> None:
    [port] = free_ports(1)
    with pytest.raises(Unreachable, match=f"at {HOST}:{port}.*no TCP connection: connection refused") as told:
        PROBES[scheme](f"{HOST}:{port}", 2)
    assert "is it up" in told.value.hint


@contextlib.contextmanager
def listening(backlog: int) -> Iterator[int]:
    """A server that never answers: the kernel takes its connections, until there are too many."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen(backlog)
        yield int(taken.getsockname()[1])


@pytest.mark.parametrize("scheme", PROBES)
def test_a_server_that_hangs_takes_the_connection_and_nothing_else(scheme: str) -> None:
    with (
        listening(8) as port,
        pytest.raises(Unreachable, match="TCP connects, but the question fails: ") as told,
    ):
        PROBES[scheme](f"{HOST}:{port}", 0.5)
    assert str(port) in str(told.value)


def test_packets_that_are_dropped_are_told_from_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_PATIENCE", 0.2)
    with listening(0) as port, contextlib.ExitStack() as crowd:
        for _ in range(4):  # with these waiting, the kernel drops who comes next, as a firewall would
            waiting = crowd.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((HOST, port))
        with pytest.raises(Unreachable, match=r"no TCP connection: it gave no answer within 0\.2 s") as told:
            PROBES["redis"](f"{HOST}:{port}", 2)
    assert "security group" in told.value.hint


def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(
        Unreachable,
        match=r"redis\.internal:6379/0: no TCP connection: its host name is not known here: Name or",
    ):
        PROBES["redis"]("redis.internal:6379", 2)


def test_one_of_several_servers_is_enough(world: World) -> None:
    [closed] = free_ports(1)
    living = world.env["NATS_URL"].rpartition("/")[2]
    found = reach_nats(Nats(f"nats://{HOST}:{closed},nats://{living}"))
    assert found.host == f"{HOST}:{closed},{living}"


def test_a_socket_file_is_not_a_host_and_port() -> None:
    with pytest.raises(ArrakisError, match="no host and port"):
        reach_postgres(Postgres("postgresql:///x?host=/var/run/postgresql", tag="tests"))


def fails(probe: Callable[[], Reach]) -> bool:
    try:
        probe()
    except ArrakisError:
        return True
    return False


def test_postgresql_refuses_the_password(world: World) -> None:
    """One more user, who alone has to give a password."""
    world.sql.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
    others = f"('host all all {HOST}/32 trust'), ('host replication all {HOST}/32 trust')"  # as they were
    rules = f"VALUES ('host all locked {HOST}/32 scram-sha-256'), {others}"
    world.sql.execute(f"COPY ({rules}) TO '{world.one('SHOW hba_file')}'".encode())
    world.one("SELECT pg_reload_conf()")
    place = world.database.host

    wrong = Postgres(f"postgresql://locked:wrong@{place}", tag="tests")
    eventually(lambda: fails(lambda: reach_postgres(wrong)))  # the new rules hold a moment later
    with pytest.raises(Denied, match=r"TCP connects, but it refuses the login: PostgreSQL at .*password"):
        reach_postgres(wrong)
    assert reach_postgres(Postgres(f"postgresql://locked:right@{place}", tag="tests")).system == "PostgreSQL"


def test_redis_refuses_the_password(world: World) -> None:
    world.redis.acl_setuser(
        "locked", enabled=True, passwords=["+right"], keys=["sandbox:*"], categories=["+@all"]
    )
    where = world.keys.host
    with pytest.raises(
        Denied, match=r"TCP connects, but it refuses the login: Redis at .*invalid username-password"
    ):
        reach_redis(Redis(f"redis://locked:wrong@{where}"))
    assert reach_redis(Redis(f"redis://locked:right@{where}")).system == "Redis"


def test_nats_refuses_the_password(tmp_path_factory: pytest.TempPathFactory) -> None:
    with server(tmp_path_factory.mktemp("guarded"), USERS) as port:
        with pytest.raises(
            Denied, match=r"TCP connects, but it refuses the login: NATS at .*Authorization Violation"
        ):
            reach_nats(Nats(f"nats://all:wrong@{HOST}:{port}"))
        assert reach_nats(Nats(f"nats://all:hunter2@{HOST}:{port}")).system == "NATS"


def test_postgresql_has_no_connection_left(world: World) -> None:
    """The server's own words stay in the error: the known causes are matched by them."""
    with contextlib.ExitStack() as crowd:
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                crowd.enter_context(psycopg.connect(world.env["DATABASE_URL"]))
        with pytest.raises(
            Unreachable, match=r"TCP connects, but the question fails: .*too many clients already"
        ):
            reach_postgres(world.database)
    eventually(lambda: not fails(lambda: reach_postgres(world.database)))
