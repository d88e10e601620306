"""PostgreSQL through psycopg 3, in the way PgBouncer's transaction pooling allows.

No session state: no prepared statements, no SET outside a transaction. Every statement carries a comment that names
the runbook, so that it is recognised in pg_stat_activity.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import class_row

from sandbox.deadline import within
from sandbox.errors import ArrakisError, Busy, Conflict, Denied, Missing, Unreachable
from sql import load

__all__ = ["Postgres"]

T = TypeVar("T")


class Postgres:
    """A database, opened for one transaction at a time. Satisfies SqlReader and SqlWriter."""

    def __init__(self, url: str, *, tag: str, timeout: float = 10.0) -> None:
        """Take the address and the tag of every statement; `timeout` bounds connecting and each statement, s."""
        try:
            parts = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            raise ArrakisError(  # the driver's words may quote the password
                "DATABASE_URL is malformed", hint="write it as postgresql://user:password@host:5432/database"
            ) from None
        self._url, self._tag, self._timeout = url, f"/* {tag} */ ", timeout
        self.host = f"{parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"

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
        finally:
            connection.close()  # without a commit before it, this rolls back

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(
            self._url,
            autocommit=True,  # BEGIN is ours, so that its mode travels with it
            prepare_threshold=None,
            connect_timeout=max(2, int(self._timeout)),
            application_name="arrakis-runbooks",
        )


class Transaction:
    """One transaction. Satisfies SqlSnapshot and SqlTransaction."""

    def __init__(self, connection: psycopg.Connection[Any], tag: str, timeout: float, host: str) -> None:
        """Use an open connection; each call is bounded by `timeout` seconds."""
        self._connection, self._tag, self._timeout, self._host = connection, tag, timeout, host

    def begin(self, mode: str) -> None:
        """Begin in the given mode, with bounds that end with the transaction."""
        milliseconds = int(self._timeout * 1000)
        self._run(
            f"BEGIN ISOLATION LEVEL {mode}; SET LOCAL lock_timeout = 2000; "
            f"SET LOCAL statement_timeout = {milliseconds}; "
            f"SET LOCAL idle_in_transaction_session_timeout = {4 * milliseconds}"
        )

    def commit(self) -> None:
        """Commit."""
        self._run("COMMIT")

    def rows(self, statement: str, row: type[T], /, **params: object) -> list[T]:
        """Return the rows of a named statement as instances of `row`."""

        def fetch() -> list[T]:
            with self._connection.cursor(row_factory=class_row(row)) as cursor:
                cursor.execute(self._tag + load(statement), params or None)
                return cursor.fetchall()

        return _bounded(self._timeout + 1, fetch, self._host)

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

        return _bounded(self._timeout + 1, fetch, self._host)

    def rename_schema(self, old: str, new: str) -> None:
        """Rename a schema."""
        self._run(sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(sql.Identifier(old), sql.Identifier(new)))

    def drop_schema(self, name: str) -> None:
        """Drop a schema and what is in it."""
        self._run(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))

    def _run(self, statement: str | sql.Composed, params: Mapping[str, object] | None = None) -> int:
        query = sql.SQL(self._tag) + (sql.SQL(statement) if isinstance(statement, str) else statement)
        return _bounded(
            self._timeout + 1, lambda: self._connection.execute(query, params).rowcount, self._host
        )


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
    first = (error.diag.message_primary or str(error) or type(error).__name__).strip().splitlines()[0]
    if isinstance(error, errors.InsufficientPrivilege):
        return Denied(
            f"PostgreSQL refused: {first}", hint="grant this role the right, or use another DATABASE_URL"
        )
    if isinstance(error, errors.UndefinedTable | errors.UndefinedFunction | errors.InvalidSchemaName):
        return Missing(
            f"PostgreSQL has no such thing: {first}",
            hint=f"is {host} the right database? The control tables are sql/migrations/0001_control_tables.sql",
        )
    if isinstance(error, errors.LockNotAvailable | errors.DependentObjectsStillExist):
        return Busy(f"PostgreSQL could not take the lock: {first}", hint="somebody uses it; try again later")
    if isinstance(error, errors.DeadlockDetected | errors.SerializationFailure | errors.QueryCanceled):
        return Busy(f"PostgreSQL gave up: {first}", hint="nothing was changed; try again")
    if isinstance(error, errors.UniqueViolation):
        return Conflict(f"PostgreSQL: {first}", constraint=error.diag.constraint_name or "")
    if isinstance(error, psycopg.OperationalError):
        return Unreachable(f"PostgreSQL at {host}: {first}", hint="is it up, and is DATABASE_URL right?")
    return ArrakisError(f"PostgreSQL at {host}: {first}")
