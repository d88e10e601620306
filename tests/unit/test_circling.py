"""Whether events circle: told by what comes again, and goes on coming."""

import json
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from diagnostics.circling import Circling, circling, read_circling
from sandbox.model import Message, StreamState
from tests.unit.evidence import NOW
from tests.unit.routing import EVENTS, event, stream_state

LONG_AGO = -120.0


class Stream:
    """EVENTS, as far as it is read; what comes while somebody waits comes at `pause`."""

    def __init__(self, messages: list[Message], coming: list[Message] | None = None) -> None:
        self.held, self.coming, self.pauses = messages, coming or [], 0

    def stream(self, name: str) -> StreamState | None:
        assert name == "EVENTS"
        last = self.held[-1].sequence if self.held else 0
        return stream_state(EVENTS, messages=len(self.held), last_sequence=last)

    def messages(self, stream: str, subject: str, limit: int, *, after: int = 0) -> list[Message]:
        assert (stream, subject) == ("EVENTS", "events.>")
        return [each for each in self.held if each.sequence > after][:limit]

    def pause(self, seconds: float) -> None:
        self.pauses += 1
        self.held = self.held + self.coming

    def read(self) -> Circling:
        reader: Any = self
        return read_circling(reader, pause=self.pause)


def copies(event_id: str, count: int, *, first: int = 1, step: float = 0.5, **more: Any) -> list[Message]:
    """Return an event that comes so many times."""
    return [event(first + n, event_id, at=n * step, **more) for n in range(count)]


def test_different_events_do_not_circle_and_are_read_once() -> None:
    stream = Stream([event(n, f"e{n}", at=n) for n in range(1, 50)])
    assert stream.read() == Circling(read=49, events=49)
    assert stream.pauses == 0


def test_no_message_and_no_stream_tell_of_no_loop() -> None:
    assert Stream([]).read() == Circling()
    assert circling([], []) == Circling()


def test_what_comes_again_and_goes_on_coming_circles() -> None:
    stream = Stream(copies("a", 4, guild="9"), copies("a", 3, first=5, step=0.5))
    found = stream.read()
    assert (found.circling, found.copies, found.read, found.events) == (1, 7, 7, 1)
    assert (found.subject, found.guilds) == ("events.member.join", frozenset({"9"}))


def test_how_often_it_circles_is_the_time_between_two_copies() -> None:
    every = copies("a", 9, step=0.25)
    assert circling(every[:6], every[6:]).period == timedelta(seconds=0.25)


def test_copies_of_a_loop_that_has_stopped_are_no_loop() -> None:
    stream = Stream(copies("a", 20), [event(21, "b", at=99)])
    assert stream.read().circling == 0
    assert stream.pauses == 1


def test_a_sender_that_tries_twice_makes_no_loop() -> None:
    twice = [event(1, "a", at=0), event(2, "a", at=1)]
    assert Stream(twice).read().circling == 0
    assert circling(twice, [event(3, "b", at=2)]).circling == 0


def test_without_an_id_the_bytes_tell_and_a_guild_may_be_inside_or_absent() -> None:
    def plain(sequence: int, told: object) -> Message:
        return Message(
            subject="events.x",
            data=json.dumps(told).encode(),
            sequence=sequence,
            time=NOW + timedelta(seconds=sequence),
        )

    inside: Any = {"t": "X", "d": {"guild_id": 7}}
    found = circling([plain(1, inside), plain(2, inside), plain(3, [1])], [plain(4, inside)])
    assert (found.circling, found.events, found.guilds) == (1, 2, frozenset({"7"}))
    none = [Message(subject="s", data=b"\xff{", sequence=n, time=NOW) for n in range(4)]
    assert circling(none[:2], none[2:]).guilds == frozenset({None})


def test_the_same_id_on_another_subject_is_another_event() -> None:
    one, *others = copies("a", 4)
    moved = Message(subject="events.other", data=one.data, sequence=9, time=one.time)
    assert circling(others[:2], [moved]).circling == 0


def test_a_loop_longer_than_what_is_read_at_a_time_is_followed_back() -> None:
    """700 events go round: in the last 300 messages each is there once, but all are stored long after they were made."""
    rounds = [event(n, f"e{n % 700}", at=n * 0.01, made=LONG_AGO) for n in range(1, 2_101)]
    coming = [event(n, f"e{n % 700}", at=n * 0.01, made=LONG_AGO) for n in range(2_101, 2_201)]
    found = Stream(rounds, coming).read()
    assert found.circling == 100
    assert found.read > 1_400
    assert found.late == 100


def test_what_is_late_and_never_repeated_is_told_and_no_loop() -> None:
    late = [event(n, f"e{n}", at=n, made=LONG_AGO) for n in range(1, 11)]
    found = Stream(late, [event(11, "e11", at=11, made=LONG_AGO)]).read()
    assert (found.circling, found.late) == (0, 1)


@given(st.lists(st.sampled_from("abcd"), max_size=30), st.lists(st.sampled_from("abcd"), max_size=10))
def test_only_events_of_the_last_moment_circle(before: list[str], later: list[str]) -> None:
    old = [event(n, name, at=n) for n, name in enumerate(before)]
    new = [event(100 + n, name, at=100 + n) for n, name in enumerate(later)]
    found = circling(old, new)
    assert found.circling == sum((before + later).count(name) >= 3 for name in set(later))
    assert (found.read, found.events) == (len(old) + len(new), len(set(before + later)))
