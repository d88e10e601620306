"""How many lines of a log are read, told apart and grouped in a second, by one thread, as they stream by."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import cycle, islice
from uuid import UUID

from bench.measuring import Claim, Figure, Line, Result, Size, in_turns
from bench.memory import peak
from diagnostics.grouping import grouped

__all__ = ["LINE"]

_LINES = 1_000_000
_NUMBERS = range(10_000, 30_000)  # of distinct lines: more than what is kept of earlier ones
_RATE = 200_000  # lines a second
_GROWTH = 4.0  # MiB that ten times as many lines may take more
_BEGIN = datetime(2026, 3, 1, 9, tzinfo=UTC)
_END = _BEGIN + timedelta(hours=6)
_REFUSED = {"code": "ECONNREFUSED", "errno": -111, "syscall": "connect", "address": "10.0.5.12", "port": 5432}
_DONE = ["mark_destroying", "remove_guild_mappings", "invalidate_cache"]

Said = Callable[[int, str], str]
"""A line that tells of a number and of a sandbox's id."""


def _pino(level: int, component: str, message: str, **more: object) -> str:
    head: dict[str, object] = {"level": level, "time": 1772355600000, "pid": 1, "hostname": "ip-10-0-3-17"}
    return json.dumps({**head, "component": component, "msg": message, **more}, separators=(",", ":"))


def _failed(_: int, id: str) -> str:
    about = {"sandboxId": id, "stepsCompleted": _DONE, "error": _REFUSED}
    return _pino(50, "CleanupProvider", "Sandbox cleanup failed", **about)


def _lost(number: int, id: str) -> str:
    return _pino(
        50, "EventRouter", f"Failed to route event {number}", sandboxId=id, error={"message": "timeout"}
    )


def _locked(number: int, id: str) -> str:
    return f"ERROR relation sandbox_{id}.profiles is locked by process {number}"


def _unrouted(number: int, id: str) -> str:
    return f"EventRouter ERROR no route for guild {10**17 + number} to sandbox {id} after {number % 900} ms"


def _routed(number: int, id: str) -> str:
    return _pino(30, "EventRouter", "Event routed", sandboxId=id, took=number)


def _counted(number: int, id: str) -> str:
    return f"INFO routed {number} events, last to sandbox {id}"


_WRONG: Sequence[Said] = (_failed, _locked, _lost, _unrouted)
_MIXED: Sequence[Said] = (_failed, _routed, _locked, _counted, _lost, _routed, _unrouted, _counted)


def _lines(kinds: Sequence[Said], count: int) -> Iterator[tuple[datetime, str]]:
    """Yield so many lines, whose making takes no time of the measurement."""
    made = [
        (_BEGIN + timedelta(seconds=number), say(number, str(UUID(int=number << 96 | number))))
        for number, say in zip(_NUMBERS, cycle(kinds), strict=False)
    ]
    return islice(cycle(made), count)


def _rate(kinds: Sequence[Said], count: int) -> float:
    """Return how many lines a second of this thread's own time are grouped."""
    lines = _lines(kinds, count)
    began = time.process_time()
    groups = grouped(lines, _BEGIN, _END)
    took = time.process_time() - began
    wrong = sum(kind in _WRONG for kind in kinds) / len(kinds)
    if sum(group.count for group in groups) != count * wrong or len(groups) != len(_WRONG):
        raise SystemExit(f"{len(groups)} groups of {sum(group.count for group in groups)} lines")
    return count / took


def _group(count: int) -> None:
    grouped(_lines(_MIXED, count), _BEGIN, _END)


def _run(size: Size) -> Result:
    count = size.of(_LINES)
    ways = {
        "of which half are errors": partial(_rate, _MIXED, count),
        "all of them errors": partial(_rate, _WRONG, count),
    }
    rates = in_turns(ways, size.rounds)
    few, many = peak(_group, count // 10), peak(_group, count)
    mixed, alone = rates.values()
    return Result(
        figures=[
            Figure(name=f"lines a second, {name}", unit="lines/s", values=values)
            for name, values in rates.items()
        ]
        + [
            Figure(name=f"memory, {lines:,} lines", unit="MiB", values=[most])
            for lines, most in ((count // 10, few), (count, many))
        ],
        claims=[
            Claim(
                said="log lines grouped a second on one core, half of them errors",
                values=mixed,
                bound=_RATE,
                at_least=True,
                unit="lines/s",
            ),
            Claim(
                said="log lines grouped a second on one core, errors alone as CloudWatch can send them",
                values=alone,
                bound=_RATE,
                at_least=True,
                unit="lines/s",
            ),
            Claim(
                said="more memory for ten times as many log lines",
                values=[many - few],
                bound=_GROWTH,
                unit="MiB",
            ),
        ],
        notes=[
            "Lines as they are after they were fetched: JSON and plain in turns, each with an id of its own, in four kinds of errors."
            " What counts is the processor time of the one thread. 20,000 different lines come again and again."
        ],
    )


LINE = Line(
    name="log_grouping",
    title="Log grouping",
    on="1 M lines, JSON and plain in turns",
    run=_run,
)
