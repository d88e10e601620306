"""What a process has in hand: work that it took off the queue and has not answered yet. Nobody else may be given it meanwhile."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from types import TracebackType

from runbooks.engine.errors import LeaseHeld
from sandbox.errors import ArrakisError, Unreachable
from sandbox.ports import Parcel, Reply, WorkQueue

__all__ = ["Hand"]

_SAFE = 2 / 3  # of the queue's patience: a step begun by then has ended when it is over


class Hand:
    """Says to the queue all the while that we are still at it. `insist` raises once the queue may have given us up."""

    def __init__(self, queue: WorkQueue, *, patience: timedelta) -> None:
        """Take the queue, and how long it waits for a word of ours."""
        self._queue, self._patience = queue, patience.total_seconds()
        self._parcels: dict[str, Parcel] = {}
        self._oldest = self._heard = time.monotonic()
        self._holding, self._over = threading.Lock(), threading.Event()
        self._lost_at = float("-inf")

    def __enter__(self) -> "Hand":
        """Begin to speak."""
        threading.Thread(target=self._speak, daemon=True, name="still at it").start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Fall silent: what is not answered by now is handed to another when the queue's patience is over."""
        self._over.set()

    def take(self, run: str, limit: int, *, wait: float) -> list[Parcel]:
        """Take work off the queue, as WorkQueue does."""
        began = time.monotonic()  # from when on it may have been handed out, however late we learned of it
        taken = self._queue.take(run, limit, wait=wait)
        with self._holding:
            if taken and not self._parcels:
                self._oldest = began
            self._parcels |= {parcel.receipt: parcel for parcel in taken}
        return taken

    def answer(self, parcels: Sequence[Parcel], reply: Reply) -> None:
        """Answer what is still in hand of these. Where the queue does not hear it, it is handed out again."""
        self._answer(parcels, reply, timedelta(0))

    def give_back_for_later(self, parcels: Sequence[Parcel]) -> None:
        """Give back what is still in hand of these, to be handed out again when the queue's patience is half over."""
        self._answer(parcels, Reply.GIVEN_BACK, timedelta(seconds=self._patience / 2))

    def _answer(self, parcels: Sequence[Parcel], reply: Reply, rest: timedelta) -> None:
        with self._holding:
            mine = [parcel for parcel in parcels if self._parcels.pop(parcel.receipt, None)]
        with suppress(ArrakisError):
            self._queue.answer(mine, reply, rest=rest)

    @property
    def empty(self) -> bool:
        """Whether everything is answered."""
        return not self._parcels

    def insist(self) -> None:
        """Raise LeaseHeld where the queue has not heard us for so long that another may have been given what is in hand."""
        with self._holding:
            silent = time.monotonic() - max(self._oldest, self._heard) if self._parcels else 0.0
        if silent > self._patience * _SAFE:
            self._lost_at = time.monotonic()
            raise LeaseHeld(
                f"{self._unheard} for {silent:.0f} s: what is in hand may be another's by now",
                hint="it is looked at again by whoever has it",
            )

    def insist_heard(self, *, since: float) -> None:
        """Raise Unreachable where `insist` has raised since a moment of the monotonic clock, in any thread."""
        if self._lost_at >= since:
            raise Unreachable(self._unheard, hint="what was in hand is looked at again by whoever has it")

    @property
    def _unheard(self) -> str:
        return f"NATS at {self._queue.host} has not heard us"

    def _speak(self) -> None:
        while not self._over.wait(self._patience / 4):
            with self._holding:
                parcels = list(self._parcels.values())
            if not parcels:
                continue  # nobody would be asked, so nobody has heard us
            began = time.monotonic()
            try:
                self._queue.answer(parcels, Reply.AT_IT)
            except ArrakisError:
                continue  # `insist` counts the seconds
            self._heard = began
