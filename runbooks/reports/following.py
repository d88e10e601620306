"""What whoever follows a run sees: a bar with its workers on a terminal, a line now and then in a pipe, or JSON lines."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from runbooks.engine.errors import Exit
from runbooks.engine.following import Snapshot
from runbooks.engine.plan import dumps
from runbooks.engine.standing import Failure, Part, Standing
from sandbox.facts import Fact, Known, Unknown
from sandbox.ports import QueueState
from sandbox.text import clean

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["document", "follow", "line"]

_EVERY = 10.0  # seconds between two lines in a pipe
_SILENT = timedelta(seconds=30)  # after which a worker may be gone


def follow(snapshots: Iterable[Snapshot], *, as_json: bool, say: Callable[[str], None]) -> Exit:
    """Show a run until it is over, or Ctrl-C; return its exit code, 0 where it goes on without us.

    On a terminal it is drawn on stderr, in place; else `say` prints lines.
    """
    last: Snapshot | None = None
    drawn = not as_json and sys.stderr.isatty() and os.environ.get("TERM") not in (None, "dumb", "unknown")
    with _drawing() if drawn else _lines(say, as_json=as_json) as show:
        try:
            for last in snapshots:
                show(last)
        except KeyboardInterrupt:
            return Exit.HEALTHY
    return Exit.HEALTHY if last is None or last.exit is None else last.exit


def line(seen: Snapshot) -> str:
    """Return a snapshot in one line."""
    if seen.exit is not None:
        return f"{seen.run} is over, exit {int(seen.exit)}: {_counts(seen.stands)}"
    told = f"{_counts(seen.stands)}{_pace(seen)}; {_workers(seen.stands)}{_queued(seen.queue)}"
    return f"{told}; {_stranded(seen)}" if seen.stranded else told


def document(seen: Snapshot) -> dict[str, Any]:
    """Return a snapshot as JSON's own types; what nobody can tell is null, and why is said beside it."""
    stands = seen.stands.value if isinstance(seen.stands, Known) else None
    queue = seen.queue.value if isinstance(seen.queue, Known) else None
    counts = ("total", "done", "skipped", "failed", "left", "strangers")
    lying = ("waiting", "in_hand", "again")
    return {
        "run": seen.run,
        **{name: getattr(stands, name, None) for name in counts},
        "rate": seen.rate,
        "seconds_left": seen.remaining.total_seconds() if seen.remaining else None,
        "workers": [_plain(part) for part in stands.parts] if stands else None,
        "queue": {name: getattr(queue, name) for name in lying} if queue else None,
        "stranded": seen.stranded,
        "failures": [_plain(failure) for failure in seen.failures],
        "unknown": [each.reason for each in (seen.stands, seen.queue) if isinstance(each, Unknown)],
        "exit": None if seen.exit is None else int(seen.exit),
    }


@contextmanager
def _lines(say: Callable[[str], None], *, as_json: bool) -> Iterator[Callable[[Snapshot], None]]:
    """Say the first, the last, what failed, and otherwise a line every ten seconds."""
    said = -_EVERY

    def show(seen: Snapshot) -> None:
        nonlocal said
        if as_json:
            say(json.dumps(document(seen)))
            return
        for failure in seen.failures:
            say(_failure(failure))
        if seen.exit is not None or time.monotonic() - said >= _EVERY:
            said = time.monotonic()
            say(line(seen))

    yield show


@contextmanager
def _drawing() -> Iterator[Callable[[Snapshot], None]]:
    """Draw in place; what failed is printed above, and stays. The cursor comes back at the end, however that comes."""
    from rich.console import Console
    from rich.live import Live

    console = Console(
        stderr=True,
        color_system=None if "NO_COLOR" in os.environ else "auto",
        highlight=False,
        markup=False,
        emoji=False,
    )
    with Live(console=console, auto_refresh=False) as live:

        def show(seen: Snapshot) -> None:
            for failure in seen.failures:
                console.print(_failure(failure))
            live.update(_drawn(seen), refresh=True)

        yield show


def _drawn(seen: Snapshot) -> "RenderableType":
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    if isinstance(seen.stands, Unknown):
        return Text(line(seen))
    stands = seen.stands.value
    bar = ProgressBar(total=stands.total, completed=stands.total - stands.left, width=40)
    parts = [Text(f"  {_told(part, stands)}") for part in stands.parts]
    return Group(Text(seen.run, style="bold"), bar, Text(line(seen)), *parts)


def _counts(stands: Fact[Standing]) -> str:
    if isinstance(stands, Unknown):
        return f"cannot tell how far it is: {stands.reason}"
    seen = stands.value
    told = f"{seen.total - seen.left} of {seen.total}: {seen.done} done, {seen.skipped} skipped, {seen.failed} failed"
    return told + (f", {seen.strangers} set aside as none of its actions" if seen.strangers else "")


def _pace(seen: Snapshot) -> str:
    if seen.rate is None:
        return ""
    left = f", {seen.remaining.total_seconds():.0f} s left" if seen.remaining else ""
    return f", {seen.rate:.1f} a second{left}"


def _workers(stands: Fact[Standing]) -> str:
    if isinstance(stands, Unknown):
        return "workers unknown"
    alive = [part for part in stands.value.parts if stands.value.now - part.seen < _SILENT]
    return f"{len(alive)} worker{'' if len(alive) == 1 else 's'} seen lately"


def _queued(queue: Fact[QueueState | None]) -> str:
    if isinstance(queue, Unknown):
        return f"; cannot tell what is on the queue: {queue.reason}"
    if queue.value is None:
        return ""
    seen = queue.value
    again = f", {seen.again} handed out again" if seen.again else ""
    return f"; queue: {seen.waiting} waiting, {seen.in_hand} in hand{again}"


def _stranded(seen: Snapshot) -> str:
    return f"what is left is on no queue: `resume --run {seen.run}` puts it there"


def _told(part: Part, stands: Standing) -> str:
    ago = (stands.now - part.seen).total_seconds()
    counts = f"{part.done} done, {part.skipped} skipped, {part.failed} failed, {part.begun} begun"
    return f"{clean(part.worker)}: {counts}, seen {ago:.0f} s ago"


def _plain(value: Part | Failure) -> Any:
    return json.loads(dumps(asdict(value)))


def _failure(failure: Failure) -> str:
    return f"FAILED   {clean(failure.resource or 'queue')}: {clean(failure.reason)} ({clean(failure.worker)})"
