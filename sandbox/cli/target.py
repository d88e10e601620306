"""Which servers, and who: read from the environment, and never anything else than what it says."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import parse_qsl, urlsplit

from sandbox.errors import ArrakisError
from sandbox.ports import KeyReader, StreamReader

if TYPE_CHECKING:  # the drivers take longer to load than all of the rest
    from sandbox.adapters.postgres import Postgres
    from sandbox.adapters.redis import Redis

__all__ = ["VARIABLES", "Target", "actor"]

VARIABLES = {
    "DATABASE_URL": "PostgreSQL, as postgresql://user:password@host:5432/database; required",
    "REDIS_URL": "Redis; redis://localhost:6379 where DATABASE_URL is on this host too, else required for changes",
    "NATS_URL": "NATS, commas between several; without it `status` cannot tell whether events arrive",
    "NATS_TLS_CA": "the PEM file of the authority that signed the NATS servers' certificates",
    "SANDBOX_OWNER": "who you are; else USER, else USERNAME",
    "MAX_SANDBOXES_PER_OWNER": "how many sandboxes an owner may have; 5",
    "DEFAULT_TTL_HOURS": "how long a sandbox lives when nothing is said; 24",
    "MAX_TTL_HOURS": "how long it may live after its creation, extensions included; 168",
    "NO_COLOR": "no colours, whatever it is set to",
    "GAIB_DEBUG": "the traceback of an unexpected error",
}
"""Every variable that gaib reads, and what for."""

_LOCAL_REDIS = "redis://localhost:6379"
_ELSEWHERE = {"host", "hostaddr", "service"}  # any of them may name another host than the address does


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The servers that the environment names. Its addresses are secrets; `timeout` bounds each call, in seconds."""

    timeout: float
    _variables: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, variables: Mapping[str, str], *, timeout: float = 10.0) -> "Target":
        """Return the target that these variables name. Raises ArrakisError where they name no database."""
        if not variables.get("DATABASE_URL"):
            raise ArrakisError(
                "which database? DATABASE_URL is not set",
                hint="export DATABASE_URL=postgresql://user:password@host:5432/database; "
                'or try it in the lab: ./inv lab, then eval "$(./inv lab-status)"',
            )
        return cls(timeout=timeout, _variables=variables)

    def database(self) -> "Postgres":
        """Return the database. Nothing is connected to yet. Raises ArrakisError for a malformed address."""
        from sandbox.adapters.postgres import Postgres

        return Postgres(self._variables["DATABASE_URL"], tag="gaib", timeout=self.timeout)

    def keys(self) -> "Redis":
        """Return the keyspace. Raises ArrakisError where it is not certain which one belongs to the database."""
        from sandbox.adapters.redis import Redis

        if url := self._variables.get("REDIS_URL"):
            return Redis(url, timeout=self.timeout)
        if not _is_local(self._variables):
            raise ArrakisError(
                "REDIS_URL is not set, and the database is not known to be on this host",
                hint="name the Redis that belongs to it: export REDIS_URL=redis://:password@host:6379/0",
            )
        return Redis(_LOCAL_REDIS, timeout=self.timeout)

    def readable_keys(self) -> KeyReader:
        """Return the keyspace, or one where everything is unknown: a look at the rest is worth having."""
        if self._variables.get("REDIS_URL") or _is_local(self._variables):
            return self.keys()
        return _NotNamed("REDIS_URL is not set")

    def messaging(self) -> StreamReader:
        """Return the messaging system, or one where everything is unknown if none is named."""
        from sandbox.adapters.nats import Nats

        if url := self._variables.get("NATS_URL"):
            return Nats(url, timeout=self.timeout, tls_ca=self._variables.get("NATS_TLS_CA") or None)
        return _NotNamed("NATS_URL is not set")


def actor(variables: Mapping[str, str]) -> str:
    """Return who is asking. Raises ArrakisError if that is not known, or can be no owner's name."""
    named = (variables.get(name) for name in ("SANDBOX_OWNER", "USER", "USERNAME"))
    who = next(filter(None, named), "")
    if not who:
        raise ArrakisError("who are you? SANDBOX_OWNER is not set", hint="export SANDBOX_OWNER=your-name")
    if len(who) > 64 or not who.isprintable():
        raise ArrakisError(f"{who!r} can own no sandbox", hint="set SANDBOX_OWNER: at most 64 characters")
    return who


class _NotNamed:
    """A server that nobody named: whatever is asked of it is unknown. Satisfies KeyReader and StreamReader."""

    host = "nowhere"

    def __init__(self, why: str) -> None:
        self._why = why

    def _unknown(self, *_: object, **__: object) -> NoReturn:
        raise ArrakisError(self._why)

    scan = idle_seconds = memory = values = lifetimes = _unknown
    subscriptions = stream = consumer = messages = _unknown


def _is_local(variables: Mapping[str, str]) -> bool:
    """Whether the database is certainly on this host: said by the address, and by nothing else otherwise."""
    try:
        address = urlsplit(variables["DATABASE_URL"])
        host = address.hostname or ""
    except ValueError:
        return False
    if _ELSEWHERE & {name for name, _ in parse_qsl(address.query)}:
        return False
    if variables.get("PGHOSTADDR") or variables.get("PGSERVICE"):
        return False
    return host == "localhost" or _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
