"""NATS through nats-py, whose event loop stays in here."""

import asyncio
import contextlib
import json
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client

from sandbox.adapters.jetstream import JetStream, Refusal
from sandbox.deadline import within
from sandbox.errors import ArrakisError, Denied, Missing, Unreachable
from sandbox.model import ConsumerConfig, ConsumerState, Message, StreamConfig, StreamState
from sandbox.ports import Subscription
from sandbox.secrets import learn_address

__all__ = ["Nats"]

T = TypeVar("T")
_CONNZ = "$SYS.REQ.SERVER.PING.CONNZ"  # answered for the asking account by every server; needs no system user
_PAGE = 1024
_GATHER = 0.3  # seconds without another server's answer that end the waiting
_GREETING, _FAREWELL = 2.0, 0.5  # seconds for a server to take us in, and for the driver to close


class Nats:
    """A messaging system. Satisfies StreamReader and StreamWriter."""

    def __init__(
        self, urls: str, *, timeout: float = 10.0, tls_ca: str | os.PathLike[str] | None = None
    ) -> None:
        """Take one or more addresses, comma separated; `timeout` bounds each call, in seconds.

        `tls_ca` is the file of the authority that signed the servers' certificates, the value of NATS_TLS_CA;
        without it the system's are trusted. It is read when first needed: whoever asks nothing of NATS needs none. Raises
        ArrakisError for a malformed address.
        """
        self._servers = [url.strip() for url in urls.split(",") if url.strip()]
        try:
            hosts = [urlsplit(url if "://" in url else f"nats://{url}") for url in self._servers]
            self.host = ",".join(f"{host.hostname}:{host.port or 4222}" for host in hosts)
        except ValueError:
            self._servers = []
        if not self._servers:
            raise ArrakisError(
                "NATS_URL is malformed", hint="write it as nats://host:4222, commas between several"
            )
        for server in self._servers:
            learn_address(server)
        self._timeout = timeout
        self._tls_ca = tls_ca

    def subscriptions(self) -> list[Subscription]:
        """Return who listens below `sandbox.`: this account's clients on every server, and SANDBOX's consumers."""

        async def ask(client: Client) -> list[Subscription]:
            return await _clients(client) + await _consumers(JetStream(client, timeout=self._timeout))

        return self._run(ask)

    def stream(self, name: str) -> StreamState | None:
        """Return a stream as it is now, or None if there is none."""
        return self._jetstream(lambda jetstream: jetstream.stream(name))

    def consumer(self, stream: str, name: str) -> ConsumerState | None:
        """Return a consumer as it is now, or None if it or its stream does not exist."""
        return self._jetstream(lambda jetstream: jetstream.consumer(stream, name))

    def messages(self, stream: str, subject: str, limit: int, *, after: int = 0) -> list[Message]:
        """Return at most `limit` messages on a subject behind the sequence `after`, oldest first.

        It asks for one message after the other, which needs no consumer. Raises Missing without the stream.
        """
        return self._jetstream(lambda jetstream: jetstream.messages(stream, subject, limit, after))

    def create_stream(self, config: StreamConfig) -> None:
        """Create a stream. Raises ArrakisError if one exists that is set up differently, or it is refused."""
        self._jetstream(lambda jetstream: jetstream.create_stream(config))

    def create_consumer(self, config: ConsumerConfig) -> None:
        """Create a consumer. Raises ArrakisError if one exists that is set up differently, or it is refused.

        Before 2.10 the server knows no "create only" and changes one that exists: look first.
        """
        self._jetstream(lambda jetstream: jetstream.create_consumer(config))

    def change_stream(self, name: str, changes: Mapping[str, Any]) -> None:
        """Change these fields of a StreamConfig. Raises Missing without it, ArrakisError if it is refused."""
        self._jetstream(lambda jetstream: jetstream.change_stream(name, changes))

    def delete_stream(self, name: str) -> None:
        """Delete a stream with all that is in it."""
        self._jetstream(lambda jetstream: jetstream.delete_stream(name))

    def delete_consumer(self, stream: str, name: str) -> None:
        """Delete a consumer."""
        self._jetstream(lambda jetstream: jetstream.delete_consumer(stream, name))

    def delete_message(self, stream: str, sequence: int) -> None:
        """Delete one message of a stream. Raises ArrakisError if it is not there."""
        self._jetstream(lambda jetstream: jetstream.delete_message(stream, sequence))

    def publish(self, stream: str, subject: str, payload: bytes, *, id: str = "") -> int:
        """Publish one message into this stream and no other; return its sequence. Raises Missing."""
        return self._jetstream(lambda jetstream: jetstream.publish(stream, subject, payload, id))

    def _jetstream(self, work: Callable[[JetStream], Awaitable[T]]) -> T:
        return self._run(lambda client: work(JetStream(client, timeout=self._timeout)))

    def _run(self, work: Callable[[Client], Awaitable[T]]) -> T:
        where = f"NATS at {self.host}"
        try:
            return within(self._timeout, lambda: asyncio.run(self._connected(work)), where)
        except (Refusal, nats.errors.Error, OSError, TimeoutError) as error:
            raise _translated(error, where) from error

    async def _connected(self, work: Callable[[Client], Awaitable[T]]) -> T:
        heard: asyncio.Queue[Exception] = asyncio.Queue()
        client = await self._first_that_answers(heard)
        try:
            return await _unless_forbidden(asyncio.ensure_future(work(client)), heard)
        finally:
            await _hang_up(client)

    async def _first_that_answers(self, heard: "asyncio.Queue[Exception]") -> Client:
        """Try one server after the other: given them all, the driver gives up at the first that hangs."""
        failures: list[Exception] = []
        tls = _trusting(self._tls_ca) if self._tls_ca else None
        for server in self._servers:
            client = _Client()
            connecting = client.connect(
                servers=[server],
                name="arrakis-runbooks",
                allow_reconnect=False,
                max_reconnect_attempts=1,  # with 0 it would try a dead server for ever
                reconnect_time_wait=0,
                error_cb=heard.put,
                tls=tls,
            )
            try:
                await asyncio.wait_for(connecting, min(_GREETING, self._timeout / len(self._servers)))
                return client
            except (nats.errors.Error, OSError, TimeoutError) as error:
                failures.append(_said_last(heard) or error)
                await _hang_up(client)
        raise next(filter(_forbids, failures), failures[-1])


class _Client(Client):
    """The driver's client, which would log in unencrypted at tls:// if the server did not insist on TLS."""

    def _connect_command(self) -> bytes:
        server = self._current_server
        if server and server.uri.scheme == "tls" and not self._server_info.get("tls_required"):
            raise nats.errors.SecureConnWantedError
        return super()._connect_command()


async def _unless_forbidden(work: "asyncio.Future[T]", heard: "asyncio.Queue[Exception]") -> T:
    """Return the work's result. What is forbidden gets no answer at all, only an error beside it: raise that."""
    while True:
        hearing = asyncio.ensure_future(heard.get())
        either: set[asyncio.Future[Any]] = {work, hearing}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            hearing.cancel()
            return work.result()
        if _forbids(hearing.result()):
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise hearing.result()


async def _hang_up(client: Client) -> None:
    with contextlib.suppress(TimeoutError):  # after a failed TLS handshake the driver would wait for ever
        await asyncio.wait_for(client.close(), _FAREWELL)


def _said_last(heard: "asyncio.Queue[Exception]") -> Exception | None:
    """What the driver reports beside "no servers available", which says nothing."""
    last = None
    while not heard.empty():
        last = heard.get_nowait()
    return last


def _forbids(error: Exception) -> bool:
    said = str(error).lower()
    return "authorization violation" in said or "permissions violation" in said


def _trusting(tls_ca: str | os.PathLike[str]) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=os.fspath(tls_ca))
    except OSError as error:  # a file without a certificate in it is one, too
        raise ArrakisError(
            f"NATS_TLS_CA: cannot use {os.fspath(tls_ca)} ({error.strerror or error})",
            hint="name the PEM file of the authority that signed the NATS servers' certificates",
        ) from error


def _translated(error: Exception, where: str) -> ArrakisError:
    why = str(error) or f"no answer ({type(error).__name__})"
    if _forbids(error) or isinstance(error, nats.errors.AuthorizationError):
        return Denied(f"{where} refused: {why}", hint="check the user and password in NATS_URL")
    if isinstance(error, Refusal) and error.code == 404:
        return Missing(f"{where}: {why}")
    if isinstance(error, Refusal) and error.code != 503:
        return ArrakisError(f"{where} refused: {why}")
    if isinstance(error, nats.errors.MaxPayloadError | nats.errors.BadSubjectError):
        return ArrakisError(f"{where}: {why}")
    if isinstance(error, nats.errors.NoRespondersError):
        return Unreachable(f"{where}: JetStream does not answer", hint="is it enabled for this account?")
    return Unreachable(f"{where}: {why}", hint="is it up, and is NATS_URL right?")


async def _clients(client: Client) -> list[Subscription]:
    found: list[Subscription] = []
    offset, more = 0, True
    while more:
        answers = await _ask_all(client, {"subscriptions": True, "limit": _PAGE, "offset": offset})
        if not answers:
            raise Unreachable(
                "NATS did not say who is connected", hint="the account needs $SYS.REQ.SERVER.PING.CONNZ"
            )
        for answer in answers:
            for connection in answer["data"].get("connections") or ():
                who = connection.get("name") or f"{connection.get('ip')}:{connection.get('port')}"
                for subject in connection.get("subscriptions_list") or ():
                    found.append(Subscription(client=who, subject=subject))
        offset += _PAGE
        more = any(answer["data"].get("total", 0) > offset for answer in answers)
    return [item for item in found if item.subject.startswith("sandbox.")]


async def _ask_all(client: Client, question: dict[str, Any]) -> list[dict[str, Any]]:
    """Ask every server of the cluster at once; their answers come one by one."""
    inbox = client.new_inbox()
    listening = await client.subscribe(inbox)
    await client.publish(_CONNZ, json.dumps(question).encode(), reply=inbox)
    answers: list[dict[str, Any]] = []
    while True:
        try:
            message = await listening.next_msg(timeout=_GATHER if answers else 2.0)
        except nats.errors.TimeoutError:
            return answers
        answer = json.loads(message.data or b"{}")
        if "data" in answer:
            answers.append(answer)
        # How many there are nobody says: a cluster's addresses may be hidden, or more than one a server.
        if not answers or not answers[-1].get("server", {}).get("cluster"):
            return answers


async def _consumers(jetstream: JetStream) -> list[Subscription]:
    return [
        Subscription(client=f"consumer {each['name']}", subject=subject)
        for each in await jetstream.consumers("SANDBOX")
        for subject in [each["config"].get("filter_subject"), *(each["config"].get("filter_subjects") or ())]
        if subject and subject.startswith("sandbox.")
    ]
