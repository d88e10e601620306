"""Looking again and again, until the sandbox is gone or somebody has seen enough."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from sandbox.errors import ArrakisError, SandboxCode, SandboxError
from sandbox.health import Health

__all__ = ["Blind", "frames", "pause", "until_seen"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Blind:
    """A look that showed nothing, and why."""

    name: str
    error: ArrakisError
    at: datetime


def frames(
    look: Callable[[], Health],
    name: str,
    *,
    interval: float,
    clock: Callable[[], float],
    wait: Callable[[float], None],
) -> Iterator[Health | Blind]:
    """Yield what is seen every `interval` seconds, until the sandbox is destroyed or gone.

    The first look raises what goes wrong; after it, a server that does not answer is a Blind, and the watch goes on.
    """
    began = clock()
    frame: Health | Blind = look()
    while True:
        yield frame
        if isinstance(frame, Health) and not frame.sandbox.live:
            return
        wait(pause(clock() - began, interval))
        try:
            frame = look()
        except ArrakisError as error:
            if isinstance(error, SandboxError) and error.code is SandboxCode.NOT_FOUND:
                return
            frame = Blind(name=name, error=error, at=datetime.now(UTC))


def pause(spent: float, interval: float) -> float:
    """Return the seconds until the next multiple of the interval: a slow look delays one frame, not all to come."""
    return interval - spent % interval


def until_seen(
    look: Callable[[], Health], draw: Callable[[Health | Blind], None], *, name: str, interval: float
) -> bool:
    """Draw every frame. Return whether the sandbox has gone; False where Ctrl-C ended it."""
    with _unwinding():
        try:
            for frame in frames(look, name, interval=interval, clock=time.monotonic, wait=time.sleep):
                draw(frame)
        except KeyboardInterrupt:
            return False
        return True


@contextmanager
def _unwinding() -> Iterator[None]:
    """Let SIGTERM, as `timeout` sends it, end the watch as an exception: the cursor has to come back."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
