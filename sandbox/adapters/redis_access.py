"""What a login may do at a Redis server, as the server itself says, and what server that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from redis.exceptions import NoPermissionError

from sandbox.adapters.redis_node import Command, Node

__all__ = ["RedisAccess", "RedisServer", "Refusal"]


class Refusal(Enum):
    """What is lacking to run a command: nothing, the command itself, or its key."""

    NONE = "nothing"
    COMMAND = "the command"
    KEY = "its key"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisServer:
    """A server in its own words: `product` is redis or valkey; `cluster`: it is a node of one."""

    product: str
    version: str
    cluster: bool


class RedisAccess:
    """A server, or any node of a cluster, asked about itself and whoever asks. Nothing is done, however it answers."""

    def __init__(self, url: str, *, timeout: float) -> None:
        """Take the address; `timeout` bounds each reply, in seconds. Raises ArrakisError for a malformed one."""
        self._node = Node(url, timeout=timeout)
        self.host = self._node.host

    def server(self) -> RedisServer:
        """Return what answers. Every login may ask this. Raises Unreachable, or Denied for one that is not accepted."""
        said = self._node.ask("HELLO")
        facts: Mapping[bytes, Any] = (
            said if isinstance(said, dict) else dict(zip(said[::2], said[1::2], strict=True))
        )
        return RedisServer(
            product=facts[b"server"].decode(),
            version=facts[b"version"].decode(),
            cluster=facts[b"mode"] == b"cluster",
        )

    def time(self) -> datetime:
        """Return the server's time, UTC. Raises Denied without +time."""
        seconds, microseconds = self._node.ask("TIME")
        return datetime.fromtimestamp(seconds + microseconds / 1_000_000, UTC)

    def refusals(self, commands: Sequence[Command]) -> list[Refusal]:
        """Return for each command what is lacking to run it, by a dry run. Raises Denied without +acl|whoami and +acl|dryrun."""
        user = self._node.ask("ACL", "WHOAMI")
        replies = self._node.raw([("ACL", "DRYRUN", user, *command) for command in commands])
        return [_refusal(str(self._node.known(reply))) for reply in replies]

    def tried(self, commands: Sequence[Command]) -> list[Refusal]:
        """Return the same by running them, which must be such as only look."""
        replies = self._node.raw(commands)
        return [
            _refusal(str(reply)) if isinstance(reply, NoPermissionError) else Refusal.NONE
            for reply in replies
        ]


def _refusal(said: str) -> Refusal:
    """Read what a server says against a command."""
    if "permissions to access" in said:
        return Refusal.KEY
    return Refusal.COMMAND if "permissions to run" in said else Refusal.NONE
