"""What mends the way that events take: a cached route deleted, a stream or consumer made or corrected; and a canary sent."""

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from diagnostics.routes import read_cached
from diagnostics.streams import SeenStream
from runbooks.engine.gate import Gate
from runbooks.engine.model import Action, Observation, Reversibility, State
from runbooks.rights import CORRECTING, MAKING_CONSUMERS, MAKING_STREAMS, TRYING_THE_WAY, UNROUTING
from sandbox import routes, streams
from sandbox.errors import ArrakisError
from sandbox.model import ConsumerConfig, Message, StreamConfig
from sandbox.streams import drift, from_plain
from sandbox.text import counted

__all__ = [
    "CANARY",
    "CorrectStream",
    "CreateConsumer",
    "CreateStream",
    "DeleteRoute",
    "PublishCanary",
    "canary",
]

CANARY = "arrakis.canary"
"""The type of a canary's event: no gateway makes such events, and no worker knows them."""

_STREAM, _CONSUMER = "SANDBOX", "sandbox-consumer"
_REMEMBERED = timedelta(seconds=110)  # the server knows a message's id for two minutes
_MOST = 1000  # canaries of one sandbox within those
_TAKEN_WITHIN, _LOOK = 3.0, 0.02  # seconds that a canary's way is watched for, and between two looks


class DeleteRoute:
    """Deletes a guild's cached route that is not what the table says; the next event of the guild caches the right one.

    Undone by putting back what stood there, with what was left of its life when the plan was made.
    """

    verb = "delete route"
    rights = UNROUTING

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look whether it still stands there, and whether the table says the same by now."""
        guild, value = action.before["guild"], action.before["value"]
        found = read_cached(self._gate.read.keys, [guild])
        with self._gate.read.sql.snapshot() as snapshot:
            right = str(routes.mapped(snapshot, [guild]).get(guild, routes.NOWHERE))
        if not found:
            return Observation(state=State.AFTER, reason="no route is cached")
        evidence = {"value": found[0].value}
        if found[0].value == right and not found[0].lasts:
            return Observation(state=State.AFTER, reason="what is cached is right", evidence=evidence)
        state = State.BEFORE if found[0].value == value else State.CHANGED
        return Observation(state=state, reason=f"{found[0].value} is cached", evidence=evidence)

    def in_use(self, action: Action) -> str | None:
        """Nobody is asked: deleting one too many costs the EventRouter a look at the table."""
        return None

    def apply(self, action: Action) -> None:
        """Delete it."""
        with self._gate.lease():
            self._gate.write.keys.unlink([routes.key_of(action.before["guild"])])

    def revert(self, action: Action) -> None:
        """Put back what stood there, unless another route is cached by now."""
        before = action.before
        with self._gate.lease():
            if before["guild"] in routes.cached(self._gate.write.keys, [before["guild"]]):
                raise ArrakisError(f"another route of guild {before['guild']} is cached by now")
            left = before["seconds_left"]
            lifetime = None if left is None else timedelta(seconds=max(left, 1.0))
            value = before["value"].encode()
            self._gate.write.keys.put(routes.key_of(before["guild"]), value, lifetime=lifetime)


class CreateStream:
    """Makes a stream that is missing, as configured. Undone by deleting it, as long as nothing is in it."""

    verb = "create stream"
    rights = MAKING_STREAMS

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look whether it is there, and as planned."""
        config = _stream_of(action.after)
        state = self._gate.read.streams.stream(config.name)
        if state is None:
            return Observation(state=State.BEFORE, reason="there is none")
        if found := drift(config, state.config):
            return Observation(state=State.CHANGED, reason=f"somebody made it otherwise: {found[0]}")
        return Observation(
            state=State.AFTER, reason=f"it is there, with {counted(state.messages, 'message')}"
        )

    def in_use(self, action: Action) -> str | None:
        """Nobody uses what is not there."""
        return None

    def apply(self, action: Action) -> None:
        """Make it."""
        with self._gate.lease():
            self._gate.write.streams.create_stream(_stream_of(action.after))

    def revert(self, action: Action) -> None:
        """Delete it, if nothing is in it."""
        name = _stream_of(action.after).name
        with self._gate.lease():
            state = self._gate.write.streams.stream(name)
            if state and state.messages:
                raise ArrakisError(
                    f"stream {name} has {counted(state.messages, 'message')} by now: it is in use"
                )
            self._gate.write.streams.delete_stream(name)


class CorrectStream:
    """Gives a stream that has drifted the configuration that is expected, field by field. Undone by the old one."""

    verb = "correct stream"
    rights = CORRECTING

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look whether it is as it was when the plan was made, or as it should be."""
        was, wanted = _stream_of(action.before), _stream_of(action.after)
        state = self._gate.read.streams.stream(was.name)
        if state is None:
            return Observation(state=State.CHANGED, reason="there is no such stream any more")
        evidence = {"config": streams.as_plain(state.config)}
        if not drift(wanted, state.config):
            return Observation(state=State.AFTER, reason="it is as expected", evidence=evidence)
        if altered := drift(was, state.config):
            return Observation(
                state=State.CHANGED, reason=f"altered since the plan: {altered[0]}", evidence=evidence
            )
        return Observation(state=State.BEFORE, reason="as planned", evidence=evidence)

    def in_use(self, action: Action) -> str | None:
        """Nobody is asked: it is what everybody who uses it expects."""
        return None

    def apply(self, action: Action) -> None:
        """Change the fields that differ."""
        self._change(action, _stream_of(action.after))

    def revert(self, action: Action) -> None:
        """Change them back."""
        self._change(action, _stream_of(action.before))

    def _change(self, action: Action, config: StreamConfig) -> None:
        """Change it; what it would throw away by now has to have been known, and typed, before."""
        changes = {name: getattr(config, name) for name in action.before["fields"]}
        with self._gate.lease():
            seen = SeenStream(expected=config, state=self._gate.write.streams.stream(config.name))
            lost = seen.beyond(config, datetime.now(UTC))
            if lost and action.reversibility is Reversibility.REVERSIBLE:
                raise ArrakisError(
                    f"stream {config.name} was left alone: {lost}",
                    hint="run the runbook again, or `nats stream edit`",
                )
            self._gate.write.streams.change_stream(config.name, changes)


class CreateConsumer:
    """Makes a consumer that is missing, as configured. Undone by deleting it, as long as nothing was handed out."""

    verb = "create consumer"
    rights = MAKING_CONSUMERS

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look whether it is there, and as planned."""
        config = _consumer_of(action.after)
        state = self._gate.read.streams.consumer(config.stream, config.name)
        if state is None:
            return Observation(state=State.BEFORE, reason="there is none")
        if found := drift(config, state.config):
            return Observation(state=State.CHANGED, reason=f"somebody made it otherwise: {found[0]}")
        return Observation(
            state=State.AFTER,
            reason=f"it is there, {counted(state.pending, 'message waits', 'messages wait')}",
        )

    def in_use(self, action: Action) -> str | None:
        """Nobody uses what is not there."""
        return None

    def apply(self, action: Action) -> None:
        """Make it. Raises Missing without its stream."""
        with self._gate.lease():
            self._gate.write.streams.create_consumer(_consumer_of(action.after))

    def revert(self, action: Action) -> None:
        """Delete it, if nothing was handed out by it."""
        config = _consumer_of(action.after)
        with self._gate.lease():
            state = self._gate.write.streams.consumer(config.stream, config.name)
            if state and state.delivered:
                raise ArrakisError(f"{config.where} has handed out messages by now: it is in use")
            self._gate.write.streams.delete_consumer(config.stream, config.name)


class PublishCanary:
    """Publishes a test event to a sandbox's subjects, and watches how far it comes. It ends with the stream's five minutes.

    It bears the plan's own id, so that it is found again and never stored twice. Undone by taking it out of the stream; who
    has taken it has taken it.
    """

    verb = "publish canary"
    rights = TRYING_THE_WAY

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate
        self._watched: dict[str, dict[str, Any]] = {}  # by its id, what was seen of its way

    def observe(self, action: Action) -> Observation:
        """Look for it in the stream."""
        if found := self._found(action):
            evidence = {"sequence": found.sequence, **self._watched.get(action.before["event"], {})}
            return Observation(
                state=State.AFTER,
                reason=f"it is in the stream as sequence {found.sequence}",
                evidence=evidence,
            )
        if datetime.now(UTC) - datetime.fromisoformat(action.before["planned_at"]) > _REMEMBERED:
            return Observation(state=State.CHANGED, reason="cannot tell any more whether it was published")
        return Observation(state=State.BEFORE, reason="it is not in the stream")

    def in_use(self, action: Action) -> str | None:
        """Nobody is asked: it does no harm."""
        return None

    def apply(self, action: Action) -> None:
        """Publish it, and watch it until the consumer's worker has acknowledged it, for three seconds at most."""
        event, began = action.before["event"], time.monotonic()
        with self._gate.lease():
            sequence = streams.publish(
                self._gate.write.streams,
                UUID(action.before["sandbox"]),
                CANARY,
                json.dumps(action.after["payload"]).encode(),
                id=event,
            )
        self._watched[event] = {"stored_ms": _since(began), **self._way(sequence, began)}

    def revert(self, action: Action) -> None:
        """Take it out of the stream."""
        with self._gate.lease():
            if found := self._found(action):
                self._gate.write.streams.delete_message(_STREAM, found.sequence)

    def _way(self, sequence: int, began: float) -> dict[str, Any]:
        """When the consumer handed it out, and when all up to it was acknowledged, in milliseconds; None if not in time."""
        taken = acknowledged = None
        while acknowledged is None and time.monotonic() - began < _TAKEN_WITHIN:
            state = self._gate.read.streams.consumer(_STREAM, _CONSUMER)
            if state is None:
                break
            if taken is None and state.delivered >= sequence:
                taken = _since(began)
            if state.acknowledged >= sequence:
                acknowledged = _since(began)
            time.sleep(_LOOK)
        return {"taken_ms": taken, "acknowledged_ms": acknowledged}

    def _found(self, action: Action) -> Message | None:
        reader = self._gate.read.streams
        if reader.stream(_STREAM) is None:
            return None
        subject = streams.subject_of(UUID(action.before["sandbox"]), CANARY)
        found = reader.messages(_STREAM, subject, _MOST)
        return next((each for each in found if action.before["event"].encode() in each.data), None)


def canary(event: str, *, guild: str | None, at: datetime) -> dict[str, Any]:
    """Return a canary's payload, in the shape of the gateway's events; what is no canary's has no `canary`."""
    return {
        "event_id": event,
        "event_type": CANARY,
        "shard_id": 0,
        "timestamp": int(at.timestamp() * 1000),
        "guild_id": guild,
        "channel_id": None,
        "user_id": None,
        "data": {"canary": True, "from": "arrakis-runbooks rb-sb-004", "note": "a test event: ignore it"},
    }


def _since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)


def _stream_of(side: Mapping[str, Any]) -> StreamConfig:
    config = from_plain(side["config"])
    assert isinstance(config, StreamConfig)
    return config


def _consumer_of(side: Mapping[str, Any]) -> ConsumerConfig:
    config = from_plain(side["config"])
    assert isinstance(config, ConsumerConfig)
    return config
