"""Following a run from anywhere: what its mirrored journal and its queue say, again and again, until it is over.

Either may be unreachable: then the other is still told, and what cannot be told is unknown.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from runbooks.engine.errors import Exit, PlanError
from runbooks.engine.standing import Failure, Standing, failures, standing
from sandbox.facts import Fact, Known, Unknown, gather
from sandbox.ports import QueueState, SqlReader, WorkQueue

__all__ = ["Snapshot", "Speed", "watch"]

_WINDOW = timedelta(seconds=30)  # over which the rate is told
_ANSWER = 5.0  # seconds for a look
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A run as it was seen at one moment.

    `stands` is unknown while PostgreSQL does not answer, `queue` while NATS does not; its value is None where the run has no queue.
    `rate` is how many actions end in a second, `remaining` how long the rest takes at that; None where nobody can tell.
    `failures` are those that were not told before.
    """

    run: str
    stands: Fact[Standing]
    queue: Fact[QueueState | None]
    rate: float | None
    remaining: timedelta | None
    failures: tuple[Failure, ...]

    @property
    def exit(self) -> Exit | None:
        """The run's exit code; None while it is not over, or nobody can tell."""
        ended = self.stands.value.exit if isinstance(self.stands, Known) else None
        return None if ended is None else Exit(ended)

    @property
    def stranded(self) -> bool:
        """Whether actions are left that are on no queue: `resume` puts them there."""
        if isinstance(self.stands, Unknown) or isinstance(self.queue, Unknown):
            return False
        stands, queue = self.stands.value, self.queue.value
        if stands.exit is not None or not stands.left or not stands.queued:
            return False
        return queue is None or not (queue.waiting or queue.in_hand)


class Speed:
    """How fast actions end, over the last half minute."""

    def __init__(self) -> None:
        """Begin without an idea."""
        self._seen: deque[tuple[datetime, int]] = deque()

    def take(self, at: datetime, ended: int) -> float | None:
        """Take how many have ended by a moment; return how many end in a second, None where that cannot be told yet."""
        self._seen.append((at, ended))
        while len(self._seen) > 2 and self._seen[1][0] <= at - _WINDOW:
            self._seen.popleft()
        first_at, first = self._seen[0]
        seconds = (at - first_at).total_seconds()
        return (ended - first) / seconds if seconds > 0 else None


def watch(
    sql: SqlReader,
    queue: WorkQueue,
    run: str,
    *,
    interval: float = 1.0,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[Snapshot]:
    """Yield a run as it is, every `interval` seconds, until it is over. Nothing is changed, and nobody is held up.

    Raises PlanError where nobody knows the run.
    """
    looks = _Looks(sql, queue, run)
    while True:
        snapshot = looks.look()
        yield snapshot
        if snapshot.exit is not None:
            return
        wait(interval)


class _Looks:
    """Looks at one run, and remembers what was told."""

    def __init__(self, sql: SqlReader, queue: WorkQueue, run: str) -> None:
        self._sql, self._queue, self._run = sql, queue, run
        self._speed, self._told = Speed(), _LONG_AGO

    def look(self) -> Snapshot:
        probes = {"stands": self._stands, "queue": self._state, "failures": self._failures}
        seen = gather(probes, deadline=_ANSWER)
        stands: Fact[Standing] = seen["stands"]
        if isinstance(stands, Unknown) and isinstance(stands.error, PlanError):
            raise stands.error
        found: list[Failure] = seen["failures"].value if isinstance(seen["failures"], Known) else []
        self._told = max((self._told, *(failure.at for failure in found)))
        rate = remaining = None
        if isinstance(stands, Known):
            left = stands.value.left
            rate = self._speed.take(stands.value.now, stands.value.total - left)
            remaining = timedelta(seconds=left / rate) if rate else None
        return Snapshot(
            run=self._run,
            stands=stands,
            queue=seen["queue"],
            rate=rate,
            remaining=remaining,
            failures=tuple(found),
        )

    def _stands(self) -> Standing:
        stands = standing(self._sql, self._run)
        if stands is None:
            raise PlanError(f"there is no run {self._run} in this environment", hint="`history` lists them")
        return stands

    def _state(self) -> QueueState | None:
        return next((each for each in self._queue.queues() if each.run == self._run), None)

    def _failures(self) -> list[Failure]:
        return failures(self._sql, self._run, after=self._told)
