"""A wall-clock bound on anything.

Drivers bound single socket operations at best, so a server that hangs or drips can hold them for ever. Only a thread
that is left behind bounds a whole call; it is a daemon, because a thread pool would hold up the process' exit.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

from sandbox.errors import Unreachable

__all__ = ["within"]

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T], what: str) -> T:
    """Return `call()`, or raise Unreachable after `seconds` with no answer. Whatever it raises is raised here."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # carried over to the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name=f"within {what}")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise Unreachable(f"{what} gave no answer within {seconds:g} s")
    if errors:
        raise errors[0]
    return results[0]
