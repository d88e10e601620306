"""What a worker process has done so far, and how long nothing has come."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from runbooks.engine.errors import Exit
from runbooks.engine.model import ENDED, Phase
from runbooks.engine.work import Result
from sandbox.errors import ArrakisError

__all__ = ["Tally"]


class Tally:
    """Counts for all threads of a process. `idle_after` is in seconds; 0 is never."""

    def __init__(self, *, idle_after: float, tell: Callable[[str], None]) -> None:
        """Take after how long without work it ends, and who is told of trouble."""
        self._idle_after, self._tell = idle_after, tell
        self._last, self._counting = time.monotonic(), threading.Lock()
        self._ended: dict[str, Counter[Phase]] = {}
        self._aside: list[str] = []
        self._spent: dict[str, int] = {}
        self.troubled: ArrakisError | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing has come for too long."""
        return 0 < self._idle_after <= time.monotonic() - self._last

    @property
    def exit(self) -> Exit:
        """0 when all that was taken is done or skipped, 5 when some failed, was set aside, or no more might be taken."""
        failed = any(phases[Phase.FAILED] for phases in self._ended.values())
        return Exit.PARTLY if failed or self._aside or self._spent else Exit.HEALTHY

    def came(self) -> None:
        """Work has come."""
        self._last = time.monotonic()

    def count(self, run: str, results: Sequence[Result]) -> None:
        """Count what has ended."""
        self.came()
        with self._counting:
            phases = self._ended.setdefault(run, Counter())
            phases.update(result.phase for result in results if result.phase)

    def set_aside(self, reason: str) -> None:
        """Remember what nobody can do."""
        with self._counting:
            self._aside.append(reason)

    def spend(self, run: str, failed: int) -> None:
        """Remember that a run has no more failures to spare: so many there are."""
        self._spent[run] = failed

    def may_go_on(self, run: str, failed: int) -> bool:
        """Whether a run has failures to spare, or has them again since somebody resumed it."""
        return failed < self._spent.get(run, failed + 1)

    def trouble(self, error: ArrakisError) -> None:
        """Tell what is in the way, once."""
        with self._counting:
            if str(error) != str(self.troubled):
                self._tell(f"waiting: {error}")
            self.troubled = error

    def well(self) -> None:
        """All answer again."""
        with self._counting:
            if self.troubled:
                self._tell("goes on")
            self.troubled = None

    def __str__(self) -> str:
        """Return it in one line."""
        phases = sum(self._ended.values(), Counter[Phase]())
        told = ", ".join(f"{phases[phase]} {phase}" for phase in ENDED)
        return f"{told}, {len(self._aside)} set aside"

    def document(self) -> dict[str, Any]:
        """Return it as JSON's own types."""
        runs = {run: {phase.value: phases[phase] for phase in ENDED} for run, phases in self._ended.items()}
        return {"runs": runs, "set_aside": self._aside, "exit": int(self.exit)}
