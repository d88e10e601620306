"""Streams and subjects: who listens to a sandbox, what should exist and what differs, its events in and out.

Pure, but for the functions that are handed a reader or a writer.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sandbox.errors import ArrakisError
from sandbox.model import ConsumerConfig, Message, StreamConfig
from sandbox.naming import same_sandbox
from sandbox.ports import StreamReader, StreamWriter, Subscription

__all__ = [
    "CHANGEABLE",
    "Checked",
    "Condition",
    "Config",
    "ConsumerConfig",
    "Drift",
    "Ensured",
    "StreamConfig",
    "as_plain",
    "check",
    "drift",
    "ensure",
    "expected_consumers",
    "expected_streams",
    "from_plain",
    "listeners",
    "publish",
    "read",
    "subject_of",
    "subjects_of",
    "takes",
    "token_of",
]

Config = StreamConfig | ConsumerConfig

CHANGEABLE = ("subjects", "max_age", "max_msgs", "replicas")
"""The fields of a stream that JetStream changes while it is there; for another storage or retention it is made anew."""

_STREAM = "SANDBOX"
_DURATIONS = ("max_age", "ack_wait")
_LONGEST = 200  # characters of an event type: with the rest, a subject stays below the 256 that NATS advises


def listeners(subscriptions: Iterable[Subscription], token: str) -> list[str]:
    """Return the clients that listen to this sandbox in particular; those who listen to all of them do not count.

    Ids are compared by their digits, and a shorter one with the start of a longer one.
    """
    return sorted({item.client for item in subscriptions if same_sandbox(token_of(item.subject), token)})


def token_of(subject: str) -> str:
    """Return the id in a sandbox's subject; empty for any other subject."""
    parts = subject.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "sandbox" else ""


class Condition(StrEnum):
    """How a stream or consumer compares with what is expected."""

    AS_EXPECTED = "as expected"
    MISSING = "missing"
    DRIFTED = "drifted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One field that is not as expected."""

    where: str
    field: str
    expected: object
    actual: object

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.where}: {self.field} is {_said(self.actual)}, expected {_said(self.expected)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One expectation and what was found. `drift` is empty unless it has drifted."""

    expected: Config
    condition: Condition
    drift: tuple[Drift, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensured:
    """What was made, and how everything that was expected stands afterwards."""

    made: tuple[Config, ...]
    checked: tuple[Checked, ...]

    @property
    def drifted(self) -> tuple[Checked, ...]:
        """Those that exist and differ; they were left alone."""
        return tuple(each for each in self.checked if each.condition is Condition.DRIFTED)


def expected_streams(replicas: int | None = 1) -> tuple[StreamConfig, ...]:
    """Return both streams as the deployed system makes them; production has 3 replicas, None leaves that open."""
    return tuple(
        StreamConfig(
            name=name,
            subjects=(subject,),
            retention="limits",
            storage="memory",
            max_age=timedelta(minutes=5),
            max_msgs=500_000,
            replicas=replicas,
        )
        for name, subject in ((_STREAM, "sandbox.>"), ("EVENTS", "events.>"))
    )


def expected_consumers() -> tuple[ConsumerConfig, ...]:
    """Return the sandbox workers' consumer, of which little is laid down, and the EventRouter's."""
    return (
        ConsumerConfig(stream=_STREAM, name="sandbox-consumer", durable=True, ack_policy="explicit"),
        ConsumerConfig(
            stream="EVENTS",
            name="sandbox-event-router",
            durable=True,
            ack_policy="explicit",
            filter_subject="events.>",
            max_ack_pending=100,
            ack_wait=timedelta(seconds=15),
            max_deliver=5,
        ),
    )


def drift(expected: Config, actual: Config) -> list[Drift]:
    """Return the fields of two of a kind that differ; those that the expectation leaves open (None) never do.

    The order of a stream's subjects means nothing.
    """
    names = [each.name for each in fields(expected)]
    pairs = {name: (getattr(expected, name), getattr(actual, name)) for name in names}
    return [
        Drift(where=expected.where, field=name, expected=want, actual=have)
        for name, (want, have) in pairs.items()
        if want is not None and _in_order(want) != _in_order(have)
    ]


def check(reader: StreamReader, expected: Iterable[Config]) -> list[Checked]:
    """Return for each expected stream or consumer whether it is as expected, missing or drifted, and in what.

    Raises Unreachable or Denied: what cannot be read is unknown, not missing.
    """
    return [_compared(each, _look(reader, each)) for each in expected]


def ensure(writer: StreamWriter, expected: Sequence[Config]) -> Ensured:
    """Create what is missing, exactly as expected and streams first; what exists is never changed.

    Safe when two do it at once: the server makes each thing once, though both may say that they made it. What
    somebody else made otherwise in the meantime is drift. An error ends it with what was made so far in place;
    repeating resumes. Raises ArrakisError if the server refuses.
    """
    streams_first = sorted(expected, key=lambda each: isinstance(each, ConsumerConfig))
    made = [each for each in streams_first if _look(writer, each) is None and _create(writer, each)]
    return Ensured(made=tuple(made), checked=tuple(check(writer, expected)))


def subject_of(sandbox_id: UUID, event_type: str) -> str:
    """Return the subject on which events of a type reach a sandbox, e.g. `sandbox.{uuid}.events.guild.join`.

    Raises ArrakisError for a type that is no sequence of subject tokens.
    """
    if problem := _problem(event_type):
        raise ArrakisError(
            f"{event_type[:_LONGEST]!r} is no event type: {problem}",
            hint="write words joined by dots, such as guild.join",
        )
    return f"sandbox.{sandbox_id}.events.{event_type}"


def subjects_of(sandbox_id: UUID) -> str:
    """Return the wildcard over all subjects of a sandbox."""
    return f"sandbox.{sandbox_id}.>"


def publish(writer: StreamWriter, sandbox_id: UUID, event_type: str, payload: bytes, *, id: str = "") -> int:
    """Publish one event to a sandbox and return its sequence in the SANDBOX stream.

    One that bears the `id` of an event of the last two minutes is that event. Raises Missing if the stream does not exist.
    After Unreachable nobody knows whether the event was stored; with an `id`, it may be published again.
    """
    return writer.publish(_STREAM, subject_of(sandbox_id, event_type), payload, id=id)


def read(reader: StreamReader, sandbox_id: UUID, limit: int = 100, *, after: int = 0) -> list[Message]:
    """Return at most `limit` messages of one sandbox, oldest first; nothing is acknowledged or changed.

    The stream keeps five minutes. To page on, give the last sequence seen as `after`. Raises Missing without
    the stream.
    """
    return reader.messages(_STREAM, subjects_of(sandbox_id), limit, after=after)


def takes(patterns: Iterable[str], subject: str) -> bool:
    """Whether one of these patterns covers a subject, or all that a pattern such as `sandbox.>` covers."""
    return any(_covers(pattern.split("."), subject.split(".")) for pattern in patterns)


def as_plain(config: Config) -> dict[str, Any]:
    """Return what `from_plain` reads, for plans: durations as seconds."""
    found = {each.name: getattr(config, each.name) for each in fields(config)}
    plain = {name: value.total_seconds() if value is not None else None for name, value in _durations(found)}
    return {**found, **plain, **({"subjects": list(found["subjects"])} if "subjects" in found else {})}


def from_plain(values: Mapping[str, Any]) -> Config:
    """Return the stream or consumer that `as_plain` wrote down."""
    read = {
        name: timedelta(seconds=value) if value is not None else None for name, value in _durations(values)
    }
    if "subjects" not in values:
        return ConsumerConfig(**{**values, **read})
    return StreamConfig(**{**values, **read, "subjects": tuple(values["subjects"])})


def _durations(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, values[name]) for name in _DURATIONS if name in values]


def _covers(pattern: Sequence[str], subject: Sequence[str]) -> bool:
    """Whether the tokens of a pattern cover those of a subject, which may be a pattern itself."""
    for place, token in enumerate(pattern):
        if token == ">":
            return len(subject) > place
        if place >= len(subject) or subject[place] == ">" or (token != "*" and token != subject[place]):
            return False
    return len(pattern) == len(subject)


def _look(reader: StreamReader, wanted: Config) -> Config | None:
    if isinstance(wanted, StreamConfig):
        stream = reader.stream(wanted.name)
        return stream.config if stream else None
    consumer = reader.consumer(wanted.stream, wanted.name)
    return consumer.config if consumer else None


def _create(writer: StreamWriter, wanted: Config) -> bool:
    """Create it; False if somebody else did, in their own way, since we looked."""
    try:
        if isinstance(wanted, StreamConfig):
            writer.create_stream(wanted)
        else:
            writer.create_consumer(wanted)
    except ArrakisError:
        if _look(writer, wanted) is None:
            raise
        return False
    return True


def _compared(expected: Config, actual: Config | None) -> Checked:
    if actual is None:
        return Checked(expected=expected, condition=Condition.MISSING)
    found = tuple(drift(expected, actual))
    condition = Condition.DRIFTED if found else Condition.AS_EXPECTED
    return Checked(expected=expected, condition=condition, drift=found)


def _in_order(value: object) -> object:
    return sorted(value) if isinstance(value, tuple) else value


def _said(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "empty"
    return "empty" if value == "" else str(value)


def _problem(event_type: str) -> str:
    if len(event_type) > _LONGEST:
        return f"it is longer than {_LONGEST} characters"
    if not all(event_type.split(".")):
        return "a part of it is empty"
    if any(sign in event_type for sign in " *>") or not event_type.isprintable():
        return "spaces, * and > do not belong in it"
    return ""
