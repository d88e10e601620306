"""PostgreSQL through psycopg 3, in the way PgBouncer's transaction pooling allows.

No session state: no prepared statements, no SET outside a transaction. Every statement carries a comment that names
the runbook, so that it is recognised in pg_stat_activity.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import class_row
from psycopg.types.datetime import TimestamptzLoader

from sandbox.adapters.postgres_errors import translated
from sandbox.deadline import within
from sandbox.errors import ArrakisError, Busy, Unreachable
from sandbox.ports import APPLICATION
from sql import load

__all__ = ["Postgres"]

T = TypeVar("T")

_READING = "REPEATABLE READ READ ONLY"
_GLANCE = 0.25  # seconds between two looks at a statement that runs alone


class Postgres:
    """A database, opened for one transaction at a time. Satisfies SqlReader and SqlWriter.

    Connections are kept only within `keeping`. A pool of its own threads would hide why a server does not answer, and take its
    whole time-out to find that it does not.
    """

    def __init__(self, url: str, *, tag: str, timeout: float = 10.0) -> None:
        """Take the address and the tag of every statement; `timeout` bounds connecting and each statement, s."""
        self._url, self._tag, self._timeout = url, f"/* {tag} */ ", timeout
        self.host = _place(url)
        self._kept: list[psycopg.Connection[Any]] = []
        self._most = 0

    @contextmanager
    def keeping(self, connections: int) -> Iterator[None]:
        """Keep so many connections open between transactions, until this ends."""
        self._most += connections
        try:
            yield
        finally:
            self._most -= connections
            while len(self._kept) > self._most:
                self._kept.pop().close()

    @contextmanager
    def snapshot(self) -> Iterator["Transaction"]:
        """Open one repeatable-read, read-only transaction."""
        with self._connected(_READING) as transaction:
            yield transaction

    @contextmanager
    def transaction(self) -> Iterator["Transaction"]:
        """Open one read-write transaction that waits at most two seconds for any lock."""
        with self._connected("READ COMMITTED READ WRITE") as transaction:
            yield transaction

    def script(self, name: str) -> None:
        """Run a migration, whole, in one transaction."""
        with self.transaction() as transaction:
            transaction.execute(name)

    def alone(self, statement: str, *, patience: float, watch: Callable[[], None]) -> None:
        """Run one statement that PostgreSQL runs in no transaction; see SqlWriter."""
        connection = _bounded(self._timeout, self._unlimited, self.host)
        try:
            self._watched(connection, statement, patience, watch)
        finally:
            connection.close()

    def _watched(
        self, connection: psycopg.Connection[Any], statement: str, patience: float, watch: Callable[[], None]
    ) -> None:
        failed: list[psycopg.Error] = []

        def run() -> None:
            try:
                connection.execute(sql.SQL(self._tag) + sql.SQL(statement))
            except psycopg.Error as error:  # carried over to the caller's thread
                failed.append(error)

        thread = threading.Thread(target=run, daemon=True, name="statement")
        thread.start()
        end = time.monotonic() + patience
        try:
            while thread.is_alive():
                thread.join(_GLANCE)
                if time.monotonic() > end:
                    raise Busy(
                        f"PostgreSQL at {self.host} has not ended a statement within {patience / 60:.0f} minutes",
                        hint="it was cancelled; is a long transaction in its way?",
                    )
                watch()
        except BaseException:
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=self._timeout)
            thread.join(self._timeout)
            raise
        if failed:
            raise translated(failed[0], self.host) from failed[0]

    @contextmanager
    def _connected(self, mode: str) -> Iterator["Transaction"]:
        connection, transaction = self._begun(mode)
        whole = False
        try:
            yield transaction
            transaction.commit()
            whole = True
        except BaseException:
            # PgBouncer would throw the server's connection away with one that is closed within a transaction.
            if transaction.answers:
                with suppress(ArrakisError):
                    transaction.rollback()
                    whole = True
            raise
        finally:
            if whole and len(self._kept) < self._most:
                self._kept.append(connection)
            else:
                connection.close()

    def _begun(self, mode: str) -> tuple[psycopg.Connection[Any], "Transaction"]:
        """Begin a transaction, on a connection that was kept if one is still alive."""
        while self._kept:
            with suppress(IndexError, ArrakisError):  # another thread took it, or the server ended it
                return self._begin_on(self._kept.pop(), mode)
        return self._begin_on(_bounded(self._timeout, self._connect, self.host), mode)

    def _begin_on(
        self, connection: psycopg.Connection[Any], mode: str
    ) -> tuple[psycopg.Connection[Any], "Transaction"]:
        transaction = Transaction(connection, self._tag, self._timeout, self.host)
        try:
            transaction.begin(mode)
        except BaseException:
            connection.close()
            raise
        return connection, transaction

    def _unlimited(self) -> psycopg.Connection[Any]:
        """Connect without the role's own time-outs; PgBouncer refuses such an option, and then they stand."""
        own = conninfo_to_dict(self._url).get("options") or ""
        try:
            return self._connect(options=f"{own} -c statement_timeout=0 -c lock_timeout=0")
        except psycopg.OperationalError:
            return self._connect()

    def _connect(self, *, options: str | None = None) -> psycopg.Connection[Any]:
        connection = psycopg.connect(
            self._url,
            autocommit=True,  # BEGIN is ours, so that its mode travels with it
            prepare_threshold=None,
            connect_timeout=max(2, int(self._timeout)),
            application_name=APPLICATION,
            options=options,
        )
        connection.adapters.register_loader("timestamptz", _Moment)
        return connection


class Transaction:
    """One transaction. Satisfies SqlSnapshot and SqlTransaction."""

    def __init__(self, connection: psycopg.Connection[Any], tag: str, timeout: float, host: str) -> None:
        """Use an open connection; each call is bounded by `timeout` seconds."""
        self._connection, self._tag, self._timeout, self._host = connection, tag, timeout, host
        self.answers = True  # until the server does not
        self._reading = False

    def begin(self, mode: str) -> None:
        """Begin in the given mode, with bounds that end with the transaction."""
        self._reading = mode == _READING
        milliseconds = int(self._timeout * 1000)
        self._run(
            f"BEGIN ISOLATION LEVEL {mode}; SET LOCAL lock_timeout = 2000; SET LOCAL timezone = 'UTC'; "
            f"SET LOCAL statement_timeout = {milliseconds}; "
            f"SET LOCAL idle_in_transaction_session_timeout = {4 * milliseconds}"
        )

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
        try:
            return _bounded(self._timeout + 1, call, self._host)
        except Unreachable:
            self.answers = False
            raise


class _Moment(TimestamptzLoader):
    """Reads what fits no datetime, `infinity` above all, as None: there is no such moment."""

    def load(self, data: Any) -> Any:
        try:
            return super().load(data)
        except psycopg.DataError:
            return None


def _place(url: str) -> str:
    """Return where an address leads, without secrets. Raises ArrakisError for a malformed one.

    A password with an unescaped / or @ in it makes libpq take the rest of it for the host or the database: what looks
    like that is refused, and not repeated.
    """
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError:  # its words may quote the password
        parts = {}
    host, port, name = (str(parts.get(key) or "") for key in ("host", "port", "dbname"))
    suspicious = set("@:/ ") & set(name) or "@" in host or (":" in host and "[" not in url)
    if not parts or suspicious or not set(port) <= set("0123456789,"):
        raise ArrakisError(
            "DATABASE_URL is malformed",
            hint="write it as postgresql://user:password@host:5432/database; in a password @ is %40, / is %2F, : is %3A",
        )
    return f"{host or 'localhost'}:{port or 5432}/{name}"


def _bounded(seconds: float, call: Callable[[], T], host: str) -> T:
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
