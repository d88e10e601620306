"""Whether events circle: the EventRouter publishes what belongs to production on the subject that it came from, which it consumes.

Reading makes no consumer and acknowledges nothing. What was seen several times is looked for again, a moment later: what
has stopped leaves its copies in the stream for five minutes.
"""

import hashlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sandbox.errors import Missing
from sandbox.model import Message
from sandbox.ports import StreamReader

__all__ = ["Circling", "circling", "read_circling"]

_WINDOW = 300  # messages that are read at a time
_COPIES = 3  # of one event: two may be its sender's second try
_LATE = timedelta(seconds=30)  # between the making of an event and its storing
_MOMENT, _SECONDS = 0.5, 1.0  # until it is looked at again; for reading what came before

Identity = tuple[str, str]
"""What tells one event from another: its subject, and its id or the digest of its bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circling:
    """What the last messages of EVENTS say about a loop.

    `read` is how many there were, `events` how many different ones, `circling` how many of these came several times and go
    on coming; of the most frequent of them `copies` were seen on `subject`, every `period` on the average. `guilds` are
    those that they name, None among them where one names none. `late` go on being stored long after they were made: more
    may circle than were read.
    """

    read: int = 0
    events: int = 0
    circling: int = 0
    copies: int = 0
    subject: str = ""
    period: timedelta = timedelta(0)
    guilds: frozenset[str | None] = frozenset()
    late: int = 0


def read_circling(reader: StreamReader, *, pause: Callable[[float], None] = time.sleep) -> Circling:
    """Return what the last few hundred messages of EVENTS say about a loop; nothing, where there is no such stream.

    Where they look like one, what came before them is read too, and what comes next. Raises Unreachable or Denied.
    """
    state = reader.stream("EVENTS")
    if state is None or not state.messages:
        return Circling()
    last, until = state.last_sequence, time.monotonic() + _SECONDS
    try:
        messages = _before(reader, last)
        while _looks_late(messages) and not _repeated(messages) and time.monotonic() < until:
            earlier = _before(reader, messages[0].sequence - 1)
            if not earlier:
                break
            messages = earlier + messages
        if not _looks_late(messages) and not _repeated(messages):
            return circling(messages, [])
        pause(_MOMENT)
        later = reader.messages("EVENTS", "events.>", _WINDOW, after=messages[-1].sequence)
    except Missing:  # it went meanwhile
        return Circling()
    return circling(messages, later)


def circling(messages: Sequence[Message], later: Sequence[Message]) -> Circling:
    """Tell by messages, and those that came a moment later, the oldest first, whether events circle. Pure.

    An event that comes back is published again as it was: it is known by its `event_id`, or by its bytes.
    """
    times: dict[Identity, list[Message]] = defaultdict(list)
    for each in (*messages, *later):
        times[_identity(each)].append(each)
    goes_on = {_identity(each) for each in later}
    looping = {name: copies for name, copies in times.items() if name in goes_on and len(copies) >= _COPIES}
    most = max(looping.values(), key=len, default=[])
    return Circling(
        read=len(messages) + len(later),
        events=len(times),
        circling=len(looping),
        copies=len(most),
        subject=most[0].subject if most else "",
        period=(most[-1].time - most[0].time) / (len(most) - 1) if most else timedelta(0),
        guilds=frozenset(_guild(copies[0]) for copies in looping.values()),
        late=sum(map(_stored_late, later)),
    )


def _before(reader: StreamReader, sequence: int) -> list[Message]:
    """Return the messages up to a sequence, as many as are read at a time."""
    found = reader.messages("EVENTS", "events.>", _WINDOW, after=max(0, sequence - _WINDOW))
    return [each for each in found if each.sequence <= sequence]


def _looks_late(messages: Sequence[Message]) -> bool:
    return 2 * sum(map(_stored_late, messages)) > len(messages)


def _repeated(messages: Sequence[Message]) -> bool:
    return max(Counter(map(_identity, messages)).values(), default=0) >= _COPIES


def _identity(message: Message) -> Identity:
    told = _event(message).get("event_id")
    named = isinstance(told, str) and told
    return message.subject, str(told) if named else hashlib.sha256(message.data).hexdigest()


def _guild(message: Message) -> str | None:
    """The guild that an event names, where the EventRouter looks for it."""
    event = _event(message)
    inner = event.get("d")
    told = event.get("guild_id") or (inner.get("guild_id") if isinstance(inner, dict) else None)
    return str(told) if told else None


def _stored_late(message: Message) -> bool:
    made = _event(message).get("timestamp")  # milliseconds, as the gateway writes it
    if not isinstance(made, int | float) or not 0 < made < 1e14:
        return False
    return message.time - datetime.fromtimestamp(made / 1000, UTC) > _LATE


def _event(message: Message) -> dict[str, Any]:
    try:
        read = json.loads(message.data)
    except (ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}
