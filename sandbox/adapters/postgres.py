"""PostgreSQL through psycopg 3, in the way PgBouncer's transaction pooling allows.

No session state: no prepared statements, no SET outside a transaction. Every statement carries a comment that names
the runbook, so that it is recognised in pg_stat_activity.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from sandbox.adapters.postgres_errors import translated
from sandbox.adapters.postgres_transaction import READING, Instant, Session, Transaction, bounded
from sandbox.errors import ArrakisError, Busy
from sandbox.ports import APPLICATION
from sandbox.secrets import learn_address

__all__ = ["Moment", "Postgres"]

_GLANCE = 0.25  # seconds between two looks at a statement that runs alone

# What the driver has to say of a Ctrl-C is for no operator.
logging.getLogger("psycopg").addHandler(logging.NullHandler())


class Postgres:
    """A database, opened for one transaction at a time. Satisfies SqlReader and SqlWriter.

    Connections are kept only within `keeping`. A pool of its own threads would hide why a server does not answer, and take its
    whole time-out to find that it does not.
    """

    def __init__(self, url: str, *, tag: str, timeout: float = 10.0) -> None:
        """Take the address and the tag of every statement; `timeout` bounds connecting and each statement, s."""
        self._url, self._tag, self._timeout = url, f"/* {tag} */ ", timeout
        self.host = _place(url)
        learn_address(url)
        self._kept: list[Session] = []
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
    def snapshot(self) -> Iterator[Transaction]:
        """Open one repeatable-read, read-only transaction."""
        with self._connected(READING) as transaction:
            yield transaction

    @contextmanager
    def moment(self) -> Iterator["Moment"]:
        """Hold one moment, and return a reader whose snapshots are all of it, until this ends."""
        with self._connected(READING) as first:
            [exported] = first.rows("read/registry/moment", _Exported)
            yield Moment(self, exported.snapshot)

    @contextmanager
    def snapshot_of(self, moment: str) -> Iterator[Transaction]:
        """Open one read-only transaction that sees what the one that exported this moment sees."""
        with self._connected(READING, moment) as transaction:
            yield transaction

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Open one read-write transaction that waits at most two seconds for any lock."""
        with self._connected("READ COMMITTED READ WRITE") as transaction:
            yield transaction

    def script(self, name: str) -> None:
        """Run a migration, whole, in one transaction."""
        with self.transaction() as transaction:
            transaction.execute(name)

    def alone(self, statement: str, *, patience: float, watch: Callable[[], None]) -> None:
        """Run one statement that PostgreSQL runs in no transaction; see SqlWriter."""
        connection = bounded(self._timeout, self._unlimited, self.host)
        try:
            self._watched(connection, statement, patience, watch)
        finally:
            connection.close()

    def _watched(
        self, connection: Session, statement: str, patience: float, watch: Callable[[], None]
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
    def _connected(self, mode: str, moment: str = "") -> Iterator[Transaction]:
        connection, transaction = self._begun(mode, moment)
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

    def _begun(self, mode: str, moment: str) -> tuple[Session, Transaction]:
        """Begin a transaction, on a connection that was kept if one is still alive."""
        while self._kept:
            with suppress(IndexError, ArrakisError):  # another thread took it, or the server ended it
                return self._begin_on(self._kept.pop(), mode, moment)
        return self._begin_on(bounded(self._timeout, self._connect, self.host), mode, moment)

    def _begin_on(self, connection: Session, mode: str, moment: str) -> tuple[Session, Transaction]:
        transaction = Transaction(connection, self._tag, self._timeout, self.host)
        try:
            transaction.begin(mode, moment)
        except BaseException:
            connection.close()
            raise
        return connection, transaction

    def _unlimited(self) -> Session:
        """Connect without the role's own time-outs; PgBouncer refuses such an option, and then they stand."""
        own = conninfo_to_dict(self._url).get("options") or ""
        try:
            return self._connect(options=f"{own} -c statement_timeout=0 -c lock_timeout=0")
        except psycopg.OperationalError:
            return self._connect()

    def _connect(self, *, options: str | None = None) -> Session:
        connection = Session.connect(
            self._url,
            autocommit=True,  # BEGIN is ours, so that its mode travels with it
            prepare_threshold=None,
            connect_timeout=max(2, int(self._timeout)),
            application_name=APPLICATION,
            options=options,
        )
        connection.adapters.register_loader("timestamptz", Instant)
        return connection


@dataclass(frozen=True, slots=True, kw_only=True)
class _Exported:
    snapshot: str


class Moment:
    """A database as it was at one moment, for as long as whoever holds that moment does. Satisfies SqlReader."""

    def __init__(self, database: Postgres, exported: str) -> None:
        """Take the database, and the name under which the moment was exported."""
        self._database, self._exported = database, exported
        self.host = database.host

    def snapshot(self) -> AbstractContextManager[Transaction]:
        """Open one read-only transaction that sees this moment."""
        return self._database.snapshot_of(self._exported)

    def moment(self) -> AbstractContextManager["Moment"]:
        """Return the same: it is of one moment already."""
        return nullcontext(self)

    def keeping(self, connections: int) -> AbstractContextManager[None]:
        """Keep so many connections open between transactions, until this ends."""
        return self._database.keeping(connections)


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
