"""The NATS part: the streams and their consumers as the library expects them, with one replica."""

from sandbox.adapters.nats import Nats
from sandbox.streams import Condition, check, ensure, expected_consumers, expected_streams

__all__ = ["lay_out", "put_right", "served"]

_STREAMS = expected_streams(replicas=1)


def lay_out(nats_url: str) -> None:
    """Create streams and consumers."""
    ensure(Nats(nats_url), [*_STREAMS, *expected_consumers()])


def put_right(nats_url: str) -> None:
    """Make anew what has drifted, and create what is missing."""
    writer = Nats(nats_url)
    for each in check(writer, _STREAMS):
        if each.condition is Condition.DRIFTED:
            writer.delete_stream(each.expected.name)
    lay_out(nats_url)


def served(nats_url: str) -> bool:
    """Whether somebody asks both consumers for more, and has taken and acknowledged what there was."""
    reader = Nats(nats_url)
    states = [reader.consumer(each.stream, each.name) for each in expected_consumers()]
    return all(state and state.waiting_pulls and not state.pending + state.ack_pending for state in states)
