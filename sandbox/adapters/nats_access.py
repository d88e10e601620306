"""What a login may do at a NATS server, as the server itself says."""

import json
from dataclasses import dataclass

import nats.errors
from nats.aio.client import Client

from sandbox.adapters.nats import Nats
from sandbox.errors import Denied

__all__ = ["NatsAccess", "Publishing"]

_WHO = "$SYS.REQ.USER.INFO"


@dataclass(frozen=True, slots=True, kw_only=True)
class Publishing:
    """To which subjects somebody may publish: to those that `allow` covers, or with None to all, but for those of `deny`."""

    allow: tuple[str, ...] | None
    deny: tuple[str, ...]


class NatsAccess(Nats):
    """A messaging system, asked about itself and whoever asks."""

    def version(self) -> str:
        """Return the server's version, which it tells whoever it takes in. Raises Unreachable or Denied."""

        async def told(client: Client) -> str:
            version = client.connected_server_version
            return f"{version.major}.{version.minor}.{version.patch}"

        return self._run(told)

    def publishing(self) -> Publishing:
        """Return to which subjects this login may publish. Raises Denied where it may not even ask that, or Unreachable."""

        async def ask(client: Client) -> Publishing:
            try:
                answer = await client.request(_WHO, b"", timeout=self._timeout)
            except nats.errors.NoRespondersError as error:
                raise Denied("NATS does not say what this login may do") from error
            found = json.loads(answer.data).get("data", {}).get("permissions", {}).get("publish") or {}
            allow = found.get("allow")
            return Publishing(allow=tuple(allow) if allow else None, deny=tuple(found.get("deny") or ()))

        return self._run(ask)
