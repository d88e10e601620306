"""What whoever follows a run is shown: in a pipe, as JSON, and drawn on a terminal."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest

from runbooks.engine.errors import Exit
from runbooks.engine.following import Snapshot
from runbooks.engine.standing import Failure, Part, Standing
from runbooks.reports.following import document, follow, line
from sandbox.facts import Known, Unknown
from sandbox.ports import QueueState

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def part(worker: str, *, ago: float, done: int, failed: int = 0) -> Part:
    seen = NOW - timedelta(seconds=ago)
    return Part(worker=worker, seen=seen, done=done, skipped=0, failed=failed, begun=0)


STANDS = Standing(
    queued=True,
    total=100,
    exit=None,
    strangers=0,
    now=NOW,
    parts=(part("chani on one", ago=2, done=40), part("chani on two", ago=90, done=9, failed=1)),
)
QUEUE = QueueState(run="r-1", waiting=30, in_hand=20, again=4, patience=timedelta(seconds=30))
SEEN = Snapshot(
    run="r-1",
    stands=Known(STANDS),
    queue=Known(QUEUE),
    rate=5.0,
    remaining=timedelta(seconds=10),
    failures=(),
)
FAILURE = Failure(at=NOW, worker="chani on two", resource="sietch\x1b[2J", reason="it is broken")
OVER = replace(SEEN, stands=Known(replace(STANDS, exit=5)), queue=Known(None))


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (
            SEEN,
            "50 of 100: 49 done, 0 skipped, 1 failed, 5.0 a second, 10 s left; 1 worker seen lately; "
            "queue: 30 waiting, 20 in hand, 4 handed out again",
        ),
        (
            replace(SEEN, rate=None, remaining=None, stands=Known(replace(STANDS, strangers=2, parts=()))),
            "0 of 100: 0 done, 0 skipped, 0 failed, 2 set aside as none of its actions; 0 workers seen lately; "
            "queue: 30 waiting, 20 in hand, 4 handed out again",
        ),
        (
            replace(SEEN, stands=Unknown("PostgreSQL is dead"), rate=None, remaining=None),
            "cannot tell how far it is: PostgreSQL is dead; workers unknown; "
            "queue: 30 waiting, 20 in hand, 4 handed out again",
        ),
        (
            replace(SEEN, queue=Unknown("NATS is dead")),
            "50 of 100: 49 done, 0 skipped, 1 failed, 5.0 a second, 10 s left; 1 worker seen lately; "
            "cannot tell what is on the queue: NATS is dead",
        ),
        (
            replace(
                SEEN, queue=Known(replace(QUEUE, waiting=0, in_hand=0, again=0)), rate=0.0, remaining=None
            ),
            "50 of 100: 49 done, 0 skipped, 1 failed, 0.0 a second; 1 worker seen lately; "
            "queue: 0 waiting, 0 in hand; what is left is on no queue: `resume --run r-1` puts it there",
        ),
        (OVER, "r-1 is over, exit 5: 50 of 100: 49 done, 0 skipped, 1 failed"),
    ],
)
def test_a_line_says_what_is_known_and_what_is_not(seen: Snapshot, told: str) -> None:
    assert line(seen) == told


def test_a_pipe_is_told_the_first_the_failures_and_the_end() -> None:
    lines: list[str] = []
    failed = replace(SEEN, failures=(FAILURE,))
    assert follow([SEEN, SEEN, failed, SEEN, OVER], as_json=False, say=lines.append) is Exit.PARTLY
    assert lines == [
        line(SEEN),
        "FAILED   sietch\\x1b[2J: it is broken (chani on two)",
        line(OVER),
    ]


def test_as_json_each_look_is_a_document() -> None:
    lines: list[str] = []
    unknown = replace(SEEN, stands=Unknown("dead"), failures=(FAILURE,), rate=None, remaining=None)
    follow([SEEN, unknown], as_json=True, say=lines.append)
    first, second = (json.loads(text) for text in lines)
    assert (first["done"], first["left"], first["seconds_left"], first["unknown"]) == (49, 50, 10.0, [])
    assert first["queue"] == {"waiting": 30, "in_hand": 20, "again": 4}
    assert [each["worker"] for each in first["workers"]] == ["chani on one", "chani on two"]
    assert (second["done"], second["workers"], second["unknown"]) == (None, None, ["dead"])
    assert second["failures"][0]["reason"] == "it is broken"
    assert document(OVER)["exit"] == 5


def test_ctrl_c_ends_it_calmly() -> None:
    def seen() -> Iterator[Snapshot]:
        yield SEEN
        raise KeyboardInterrupt

    assert follow(seen(), as_json=False, say=lambda _: None) is Exit.HEALTHY


def test_on_a_terminal_it_is_drawn_and_failures_stay_above(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    said: list[Any] = []
    assert (
        follow([SEEN, replace(SEEN, failures=(FAILURE,)), OVER], as_json=False, say=said.append)
        is Exit.PARTLY
    )
    drawn = terminal.getvalue()
    assert not said
    assert "━" in drawn
    assert line(SEEN) in drawn
    assert "chani on two: 9 done, 0 skipped, 1 failed, 0 begun, seen 90 s ago" in drawn
    assert drawn.index("sietch\\x1b[2J: it is broken") < drawn.rindex(line(OVER))
    assert drawn.rstrip().endswith("\x1b[?25h")  # the cursor is back
