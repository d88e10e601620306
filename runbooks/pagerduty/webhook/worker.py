"""Takes what waits off the queue, and has it triaged."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from logging import Logger
from typing import Any, TypeVar

from runbooks.pagerduty.webhook.delivery import Delivery
from runbooks.pagerduty.webhook.handler import complaint
from runbooks.pagerduty.webhook.queue import Claim, Queue
from sandbox.deadline import within
from sandbox.errors import ArrakisError, Unreachable
from sandbox.joblog import fields

__all__ = ["Worker"]

T = TypeVar("T")

_PAUSES = (
    5.0,
    20.0,
    60.0,
    180.0,
    600.0,
    1800.0,
    3600.0,
)  # seconds before another try; after the last it is set aside
_DEADLINE = 300.0
_IDLE, _HOUR = 0.5, 3600.0
_STUCK = 2.0  # seconds before the queue's file is tried again


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One worker: a triage at a time, tried again for two hours while something is in its way.

    `heard` is told what became of each try: done, again or aside. `pauses` are seconds before each further try, `deadline` is
    how long a triage may take.
    """

    queue: Queue
    triage: Callable[[Delivery], None]
    log: Logger
    stop: threading.Event
    heard: Callable[[str], None] = lambda _: None
    pauses: tuple[float, ...] = _PAUSES
    deadline: float = _DEADLINE

    def run(self) -> None:
        """Work until `stop` is set. A delivery that is in hand by then is triaged to its end."""
        trimmed = -math.inf
        while not self.stop.is_set():
            if time.monotonic() - trimmed > _HOUR:
                trimmed = time.monotonic()
                self._surely(self.queue.trim)
            claim = self._surely(self.queue.claim)
            if claim:
                self._work(claim)
            else:
                self.queue.wait(_IDLE)

    def _work(self, claim: Claim) -> None:
        delivery, said = claim.delivery, fields(delivery=claim.delivery.key, subject=claim.delivery.subject)
        if claim.tries > len(self.pauses) + 1:  # the process died each time
            self.log.error("Set aside: it was tried too often", extra=said)
            return self._end("aside", lambda: self.queue.set_aside(delivery.key))
        try:
            within(self.deadline, lambda: self.triage(delivery), "the triage")
        except ArrakisError as error:  # a key that is refused today may be mended in an hour
            if claim.tries <= len(self.pauses):
                pause = self.pauses[claim.tries - 1]
                self.log.warning("Tried again later", extra=_with(said, seconds=pause, **complaint(error)))
                return self._end("again", lambda: self.queue.again(delivery.key, timedelta(seconds=pause)))
            self.log.error("Set aside: it was tried too often", extra=_with(said, **complaint(error)))
            return self._end("aside", lambda: self.queue.set_aside(delivery.key))
        except BaseException as error:  # this thread has to outlive whatever a triage does
            self.log.error("Set aside: the triage failed", extra=_with(said, **complaint(error)))
            return self._end("aside", lambda: self.queue.set_aside(delivery.key))
        self.log.info("Triaged", extra=said)
        return self._end("done", lambda: self.queue.done(delivery.key))

    def _end(self, what: str, call: Callable[[], None]) -> None:
        self._surely(call)
        self.heard(what)

    def _surely(self, call: Callable[[], T]) -> T | None:
        """Call the queue until it answers, or the server ends: a disk that is full is so for a while."""
        while True:
            try:
                return call()
            except Unreachable as error:
                self.log.error("Queue failed", extra=fields(error=error))
                if self.stop.wait(_STUCK):
                    return None


def _with(said: dict[str, dict[str, Any]], **more: Any) -> dict[str, dict[str, Any]]:
    return {"fields": said["fields"] | fields(**more)["fields"]}
