"""PostgreSQL through psycopg 3, in the way PgBouncer's transaction pooling allows.

No session state: no prepared statements, no SET outside a transaction. Every statement carries a comment that names
the runbook, so that it is recognised in pg_stat_activity.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, TypeVar

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import class_row
from psycopg.types.datetime import TimestamptzLoader

from sandbox.deadline import within
from sandbox.errors import ArrakisError, Busy, Conflict, Denied, Missing, Unreachable
from sandbox.ports import APPLICATION
from sql import load

__all__ = ["Postgres"]

T = TypeVar("T")


class Postgres:
    """A database, opened for one transaction at a time. Satisfies SqlReader and SqlWriter."""

    def __init__(self, url: str, *, tag: str, timeout: float = 10.0) -> None:
        """Take the address and the tag of every statement; `timeout` bounds connecting and each statement, s."""
        self._url, self._tag, self._timeout = url, f"/* {tag} */ ", timeout
        self.host = _place(url)

    @contextmanager
    def snapshot(self) -> Iterator["Transaction"]:
        """Open one repeatable-read, read-only transaction."""
        with self._connected("REPEATABLE READ READ ONLY") as transaction:
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

    @contextmanager
    def _connected(self, mode: str) -> Iterator["Transaction"]:
        connection = _bounded(self._timeout, self._connect, self.host)
        try:
            transaction = Transaction(connection, self._tag, self._timeout, self.host)
            transaction.begin(mode)
            yield transaction
            transaction.commit()
        except BaseException:
            # PgBouncer would throw the server's connection away with one that is closed within a transaction.
            if transaction.answers:
                with suppress(ArrakisError):
                    transaction.rollback()
            raise
        finally:
            connection.close()

    def _connect(self) -> psycopg.Connection[Any]:
        connection = psycopg.connect(
            self._url,
            autocommit=True,  # BEGIN is ours, so that its mode travels with it
            prepare_threshold=None,
            connect_timeout=max(2, int(self._timeout)),
            application_name=APPLICATION,
        )
        connection.adapters.register_loader("timestamptz", _Moment)
        return connection


class Transaction:
    """One transaction. Satisfies SqlSnapshot and SqlTransaction."""

    def __init__(self, connection: psycopg.Connection[Any], tag: str, timeout: float, host: str) -> None:
        """Use an open connection; each call is bounded by `timeout` seconds."""
        self._connection, self._tag, self._timeout, self._host = connection, tag, timeout, host
        self.answers = True  # until the server does not

    def begin(self, mode: str) -> None:
        """Begin in the given mode, with bounds that end with the transaction."""
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
        raise _translated(error, host) from error


def _newest_of(schema: str, pairs: Sequence[tuple[str, str]]) -> sql.Composed:
    moments = sql.SQL(", ").join(
        sql.SQL("(SELECT max({}) FROM {})").format(sql.Identifier(column), sql.Identifier(schema, table))
        for table, column in pairs
    )
    return sql.SQL("SELECT {}, greatest({})").format(sql.Literal(schema), moments)


def _translated(error: psycopg.Error, host: str) -> ArrakisError:
    first = error.diag.message_primary or _said(error)
    if isinstance(error, psycopg.DataError):
        return ArrakisError(
            f"PostgreSQL cannot take a value: {error.diag.message_primary or 'it holds a NUL'}"
        )
    if isinstance(error, errors.InsufficientPrivilege):
        return Denied(
            f"PostgreSQL refused: {first}", hint="grant this role the right, or use another DATABASE_URL"
        )
    if isinstance(error, errors.UndefinedTable | errors.UndefinedFunction | errors.InvalidSchemaName):
        return Missing(
            f"PostgreSQL has no such thing: {first}",
            hint=f"is {host} the right database? The control tables are sql/migrations/0001_control_tables.sql",
        )
    if isinstance(error, errors.DependentObjectsStillExist):
        detail = (error.diag.message_detail or "").partition("\n")[0]
        return Busy(f"PostgreSQL did not drop it: {first}: {detail}", hint="what rests on it has to go first")
    if isinstance(error, errors.LockNotAvailable):
        return Busy(f"PostgreSQL could not take the lock: {first}", hint="somebody uses it; try again later")
    if isinstance(error, errors.DeadlockDetected | errors.SerializationFailure | errors.QueryCanceled):
        return Busy(f"PostgreSQL gave up: {first}", hint="nothing was changed; try again")
    if isinstance(error, errors.UniqueViolation):
        return Conflict(f"PostgreSQL: {first}", constraint=error.diag.constraint_name or "")
    if isinstance(error, psycopg.OperationalError) and _no_answer(error.sqlstate):
        return Unreachable(f"PostgreSQL at {host}: {first}", hint="is it up, and is DATABASE_URL right?")
    return ArrakisError(f"PostgreSQL at {host}: {first}")


def _no_answer(code: str | None) -> bool:
    """Whether an operational error means that the server cannot be talked to; others concern the statement alone.

    See PostgreSQL's appendix A: class 08 is the connection, 57P01 to 57P03 are shutting down or starting up, and 53300
    is too many connections.
    """
    return code is None or code.startswith("08") or code in ("57P01", "57P02", "57P03", "53300")


_UNANSWERED = {
    "Connection refused": "connection refused",
    "timeout expired": "no answer in time",
    "connection timeout": "no answer in time",
    "could not translate host name": "its host name is not known",
    "failed to resolve host": "its host name is not known",
    "server closed the connection": "it closed the connection",
    "the connection is closed": "the connection is closed",
    "does not support SSL": "it does not speak TLS",
    "SSL error": "TLS failed",
}


def _said(error: psycopg.Error) -> str:
    """Return why there is no connection: the server's own words, or ours; libpq's may quote parts of the address."""
    text = str(error)
    if isinstance(error, psycopg.ProgrammingError):  # ours: it concerns a statement, not the address
        return text.splitlines()[0]
    if "FATAL:" in text:
        return text.partition("FATAL:")[2].strip().splitlines()[0]
    return next((ours for theirs, ours in _UNANSWERED.items() if theirs in text), "there is no connection")
