"""Where a run may be struck: at each record of its journal, and at each call of a driver to a server that changes something or could fail.

The drivers themselves are what is struck, below all code of the house: psycopg's statements, redis-py's sending of commands,
nats-py's requests, botocore's sending over HTTP. The calls are real, and so are the servers.

A change is what another process can see afterwards: a record, a commit, a statement outside of a transaction, a command or
request that does not only ask. To be killed between two changes is to be killed after the first or before the second.
"""

import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import psycopg
from botocore.exceptions import ConnectionClosedError
from botocore.httpsession import URLLib3Session
from nats.aio.client import Client
from psycopg import sql
from psycopg.pq import TransactionStatus
from redis.connection import AbstractConnection

from runbooks.engine import journal

__all__ = ["Blow", "Points"]

_HUNG_UP = "server closed the connection unexpectedly"
_COMMENT = re.compile(r"\s*(/\*.*?\*/\s*|--[^\n]*\n\s*)*", re.DOTALL)
_LOOKING = {  # commands of Redis
    *(
        "ACL",
        "CLIENT",
        "CLUSTER",
        "COMMAND",
        "GET",
        "HELLO",
        "INFO",
        "LATENCY",
        "MEMORY",
        "OBJECT",
        "PING",
        "PTTL",
    ),
    *("SCAN", "SELECT", "SLOWLOG", "TIME"),
}
_QUESTION = re.compile(
    r"\$JS\.API\.(INFO|STREAM\.(INFO|NAMES|LIST|MSG\.GET)|CONSUMER\.(INFO|NAMES|LIST)).*|\$SYS\..*"
)
_LOOKUPS = ("Describe", "Filter", "Get", "Head", "List", "Lookup", "Simulate")
_ACTION = re.compile(r"Action=(\w+)")


class Blow(StrEnum):
    """What happens at a point."""

    BEFORE = "killed before a change"
    AFTER = "killed after a change"
    LOST = "the connection lost before a call reached the server"
    WITHIN = "the connection lost in the midst of a transaction"
    UNANSWERED = "the connection lost after a change was made"
    GONE = "the server gone after a change was made"

    @property
    def kills(self) -> bool:
        """Whether it is SIGKILL."""
        return self in (Blow.BEFORE, Blow.AFTER)


class Points:
    """The points that a process comes by, counted from when it is `armed`; at the one of this number the blow falls."""

    def __init__(self, number: int, blow: Blow) -> None:
        """Take the number, from 1, and what is to happen there."""
        self._number, self._blow = number, blow
        self._counting = threading.Lock()
        self._gone: str | None = None
        self.armed = False
        self.passed = 0

    def install(self) -> None:
        """Put them into this process' journal and drivers, for good."""
        journal._write = self._recording(journal._write)
        psycopg.Cursor.execute = self._postgres(psycopg.Cursor.execute)  # type: ignore[method-assign]
        AbstractConnection.send_packed_command = self._redis(AbstractConnection.send_packed_command)  # type: ignore[method-assign]
        Client.request = self._nats(Client.request)  # type: ignore[method-assign]
        URLLib3Session.send = self._aws(URLLib3Session.send)

    @contextmanager
    def _call(
        self, system: str, *, change: bool, may_fail: bool = True, within: bool = False
    ) -> Iterator[Blow | None]:
        """Make a call, or write a record, and suffer what falls there: the caller loses its connection, before or after."""
        points = {Blow.LOST: may_fail, Blow.WITHIN: within}
        blow = self._falls(system, points.get(self._blow, change))
        if blow is Blow.BEFORE:
            _die()
        yield blow
        if blow is Blow.AFTER:
            _die()

    def _falls(self, system: str, is_point: bool) -> Blow | None:
        with self._counting:
            if not self.armed:
                return None
            if self._gone == system:
                return Blow.LOST
            if not is_point:
                return None
            self.passed += 1
            if self.passed != self._number:
                return None
            self._gone = system if self._blow is Blow.GONE else None
            return self._blow

    def _recording(self, write: Callable[..., None]) -> Callable[..., None]:
        def struck(*args: Any) -> None:
            with self._call(
                "journal", change=self._blow.kills, may_fail=False
            ):  # a disk that fails is another proof's
                write(*args)

        return struck

    def _postgres(self, execute: Callable[..., Any]) -> Callable[..., Any]:
        def struck(cursor: psycopg.Cursor[Any], query: Any, *args: Any, **named: Any) -> Any:
            connection = cursor.connection
            word, change = _told(connection, query)
            ends = word in ("BEGIN", "COMMIT")
            within = not ends and not change and not getattr(connection, "looks", True)
            with self._call("PostgreSQL", change=change, may_fail=change or ends, within=within) as blow:
                if blow in (Blow.LOST, Blow.WITHIN):
                    _hang_up(connection)
                answer = execute(cursor, query, *args, **named)
                if blow in (Blow.UNANSWERED, Blow.GONE):
                    _hang_up(connection)
                    raise psycopg.OperationalError(_HUNG_UP)
            return answer

        return struck

    def _redis(self, send: Callable[..., None]) -> Callable[..., None]:
        def struck(connection: Any, command: Any, *args: Any, **named: Any) -> None:
            with self._call("Redis", change=_changes_keys(command)) as blow:
                if blow is Blow.LOST and connection._sock:
                    connection._sock.close()
                send(connection, command, *args, **named)
                if blow in (Blow.AFTER, Blow.UNANSWERED, Blow.GONE):
                    connection._sock.recv(1, socket.MSG_PEEK)  # the answer is there: it was done
                    connection._sock.close()

        return struck

    def _nats(self, request: Callable[..., Any]) -> Callable[..., Any]:
        async def struck(client: Client, subject: str, *args: Any, **named: Any) -> Any:
            with self._call("NATS", change=not _QUESTION.fullmatch(subject)) as blow:
                if blow is Blow.LOST:
                    await client._close(Client.CLOSED, do_cbs=False)
                answer = await request(client, subject, *args, **named)
                if blow in (Blow.UNANSWERED, Blow.GONE):
                    await client._close(Client.CLOSED, do_cbs=False)
                    raise ConnectionResetError(_HUNG_UP)
            return answer

        return struck

    def _aws(self, send: Callable[..., Any]) -> Callable[..., Any]:
        def struck(session: URLLib3Session, request: Any) -> Any:
            with self._call("AWS", change=not _operation(request).startswith(_LOOKUPS)) as blow:
                if blow is Blow.LOST:
                    raise ConnectionClosedError(endpoint_url=request.url)
                answer = send(session, request)
                if blow in (Blow.UNANSWERED, Blow.GONE):
                    raise ConnectionClosedError(endpoint_url=request.url)
            return answer

        return struck


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang_up(connection: psycopg.Connection[Any]) -> None:
    """End a connection behind the driver's back."""
    with socket.socket(fileno=os.dup(connection.fileno())) as ours:
        ours.shutdown(socket.SHUT_RDWR)


def _told(connection: Any, query: Any) -> tuple[str, bool]:
    """Return a statement's first word, and whether others see afterwards what it did."""
    text = query.as_string(connection) if isinstance(query, sql.Composable) else str(query)
    bare = text[_COMMENT.match(text).end() :]  # type: ignore[union-attr]
    word = bare.split(maxsplit=1)[0].rstrip(";").upper()
    if word == "BEGIN":
        connection.looks = "READ ONLY" in bare.partition(";")[0]
        return word, False
    alone = connection.info.transaction_status is TransactionStatus.IDLE
    return word, alone or (word == "COMMIT" and not connection.looks)


def _changes_keys(command: Any) -> bool:
    """Whether what is sent to Redis, all of one kind, does not only look."""
    packed = command if isinstance(command, bytes) else b"".join(command)
    return packed.split(b"\r\n", 3)[2].decode().upper() not in _LOOKING


def _operation(request: Any) -> str:
    """Return what a request asks AWS for, whichever way it is written."""
    target = request.headers.get("X-Amz-Target", b"")
    if target:
        return (target.decode() if isinstance(target, bytes) else str(target)).rpartition(".")[2]
    body = request.body.decode() if isinstance(request.body, bytes) else str(request.body or "")
    named = _ACTION.search(body) or re.search(r"/operation/(\w+)$", request.url)
    return named[1] if named else {"GET": "Get", "HEAD": "Head"}.get(request.method, str(request.method))
