"""What Redis and its driver say, as an operator should read it."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    ConnectionError,
    NoPermissionError,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from sandbox.errors import ArrakisError, Busy, Denied, Unreachable

__all__ = ["translated", "translating"]


def translated(error: Exception, host: str) -> ArrakisError:
    """Return a driver's error as one of ours; `host` names the server without secrets."""
    if isinstance(error, AuthenticationError | NoPermissionError):
        return Denied(f"Redis at {host} refused: {error}", hint="check the user and password in REDIS_URL")
    if isinstance(error, ConnectionError | TimeoutError):
        return Unreachable(
            f"Redis at {host}: {error}", hint="is it up, can this host reach it, and is REDIS_URL right?"
        )
    if isinstance(error, AskError):
        return Unreachable(
            f"Redis at {host}: slot {error.slot_id} is being moved to {error.host}:{error.port}",
            hint="try again when it has arrived",
        )
    if isinstance(error, ClusterDownError | TryAgainError):
        return Unreachable(
            f"Redis at {host}: {error}", hint="a node is down or slots are being moved: try again later"
        )
    if isinstance(error, ResponseError) and str(error).startswith("BUSY "):
        return Busy(
            f"Redis at {host}: a script blocks it: {error}",
            hint="`redis-cli SCRIPT KILL` ends a script that has written nothing",
        )
    if isinstance(error, ResponseError):
        return Denied(f"Redis at {host}: {error}")
    return ArrakisError(f"Redis at {host}: {error}")


@contextmanager
def translating(host: str) -> Iterator[None]:
    """Raise what the driver raises as one of our errors."""
    try:
        yield
    except RedisError as error:
        raise translated(error, host) from error
