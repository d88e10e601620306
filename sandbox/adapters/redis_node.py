"""One Redis server, alone or a node of a cluster, and how each of its answers is read."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import urlsplit

import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError, TimeoutError
from redis.retry import Retry

from sandbox.adapters.redis_errors import translated, translating
from sandbox.deadline import ahead, within
from sandbox.errors import ArrakisError
from sandbox.ports import LatencyEvent, SlowCommand
from sandbox.secrets import learn_address
from sandbox.text import clean

__all__ = ["STEP", "Command", "Node", "Question", "elsewhere"]

T = TypeVar("T")

Command = tuple[str | bytes | int, ...]
"""A command's words."""

Question = tuple[bytes, Command]
"""A key, by which a cluster tells whom to ask, and the command that is about it."""

STEP = 1000
"""Keys a SCAN step or pipeline: PING p99 of others stays near 5 ms."""

_LOT = 100  # keys that one command deletes
_RETRIES = 4
_PAUSE, _LONGEST_PAUSE = (
    0.05,
    0.8,
)  # doubled each time: a server that is gone for a moment, 1.5 s, is waited for
_TRYING = 2.0  # seconds beyond the time-out for such pauses, and for many replies at once
_waiting = threading.local()  # until when somebody waits for what a thread does
_KEY_SHOWN = 60  # characters of a slow command's key
_WORDS_ALONE = {
    "EVAL",
    "EVAL_RO",
    "AUTH",
    "HELLO",
    "SCRIPT",
    "FUNCTION",
    "CONFIG",
    "ACL",
}  # no key behind them
_NO_VALUE = ("no such key", "WRONGTYPE", "BUSYKEY")  # how such replies begin


class Node:
    """A server by its address. `host` names it in messages, `place` is its host:port."""

    def __init__(self, url: str, *, timeout: float, cluster: str = "") -> None:
        """Take the address, and the name of the cluster it is a node of. `timeout` bounds connecting and each reply.

        Raises ArrakisError for a malformed address.
        """
        self._url, self._timeout = url, timeout
        self._patience = timeout + _TRYING
        learn_address(url)
        try:
            self._redis = _client(url, timeout)
        except ValueError:
            raise ArrakisError(
                "REDIS_URL is malformed",
                hint="write it as redis://:password@host:6379/0, or rediss:// for TLS",
            ) from None
        where = self._redis.connection_pool.connection_kwargs
        self.name = str(where.get("host", "localhost"))
        self.place = f"{self.name}:{where.get('port', 6379)}"
        self.host = (
            f"{self.place}, a node of the cluster at {cluster}"
            if cluster
            else f"{self.place}/{where.get('db', 0)}"
        )
        self._told = f" on {self.place}" if cluster else ""

    def at(self, host: str, port: int) -> "Node":
        """Return another node of this one's cluster, reached with the same user, password, TLS and options."""
        return Node(elsewhere(self._url, host, port), timeout=self._timeout, cluster=self.host)

    def clustered(self) -> bool:
        """Return whether it is a node of a cluster. Any user may ask this."""
        said = self.ask("HELLO")
        facts: Mapping[bytes, Any] = (
            said if isinstance(said, dict) else dict(zip(said[::2], said[1::2], strict=True))
        )
        return bool(facts.get(b"mode") == b"cluster")

    def each(self, call: Callable[["Node"], T]) -> list[T]:
        """Return `call` of each server there is: this one."""
        return [call(self)]

    def scan(self, pattern: str) -> Iterator[list[bytes]]:
        """Yield its own keys that match a glob, a batch at a time; it looks for the next ones while these are dealt with."""
        with translating(self.host):
            for keys in ahead(self._patience, self._steps(pattern), f"Redis at {self.host}"):
                if keys:
                    yield keys

    def _steps(self, pattern: str) -> Iterator[list[bytes]]:
        reply: Any = (None, ())
        while reply[0] != 0:
            _waiting.until = time.monotonic() + self._patience
            reply = self._redis.scan(reply[0] or 0, match=pattern, count=STEP)
            yield reply[1]

    def ask(self, *command: str | bytes | int) -> Any:
        """Return the reply to one command. Raises Unreachable, Busy or Denied."""
        return self.known(self.raw([command])[0])

    def replies(self, questions: Sequence[Question]) -> list[Any]:
        """Return the reply to each, None for a key without such a value. Raises Unreachable, Busy or Denied."""
        return [self.known(reply) for reply in self.raw([command for _, command in questions])]

    def raw(self, commands: Sequence[Command]) -> list[Any]:
        """Return the reply to each command, errors of the server among them. Raises Unreachable or Denied."""
        found: list[Any] = []
        for start in range(0, len(commands), STEP):
            pipe: Any = self._redis.pipeline(transaction=False)
            for command in commands[start : start + STEP]:
                pipe.execute_command(*command)
            found += self._bounded(partial(pipe.execute, raise_on_error=False))
        return found

    def known(self, reply: Any) -> Any:
        """Return a reply; None where a key is gone, of another type, or in the way. Raises what else went wrong."""
        if not isinstance(reply, Exception):
            return reply
        if str(reply).startswith(_NO_VALUE):
            return None
        raise translated(reply, self.host) from reply

    def rename(self, pairs: Sequence[tuple[bytes, bytes]]) -> list[bool]:
        """Rename each key unless its new name exists; say which were renamed."""
        return [bool(reply) for reply in self.replies([(pair[0], ("RENAMENX", *pair)) for pair in pairs])]

    def unlink(self, groups: Sequence[Sequence[bytes]]) -> list[int]:
        """Delete keys without blocking the server, many with one command; return how many there were of each group."""
        lots = [[keys[start : start + _LOT] for start in range(0, len(keys), _LOT)] for keys in groups]
        gone = iter(self.replies([(lot[0], ("UNLINK", *lot)) for each in lots for lot in each]))
        return [sum(islice(gone, len(each))) for each in lots]

    def ping(self) -> float:
        """Return the seconds that one PING takes, on a connection that is kept."""

        def timed() -> float:
            began = time.perf_counter()
            self._redis.ping()
            return time.perf_counter() - began

        return float(self._bounded(timed))

    def info(self) -> Mapping[str, Any]:
        """Return what INFO says."""
        facts: Any = self._bounded(self._redis.info)
        return dict(facts)

    def slow_commands(self, limit: int) -> list[SlowCommand]:
        """Return the newest entries of SLOWLOG, the newest first; of a cluster's node, it is named with the command."""
        entries: Any = self._bounded(partial(self._redis.slowlog_get, limit))
        return [_slow(entry, self._told) for entry in entries]

    def latency_events(self) -> list[LatencyEvent]:
        """Return what LATENCY LATEST says; of a cluster's node, it is named with the event."""
        rows: Any = self._bounded(self._redis.latency_latest)
        return [
            LatencyEvent(
                event=clean(_text(row[0])) + self._told,
                at=datetime.fromtimestamp(row[1], UTC),
                seconds=row[2] / 1000,
                longest=row[3] / 1000,
            )
            for row in rows
        ]

    def _bounded(self, call: Callable[[], Any]) -> Any:
        """Return `call()`, or raise Unreachable: the driver's own time-out is for each piece of an answer, and drips have many."""

        def waited_for() -> Any:
            _waiting.until = time.monotonic() + self._patience
            return call()

        with translating(self.host):
            return within(self._patience, waited_for, f"Redis at {self.host}")


class _Pauses(ExponentialBackoff):
    """Pauses that grow, for as long as somebody waits: what was given up is not sent again, as others may be at work by then."""

    def compute(self, failures: int) -> float:
        """Return the seconds until a call is tried again. Raises TimeoutError where nobody waits for it any more."""
        if time.monotonic() > getattr(_waiting, "until", 0.0):
            raise TimeoutError("nobody waits for it any more")
        return float(super().compute(failures))


def elsewhere(url: str, host: str, port: int) -> str:
    """Return an address with another host and port, and all else as it is. Pure."""
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return parts._replace(netloc=user + at + place).geturl()


def _client(url: str, timeout: float) -> "redis.Redis":
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=min(timeout, 3.0),
        protocol=2,
        # A connection that is refused is tried again; one that hangs has cost its whole time-out already.
        retry=Retry(
            _Pauses(base=_PAUSE, cap=_LONGEST_PAUSE),
            _RETRIES,
            supported_errors=(ConnectionError,),
        ),
    )


def _slow(entry: Mapping[str, Any], told: str) -> SlowCommand:
    """Read an entry of SLOWLOG; redis-py joins a command's words with spaces."""
    name, _, rest = _text(entry["command"]).partition(" ")
    key = rest.partition(" ")[0]
    if name.upper() in _WORDS_ALONE or not key:
        command = name
    else:
        command = f"{name} {key[:_KEY_SHOWN]}" + ("…" if len(key) > _KEY_SHOWN else "")
    return SlowCommand(
        at=datetime.fromtimestamp(entry["start_time"], UTC),
        seconds=entry["duration"] / 1_000_000,
        command=clean(command) + told,
        client=clean(_text(entry.get("client_address", b""))),
    )


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
