"""Waiting for what comes about by itself."""

import time
from collections.abc import Callable

__all__ = ["eventually"]


def eventually(reached: Callable[[], object], *, seconds: float = 60, pause: float = 0.01) -> None:
    """Wait until it is so. Raises AssertionError where that takes longer than it does on the slowest machine."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "not reached in time"
        time.sleep(pause)
