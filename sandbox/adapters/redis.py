"""Redis or Valkey through redis-py. Reading never counts as a use of a key."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    NoPermissionError,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.retry import Retry

from sandbox.errors import ArrakisError, Busy, Denied, Unreachable
from sandbox.ports import LatencyEvent, SlowCommand
from sandbox.text import clean

__all__ = ["Redis"]

_STEP = 1000  # keys a SCAN step or pipeline: PING p99 of others stays near 5 ms
_RETRIES = 4
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
_PAUSE, _LONGEST_PAUSE = (
    0.05,
    0.8,
)  # doubled each time: a server that is gone for a moment, 1.5 s, is waited for


class Redis:
    """A keyspace and its server. Satisfies KeyReader, KeyWriter and KeyServer."""

    def __init__(self, url: str, *, timeout: float = 10.0) -> None:
        """Take the address; `timeout` bounds connecting and each reply, in seconds."""
        try:
            self._redis = redis.Redis.from_url(
                url,
                socket_timeout=timeout,
                socket_connect_timeout=min(timeout, 3.0),
                protocol=2,
                # A connection that is refused is tried again; one that hangs has cost its whole time-out already.
                retry=Retry(
                    ExponentialBackoff(base=_PAUSE, cap=_LONGEST_PAUSE),
                    _RETRIES,
                    supported_errors=(ConnectionError,),
                ),
            )
        except ValueError:
            raise ArrakisError(
                "REDIS_URL is malformed",
                hint="write it as redis://:password@host:6379/0, or rediss:// for TLS",
            ) from None
        self._whole = False  # not yet known to be the only node
        where = self._redis.connection_pool.connection_kwargs
        self.host = f"{where.get('host', 'localhost')}:{where.get('port', 6379)}/{where.get('db', 0)}"

    def scan(self, pattern: str) -> Iterator[list[bytes]]:
        """Yield the keys that match a glob, a batch at a time."""
        self._insist_on_all_keys()
        cursor, first = 0, True
        while first or cursor:
            with self._translating():
                reply: Any = self._redis.scan(cursor, match=pattern, count=_STEP)
            (cursor, keys), first = reply, False
            if keys:
                yield keys

    def idle_seconds(self, keys: Sequence[bytes]) -> list[int | None]:
        """Return for each key the seconds since it was last used, or None if it is gone.

        Raises Denied where the server keeps frequencies instead (an LFU policy), as no time can be told there.
        """
        return self._each(keys, lambda pipe, key: pipe.object("IDLETIME", key))

    def memory(self, keys: Sequence[bytes]) -> list[int | None]:
        """Return for each key its bytes, or None if it is gone."""
        return self._each(keys, lambda pipe, key: pipe.memory_usage(key))

    def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return for each key its string, or None if it is gone or no string."""
        found: list[bytes | None] = []
        for start in range(0, len(keys), _STEP):
            with self._translating():
                reply: Any = self._redis.mget(keys[start : start + _STEP])
            found += reply
        return found

    def lifetimes(self, keys: Sequence[bytes]) -> list[float | None]:
        """Return for each key the seconds until it ends by itself, infinity if it never does, or None if it is gone."""
        left = self._each(keys, lambda pipe, key: pipe.pttl(key))
        return [_seconds_left(each) for each in left]

    def ping(self) -> float:
        """Return the seconds that one PING takes, on a connection that is kept."""
        with self._translating():
            began = time.perf_counter()
            self._redis.ping()
            return time.perf_counter() - began

    def info(self) -> Mapping[str, Any]:
        """Return what INFO says."""
        with self._translating():
            facts: Any = self._redis.info()
        return dict(facts)

    def slow_commands(self, limit: int) -> list[SlowCommand]:
        """Return the newest entries of SLOWLOG, the newest first."""
        with self._translating():
            entries: Any = self._redis.slowlog_get(limit)
        return [_slow(entry) for entry in entries]

    def latency_events(self) -> list[LatencyEvent]:
        """Return what LATENCY LATEST says."""
        with self._translating():
            rows: Any = self._redis.latency_latest()
        return [
            LatencyEvent(
                event=clean(_text(row[0])),
                at=datetime.fromtimestamp(row[1], UTC),
                seconds=row[2] / 1000,
                longest=row[3] / 1000,
            )
            for row in rows
        ]

    def put(self, key: bytes, value: bytes, *, lifetime: timedelta | None) -> None:
        """Write a string that ends by itself, or with None never does."""
        with self._translating():
            self._redis.set(key, value, px=lifetime)

    def rename(self, pairs: Sequence[tuple[bytes, bytes]]) -> list[bool]:
        """Rename each key unless its new name exists; say which were renamed. TTLs stay as they are."""
        replies = self._replies(pairs, lambda pipe, pair: pipe.renamenx(*pair))
        return [bool(reply) for reply in self._known(replies)]

    def unlink(self, keys: Sequence[bytes]) -> int:
        """Delete keys without blocking the server; return how many there were."""
        return sum(int(reply) for reply in self._each(keys, lambda pipe, key: pipe.unlink(key)) if reply)

    def _insist_on_all_keys(self) -> None:
        """Refuse a node of a cluster: a scan would show its own keys only, and they would be taken for all there are."""
        if self._whole:
            return
        with self._translating():
            facts: Any = self._redis.info("cluster")
        if facts.get("cluster_enabled"):
            raise Denied(
                f"Redis at {self.host} is a node of a cluster, and knows a part of the keys only",
                hint="cluster mode is not supported yet: nothing that rests on all keys can be told",
            )
        self._whole = True

    def _each(self, keys: Sequence[bytes], ask: Callable[[Any, bytes], Any]) -> list[int | None]:
        return self._known(self._replies(keys, ask))

    def _known(self, replies: list[Any]) -> list[int | None]:
        """Return the replies, None for a key that is gone. Raises what else went wrong."""
        for reply in replies:
            if isinstance(reply, Exception) and "no such key" not in str(reply).lower():
                raise _translated(reply, self.host) from reply
        return [None if isinstance(reply, Exception) else reply for reply in replies]

    def _replies(self, items: Sequence[Any], ask: Callable[[Any, Any], Any]) -> list[Any]:
        replies: list[Any] = []
        for start in range(0, len(items), _STEP):
            with self._translating():
                pipe = self._redis.pipeline(transaction=False)
                for item in items[start : start + _STEP]:
                    ask(pipe, item)
                replies += pipe.execute(raise_on_error=False)
        return replies

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except RedisError as error:
            raise _translated(error, self.host) from error


def _slow(entry: Mapping[str, Any]) -> SlowCommand:
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
        command=clean(command),
        client=clean(_text(entry.get("client_address", b""))),
    )


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _seconds_left(answer: int | None) -> float | None:
    """What PTTL means: -2 is no such key, -1 one without an end."""
    if answer is None or answer == -2:
        return None
    return math.inf if answer == -1 else answer / 1000


def _translated(error: Exception, host: str) -> ArrakisError:
    if isinstance(error, AuthenticationError | NoPermissionError):
        return Denied(f"Redis at {host} refused: {error}", hint="check the user and password in REDIS_URL")
    if isinstance(error, ConnectionError | TimeoutError):
        return Unreachable(f"Redis at {host}: {error}", hint="is it up, and is REDIS_URL right?")
    if isinstance(error, ResponseError) and str(error).startswith("BUSY "):
        return Busy(
            f"Redis at {host}: a script blocks it: {error}",
            hint="`redis-cli SCRIPT KILL` ends a script that has written nothing",
        )
    if isinstance(error, ResponseError):
        return Denied(f"Redis at {host}: {error}")
    return ArrakisError(f"Redis at {host}: {error}")
