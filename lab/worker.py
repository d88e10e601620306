"""The deployed worker's stand-in: `python -m lab.worker`, which lab.ecs runs as the task of the service arrakis-worker.

It is an EventRouter, and serves the sandboxes' own consumer as a sandbox's worker does. What it logs and counts goes to
stdout as the container's does. An event that goes to production is published where the deployed code publishes it: on the
subject that it came from, which the EventRouter consumes. SIGUSR1 makes it hang: it lives on, and takes nothing any more.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from lab.names import WORKER_READY
from lab.processes import die_with_parent
from sandbox import metrics, routes, streams
from sandbox.adapters.nats import Nats
from sandbox.adapters.postgres import Postgres
from sandbox.adapters.redis import Redis
from sandbox.errors import ArrakisError
from sandbox.joblog import fields, logger

__all__ = ["main"]

_SECONDS = 5.0
_BATCH = 10  # events that are asked for at a time; the next are asked for when half of them have come
_PULL_SECONDS = 5.0
_RETRY_SECONDS = 0.2  # after an answer that there is no such consumer
_BREATH = 0.01  # after each event: one that circles would otherwise take all of a processor
_GLANCE_SECONDS = 1.0
_COUNT_SECONDS, _CALM_SECONDS = 0.5, 1.0
_NO_RESPONDERS = {"name": "NatsError", "message": "503", "code": "503"}

Handle = Callable[[Msg], Awaitable[None]]


def main(variables: Mapping[str, str]) -> int:
    """Route until SIGTERM; the exit code."""
    die_with_parent()
    return asyncio.run(_run(variables))


async def _run(variables: Mapping[str, str]) -> int:
    level, url = variables.get("LOG_LEVEL", "info"), variables["NATS_URL"]
    log = logger("NatsClient", level=level, stream=sys.stdout)
    log.info("Connecting to NATS", extra=fields(servers=[url], tls=False))
    try:
        client = await _connected(url)
        await asyncio.to_thread(
            streams.ensure, Nats(url), [*streams.expected_streams(), *streams.expected_consumers()]
        )
    except (nats.errors.Error, OSError, ArrakisError) as error:
        log.critical("Failed to start worker (NATS mode)", extra=fields(error=_told(error)))
        return 1
    log.info("Connected to NATS JetStream")
    await _work(client, _Router(client, variables))
    await client.close()
    return 0


async def _work(client: Client, router: "_Router") -> None:
    """Serve both consumers until SIGTERM, and keep count; after SIGUSR1, none."""
    jobs = [
        asyncio.create_task(_serve(client, "EVENTS", "sandbox-event-router", router.route)),
        asyncio.create_task(_serve(client, "SANDBOX", "sandbox-consumer", _take)),
    ]
    counting = asyncio.create_task(router.count())
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    for job in jobs:
        job.add_done_callback(lambda ended: None if ended.cancelled() else over.set())
    loop.add_signal_handler(signal.SIGTERM, over.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: [job.cancel() for job in jobs])
    router.log.info(WORKER_READY)
    parent = os.getppid()
    while not over.is_set() and os.getppid() == parent:  # of its end the kernel tells on Linux only
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), _GLANCE_SECONDS)
    router.log.info("Stopping event router")
    for job in (*jobs, counting):
        job.cancel()
    ends = await asyncio.gather(*jobs, counting, return_exceptions=True)
    router.log.info("Event router stopped")
    for failure in ends:
        if isinstance(failure, Exception):
            raise failure


class _Router:
    """Sends each event of a guild to the guild's sandbox, and what has none back to production."""

    def __init__(self, client: Client, variables: Mapping[str, str]) -> None:
        """Take the connection, and the variables that name the table and the cache."""
        self._jetstream = client.jetstream(timeout=_SECONDS)
        self._database = Postgres(variables["DATABASE_URL"], tag="arrakis-worker", timeout=_SECONDS)
        self._keys = Redis(variables["REDIS_URL"], timeout=_SECONDS)
        self._environment = variables["ARRAKIS_ENV"]
        self._failed = 0
        self.log = logger("EventRouter", level=variables.get("LOG_LEVEL", "info"), stream=sys.stdout)

    async def route(self, message: Msg) -> None:
        """Publish one event where it belongs, and acknowledge it; one that fails is to come again."""
        try:
            target = await self._target(message.subject, _guild_of(message.data))
            await self._jetstream.publish(target, message.data)
            await message.ack()
        except (nats.errors.Error, ArrakisError, ValueError) as error:
            self._failed += 1
            about = fields(error=_told(error), subject=message.subject)
            self.log.error("Failed to route event", extra=about)
            await message.nak()
        await asyncio.sleep(_BREATH)

    async def count(self) -> None:
        """Publish how many failed, as often as there are any, and none once there have been none for a while."""
        calm_since, said = time.monotonic(), -1
        while True:
            failed, self._failed = self._failed, 0
            if failed:
                calm_since = time.monotonic()
            calm = time.monotonic() - calm_since > _CALM_SECONDS
            if failed or (said and (said < 0 or calm)):
                counted = {"EventRoutingErrors": failed}
                print(
                    metrics.emf(counted, units={}, environment=self._environment, at=datetime.now(UTC)),
                    flush=True,
                )
                said = failed
            await asyncio.sleep(_COUNT_SECONDS)

    async def _target(self, subject: str, guild: str | None) -> str:
        if not guild:
            return subject
        route = await asyncio.to_thread(routes.look_up, self._database, self._keys, guild)
        return f"sandbox.{route.sandbox}.{subject}" if route.sandbox else subject


def _guild_of(data: bytes) -> str | None:
    """The guild that an event names, if any. Raises ValueError where it is no JSON."""
    event = json.loads(data)
    if not isinstance(event, dict):
        return None
    inner = event.get("d")
    return event.get("guild_id") or (inner.get("guild_id") if isinstance(inner, dict) else None)


async def _take(message: Msg) -> None:
    """Do with an event what a sandbox's worker does, as far as anybody sees it."""
    await message.ack()


async def _serve(client: Client, stream: str, consumer: str, handle: Handle) -> None:
    """Handle one event after the other. Whoever cancels this waits until the one in hand is done."""
    async for message in _pulled(client, stream, consumer):
        handling = asyncio.ensure_future(handle(message))
        try:
            await asyncio.shield(handling)
        except asyncio.CancelledError:
            await handling
            raise


async def _pulled(client: Client, stream: str, consumer: str) -> AsyncIterator[Msg]:
    """Yield what a consumer has. A pull is always under way, as with the deployed driver's consume()."""
    inbox = client.new_inbox()
    arriving = await client.subscribe(inbox)
    question = json.dumps({"batch": _BATCH, "expires": int(_PULL_SECONDS * 1e9)}).encode()
    due = 0
    try:
        while True:
            if due <= _BATCH // 2:
                await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", question, reply=inbox)
                due += _BATCH
            try:
                message = await arriving.next_msg(timeout=2 * _PULL_SECONDS)
            except nats.errors.TimeoutError:
                due = 0
                continue
            _insist()
            status = (message.headers or {}).get("Status")
            if status is None:
                due -= 1
                yield message
            elif status == "408":  # a pull is over
                due -= int((message.headers or {}).get("Nats-Pending-Messages", due))
            else:  # there is no such consumer, or no longer
                due = 0
                await asyncio.sleep(_RETRY_SECONDS)
    finally:
        with contextlib.suppress(nats.errors.Error):
            await arriving.unsubscribe()


def _insist() -> None:
    """End the task if it was cancelled: where a message comes at that very moment, Python 3.11's wait_for loses it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _connected(url: str) -> Client:
    where = urlsplit(url)
    # Where nobody answers the driver would try for ever; the deployed one gives up.
    _, knock = await asyncio.open_connection(where.hostname, where.port)
    knock.close()
    return await nats.connect(
        url, name="arrakis-worker-lab", max_reconnect_attempts=-1, reconnect_time_wait=1, error_cb=_quietly
    )


async def _quietly(_: Exception) -> None:
    """What fails is told where it fails."""


def _told(error: Exception) -> Mapping[str, Any]:
    """An error as the deployed worker's log has it: by name, message and code, without addresses."""
    if isinstance(error, nats.errors.NoRespondersError | nats.js.errors.NoStreamResponseError):
        return _NO_RESPONDERS
    if isinstance(error, nats.js.errors.APIError):
        return {"name": "NatsError", "message": error.description or "", "code": str(error.code)}
    if isinstance(error, nats.errors.NoServersError | OSError):
        return {"name": "NatsError", "message": "CONNECTION_REFUSED", "code": "CONNECTION_REFUSED"}
    return {"name": type(error).__name__, "message": str(error)}


if __name__ == "__main__":
    sys.exit(main(os.environ))
