"""The throttle: long work goes only as fast as production does not feel it, slows, pauses, and says why.

Work is paid for by rest. All workers of this process together may be at work for `share` seconds in each second: whoever has
worked waits until all the work so far is paid for, so they take turns instead of starting together. A step that takes longer,
because the server is busy, is followed by a longer rest. Strain halves the share, calm gives it back little by little. Where
nobody else is at work, nobody feels it: then there is no rest. (Who comes and goes between two samples is not seen.) On this
host, a worker's thread lets whoever else wants the processors go first.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from diagnostics.strain import Level, Limits, Pressure, Strain, calm_of, judge, measure
from sandbox.errors import Busy, Unreachable
from sandbox.facts import Fact, Known, gather
from sandbox.ports import SqlWriter

__all__ = ["SHARE", "Meter", "Throttle"]

SHARE = 0.03
"""Seconds of work in a second at full pace. Production's p99 becomes 1.14 times what it is without us, as
bench/cleanup_under_load.py measures it."""

_SLOWEST = 1 / 16  # of the full share
_RECOVERY = 1 / 20  # of the full share with every calm sample
_ALONE = 64.0  # the share where nobody else is at work: more than any workers use
_ALONE_SAMPLES = 3  # in a row that see nobody else, before it is given
_EVERY = 1.0  # seconds between samples
_CHECKED = 0.5  # seconds between checks
_CALM_SAMPLES, _CALM_EVERY = 5, 0.2
_ANSWER = 3.0  # seconds for a sample
_GLANCE = 0.1  # seconds that a worker sleeps at most without looking up
_FIRST_STEP = 0.05  # seconds that a worker's first step is taken to last: they do not all begin at once
_LONGEST_STEP = 0.5  # seconds that a step counts at most: longer ones were waiting, for a lock or for work
_LAST = 19  # the lowest priority
_PATIENCE = 60.0  # seconds in which nobody can tell, before a pause gives up


class Meter:
    """Turns samples into a pace: one bad sample is chance, two of three are not; what nobody can tell counts at once."""

    def __init__(self, calm: Strain, limits: Limits, share: float) -> None:
        """Take how things were before, and the seconds of work in a second at full pace."""
        self._calm, self._limits, self._full = calm, limits, share
        self._recent = deque([Pressure(level=Level.FULL)] * 2, maxlen=3)
        self._alone = _ALONE_SAMPLES if calm.lately == 0 else 0  # samples in a row without anybody else
        self.pressure, self.share = Pressure(level=Level.FULL), _ALONE if self._alone else share

    @property
    def unshared(self) -> bool:
        """Whether nobody else is at work, so that there is no rest."""
        return self.share == _ALONE

    def take(self, strain: Fact[Strain]) -> str:
        """Take a sample, settle the pace, and return what is to be told of it; empty if it is as before."""
        before = self.pressure
        latest = judge(strain, self._calm, self._limits, before=before.level)
        self._recent.append(latest)
        settled = sorted(self._recent, key=lambda pressure: pressure.level)[1]
        self.pressure = latest if latest.unknown else settled
        nobody = isinstance(strain, Known) and strain.value.lately == 0
        self._alone = self._alone + 1 if nobody else 0
        match self.pressure.level:
            case Level.FULL if self._alone >= _ALONE_SAMPLES:
                self.share = _ALONE
            case Level.FULL:
                self.share = min(self._full, self.share + self._full * _RECOVERY)
            case Level.SLOW:
                self.share = max(self._full * _SLOWEST, self.share / 2)
            case Level.PAUSE:
                self.share = self._full * _SLOWEST
        return _told(before, self.pressure)


class Throttle:
    """Gives long work its pace. Nothing is measured, and no thread started, before the first pause."""

    def __init__(
        self,
        sql: SqlWriter,
        *,
        tell: Callable[[str], None],
        check: Callable[[], None],
        share: float = SHARE,
        limits: Limits | None = None,
        measure: Callable[[SqlWriter], Strain] = measure,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        every: float = _EVERY,
    ) -> None:
        """Take the database, who is told what happens, and `check`, which raises when the run may not go on.

        `every` is the seconds between two samples.
        """
        self._sql, self._tell, self._check, self._measure = sql, tell, check, measure
        self._share, self._limits = share, limits or Limits()
        self._clock, self._sleep, self._every = clock, sleep, every
        self._starting, self._booking = threading.Lock(), threading.Lock()
        self._over = threading.Event()
        self._mine = threading.local()
        self._meter: Meter | None = None
        self._halt: Exception | None = None
        self._paid, self._checked, self._known = 0.0, clock(), clock()

    def __enter__(self) -> "Throttle":
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Measure no more."""
        self._over.set()

    def pause(self) -> None:
        """Rest as production needs it. Called by each worker before each small step, the first too.

        Raises what `check` raises, but a source that does not answer it: each transaction's fence decides. Raises Unreachable
        where for a minute nobody could tell what production feels, and as `measure` does before anything was begun.
        """
        meter = self._started()
        began: float | None = getattr(self._mine, "began", None)
        if began is None:
            _give_way()
        step = _FIRST_STEP if began is None else min(_LONGEST_STEP, self._clock() - began)
        due: float | None = None
        while due is None or self._clock() < due:
            self._insist(meter)
            if meter.pressure.level is Level.PAUSE:
                due = None  # after it they take turns again
                self._sleep(_GLANCE)
            elif due is None:
                due = self._book(meter, step)
            else:
                self._sleep(min(_GLANCE, max(0.0, due - self._clock())))
        self._mine.began = self._clock()

    def alone(self) -> bool:
        """Whether nobody else is at work, as far as anybody can tell."""
        try:
            return self._started().unshared
        except Exception:
            return False  # the next pause says why

    def sample(self) -> None:
        """Measure once, and settle the pace; a daemon thread does it all the while."""
        meter = self._started()
        strain = gather({"strain": lambda: self._measure(self._sql)}, deadline=_ANSWER)["strain"]
        if isinstance(strain, Known):
            self._known = self._clock()
        if told := meter.take(strain):
            self._say(told)

    def _started(self) -> Meter:
        """Return the meter; the first call measures how calm it is before anything is begun."""
        with self._starting:
            if self._meter is None:
                self._meter = Meter(self._calm(), self._limits, self._share)
                self._known = self._clock()
                threading.Thread(target=self._watch, daemon=True, name="throttle").start()
            return self._meter

    def _calm(self) -> Strain:
        samples = [self._measure(self._sql)]
        while len(samples) < _CALM_SAMPLES:
            self._sleep(_CALM_EVERY)
            samples.append(self._measure(self._sql))
        for hidden in samples[-1].hidden:
            self._say(f"not seen from here, and not heeded: {hidden}")
        return calm_of(samples, self._limits)

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            self.sample()

    def _book(self, meter: Meter, step: float) -> float:
        """Add a step of so many seconds to what has to be paid for; return when all of it is."""
        with self._booking:
            self._paid = max(self._paid, self._clock() - step) + step / meter.share
            return self._paid

    def _insist(self, meter: Meter) -> None:
        """Raise where the run may not go on. It is asked by one worker for all, twice in a second."""
        with self._booking:
            now = self._clock()
            asking = self._halt is None and now - self._checked >= _CHECKED
            self._checked = now if asking else self._checked
        if asking:
            try:
                self._check()
            except (Unreachable, Busy):
                pass
            except Exception as error:
                self._halt = error
        if self._halt is not None:
            raise self._halt
        if meter.pressure.unknown and self._clock() - self._known > _PATIENCE:
            raise Unreachable(meter.pressure.reason, hint="`resume` takes the run up when it answers again")

    def _say(self, told: str) -> None:
        with suppress(OSError):  # nobody reads along any more; the work goes on
            self._tell(told)


def _give_way() -> None:
    """Give this thread, and those that it starts, the lowest priority; the main one is our caller's, who would keep it."""
    if threading.current_thread() is not threading.main_thread():
        with suppress(OSError, AttributeError):  # a system whose threads have no priority of their own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LAST)


def _told(before: Pressure, now: Pressure) -> str:
    if now.level is before.level:
        return ""
    match now.level:
        case Level.PAUSE:
            return f"paused: {now.reason}"
        case Level.SLOW:
            return (
                f"goes on, slowly: {now.reason}" if before.level is Level.PAUSE else f"slower: {now.reason}"
            )
        case Level.FULL:
            return "goes on" if before.level is Level.PAUSE else "faster again: production feels it no more"
