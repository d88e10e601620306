"""Streams and consumers as the sandboxes' events need them: there, as expected, led, served.

Reading makes no consumer and acknowledges nothing. Whether somebody serves a consumer cannot always be told by one look,
so it is looked at again, a fraction of a second later, where the first look does not say.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sandbox.model import ConsumerConfig, ConsumerState, StreamConfig, StreamState
from sandbox.ports import StreamReader
from sandbox.streams import Drift, drift, expected_consumers, expected_streams, takes
from sandbox.text import counted

__all__ = [
    "SEE_CONSUMER",
    "SEE_LISTENERS",
    "SEE_MESSAGES",
    "SEE_STREAM",
    "Messaging",
    "SeenConsumer",
    "SeenStream",
    "Served",
    "read_messaging",
]

SEE_STREAM = "nats stream info {name}  # $JS.API.STREAM.INFO.{name}"
SEE_CONSUMER = "nats consumer info {stream} {name}  # $JS.API.CONSUMER.INFO.{stream}.{name}"
SEE_LISTENERS = "nats request '$SYS.REQ.SERVER.PING.CONNZ' '{\"subscriptions\":true}'"
SEE_MESSAGES = "nats stream view {name} --subject '{subject}'  # it makes a consumer for as long as it looks"

_LOOKS, _PAUSE = 6, 0.12  # a worker that pulls again and again is between two pulls now and then


class Served(StrEnum):
    """Whether somebody takes what a consumer has: pulls wait or it moves; it does not; or it is not acknowledged."""

    YES = "served"
    NO = "served by nobody"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenStream:
    """A stream that is expected, and what there is; None where there is none."""

    expected: StreamConfig
    state: StreamState | None

    @property
    def name(self) -> str:
        """What it is called."""
        return self.expected.name

    @property
    def drift(self) -> tuple[Drift, ...]:
        """The fields that are not as expected."""
        return tuple(drift(self.expected, self.state.config)) if self.state else ()

    def takes(self, subject: str) -> bool:
        """Whether it takes what comes on a subject."""
        return self.state is not None and takes(self.state.config.subjects, subject)

    @property
    def leaderless(self) -> bool:
        """Whether it has several copies, and no server leads them: it takes and gives nothing."""
        state = self.state
        return state is not None and (state.config.replicas or 1) > 1 and state.leader is None

    @property
    def losses(self) -> tuple[str, ...]:
        """Why events are lost in it, in words; what only differs from the expected loses none."""
        if self.state is None:
            return ()
        found = [_loss(each) for each in self.drift]
        if self.leaderless:
            found.append("no server leads it")
        if self.state.full and self.state.discard == "new":
            found.append(f"it is full ({counted(self.state.messages, 'message')}) and refuses new ones")
        return tuple(filter(None, found))

    def beyond(self, config: StreamConfig, now: datetime) -> str:
        """Say what this configuration would throw away of it at once; empty where nothing."""
        if self.state is None:
            return ""
        many = 0 < config.max_msgs < self.state.messages
        old = self.state.oldest is not None and timedelta(0) < config.max_age < now - self.state.oldest
        return (
            f"what is beyond that of its {self.state.messages} messages is thrown away" if many or old else ""
        )

    @property
    def copies_missing(self) -> int:
        """How many of its copies are not up to date."""
        return max(0, (self.state.config.replicas or 1) - self.state.replicas_current) if self.state else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenConsumer:
    """A consumer that is expected, and the looks at it, the first first; none where there is none."""

    expected: ConsumerConfig
    looks: tuple[ConsumerState, ...]

    @property
    def name(self) -> str:
        """What it is called."""
        return self.expected.name

    @property
    def state(self) -> ConsumerState | None:
        """It at the last look."""
        return self.looks[-1] if self.looks else None

    @property
    def drift(self) -> tuple[Drift, ...]:
        """The fields that are not as expected."""
        return tuple(drift(self.expected, self.looks[-1].config)) if self.looks else ()

    @property
    def served(self) -> Served:
        """Whether somebody takes what it has."""
        first, last = self.looks[0], self.looks[-1]
        moved = (first.delivered, first.acknowledged) != (last.delivered, last.acknowledged)
        most = last.config.max_ack_pending or 0
        if not moved and 0 < most <= last.ack_pending:
            return Served.STUCK
        asked = any(look.waiting_pulls or look.push_bound for look in self.looks)
        return Served.YES if moved or asked else Served.NO

    @property
    def matters(self) -> bool:
        """Whether events are lost by nobody serving it: what comes in has to be routed; besides, where nothing waits, none is."""
        state = self.state
        return self.expected.stream == "EVENTS" or bool(state and (state.pending or state.ack_pending))

    def takes(self, subject: str) -> bool:
        """Whether it is handed what comes on a subject."""
        filters = self.looks[-1].config.filter_subject if self.looks else ""
        return takes((filters or ">").split(", "), subject)


@dataclass(frozen=True, slots=True, kw_only=True)
class Messaging:
    """The streams and consumers that events pass through, in the order in which they do."""

    streams: tuple[SeenStream, ...]
    consumers: tuple[SeenConsumer, ...]

    def stream(self, name: str) -> SeenStream:
        """Return one by its name. Raises StopIteration for one that is not expected."""
        return next(each for each in self.streams if each.name == name)

    def consumer(self, stream: str) -> SeenConsumer:
        """Return the consumer of a stream. Raises StopIteration for one of which none is expected."""
        return next(each for each in self.consumers if each.expected.stream == stream)


def read_messaging(
    reader: StreamReader, *, replicas: int | None, pause: Callable[[float], None] = time.sleep
) -> Messaging:
    """Return both streams, with so many replicas expected (None: any number), and their consumers.

    It takes up to a second where nobody seems to serve a consumer. Raises Unreachable or Denied.
    """
    streams = [
        SeenStream(expected=each, state=reader.stream(each.name)) for each in expected_streams(replicas)
    ]
    consumers = [SeenConsumer(expected=each, looks=_look(reader, each)) for each in expected_consumers()]
    for _ in range(_LOOKS - 1):
        if all(each.state is None or each.served is Served.YES for each in consumers):
            break
        pause(_PAUSE)
        consumers = [
            SeenConsumer(expected=each.expected, looks=each.looks + _look(reader, each.expected))
            for each in consumers
        ]
    # EVENTS comes first: it is the way in.
    return Messaging(streams=tuple(reversed(streams)), consumers=tuple(reversed(consumers)))


def _look(reader: StreamReader, wanted: ConsumerConfig) -> tuple[ConsumerState, ...]:
    found = reader.consumer(wanted.stream, wanted.name)
    return (found,) if found else ()


def _loss(difference: Drift) -> str:
    """Say how a field that is not as expected loses events; empty where it does not."""
    wanted, actual = difference.expected, difference.actual
    if difference.field == "subjects" and isinstance(wanted, tuple) and isinstance(actual, tuple):
        left_out = [subject for subject in wanted if not takes(actual, subject)]
        return f"it does not take {', '.join(left_out)}, but {_listed(actual)}" if left_out else ""
    if difference.field in ("max_age", "max_msgs") and _is_less(actual, wanted):
        return (
            f"its {difference.field} is {actual} where {wanted} is expected: it throws events away too soon"
        )
    if difference.field == "retention":
        return f"its retention is {actual}, expected {wanted}: it throws away what somebody has taken"
    return ""


def _is_less(actual: Any, wanted: Any) -> bool:
    """Whether a limit is tighter; zero and what is negative are none."""
    return type(wanted)() < actual < wanted if isinstance(wanted, int | timedelta) else False


def _listed(subjects: Iterable[str]) -> str:
    return ", ".join(subjects) or "nothing"
