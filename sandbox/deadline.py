"""A wall-clock bound on anything.

Drivers bound single socket operations at best, so a server that hangs or drips can hold them for ever. Only a thread
that is left behind bounds a whole call; it is a daemon, because a thread pool would hold up the process' exit.

Whoever waits for a thread glances up again and again: Python handles a signal in the main thread only, and one that comes
while that is about to wait does not end its wait (https://docs.python.org/3/library/signal.html). Ctrl-C would do nothing.
"""

import math
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from queue import Empty, Queue
from typing import Generic, TypeVar

from sandbox.errors import Unreachable
from sandbox.text import brief

__all__ = ["ahead", "beside", "ended", "no_answer", "within"]

T = TypeVar("T")

_GLANCE = 0.1  # seconds that a signal is not heard at most


def within(seconds: float, call: Callable[[], T], what: str) -> T:
    """Return `call()`, or raise Unreachable after `seconds` with no answer. Whatever it raises is raised here."""
    running = _Running(call, f"within {what}")
    if not ended(running.thread, seconds):
        raise no_answer(seconds, what)
    return running.result()


def beside(call: Callable[[], T]) -> Callable[[], T]:
    """Begin `call()` beside what follows; what is returned waits for its end, and returns or raises as it did."""
    return _Running(call, "beside").result


def ahead(seconds: float, items: Iterable[T], what: str) -> Generator[T, None, None]:
    """Yield what `items` yields, made one ahead in a thread of its own while the last one is dealt with.

    Raises Unreachable where the next one takes longer than so many seconds, and whatever making it raises.
    """
    made: Queue[tuple[list[T], BaseException | None]] = Queue(1)
    wanted = threading.Event()
    wanted.set()

    def make() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                made.put(([item], None))
                if not wanted.is_set():
                    return
        except BaseException as raised:  # carried over to the caller's thread
            error = raised
        made.put(([], error))

    def following() -> tuple[list[T], BaseException | None]:
        for wait in _glances(seconds):
            with suppress(Empty):
                return made.get(timeout=wait)
        raise no_answer(seconds, what)

    threading.Thread(target=make, daemon=True, name=f"ahead {what}").start()
    try:
        while True:
            item, error = following()
            if error:
                raise error
            if not item:
                return
            yield item[0]
    finally:
        wanted.clear()
        with suppress(Empty):  # who waits with the next one ends
            made.get_nowait()


def ended(thread: threading.Thread, seconds: float = math.inf) -> bool:
    """Wait for a thread's end, so many seconds at most; return whether it has ended."""
    for wait in _glances(seconds):
        thread.join(wait)
        if not thread.is_alive():
            break
    return not thread.is_alive()


def no_answer(seconds: float, what: str) -> Unreachable:
    """Return the error for what did not answer within so many seconds."""
    return Unreachable(f"{what} gave no answer within {brief(seconds)} s")


def _glances(seconds: float) -> Iterator[float]:
    """Yield how long to wait at a time, until so many seconds are over."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        yield min(left, _GLANCE)


class _Running(Generic[T]):
    """A call under way in a thread of its own."""

    def __init__(self, call: Callable[[], T], name: str) -> None:
        self._call = call
        self._results: list[T] = []
        self._errors: list[BaseException] = []
        self.thread = threading.Thread(target=self._run, daemon=True, name=name)
        self.thread.start()

    def result(self) -> T:
        """Wait for its end; return what it did, or raise it."""
        ended(self.thread)
        if self._errors:
            raise self._errors[0]
        return self._results[0]

    def _run(self) -> None:
        try:
            self._results.append(self._call())
        except BaseException as error:  # carried over to the caller's thread
            self._errors.append(error)
