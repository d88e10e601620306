"""Work queues on JetStream: one message an action, for whoever takes it first.

One stream holds the queues of all runs. A run has subjects and a durable consumer of its own, so that workers are handed only
what they ask for. An action has a subject of its own, and the stream takes one message a subject: as long as it waits or is in
somebody's hand it cannot be put there again, however long ago that was; once it is answered it can, if it has to be
tried again. A window of message ids would forget the one and refuse the other. From nats-server 2.9.
"""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import nats.errors
from nats.aio.msg import Msg

from sandbox.adapters.jetstream import JetStream, Refusal, document, duration, leaderless, nanoseconds
from sandbox.adapters.nats import Nats
from sandbox.errors import ArrakisError, Missing
from sandbox.model import ConsumerConfig
from sandbox.ports import Parcel, QueueState, Reply

__all__ = ["STREAM", "JetStreamQueue"]

STREAM = "RUNBOOKS"
"""The stream that holds all queues."""

_ROOT = "runbooks.work"
_LIFETIME = timedelta(hours=26)  # longer than any run can be taken up
_LARGEST = 1024  # bytes of a message
_AT_ONCE = 500  # messages published before their answers are waited for
_TAKEN = 10077  # JetStream's number for a subject that has its message already
_WORDS = {
    Reply.DONE: b"+ACK",
    Reply.AT_IT: b"+WPI",
    Reply.GIVEN_BACK: b"-NAK",
    Reply.SET_ASIDE: b"+TERM",
}
_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")  # what fits a subject's token and a consumer's name
_SOON = 1.0  # seconds for the answer that nothing waits
_NOBODY = "503"
_SILENCE = "silence"  # a server of 2.9 says nothing where there is no consumer, or its stream was purged
_NEEDED: Mapping[str, Any] = {
    "subjects": [f"{_ROOT}.>"],
    "retention": "workqueue",
    "max_msgs_per_subject": 1,
    "discard": "new",
    "discard_new_per_subject": True,
}
"""What this rests on: where a stream of that name is set up otherwise, it is not used."""


class JetStreamQueue(Nats):
    """Work queues in a messaging system. Satisfies WorkQueue."""

    def prepare(self, *, replicas: int) -> None:
        """Make the stream, if it is missing. Raises ArrakisError where it is set up otherwise."""
        self._run(lambda client: _Queues(client, timeout=self._timeout).prepare(replicas))

    def open(self, run: str, *, patience: timedelta) -> None:
        """Make a run's consumer, which lasts until it is deleted. One that is there stays as it is."""
        if self.consumer(STREAM, _named(run)):
            return
        config = ConsumerConfig(
            stream=STREAM,
            name=run,
            ack_policy="explicit",
            filter_subject=f"{_ROOT}.{run}.>",
            max_ack_pending=-1,
            ack_wait=patience,
            max_deliver=-1,  # at the limit the server would only keep silent about a message
        )
        self.create_consumer(config)

    def put(self, run: str, actions: Sequence[str]) -> int:
        """Publish actions that are not there yet, many at once; return how many."""
        subjects = {f"{_ROOT}.{_named(run)}.{_named(action)}": _content(run, action) for action in actions}
        messages = list(subjects.items())
        starts = range(0, len(messages), _AT_ONCE)
        return sum(self._put(messages[start : start + _AT_ONCE]) for start in starts)

    def _put(self, messages: Sequence[tuple[str, bytes]]) -> int:
        return self._run(lambda client: _Queues(client, timeout=self._timeout).put(messages))

    def queues(self) -> list[QueueState]:
        """Return every run's queue; none where nothing was ever put on one."""
        return self._run(lambda client: _Queues(client, timeout=self._timeout).states())

    def take(self, run: str, limit: int, *, wait: float) -> list[Parcel]:
        """Take what waits, or wait for one."""
        wait = min(wait, self._timeout / 2)
        return self._run(lambda client: _Queues(client, timeout=self._timeout).take(_named(run), limit, wait))

    def answer(self, parcels: Sequence[Parcel], reply: Reply, *, rest: timedelta = timedelta(0)) -> None:
        """Answer messages; it is certain that a server has heard it, not that it has heeded it.

        That we are still at it has to be heard by whoever leads the queue, or it is Unreachable: a server that is cut off from the
        others takes what it is told, and the queue hands out to another what we have in hand.
        """
        word = _WORDS[reply]
        if reply is Reply.GIVEN_BACK and rest:
            word += b" " + json.dumps({"delay": nanoseconds(rest)}).encode()
        if parcels:
            heard = reply is Reply.AT_IT
            self._run(
                lambda client: _Queues(client, timeout=self._timeout).answer(parcels, word, heard=heard)
            )

    def close(self, run: str) -> None:
        """Delete a run's consumer and its messages."""
        self._run(lambda client: _Queues(client, timeout=self._timeout).close(_named(run)))


class _Queues(JetStream):
    """The same over one open connection."""

    async def prepare(self, replicas: int) -> None:
        found = await self._found(f"STREAM.INFO.{STREAM}")
        if found is None:
            wanted = {**_NEEDED, "name": STREAM, "storage": "file", "num_replicas": replicas, "max_msgs": -1}
            wanted |= {"max_age": nanoseconds(_LIFETIME), "max_msg_size": _LARGEST}
            found = await self._made(STREAM, wanted)
        for name, value in _NEEDED.items():
            if found["config"].get(name) != value:
                raise ArrakisError(
                    f"stream {STREAM} is set up otherwise: {name} is {found['config'].get(name)!r}, not {value!r}",
                    hint=f"if nobody needs it: `nats stream rm {STREAM}`; it is made anew",
                )

    async def put(self, messages: Sequence[tuple[str, bytes]]) -> int:
        return sum(await asyncio.gather(*(self._put(*message) for message in messages)))

    async def _put(self, subject: str, content: bytes) -> bool:
        headers = {"Nats-Expected-Stream": STREAM}
        try:
            answer = await self._client.request(subject, content, timeout=self._timeout, headers=headers)
            document(answer, subject)
        except Refusal as refusal:
            if refusal.number == _TAKEN:
                return False
            raise
        except nats.errors.NoRespondersError as error:
            if await self.stream(STREAM) is None:
                hint = "somebody deleted it: try again"
                raise Missing(f"there is no stream {STREAM}", hint=hint) from error
            raise leaderless(f"stream {STREAM}", subject) from error
        return True

    async def states(self) -> list[QueueState]:
        return [
            QueueState(
                run=each["name"],
                waiting=each["num_pending"],
                in_hand=each["num_ack_pending"],
                again=each["num_redelivered"],
                patience=duration(each["config"]["ack_wait"]),
            )
            for each in await self.consumers(STREAM)
        ]

    async def take(self, run: str, limit: int, wait: float) -> list[Parcel]:
        """What is there comes at once; only one is waited for, as the server would keep back the first for the last."""
        found = await self._pull(run, {"batch": limit, "no_wait": True}, patience=_SOON)
        if not found:
            request = {"batch": 1, "expires": nanoseconds(timedelta(seconds=wait))}
            found = await self._pull(run, request, patience=wait + _SOON)
        return [_parcel(run, message) for message in found]

    async def _pull(self, run: str, request: Mapping[str, Any], *, patience: float) -> list[Msg]:
        inbox = self._client.new_inbox()
        listening = await self._client.subscribe(inbox)
        await self._client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{run}", json.dumps(request).encode(), reply=inbox
        )
        found: list[Msg] = []
        while len(found) < request["batch"]:
            try:
                message = await listening.next_msg(timeout=patience)
                status = (message.headers or {}).get("Status")
            except nats.errors.TimeoutError:
                status = _SILENCE
            if status in (_NOBODY, _SILENCE) and await self.consumer(STREAM, run) is None:
                raise Missing(f"there is no queue of run {run}", hint=f"`nats consumer ls {STREAM}`")
            if status:
                break
            found.append(message)
        await listening.unsubscribe()
        return found

    async def answer(self, parcels: Sequence[Parcel], word: bytes, *, heard: bool) -> None:
        if heard:
            said = (self._client.request(each.receipt, word, timeout=self._timeout) for each in parcels)
            await asyncio.gather(*said)
            return
        for parcel in parcels:
            await self._client.publish(parcel.receipt, word)
        await self._client.flush(timeout=max(1, int(self._timeout)))

    async def close(self, run: str) -> None:
        await self.delete_consumer(STREAM, run)
        await self._found(f"STREAM.PURGE.{STREAM}", {"filter": f"{_ROOT}.{run}.>"})


def _named(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ArrakisError(f"{name!r} cannot be named on a queue", hint="run the runbook again")
    return name


def _content(run: str, action: str) -> bytes:
    return json.dumps({"run": run, "action": action}).encode()


def _parcel(run: str, message: Msg) -> Parcel:
    """A message that was written here names its action twice; any other is no work of ours."""
    action = message.subject.rpartition(".")[2]
    ours = _NAME.fullmatch(action) and message.subject == f"{_ROOT}.{run}.{action}"
    return Parcel(
        action=action if ours and message.data == _content(run, action) else None,
        delivered=message.metadata.num_delivered,
        receipt=message.reply,
    )
