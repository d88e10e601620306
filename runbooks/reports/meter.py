"""How far a run is: a line for each action or, where there are many, a bar with rate and time left; in a pipe a line now and then."""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from runbooks.engine.model import Phase
from runbooks.engine.work import Result
from runbooks.reports.terminal import MANY, progress

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Meter"]

_EVERY = 10.0  # seconds between two lines in a pipe
_WINDOW = 60.0  # seconds that the rate is of: it may change, as production does
_MOMENT = 1.0  # seconds that count as one moment: a lot ends all at once
_BAR = 20  # columns: with what is told beside it, it fits in 80


class Meter:
    """Told of each action that has ended, and of what happens on the way; by several threads. `say` prints a line."""

    def __init__(self, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        """Take who prints a line where there is no bar, and the clock, in seconds."""
        self._say, self._clock = say, clock
        self._one = threading.RLock()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._ends: deque[tuple[float, int]] = deque()  # a moment, and how many had ended by then
        self._failed = self._skipped = 0
        self._last: float | None = None
        self._drawn = sys.stderr.isatty() and os.environ.get("TERM") not in (None, "dumb", "unknown")

    def __call__(self, result: Result, ended: int, total: int) -> None:
        """Take what became of an action, how many have ended by now, and how many there are."""
        if total <= MANY:
            self._say(progress(result))
            return
        with self._one:
            self._count(result, ended)
            if self._drawn:
                self._draw(ended, total)
            else:
                self._line(ended, total)

    def tell(self, line: str) -> None:
        """Print a line, above the bar if there is one."""
        with self._one:
            if self._bar:
                self._bar.console.print(line, markup=False, highlight=False)
            else:
                self._say(line)

    def close(self) -> None:
        """Leave the bar as it is, and the cursor where it can be seen."""
        if self._bar is None:
            return
        with self._one:
            if self._bar:
                self._bar.stop()
                self._bar = None

    def _count(self, result: Result, ended: int) -> None:
        now = self._clock()
        if self._ends and now - self._ends[-1][0] < _MOMENT:
            self._ends[-1] = (self._ends[-1][0], ended)
        else:
            self._ends.append((now, ended))
        while now - self._ends[0][0] > _WINDOW and len(self._ends) > 2:
            self._ends.popleft()
        if result.phase is Phase.FAILED:
            self._failed += 1
            self.tell(progress(result))
        elif result.phase is Phase.SKIPPED and not result.settled:
            self._skipped += 1
            if self._skipped <= MANY:
                self.tell(progress(result))
            if self._skipped == MANY:
                self.tell("what else is skipped is counted only; `show --run` names it")

    def _draw(self, ended: int, total: int) -> None:
        if self._bar is None:
            self._bar = _bar()
            self._task = self._bar.add_task("", total=total, completed=ended - 1)
            self._bar.start()
        assert self._task is not None  # it comes with the bar
        self._bar.update(self._task, completed=ended, description=self._pace(ended, total))
        if ended == total:
            self.close()

    def _line(self, ended: int, total: int) -> None:
        now = self._clock()
        if self._last is not None and ended < total and now - self._last < _EVERY:
            return
        self._say(f"{ended} of {total}, {self._pace(ended, total)}")
        self._last = now

    def _pace(self, ended: int, total: int) -> str:
        """How many a second in the last minute, how long the rest takes at that, and how many failed or were skipped."""
        began, first = self._ends[0]
        seconds = self._clock() - began
        parts = []
        if seconds >= _MOMENT and ended > first:
            rate = (ended - first) / seconds
            parts += [f"{rate:.1f}/s", f"{_shown((total - ended) / rate)} left"]
        parts += [f"{self._failed} failed"]
        parts += [f"{self._skipped} skipped"] if self._skipped else []
        return ", ".join(parts)


def _shown(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6_000 else f"{seconds / 3_600:.1f} h"


def _bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(_BAR), MofNCompleteColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=Console(stderr=True))
