"""Redis or Valkey through redis-py. Reading never counts as a use of a key."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
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

from sandbox.errors import ArrakisError, Denied, Unreachable

__all__ = ["Redis"]

_STEP = 1000  # keys a SCAN step or pipeline: PING p99 of others stays near 5 ms
_RETRIES = 4
_PAUSE, _LONGEST_PAUSE = (
    0.05,
    0.8,
)  # doubled each time: a server that is gone for a moment, 1.5 s, is waited for


class Redis:
    """A keyspace. Satisfies KeyReader and KeyWriter."""

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

    def put(self, key: bytes, value: bytes, *, lifetime: timedelta) -> None:
        """Write a string that ends by itself."""
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
    if isinstance(error, ResponseError):
        return Denied(f"Redis at {host}: {error}")
    return ArrakisError(f"Redis at {host}: {error}")
