"""What the library asks of the outside, split into reading and writing.

Planning is handed readers only: it cannot change a thing, because it holds nothing that could.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Protocol, TypeVar

from sandbox.model import ConsumerConfig, ConsumerState, Message, StreamConfig, StreamState

__all__ = [
    "APPLICATION",
    "AwsReader",
    "AwsWriter",
    "KeyReader",
    "KeyServer",
    "KeyWriter",
    "LatencyEvent",
    "Parcel",
    "PoolReader",
    "QueueState",
    "Reply",
    "SlowCommand",
    "SqlReader",
    "SqlSnapshot",
    "SqlTransaction",
    "SqlWriter",
    "StreamReader",
    "StreamWriter",
    "Subscription",
    "WorkQueue",
]

T = TypeVar("T")

APPLICATION = "arrakis-runbooks"
"""What every session of this toolkit calls itself at the servers."""


class SqlSnapshot(Protocol):
    """One read-only transaction: everything read through it is of one moment."""

    def rows(self, statement: str, row: type[T], /, **params: object) -> list[T]:
        """Return the rows of a named statement (a file under sql/) as instances of `row`."""
        ...

    def newest(self, columns: Mapping[str, Sequence[tuple[str, str]]], /) -> Mapping[str, Any]:
        """Return, a schema, the newest moment found in its (table, column) pairs, or None."""
        ...

    def explain(self, statement: str, /, **params: object) -> Mapping[str, Any]:
        """Run a named reading statement under EXPLAIN (ANALYZE, BUFFERS); return its plan as PostgreSQL's JSON has it."""
        ...


class SqlReader(Protocol):
    """A database that can be looked at."""

    def snapshot(self) -> AbstractContextManager[SqlSnapshot]:
        """Open one repeatable-read, read-only transaction. Raises Unreachable, Denied or Missing."""
        ...

    def moment(self) -> AbstractContextManager["SqlReader"]:
        """Hold one moment, and return a reader whose snapshots are all of it, until this ends. Raises as `snapshot` does."""
        ...

    def keeping(self, connections: int) -> AbstractContextManager[None]:
        """Keep so many connections open between transactions, until this ends: for whoever has many in a row."""
        ...

    @property
    def host(self) -> str:
        """Where it is, as host:port/database, without secrets."""
        ...


class SqlTransaction(SqlSnapshot, Protocol):
    """One read-write transaction; leaving it commits, an error rolls back."""

    def execute(self, statement: str, /, **params: object) -> int:
        """Run a named statement; return the number of rows it touched."""
        ...

    def run_made(self, statement: str) -> None:
        """Run a statement that the server's own catalog functions made: its names are quoted already."""
        ...

    def rename_schema(self, old: str, new: str) -> None:
        """Rename a schema."""
        ...

    def drop_schema(self, name: str) -> None:
        """Drop a schema and, with CASCADE, what rests on it. Raises Busy if somebody uses it for two seconds."""
        ...


class SqlWriter(SqlReader, Protocol):
    """A database that can be changed."""

    def transaction(self) -> AbstractContextManager[SqlTransaction]:
        """Open one short read-write transaction, with a lock time-out. Raises Busy, Unreachable, Denied."""
        ...

    def script(self, name: str) -> None:
        """Run a migration, whole, in one transaction."""
        ...

    def alone(self, statement: str, *, patience: float, watch: Callable[[], None]) -> None:
        """Run one statement that PostgreSQL runs in no transaction, such as CREATE INDEX CONCURRENTLY.

        It is not a named one: its names are quoted already. `watch` is called four times a second meanwhile. What that raises,
        Ctrl-C too, cancels the statement and is raised here; so does Busy after `patience` seconds. A role's own
        statement_timeout, or one that PgBouncer keeps us from lifting, may cancel it earlier: Busy, too.
        """
        ...


class PoolReader(Protocol):
    """A pooler of connections, PgBouncer, that may stand before a database."""

    @property
    def host(self) -> str:
        """Where it would be, without secrets."""
        ...

    def show(self, *names: str) -> list[list[Mapping[str, Any]]] | None:
        """Return the rows of each of its console's SHOW commands; None where no PgBouncer is at the address.

        Raises Denied where the console is not for this user, Unreachable where nothing answers.
        """
        ...


class KeyReader(Protocol):
    """A keyspace that can be looked at. Nothing here counts as a use of a key."""

    @property
    def host(self) -> str:
        """Where it is, without secrets."""
        ...

    def scan(self, pattern: str) -> Iterator[list[bytes]]:
        """Yield the keys that match a glob, a batch at a time; a key may come twice, as SCAN allows."""
        ...

    def idle_seconds(self, keys: Sequence[bytes]) -> list[int | None]:
        """Return for each key the seconds since it was last used, or None if it is gone."""
        ...

    def memory(self, keys: Sequence[bytes]) -> list[int | None]:
        """Return for each key its bytes, or None if it is gone."""
        ...

    def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return for each key its string, or None if it is gone or no string."""
        ...

    def lifetimes(self, keys: Sequence[bytes]) -> list[float | None]:
        """Return for each key the seconds until it ends by itself, infinity if it never does, or None if it is gone."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowCommand:
    """A command that took long, as SLOWLOG has it: its name and first key, without values. `client` is host:port, or empty."""

    at: datetime
    seconds: float
    command: str
    client: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyEvent:
    """A kind of delay that LATENCY has seen: when and how long it was last, and the longest."""

    event: str
    at: datetime
    seconds: float
    longest: float


class KeyServer(Protocol):
    """A Redis server itself, apart from its keys. Each asks for a right of its own, and raises Denied without it.

    All raise Busy while a script blocks the server, Unreachable if it does not answer.
    """

    def ping(self) -> float:
        """Return the seconds that one PING takes, on a connection that is kept."""
        ...

    def info(self) -> Mapping[str, Any]:
        """Return what INFO says: numbers as such, the rest as text."""
        ...

    def slow_commands(self, limit: int) -> list[SlowCommand]:
        """Return the newest entries of SLOWLOG, the newest first."""
        ...

    def latency_events(self) -> list[LatencyEvent]:
        """Return what LATENCY LATEST says; nothing where latency-monitor-threshold is 0."""
        ...


class KeyWriter(KeyReader, Protocol):
    """A keyspace that can be changed."""

    def rename(self, pairs: Sequence[tuple[bytes, bytes]]) -> list[bool]:
        """Rename each old key to its new name unless that exists; say which were. TTLs stay as they are."""
        ...

    def unlink(self, keys: Sequence[bytes]) -> int:
        """Delete keys without blocking the server; return how many there were."""
        ...

    def unlink_each(self, groups: Sequence[Sequence[bytes]]) -> list[int]:
        """Delete groups of keys as `unlink` does, all of them together; return how many there were of each."""
        ...

    def put(self, key: bytes, value: bytes, *, lifetime: timedelta | None) -> None:
        """Write a string that ends by itself, or with None never does."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Somebody listening: the client's name or address, or the consumer, and the subject."""

    client: str
    subject: str


class StreamReader(Protocol):
    """A messaging system that can be looked at."""

    @property
    def host(self) -> str:
        """Where it is, without secrets."""
        ...

    def subscriptions(self) -> list[Subscription]:
        """Return who listens on subjects below `sandbox.`: clients of this account, and consumers."""
        ...

    def stream(self, name: str) -> StreamState | None:
        """Return a stream as it is now, or None if there is none. Raises Unreachable or Denied, as all here do."""
        ...

    def consumer(self, stream: str, name: str) -> ConsumerState | None:
        """Return a consumer as it is now, or None if it or its stream does not exist."""
        ...

    def messages(self, stream: str, subject: str, limit: int, *, after: int = 0) -> list[Message]:
        """Return at most `limit` messages on a subject, oldest first, from behind the sequence `after`.

        The subject may end in `>`. No consumer is made and nothing is acknowledged: reading changes nothing.
        Raises Missing if there is no such stream.
        """
        ...


class StreamWriter(StreamReader, Protocol):
    """A messaging system that can be changed."""

    def create_stream(self, config: StreamConfig) -> None:
        """Create a stream. One that is just so already is no error. Raises ArrakisError if it is refused."""
        ...

    def create_consumer(self, config: ConsumerConfig) -> None:
        """Create a consumer; what its configuration leaves open is the server's choice, but that it lasts.

        One that is just so already is no error. Raises ArrakisError if it is refused, Missing without its stream.
        """
        ...

    def change_stream(self, name: str, changes: Mapping[str, Any]) -> None:
        """Change these fields of a StreamConfig; all else about the stream stays as it is.

        Smaller limits throw away at once what is beyond them. Raises ArrakisError if it is refused, Missing without it.
        """
        ...

    def delete_stream(self, name: str) -> None:
        """Delete a stream with all that is in it. One that is gone is no error."""
        ...

    def delete_consumer(self, stream: str, name: str) -> None:
        """Delete a consumer, and with it how far it had come. One that is gone is no error."""
        ...

    def delete_message(self, stream: str, sequence: int) -> None:
        """Delete one message. Raises ArrakisError if the stream has it no more."""
        ...

    def publish(self, stream: str, subject: str, payload: bytes, *, id: str = "") -> int:
        """Publish one message and return the sequence the stream gave it.

        A message that bears the `id` of one published within two minutes is not stored again: that one's sequence is
        returned. Raises Missing if the stream does not exist or takes no such subject. After Unreachable nobody knows
        whether it was stored.
        """
        ...


class AwsReader(Protocol):
    """An AWS account that can be looked at."""

    def read(self, service: str, operation: str, /, **params: object) -> Mapping[str, Any]:
        """Call one reading operation. Raises Unreachable, Denied or Missing; ValueError if it is not a reading one.

        What the answer streams, such as an object of S3, is a file under `Body`: reading from it may raise Unreachable, too.
        """
        ...


class AwsWriter(AwsReader, Protocol):
    """An AWS account that can be changed."""

    def write(self, service: str, operation: str, /, **params: object) -> Mapping[str, Any]:
        """Call one operation that changes something. Raises Unreachable or Denied, Conflict where its condition does not hold."""
        ...


class Reply(Enum):
    """What is said of work that was taken off a queue."""

    DONE = "done"
    AT_IT = "still at it"
    GIVEN_BACK = "given back"
    SET_ASIDE = "set aside"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """Work that was taken off a queue: one action of a run, by its id; None where what lay there is no work of ours.

    `delivered` is how often it was handed out, this time included. `receipt` is what an answer refers to.
    """

    action: str | None
    delivered: int
    receipt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """A run's queue as it is now: how much waits, is in somebody's hand, and was handed out more than once.

    What was given back counts as in hand until it is handed out again. Who takes work and says nothing for as long as `patience` is thought dead, and it is handed to another.
    """

    run: str
    waiting: int
    in_hand: int
    again: int
    patience: timedelta


class WorkQueue(Protocol):
    """Work for whoever takes it, on any host. Each run has a queue of its own, which holds an action at most once.

    All raise Unreachable or Denied.
    """

    @property
    def host(self) -> str:
        """Where it is, without secrets."""
        ...

    def prepare(self, *, replicas: int) -> None:
        """Make the place where all queues are, if it is missing. Raises ArrakisError where it is there and set up otherwise."""
        ...

    def open(self, run: str, *, patience: timedelta) -> None:
        """Make a run's queue. One that is there stays as it is."""
        ...

    def put(self, run: str, actions: Sequence[str]) -> int:
        """Lay out actions by their ids; return how many were not there yet. Raises Missing where nothing was prepared."""
        ...

    def queues(self) -> list[QueueState]:
        """Return every run's queue, of every environment that shares the server."""
        ...

    def take(self, run: str, limit: int, *, wait: float) -> list[Parcel]:
        """Take at most `limit` of what waits; where nothing does, wait so many seconds for one. Raises Missing without the queue."""
        ...

    def answer(self, parcels: Sequence[Parcel], reply: Reply, *, rest: timedelta = timedelta(0)) -> None:
        """Say what became of work that was taken. An answer that is lost has the work handed out again.

        What is given back is handed out again after a rest.
        """
        ...

    def close(self, run: str) -> None:
        """Take a run's queue away, with whatever is left on it. One that is gone is no error."""
        ...
