"""What may fail in a run before nothing more of it is begun, and why nothing is: also in the midst of a lot."""

import threading
from collections.abc import Collection

from sandbox.errors import Halted

__all__ = ["Budget"]


class Budget:
    """Failures, as they happen."""

    def __init__(self, most: int) -> None:
        """Take how many may fail."""
        self._most, self._spent, self._why = most, 0, ""
        self._told: dict[int, Exception] = {}  # by identity; kept, so that no other one is at the same place
        self._counting = threading.Lock()

    @property
    def halted(self) -> str:
        """Why nothing more may be begun; empty while it may."""
        if self._why or self._spent <= self._most:
            return self._why
        return f"more failed than the {self._most} that may" if self._most else "one failed"

    def halt(self, why: str) -> None:
        """Let nothing more be begun. The first who says why is heard, before the count of what failed."""
        with self._counting:
            self._why = self._why or why

    def insist(self) -> None:
        """Raise Halted where nothing more may be begun. It is asked before each small step of long work."""
        if why := self.halted:
            raise Halted(why)

    def fail(self, error: Exception) -> None:
        """Count what failed in the midst of a lot, at once. Raises Halted where that is more than may fail."""
        self.spend([error])
        self.insist()

    def spend(self, errors: Collection[Exception]) -> None:
        """Count what failed, but for what was told in the midst of its lot.

        Who may not go on found nothing wrong with the target, and begins nothing more.
        """
        with self._counting:
            new = [each for each in errors if id(each) not in self._told]
            self._told |= {id(error): error for error in new}
            self._spent += len(new)
        for error in errors:
            if isinstance(error, Halted):
                self.halt(str(error))
