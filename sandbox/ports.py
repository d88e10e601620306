"""What the library asks of the outside, split into reading and writing.

Planning is handed readers only: it cannot change a thing, because it holds nothing that could.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

__all__ = [
    "AwsReader",
    "KeyReader",
    "KeyWriter",
    "SqlReader",
    "SqlSnapshot",
    "SqlTransaction",
    "SqlWriter",
    "StreamReader",
    "Subscription",
]

T = TypeVar("T")


class SqlSnapshot(Protocol):
    """One read-only transaction: everything read through it is of one moment."""

    def rows(self, statement: str, row: type[T], /, **params: object) -> list[T]:
        """Return the rows of a named statement (a file under sql/) as instances of `row`."""
        ...

    def newest(self, columns: Mapping[str, Sequence[tuple[str, str]]], /) -> Mapping[str, Any]:
        """Return, a schema, the newest moment found in its (table, column) pairs, or None."""
        ...


class SqlReader(Protocol):
    """A database that can be looked at."""

    def snapshot(self) -> AbstractContextManager[SqlSnapshot]:
        """Open one repeatable-read, read-only transaction. Raises Unreachable, Denied or Missing."""
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

    def rename_schema(self, old: str, new: str) -> None:
        """Rename a schema."""
        ...

    def drop_schema(self, name: str) -> None:
        """Drop a schema and what is in it. Raises Busy if objects elsewhere depend on it."""
        ...


class SqlWriter(SqlReader, Protocol):
    """A database that can be changed."""

    def transaction(self) -> AbstractContextManager[SqlTransaction]:
        """Open one short read-write transaction, with a lock time-out. Raises Busy, Unreachable, Denied."""
        ...

    def script(self, name: str) -> None:
        """Run a migration, whole, in one transaction."""
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


class KeyWriter(KeyReader, Protocol):
    """A keyspace that can be changed."""

    def rename(self, pairs: Sequence[tuple[bytes, bytes]]) -> list[bool]:
        """Rename each old key to its new name unless that exists; say which were. TTLs stay as they are."""
        ...

    def unlink(self, keys: Sequence[bytes]) -> int:
        """Delete keys without blocking the server; return how many there were."""
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


class AwsReader(Protocol):
    """An AWS account that can be looked at."""

    def read(self, service: str, operation: str, /, **params: object) -> Mapping[str, Any]:
        """Call one reading operation. Raises Unreachable or Denied; ValueError if it is not a reading one."""
        ...
