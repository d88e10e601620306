"""A real cluster on this machine: three servers that hold a stream three times over, of which a test may lose or cut off one."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client

from lab import binaries
from lab.processes import HOST, free_ports, spawn, talk
from tests.integration.messaging import by_hand
from tests.integration.wire import Wire, wired
from tests.waiting import eventually

__all__ = ["Member", "Nodes", "cluster"]

_CONFIG = """
server_name: {name}
jetstream {{ store_dir: "{folder}" }}
cluster {{ name: c, no_advertise: true, advertise: "{host}:1", listen: "{host}:{route}", routes: [{routes}] }}
"""
"""What a server tells the others of its own address leads nowhere: it is reached by the wires alone."""

_PATIENCE = 60  # seconds for an election, and for a server that comes back to have all that it missed


@dataclass
class Member:
    """A server and its process."""

    name: str
    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"nats://{HOST}:{self.port}"

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def revive(self) -> None:
        """Start it again, with all that it had on its disk."""
        self.process = _spawn(self.port, self.folder)


class Nodes:
    """The cluster's servers; who of them leads what changes with the tests."""

    def __init__(self, members: list[Member], wires: Mapping[str, Wire]) -> None:
        self.members, self._wires = members, wires

    @property
    def url(self) -> str:
        """All their addresses. A client learns of no other one, as behind a load balancer."""
        return ",".join(each.url for each in self.members)

    @property
    def living(self) -> list[Member]:
        return [each for each in self.members if each.lives]

    def ask(self, what: str) -> dict[str, Any]:
        """Ask JetStream something; nothing where nobody answers, or it refuses."""

        async def asked(client: Client) -> Any:
            return json.loads((await client.request(f"$JS.API.{what}", b"", timeout=1)).data)

        try:
            said: dict[str, Any] = by_hand(self.living[0].url, asked)
        except (nats.errors.Error, OSError):
            return {}
        return {} if "error" in said else said

    def leader(self, what: str) -> Member:
        """Return who leads a stream or a consumer, given as `STREAM.INFO.…` or `CONSUMER.INFO.…`, once somebody does."""
        found: list[Member] = []

        def led() -> bool:
            name = self.ask(what).get("cluster", {}).get("leader")
            found.extend(each for each in self.living if each.name == name)
            return bool(found)

        eventually(led, seconds=_PATIENCE)
        return found[-1]

    @contextmanager
    def without(self, member: Member) -> Iterator[None]:
        """Kill a server; at the end it comes back, and all is well again."""
        member.kill()
        try:
            yield
        finally:
            self.settle()

    @contextmanager
    def cut_off(self, member: Member) -> Iterator[None]:
        """Cut a server off from the others, but not from its clients; at the end all is well again."""
        wires = [wire for ends, wire in self._wires.items() if member.name in ends.split("-")]
        for each in wires:
            each.cut()
        try:
            yield
        finally:
            for each in wires:
                each.mend()
            self.settle()

    def settle(self) -> None:
        """Start again whatever was killed, and wait until each stream and each consumer has all its copies."""
        for each in self.members:
            if not each.lives:
                each.revive()
        eventually(lambda: all(talk(each.port).startswith(b"INFO ") for each in self.members))
        eventually(self._is_whole, seconds=_PATIENCE)

    def _is_whole(self) -> bool:
        listed = self.ask("STREAM.LIST")
        if "streams" not in listed or listed.get("missing"):
            return False
        found: list[dict[str, Any]] = list(listed["streams"])
        for stream in listed["streams"]:
            consumers = self.ask(f"CONSUMER.LIST.{stream['config']['name']}")
            if "consumers" not in consumers or consumers.get("missing"):
                return False
            found += consumers["consumers"]
        return all(_has_all_copies(each) for each in found)


def _has_all_copies(seen: dict[str, Any]) -> bool:
    """Whether a stream or consumer is led, and each of its other copies is there and up to date."""
    cluster = seen["cluster"]
    copies = [each["current"] and not each.get("offline") for each in cluster.get("replicas") or ()]
    wanted = seen["config"]["num_replicas"] or 3  # a consumer's 0: as many as its stream has
    return bool(cluster.get("leader")) and all(copies) and len(copies) == wanted - 1


@contextmanager
def cluster(home: Path) -> Iterator[Nodes]:
    """Start it, and stop it at the end. It takes some seconds until the servers have elected one of them."""
    names, ports = ("n1", "n2", "n3"), free_ports(6)
    routes = dict(zip(names, ports[3:], strict=True))
    members: list[Member] = []
    with ExitStack() as stack:
        wires = {
            f"{one}-{other}": stack.enter_context(wired(f"nats://{HOST}:{routes[other]}"))
            for one, other in zip(names, (*names[1:], names[0]), strict=True)
        }
        try:
            for name, port in zip(names, ports[:3], strict=True):
                known = [wire.url for ends, wire in wires.items() if ends.startswith(f"{name}-")]
                members.append(_start(name, port, home / name, route=routes[name], known=known))
            nodes = Nodes(members, wires)
            nodes.settle()
            yield nodes
        finally:
            for each in members:
                each.kill()


def _start(name: str, port: int, folder: Path, *, route: int, known: Sequence[str]) -> Member:
    folder.mkdir(parents=True)
    listed = ", ".join(f'"{url}"' for url in known)
    config = _CONFIG.format(name=name, folder=folder / "data", host=HOST, route=route, routes=listed)
    (folder / "nats.conf").write_text(config)
    return Member(name=name, port=port, folder=folder, process=_spawn(port, folder))


def _spawn(port: int, folder: Path) -> subprocess.Popen[bytes]:
    argv = [binaries.nats(), "-c", folder / "nats.conf", "-a", HOST, "-p", port]
    return spawn(argv, log=folder / "log")
