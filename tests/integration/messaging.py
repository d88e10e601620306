"""A look at NATS beside the library."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import nats
from nats.aio.client import Client

T = TypeVar("T")


def by_hand(url: str, work: Callable[[Client], Awaitable[T]]) -> T:
    """Do something with nats-py, beside the library."""

    async def connected() -> T:
        client = await nats.connect(url, connect_timeout=2, allow_reconnect=False)
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(connected())
