"""A real cluster on this machine: three primaries, and a replica of one of them, that a test may hurt."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot

from lab import binaries
from lab.processes import HOST, Identity, free_ports, spawn
from tests.waiting import eventually

NODES = 4
_SHARES = ((0, 5460), (5461, 10922), (10923, 16383))
_OPTIONS = ("--bind", HOST, "--save", "", "--cluster-enabled", "yes", "--repl-diskless-sync-delay", 0)


@dataclass
class Member:
    """A node, its process and a connection of the test's own."""

    port: int
    bus: int
    folder: Path
    client: "redis.Redis"
    process: subprocess.Popen[bytes]

    @property
    def place(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        return f"redis://{self.place}/0"

    @property
    def id(self) -> str:
        return str(self.ask("CLUSTER", "MYID").decode())

    @property
    def is_primary(self) -> bool:
        return b"myself,master" in self.ask("CLUSTER", "NODES")

    @property
    def owners(self) -> list[tuple[int, int, int]]:
        """The slots from, to, and their primary's port, as it knows them."""
        return sorted((first, last, primary[1]) for first, last, primary, *_ in self.ask("CLUSTER", "SLOTS"))

    def ask(self, *words: object) -> Any:
        return self.client.execute_command(*words)  # type: ignore[no-untyped-call]

    def answers(self) -> bool:
        try:
            return b"cluster_state" in self.ask("CLUSTER", "INFO")
        except redis.ConnectionError:
            return False

    def is_well(self) -> bool:
        """Whether it sees all nodes, and all slots with them."""
        said = self.ask("CLUSTER", "INFO").decode().split()
        return {"cluster_state:ok", f"cluster_known_nodes:{NODES}"} <= set(said)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Let it hang: it takes connections and answers nothing."""
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)


class Nodes:
    """The cluster's nodes; who of them is a primary changes with the tests."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members

    @property
    def primaries(self) -> list[Member]:
        return [each for each in self.members if each.is_primary]

    @property
    def replica(self) -> Member:
        [found] = [each for each in self.members if not each.is_primary]
        return found

    @property
    def followed(self) -> Member:
        """The primary that the replica follows, once it has all that was written to it by its own `client`."""
        lines = self.replica.ask("CLUSTER", "NODES").decode().splitlines()
        [leader] = [line.split()[3] for line in lines if "myself" in line]
        [found] = [each for each in self.primaries if each.id == leader]
        assert found.ask("WAIT", 1, 5000) == 1
        return found

    def of(self, key: bytes) -> Member:
        """Return the primary that has a key."""
        return self.having(key_slot(key))

    def having(self, slot: int) -> Member:
        """Return the primary that has a slot."""
        [port] = [port for first, last, port in self.primaries[0].owners if first <= slot <= last]
        [found] = [each for each in self.members if each.port == port]
        return found

    def keys(self) -> dict[bytes, int]:
        """Return every key there is, and its end as PEXPIRETIME has it."""
        return {
            key: int(each.client.pexpiretime(key))
            for each in self.primaries
            for key in each.client.scan_iter(count=5000)
        }

    @contextmanager
    def moving(self, slot: int) -> Iterator[Member]:
        """Open a slot on its way from its node to the one that is given; then send its keys, and close it there."""
        source = self.having(slot)
        target = next(each for each in self.primaries if each is not source)
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        try:
            yield target
        finally:
            for key in source.ask("CLUSTER", "GETKEYSINSLOT", slot, 1000):
                source.client.migrate(HOST, target.port, key, 0, 1000)
            owner = target.id
            for each in (target, source, *self.primaries):
                each.ask("CLUSTER", "SETSLOT", slot, "NODE", owner)

    def kill(self, member: Member) -> None:
        member.process.kill()
        member.process.wait()

    def settle(self) -> None:
        """Start again what was killed, wait until all is well, and take all keys away."""
        for each in self.members:
            if each.process.poll() is not None:
                each.process = _spawn(each.port, each.bus, each.folder)
        eventually(lambda: all(each.answers() for each in self.members))
        eventually(lambda: all(each.is_well() for each in self.members))
        self.agree()
        for each in self.primaries:
            each.client.flushall()

    def agree(self) -> None:
        """Wait until all that live know who has which slots: gossip takes a moment."""
        living = [each for each in self.members if each.process.poll() is None]
        primaries = {each.port for each in living if each.is_primary}
        eventually(
            lambda: (
                len({str(each.owners) for each in living}) == 1
                and {port for _, _, port in living[0].owners} == primaries
            )
        )


@contextmanager
def cluster(home: Path) -> Iterator[Nodes]:
    """Start it, and stop it at the end. It takes the two seconds that a node waits before it trusts the others."""
    ports = free_ports(2 * NODES)
    nodes = Nodes([_start(*pair, home / str(pair[0])) for pair in zip(ports[::2], ports[1::2], strict=True)])
    try:
        eventually(lambda: all(each.answers() for each in nodes.members))
        for epoch, each in enumerate(nodes.members, 1):
            each.ask("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for each, share in zip(nodes.members, _SHARES, strict=False):
            each.ask("CLUSTER", "ADDSLOTSRANGE", *share)
        first, *others, last = nodes.members
        for each in (*others, last):
            each.ask("CLUSTER", "MEET", HOST, first.port, first.bus)
        eventually(lambda: first.id.encode() in last.ask("CLUSTER", "NODES"))
        eventually(lambda: _follows(last, first))
        nodes.settle()
        yield nodes
    finally:
        for each in nodes.members:
            each.client.close()
            each.process.kill()
        for each in nodes.members:
            each.process.wait()


def _follows(replica: Member, primary: Member) -> bool:
    """Make a node the replica of another, which it may have to get to know first; return whether it has its data."""
    if replica.is_primary:
        try:
            replica.ask("CLUSTER", "REPLICATE", primary.id)
        except redis.ResponseError:
            return False
    return bool(replica.client.info("replication").get("master_link_status") == "up")


def _start(port: int, bus: int, folder: Path) -> Member:
    folder.mkdir(parents=True)
    client = redis.Redis(host=HOST, port=port, protocol=2, socket_timeout=10)
    return Member(port=port, bus=bus, folder=folder, client=client, process=_spawn(port, bus, folder))


def _spawn(port: int, bus: int, folder: Path) -> subprocess.Popen[bytes]:
    where = ("--port", port, "--cluster-port", bus, "--dir", folder)
    mortal = Identity(death_signal=signal.SIGKILL)  # one that is stopped hears no other
    return spawn([binaries.redis(), *where, *_OPTIONS], log=folder / "log", identity=mortal)
