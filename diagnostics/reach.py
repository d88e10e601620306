"""Can each server be reached from here: first a TCP connection, then a question that only a login answers."""

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from sandbox import registry
from sandbox.errors import ArrakisError, Denied, Unreachable
from sandbox.ports import KeyReader, SqlReader, StreamReader

__all__ = [
    "SEE_NATS",
    "SEE_POSTGRES",
    "SEE_REDIS",
    "Reach",
    "reach_nats",
    "reach_postgres",
    "reach_redis",
]

SEE_POSTGRES = 'psql -c "SELECT now()"  # any role that may connect'
SEE_REDIS = "redis-cli ping  # any user that may connect"
SEE_NATS = "nats stream info SANDBOX"

_PATIENCE = 3.0  # seconds for a TCP connection
_KEY = b"sandbox:route:0"  # a key that a user who may see sandboxes' keys may ask for; it need not exist
_LOGIN = ("password", "authentication", "authorization", "no pg_hba.conf entry")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """A server that takes connections and answers; in milliseconds, how long connecting and the answer took.

    The answer's time holds a connection of its own, TLS and the login.
    """

    system: str
    host: str
    connected_ms: float
    answered_ms: float


def reach_postgres(sql: SqlReader) -> Reach:
    """Ask PostgreSQL for its clock. Raises Unreachable or Denied, which says how far it got and what the server said."""
    return _reach("PostgreSQL", sql.host, lambda: registry.time_of(sql))


def reach_redis(keys: KeyReader) -> Reach:
    """Ask Redis for a key. Raises Unreachable or Denied, which says how far it got and what the server said."""
    return _reach("Redis", keys.host, lambda: keys.values([_KEY]))


def reach_nats(streams: StreamReader) -> Reach:
    """Ask NATS for a stream. Raises Unreachable or Denied, which says how far it got and what the server said."""
    return _reach("NATS", streams.host, lambda: streams.stream("SANDBOX"))


def _reach(system: str, host: str, ask: Callable[[], object]) -> Reach:
    began = time.monotonic()
    _connect(system, host)
    connected = time.monotonic()
    try:
        ask()
    except ArrakisError as error:
        raise _unanswered(error) from error
    answered = time.monotonic()
    return Reach(
        system=system,
        host=host,
        connected_ms=(connected - began) * 1000,
        answered_ms=(answered - connected) * 1000,
    )


def _connect(system: str, host: str) -> None:
    """Connect to the first address that takes it. Raises Unreachable with what the last one said."""
    failure = None
    for address in _addresses(system, host):
        try:
            socket.create_connection(address, timeout=_PATIENCE).close()
            return
        except OSError as error:
            failure = error
    assert failure is not None  # there is an address at least
    reason, hint = _why(failure)
    raise Unreachable(f"{system} at {host}: no TCP connection: {reason}", hint=hint) from failure


def _addresses(system: str, host: str) -> list[tuple[str, int]]:
    """Read what a reader calls its `host`: host:port, several with commas, a database's name behind a slash."""
    found: list[tuple[str, int]] = []
    for place in (host.rpartition("/")[0] or host).split(","):
        name, _, port = place.rpartition(":")
        if not name or name.startswith("/") or not port.isdecimal():
            raise ArrakisError(
                f"{system} at {host}: no host and port to connect to", hint="is it a socket file?"
            )
        found.append((name, int(port)))
    return found


def _why(failure: OSError) -> tuple[str, str]:
    """Why there is no connection, and what to look at."""
    said = failure.strerror or str(failure)
    if isinstance(failure, TimeoutError):
        hint = "a security group, a route or a firewall drops it, or the host is down"
        return f"it gave no answer within {_PATIENCE:g} s", hint
    if isinstance(failure, socket.gaierror):
        hint = "is the name right, and can this host resolve private names?"
        return f"its host name is not known here: {said}", hint
    return said.lower(), "nothing listens there: is it up, and is the port right?"


def _unanswered(error: ArrakisError) -> ArrakisError:
    """What the driver said, and that the network is not to blame."""
    if isinstance(error, Denied) or any(word in str(error).lower() for word in _LOGIN):
        return Denied(f"TCP connects, but it refuses the login: {error}", hint=error.hint)
    return Unreachable(f"TCP connects, but the question fails: {error}", hint=error.hint)
