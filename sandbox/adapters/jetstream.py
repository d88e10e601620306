"""JetStream's API, as questions over an open connection: nats-py's own methods cannot say "create only".

Written from the JSON API of nats-server 2.9, the oldest that can look for the next message on a subject; later ones
answer the same. Times travel in nanoseconds.
"""

import asyncio
import json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from sandbox.errors import Missing
from sandbox.model import ConsumerConfig, ConsumerState, Message, StreamConfig, StreamState
from sandbox.streams import takes

__all__ = ["JetStream", "Refusal", "document", "duration", "leaderless", "nanoseconds"]

_NO_MESSAGE = 10037
_NO_STORE = 10049
_PAUSES = (0.05, 0.1, 0.2, 0.4)  # seconds, while a server clears away the files of a stream that was deleted
_MICROSECOND = timedelta(microseconds=1)


class Refusal(Exception):
    """JetStream answered, with an error. `code` is like HTTP's, `number` its own, finer one."""

    def __init__(self, request: str, error: Mapping[str, Any]) -> None:
        """Take the request and the error as it was answered."""
        super().__init__(f"{error.get('description', 'no reason given')} ({request})")
        self.code: int = error.get("code", 0)
        self.number: int = error.get("err_code", 0)


class JetStream:
    """JetStream over one open connection. Raises Refusal, and nats-py's errors, to be translated by the caller."""

    def __init__(self, client: Client, *, timeout: float) -> None:
        """Use a connected client; `timeout` bounds each answer, in seconds."""
        self._client, self._timeout = client, timeout

    async def stream(self, name: str) -> StreamState | None:
        """Return a stream as it is now, or None."""
        found = await self._found(f"STREAM.INFO.{name}")
        return _stream_state(found) if found else None

    async def consumer(self, stream: str, name: str) -> ConsumerState | None:
        """Return a consumer as it is now, or None."""
        found = await self._found(f"CONSUMER.INFO.{stream}.{name}")
        return _consumer_state(found) if found else None

    async def consumers(self, stream: str) -> list[Mapping[str, Any]]:
        """Return what the server says about each consumer of a stream; of a stream that is missing, nothing.

        A cluster lists those of which it knows only the name apart: nobody leads them just now. Then this fails.
        """
        found: list[Mapping[str, Any]] = []
        while page := await self._found(f"CONSUMER.LIST.{stream}", {"offset": len(found)}):
            if silent := page.get("missing"):
                raise leaderless(f"consumers of {stream}: {', '.join(silent)}", f"CONSUMER.LIST.{stream}")
            if not page["consumers"]:
                break
            found += page["consumers"]
        return found

    async def messages(self, stream: str, subject: str, limit: int, after: int) -> list[Message]:
        """Return the messages on a subject behind a sequence, oldest first, at most `limit`."""
        found: list[Message] = []
        while len(found) < limit:
            question = {"seq": after + 1, "next_by_subj": subject}
            try:
                answer = await self._ask(f"STREAM.MSG.GET.{stream}", question)
            except Refusal as refusal:
                if refusal.number == _NO_MESSAGE:
                    break
                raise
            found.append(_message(answer["message"]))
            after = found[-1].sequence
        return found

    async def create_stream(self, config: StreamConfig) -> None:
        """Create a stream; the server refuses where another of that name is set up differently."""
        await self._made(config.name, _stream_request(config))

    async def create_consumer(self, config: ConsumerConfig) -> None:
        """Create a consumer; the server refuses where another of that name is set up differently.

        Servers before 2.10 do not know `action` and would change it instead; so look first.
        """
        request = {"stream_name": config.stream, "action": "create", "config": _consumer_request(config)}
        await self._ask(f"CONSUMER.CREATE.{config.stream}.{config.name}", request)

    async def change_stream(self, name: str, changes: Mapping[str, Any]) -> None:
        """Change these fields of a StreamConfig, and leave all else about a stream as it is."""
        config = (await self._ask(f"STREAM.INFO.{name}"))["config"]
        await self._ask(f"STREAM.UPDATE.{name}", {**config, **_fields(changes)})

    async def delete_stream(self, name: str) -> None:
        """Delete a stream with all that is in it; one that is gone is no error."""
        await self._found(f"STREAM.DELETE.{name}")

    async def delete_consumer(self, stream: str, name: str) -> None:
        """Delete a consumer; one that is gone is no error."""
        await self._found(f"CONSUMER.DELETE.{stream}.{name}")

    async def delete_message(self, stream: str, sequence: int) -> None:
        """Delete one message."""
        await self._ask(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True})

    async def publish(self, stream: str, subject: str, payload: bytes, id: str) -> int:
        """Publish into one stream and no other; return the sequence, of the first one where `id` was published before."""
        # Where the stream is missing but somebody listens, nobody would answer until the time is up.
        if await self.stream(stream) is None:
            raise _no_home(stream, subject)
        headers = {"Nats-Expected-Stream": stream, **({"Nats-Msg-Id": id} if id else {})}
        try:
            answer = await self._client.request(subject, payload, timeout=self._timeout, headers=headers)
        except nats.errors.NoRespondersError as error:
            found = await self.stream(stream)
            if found is None or not takes(found.config.subjects, subject):
                raise _no_home(stream, subject) from error
            raise leaderless(f"stream {stream}", subject) from error
        return int(document(answer, subject)["seq"])

    async def _made(self, stream: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Create a stream. Where one of that name was deleted a moment ago there is no place for its store yet: it is tried again."""
        for pause in _PAUSES:
            try:
                return await self._ask(f"STREAM.CREATE.{stream}", wanted)
            except Refusal as refusal:
                if refusal.number != _NO_STORE:
                    raise
            await asyncio.sleep(pause)
        return await self._ask(f"STREAM.CREATE.{stream}", wanted)

    async def _found(self, request: str, question: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        try:
            return await self._ask(request, question)
        except Refusal as refusal:
            if refusal.code == 404:
                return None
            raise

    async def _ask(self, request: str, question: Mapping[str, Any] | None = None) -> dict[str, Any]:
        body = json.dumps(question).encode() if question else b""
        answer = await self._client.request(f"$JS.API.{request}", body, timeout=self._timeout)
        return document(answer, request)


def leaderless(what: str, request: str) -> Refusal:
    """Return the refusal that a cluster's silence stands for: what it is, or whether it was done, is not known."""
    return Refusal(request, {"code": 503, "description": f"no server leads {what} just now"})


def document(answer: Msg, request: str) -> dict[str, Any]:
    """Return what JetStream answered. Raises Refusal where it refused, or where it was not JetStream."""
    try:
        said = json.loads(answer.data)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise Refusal(request, {"description": "somebody else than JetStream answered"})
    if "error" in said:
        raise Refusal(request, said["error"])
    return said


def _no_home(stream: str, subject: str) -> Missing:
    return Missing(
        f"no stream {stream} takes {subject}",
        hint="the EventRouter makes the stream when it starts; `nats stream ls` shows those there are",
    )


def _stream_state(found: Mapping[str, Any]) -> StreamState:
    config, state, cluster = found["config"], found["state"], found.get("cluster") or {}
    followers = [peer for peer in cluster.get("replicas") or () if peer.get("current")]
    leaderless = bool(cluster) and not cluster.get("leader")
    return StreamState(
        config=StreamConfig(
            name=config["name"],
            subjects=tuple(config.get("subjects") or ()),
            retention=config["retention"],
            storage=config["storage"],
            max_age=duration(config["max_age"]),
            max_msgs=config["max_msgs"],
            replicas=config["num_replicas"],
        ),
        messages=state["messages"],
        bytes=state["bytes"],
        first_sequence=state["first_seq"],
        last_sequence=state["last_seq"],
        oldest=_moment(state["first_ts"]) if state["messages"] else None,
        discard=config.get("discard", "old"),
        leader=cluster.get("leader") or None,
        replicas_current=len([peer for peer in followers if not peer.get("offline")]) + (not leaderless),
    )


def _consumer_state(found: Mapping[str, Any]) -> ConsumerState:
    config = found["config"]
    several = ", ".join(config.get("filter_subjects") or ())
    return ConsumerState(
        config=ConsumerConfig(
            stream=found["stream_name"],
            name=found["name"],
            durable=bool(config.get("durable_name")),
            ack_policy=config["ack_policy"],
            filter_subject=config.get("filter_subject") or several,
            max_ack_pending=config.get("max_ack_pending", 0),
            ack_wait=duration(config.get("ack_wait", 0)),
            max_deliver=config.get("max_deliver", 0),
        ),
        pending=found.get("num_pending", 0),
        ack_pending=found.get("num_ack_pending", 0),
        redelivered=found.get("num_redelivered", 0),
        waiting_pulls=found.get("num_waiting", 0),
        push_bound=found.get("push_bound", False),
        delivered=found["delivered"]["stream_seq"],
        acknowledged=found["ack_floor"]["stream_seq"],
    )


def _message(found: Mapping[str, Any]) -> Message:
    return Message(
        subject=found["subject"],
        data=b64decode(found.get("data") or ""),
        sequence=found["seq"],
        time=_moment(found["time"]),
    )


def _stream_request(config: StreamConfig) -> dict[str, Any]:
    return _fields({each.name: getattr(config, each.name) for each in fields(config)})


def _fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """A StreamConfig's fields as the server calls and writes them; what is None is its own choice."""
    return {
        {"replicas": "num_replicas"}.get(name, name): nanoseconds(value) if name == "max_age" else value
        for name, value in values.items()
        if value is not None
    }


def _consumer_request(config: ConsumerConfig) -> dict[str, Any]:
    wanted = {
        "name": config.name,
        # One that is not durable would end five seconds after its last use.
        "durable_name": None if config.durable is False else config.name,
        "ack_policy": config.ack_policy,
        "filter_subject": config.filter_subject,
        "max_ack_pending": config.max_ack_pending,
        "ack_wait": None if config.ack_wait is None else nanoseconds(config.ack_wait),
        "max_deliver": config.max_deliver,
        "deliver_policy": "all",  # as the EventRouter makes its own: from the oldest message that is kept
    }
    return {name: value for name, value in wanted.items() if value is not None}


def duration(written: int) -> timedelta:
    """Return a duration as the server writes it."""
    return timedelta(microseconds=written / 1000)


def nanoseconds(length: timedelta) -> int:
    """Write a duration as the server reads it."""
    return length // _MICROSECOND * 1000


def _moment(text: str) -> datetime:
    """A moment as Go writes it, in UTC; of its up to nine decimals, Python keeps six."""
    whole, _, rest = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{rest[:6]:0<6}+00:00")
