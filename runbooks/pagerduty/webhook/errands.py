"""Calls over the network that a request waits for, but not long.

A request has to be answered within a second and holds a thread meanwhile. So only a few wait, each for a moment; the call goes on
by itself, and what it found is there when the sender tries again.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from sandbox.errors import Unreachable
from sandbox.text import brief

__all__ = ["Errands"]

T = TypeVar("T")


class Errands(Generic[T]):
    """A few calls under way, each known by a name."""

    def __init__(self, *, patience: float, most: int = 4) -> None:
        """Take how long to wait for a call, in seconds, and how many may be under way, and be waited for, at a time."""
        self._patience, self._most = patience, most
        self._underway: dict[str, Future[T]] = {}
        self._lock = threading.Lock()
        self._waiting = threading.Semaphore(most)

    def run(self, name: str, call: Callable[[], T]) -> T:
        """Return `call()`, or what one of the same name returns that is under way. Raises what it raises.

        Raises Unreachable where it is not done in time, or too many others are.
        """
        if not self._waiting.acquire(blocking=False):
            raise Unreachable("too many wait already", hint="send it again")
        try:
            return self._begun(name, call).result(self._patience)
        except TimeoutError:
            raise Unreachable(f"{name} gave no answer within {brief(self._patience)} s") from None
        finally:
            self._waiting.release()

    def _begun(self, name: str, call: Callable[[], T]) -> Future[T]:
        with self._lock:
            if name in self._underway:
                return self._underway[name]
            if len(self._underway) >= self._most:
                raise Unreachable("too many calls are under way", hint="send it again")
            future: Future[T] = Future()
            self._underway[name] = future
        threading.Thread(target=self._do, args=(name, call, future), daemon=True, name="errand").start()
        return future

    def _do(self, name: str, call: Callable[[], T], future: Future[T]) -> None:
        try:
            result = call()
        except BaseException as error:  # carried over to whoever waits
            outcome = error
            self._forget(name)
            future.set_exception(outcome)
        else:
            self._forget(name)
            future.set_result(result)

    def _forget(self, name: str) -> None:
        with self._lock:
            self._underway.pop(name, None)
