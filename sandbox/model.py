"""The words of the sandbox feature, as frozen values. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

__all__ = [
    "TRANSITIONS",
    "ConsumerConfig",
    "ConsumerState",
    "Message",
    "Sandbox",
    "Schema",
    "Status",
    "StreamConfig",
    "StreamState",
    "as_object",
    "may_become",
    "way_to_destroying",
]


class Status(StrEnum):
    """`public.sandbox_status`."""

    PENDING = "pending"
    CREATING = "creating"
    RUNNING = "running"
    EXPIRED = "expired"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"


TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.CREATING}),
    Status.CREATING: frozenset({Status.RUNNING, Status.DESTROYING}),
    Status.RUNNING: frozenset({Status.EXPIRED, Status.DESTROYING}),
    Status.EXPIRED: frozenset({Status.RUNNING, Status.DESTROYING}),  # running again: a TTL was extended
    Status.DESTROYING: frozenset({Status.DESTROYED}),
    Status.DESTROYED: frozenset(),
}


def may_become(old: Status, new: Status) -> bool:
    """Whether the deployed system allows this change of status."""
    return new in TRANSITIONS[old]


def way_to_destroying(old: Status) -> tuple[Status, ...]:
    """Return the changes of status that lead to `destroying`, each of them allowed; none from there on."""
    ways = {Status.PENDING: (Status.CREATING, Status.DESTROYING), Status.DESTROYING: (), Status.DESTROYED: ()}
    return ways.get(old, (Status.DESTROYING,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """One row of `public.sandboxes`. Times are UTC-aware."""

    id: UUID
    name: str
    owner: str
    status: Status
    schema_name: str | None
    created_at: datetime
    expires_at: datetime | None = None
    discord_token_id: UUID | None = None
    destroyed_at: datetime | None = None
    last_activity_at: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what the drivers hand over: the status as text, the metadata in either form."""
        object.__setattr__(self, "status", Status(self.status))
        object.__setattr__(self, "metadata", as_object(self.metadata))
        # What fits no datetime is read as None. Nothing is older than this, so it may live no longer, and is never young.
        object.__setattr__(self, "created_at", self.created_at or datetime.fromtimestamp(0, UTC))

    @property
    def live(self) -> bool:
        """Whether its resources are its own: every status but destroyed."""
        return self.status is not Status.DESTROYED

    @property
    def hex(self) -> str:
        """The id as 32 hex digits."""
        return self.id.hex


def as_object(value: Any) -> Mapping[str, Any]:
    """Return a jsonb column's object: the deployed code stores it as JSON inside a JSON string, and we as it is."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """A PostgreSQL schema as the census sees it: which object it is (`oid`); rows are the planner's estimate.

    `bytes` is its size, None where nobody asked for it.
    """

    name: str
    oid: int
    owner: str
    tables: int
    rows_estimate: int
    writes: int
    bytes: int | None = None
    last_maintenance: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """How a JetStream stream is set up. A `max_age` of zero and a `max_msgs` of -1 are no limit.

    In an expectation, `replicas` may be None: nobody laid down how many.
    """

    name: str
    subjects: tuple[str, ...]
    retention: str
    storage: str
    max_age: timedelta
    max_msgs: int
    replicas: int | None

    @property
    def where(self) -> str:
        """What a person calls it."""
        return f"stream {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerConfig:
    """How a JetStream consumer is set up. In an expectation, None leaves a field open.

    An empty `filter_subject` takes every subject of the stream; a `max_deliver` of -1 is no limit.
    """

    stream: str
    name: str
    durable: bool | None = None
    ack_policy: str | None = None
    filter_subject: str | None = None
    max_ack_pending: int | None = None
    ack_wait: timedelta | None = None
    max_deliver: int | None = None

    @property
    def where(self) -> str:
        """What a person calls it."""
        return f"consumer {self.stream}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """A stream as it is now. Both sequences are 0 before the first message.

    `oldest` is when it took the first message that it still has, UTC; None where it has none. `discard` is what it does at
    its limits: throw away `old` messages, or refuse `new` ones. `leader` is the server that leads it, where that is told; `replicas_current` counts the copies that are up to
    date, the leader's among them. The others take ten seconds to notice that a server of theirs has died.
    """

    config: StreamConfig
    messages: int
    bytes: int
    first_sequence: int
    last_sequence: int
    oldest: datetime | None
    discard: str
    leader: str | None
    replicas_current: int

    @property
    def full(self) -> bool:
        """Whether it holds as many messages as it may."""
        return 0 < self.config.max_msgs <= self.messages


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerState:
    """A consumer as it is now.

    `pending` messages are not delivered yet, `ack_pending` ones are delivered and not acknowledged. Somebody
    is there to take them when pulls wait, or a push consumer is bound. `delivered` is the stream's sequence that was
    handed out last, `acknowledged` the one up to which all are acknowledged; both are 0 before the first.
    """

    config: ConsumerConfig
    pending: int
    ack_pending: int
    redelivered: int
    waiting_pulls: int
    push_bound: bool
    delivered: int
    acknowledged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a stream. `time` is when the stream took it, UTC."""

    subject: str
    data: bytes
    sequence: int
    time: datetime
