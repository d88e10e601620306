"""The NATS part: the two streams and their consumers, as the deployed system makes them, with one replica."""

import asyncio

import nats
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig

__all__ = ["lay_out"]

_STREAMS = {"SANDBOX": "sandbox.>", "EVENTS": "events.>"}
_CONSUMERS = {
    "SANDBOX": ConsumerConfig(durable_name="sandbox-consumer", ack_policy=AckPolicy.EXPLICIT),
    "EVENTS": ConsumerConfig(
        durable_name="sandbox-event-router",
        ack_policy=AckPolicy.EXPLICIT,
        filter_subject="events.>",
        max_ack_pending=100,
        ack_wait=15,
        max_deliver=5,
    ),
}


def lay_out(nats_url: str) -> None:
    """Create streams and consumers. Must not be called from within a running event loop."""
    asyncio.run(_lay_out(nats_url))


async def _lay_out(nats_url: str) -> None:
    client = await nats.connect(nats_url, connect_timeout=2, max_reconnect_attempts=2)
    try:
        jetstream = client.jetstream()
        for name, subject in _STREAMS.items():
            await jetstream.add_stream(_stream(name, subject))
            await jetstream.add_consumer(name, _CONSUMERS[name])
    finally:
        await client.close()


def _stream(name: str, subject: str) -> StreamConfig:
    return StreamConfig(
        name=name,
        subjects=[subject],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.MEMORY,
        max_age=300,
        max_msgs=500_000,
        num_replicas=1,
    )
