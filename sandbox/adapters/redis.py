"""Redis or Valkey through redis-py, a server or a cluster. Reading never counts as a use of a key."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import chain
from typing import Any, Protocol, TypeVar

from sandbox.adapters.redis_cluster import Cluster
from sandbox.adapters.redis_node import Command, Node, Question
from sandbox.ports import LatencyEvent, SlowCommand

__all__ = ["Redis"]

T = TypeVar("T")


class _Servers(Protocol):
    """What a server alone and a cluster have in common."""

    def each(self, call: Callable[[Node], T]) -> list[T]: ...

    def scan(self, pattern: str) -> Iterator[list[bytes]]: ...

    def replies(self, questions: Sequence[Question]) -> list[Any]: ...

    def rename(self, pairs: Sequence[tuple[bytes, bytes]]) -> list[bool]: ...

    def unlink(self, groups: Sequence[Sequence[bytes]]) -> list[int]: ...


class Redis:
    """A keyspace and its server, or the primaries of its cluster. Satisfies KeyReader, KeyWriter and KeyServer.

    Which of the two it is, the server is asked on first use. Messages name the node of a cluster that they are about.
    """

    def __init__(self, url: str, *, timeout: float = 10.0) -> None:
        """Take the address, of a cluster any node's; `timeout` bounds connecting and each reply, in seconds."""
        self._first = Node(url, timeout=timeout)
        self._found: _Servers | None = None
        self.host = self._first.host

    def scan(self, pattern: str) -> Iterator[list[bytes]]:
        """Yield the keys that match a glob, a batch at a time.

        A cluster that changes meanwhile raises Unreachable, at the end at the latest: its keys have to be read again.
        """
        yield from self._servers.scan(pattern)

    def idle_seconds(self, keys: Sequence[bytes]) -> list[int | None]:
        """Return for each key the seconds since it was last used, or None if it is gone.

        Raises Denied where the server keeps frequencies instead (an LFU policy), as no time can be told there.
        """
        return self._asked(keys, lambda key: ("OBJECT", "IDLETIME", key))

    def memory(self, keys: Sequence[bytes]) -> list[int | None]:
        """Return for each key its bytes, or None if it is gone."""
        return self._asked(keys, lambda key: ("MEMORY", "USAGE", key))

    def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return for each key its string, or None if it is gone or no string."""
        return self._asked(keys, lambda key: ("GET", key))

    def lifetimes(self, keys: Sequence[bytes]) -> list[float | None]:
        """Return for each key the seconds until it ends by itself, infinity if it never does, or None if it is gone."""
        return [_seconds_left(left) for left in self._asked(keys, lambda key: ("PTTL", key))]

    def ping(self) -> float:
        """Return the seconds that one PING takes, on a connection that is kept; of a cluster, its slowest primary's."""
        return max(self._servers.each(Node.ping))

    def info(self) -> Mapping[str, Any]:
        """Return what INFO says; of a cluster, what its fullest primary says, named by `cluster_node`.

        Only the keys, `db0`, are counted over all primaries there.
        """
        found = self._servers.each(lambda node: (node.place, node.info()))
        place, facts = max(found, key=lambda each: _fullness(each[1]))
        if not facts.get("cluster_enabled"):
            return facts
        keys = sum(each["db0"]["keys"] for _, each in found if "db0" in each)
        return {**facts, "db0": {"keys": keys}, "cluster_node": place}

    def slow_commands(self, limit: int) -> list[SlowCommand]:
        """Return the newest entries of SLOWLOG, the newest first; of a cluster, each with its node."""
        found = chain.from_iterable(self._servers.each(lambda node: node.slow_commands(limit)))
        return sorted(found, key=lambda each: each.at, reverse=True)[:limit]

    def latency_events(self) -> list[LatencyEvent]:
        """Return what LATENCY LATEST says; of a cluster, each with its node."""
        return list(chain.from_iterable(self._servers.each(Node.latency_events)))

    def put(self, key: bytes, value: bytes, *, lifetime: timedelta | None) -> None:
        """Write a string that ends by itself, or with None never does."""
        ends: Command = () if lifetime is None else ("PX", lifetime // timedelta(milliseconds=1))
        self._servers.replies([(key, ("SET", key, value, *ends))])

    def rename(self, pairs: Sequence[tuple[bytes, bytes]]) -> list[bool]:
        """Rename each key unless its new name exists; say which were renamed. TTLs stay as they are.

        In a cluster a key may have to go to another node: what is not atomic then, `redis_carry` says. A new name that
        is the key's unfinished copy is no hindrance.
        """
        return self._servers.rename(pairs)

    def unlink(self, keys: Sequence[bytes]) -> int:
        """Delete keys without blocking the server; return how many there were."""
        return self.unlink_each([keys])[0]

    def unlink_each(self, groups: Sequence[Sequence[bytes]]) -> list[int]:
        """Delete groups of keys as `unlink` does, all of them together; return how many there were of each."""
        return self._servers.unlink(groups)

    @property
    def _servers(self) -> _Servers:
        """The server, or the cluster that it is a node of."""
        if self._found is None:
            self._found = Cluster(self._first) if self._first.clustered() else self._first
        return self._found

    def _asked(self, keys: Sequence[bytes], about: Callable[[bytes], Command]) -> list[Any]:
        return self._servers.replies([(key, about(key)) for key in keys])


def _fullness(facts: Mapping[str, Any]) -> tuple[float, int]:
    """How near a server is to a limit of its own, and how much it has in memory."""
    used, clients = facts.get("used_memory", 0), facts.get("connected_clients", 0)
    shares = (used / (facts.get("maxmemory") or math.inf), clients / (facts.get("maxclients") or math.inf))
    return max(shares), used


def _seconds_left(answer: int | None) -> float | None:
    """What PTTL means: -2 is no such key, -1 one without an end."""
    if answer is None or answer == -2:
        return None
    return math.inf if answer == -1 else answer / 1000
