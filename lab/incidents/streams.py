"""The NATS part: the streams and their consumers as the library expects them, with one replica."""

from sandbox.adapters.nats import Nats
from sandbox.streams import ensure, expected_consumers, expected_streams

__all__ = ["lay_out"]


def lay_out(nats_url: str) -> None:
    """Create streams and consumers."""
    ensure(Nats(nats_url), [*expected_streams(replicas=1), *expected_consumers()])
