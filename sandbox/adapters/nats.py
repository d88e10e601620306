"""NATS through nats-py, whose event loop stays in here."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import nats
import nats.errors
from nats.aio.client import Client
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from sandbox.deadline import within
from sandbox.errors import ArrakisError, Denied, Unreachable
from sandbox.ports import Subscription

__all__ = ["Nats"]

T = TypeVar("T")
_CONNZ = "$SYS.REQ.SERVER.PING.CONNZ"  # answered for the asking account by every server; needs no system user
_PAGE = 1024
_GATHER = 0.3  # seconds without another server's answer that end the waiting


class Nats:
    """A messaging system. Satisfies StreamReader."""

    def __init__(self, urls: str, *, timeout: float = 10.0) -> None:
        """Take one or more addresses, comma separated; `timeout` bounds each call, in seconds."""
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
        self._timeout = timeout

    def subscriptions(self) -> list[Subscription]:
        """Return who listens below `sandbox.`: this account's clients on every server, and SANDBOX's consumers."""
        return self._run(_subscriptions)

    def _run(self, work: Callable[[Client], Awaitable[T]]) -> T:
        where = f"NATS at {self.host}"
        try:
            return within(self._timeout, lambda: asyncio.run(self._connected(work)), where)
        except nats.errors.AuthorizationError as error:
            raise Denied(f"{where} refused the credentials", hint="check NATS_URL") from error
        except (nats.errors.Error, JetStreamError, OSError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            raise Unreachable(f"{where}: {why}", hint="is it up, and is NATS_URL right?") from error

    async def _connected(self, work: Callable[[Client], Awaitable[T]]) -> T:
        client = await nats.connect(
            servers=self._servers,
            name="arrakis-runbooks",
            connect_timeout=2,
            allow_reconnect=False,
            max_reconnect_attempts=0,
            error_cb=_quiet,
        )
        try:
            return await work(client)
        finally:
            await client.close()


async def _quiet(_: Exception) -> None:
    """Errors reach the caller as exceptions; the driver need not print them too."""


async def _subscriptions(client: Client) -> list[Subscription]:
    found = await _clients(client)
    return found + await _consumers(client)


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
        if not answers or len(answers) >= len(client.servers):
            return answers


async def _consumers(client: Client) -> list[Subscription]:
    try:
        consumers = await client.jetstream().consumers_info("SANDBOX")
    except NotFoundError:  # no such stream, so no consumers; any other error is unknown, not none
        return []
    return [
        Subscription(client=f"consumer {info.name}", subject=subject)
        for info in consumers
        for subject in [info.config.filter_subject, *(getattr(info.config, "filter_subjects", None) or ())]
        if subject and subject.startswith("sandbox.")
    ]
