"""One transaction of PostgreSQL, each call of it bounded, each statement with the comment that names the runbook."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar, cast

import psycopg
from psycopg import sql
from psycopg.abc import PQGen
from psycopg.rows import class_row
from psycopg.types.datetime import TimestamptzLoader

from sandbox.adapters.postgres_errors import translated
from sandbox.deadline import no_answer, within
from sandbox.errors import Unreachable
from sql import load

__all__ = ["READING", "Instant", "Session", "Transaction", "bounded"]

T = TypeVar("T")

READING = "REPEATABLE READ READ ONLY"
"""The mode of a transaction that looks: all of it is of one moment."""

_GLANCE = 0.1  # seconds between two looks at the clock


class _Overdue(Exception):
    """Its own kind: the driver takes an OSError, which TimeoutError is one of, for a broken connection."""


class Session(psycopg.Connection[Any]):
    """A connection whose statements are waited for until `due`, by the monotonic clock, and no longer, whatever the server does.

    Nothing that it does then blocks but this wait, so that no thread has to be left behind: one for each statement would take as
    long as most statements do.
    """

    due: float = math.inf

    def wait(self, gen: PQGen[T], interval: float = _GLANCE, timeout: float | None = None) -> T:
        """Wait as the driver does. Raises _Overdue when it is due."""
        own = () if timeout is None else (timeout,)  # psycopg 3.2 knows none
        return super().wait(self._until_due(gen), interval, *own)

    def _until_due(self, gen: PQGen[T]) -> PQGen[T]:
        ready: Any = None
        while True:
            try:
                awaited = gen.send(ready)
            except StopIteration as end:
                return cast(T, end.value)
            if time.monotonic() > self.due:
                gen.close()
                raise _Overdue
            ready = yield awaited


class Transaction:
    """One transaction. Satisfies SqlSnapshot and SqlTransaction."""

    def __init__(self, connection: Session, tag: str, timeout: float, host: str) -> None:
        """Use an open connection; each call is bounded by `timeout` seconds."""
        self._connection, self._tag, self._timeout, self._host = connection, tag, timeout, host
        self.answers = True  # until the server does not
        self._reading = False

    def begin(self, mode: str, moment: str = "") -> None:
        """Begin in the given mode, with bounds that end with the transaction; at an exported moment if one is named."""
        self._reading = mode == READING
        milliseconds = int(self._timeout * 1000)
        # The moment before all else, as PostgreSQL wants it.
        seen = sql.SQL("SET TRANSACTION SNAPSHOT {}; ").format(sql.Literal(moment)) if moment else sql.SQL("")
        bounds = sql.SQL(
            f"SET LOCAL lock_timeout = 2000; SET LOCAL timezone = 'UTC'; SET LOCAL jit = off; "
            f"SET LOCAL statement_timeout = {milliseconds}; "
            f"SET LOCAL idle_in_transaction_session_timeout = {4 * milliseconds}"
        )
        self._run(sql.SQL(f"BEGIN ISOLATION LEVEL {mode}; ") + seen + bounds)

    def commit(self) -> None:
        """Commit. After Unreachable nobody knows whether it was."""
        try:
            self._run("COMMIT")
        except Unreachable as error:
            raise Unreachable(
                f"{error}; whether the change was made is not known", hint="look before you repeat it"
            ) from error

    def rollback(self) -> None:
        """Roll back."""
        self._run("ROLLBACK")

    def rows(self, statement: str, row: type[T], /, **params: object) -> list[T]:
        """Return the rows of a named statement as instances of `row`."""

        def fetch() -> list[T]:
            with self._connection.cursor(row_factory=class_row(row)) as cursor:
                cursor.execute(self._tag + load(statement), params or None)
                return cursor.fetchall()

        return self._bounded(fetch)

    def execute(self, statement: str, /, **params: object) -> int:
        """Run a named statement; return the number of rows it touched."""
        return self._run(load(statement), params or None)

    def newest(self, columns: Mapping[str, Sequence[tuple[str, str]]], /) -> Mapping[str, datetime | None]:
        """Return, a schema, the newest moment in its (table, column) pairs."""
        if not columns:
            return {}
        query = sql.SQL(" UNION ALL ").join(_newest_of(schema, pairs) for schema, pairs in columns.items())

        def fetch() -> dict[str, datetime | None]:
            return dict(self._connection.execute(sql.SQL(self._tag) + query).fetchall())

        return self._bounded(fetch)

    def explain(self, statement: str, /, **params: object) -> Mapping[str, Any]:
        """Run a named reading statement under EXPLAIN (ANALYZE, BUFFERS); ValueError where it could change anything."""
        if not (self._reading and statement.startswith("read/")):
            raise ValueError(f"{statement} is not to be explained here: it would be run")
        query = f"{self._tag}EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)\n{load(statement)}"

        def fetch() -> Mapping[str, Any]:
            row = self._connection.execute(sql.SQL(query), params or None).fetchone()
            assert row is not None  # EXPLAIN has one
            [plan] = row[0]
            return dict(plan)

        return self._bounded(fetch)

    def run_made(self, statement: str) -> None:
        """Run a statement that the server's own catalog functions made."""
        self._run(statement)

    def rename_schema(self, old: str, new: str) -> None:
        """Rename a schema."""
        self._run(sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(sql.Identifier(old), sql.Identifier(new)))

    def drop_schema(self, name: str) -> None:
        """Drop a schema and, with CASCADE, what rests on it."""
        self._run(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))

    def _run(self, statement: str | sql.Composed, params: Mapping[str, object] | None = None) -> int:
        query = sql.SQL(self._tag) + (sql.SQL(statement) if isinstance(statement, str) else statement)
        return self._bounded(lambda: self._connection.execute(query, params).rowcount)

    def _bounded(self, call: Callable[[], T]) -> T:
        seconds = self._timeout + 1
        self._connection.due = time.monotonic() + seconds
        try:
            return call()
        except _Overdue:
            self.answers = False
            raise no_answer(seconds, f"PostgreSQL at {self._host}") from None
        except psycopg.Error as error:
            ours = translated(error, self._host)
            if isinstance(ours, Unreachable):
                self.answers = False
            raise ours from error


class Instant(TimestamptzLoader):
    """Reads what fits no datetime, `infinity` above all, as None: there is no such moment."""

    def load(self, data: Any) -> Any:
        """Return the moment, or None."""
        with suppress(ValueError):  # no such moment; the driver's own way takes ten times as long
            return datetime.fromisoformat(str(data, "ascii"))
        with suppress(psycopg.DataError):
            return super().load(data)
        return None


def bounded(seconds: float, call: Callable[[], T], host: str) -> T:
    """Return `call()` within so many seconds; what the driver raises is raised in our words."""
    try:
        return within(seconds, call, f"PostgreSQL at {host}")
    except psycopg.Error as error:
        raise translated(error, host) from error


def _newest_of(schema: str, pairs: Sequence[tuple[str, str]]) -> sql.Composed:
    moments = sql.SQL(", ").join(
        sql.SQL("(SELECT max({}) FROM {})").format(sql.Identifier(column), sql.Identifier(schema, table))
        for table, column in pairs
    )
    return sql.SQL("SELECT {}, greatest({})").format(sql.Literal(schema), moments)
