"""What production feels: sessions that wait for locks or are at work, standbys that fall behind, commits that take long.

It is compared with how it was before our work began, as what is much for one database is a calm day for another.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum
from statistics import median

from sandbox.facts import Fact, Unknown
from sandbox.ports import APPLICATION, SqlWriter

__all__ = ["Bounds", "Level", "Limits", "Pressure", "Strain", "calm_of", "judge", "measure"]

_MIB = 2**20
_RECENT = timedelta(seconds=5)
_HIDDEN_SESSIONS = "how many sessions of other roles are at work (GRANT pg_read_all_stats shows them)"
_HIDDEN_STANDBYS = "how far standbys are behind (GRANT pg_read_all_stats shows it)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Strain:
    """What others feel at a moment. Sessions of this toolkit, on whatever host, are not counted.

    `lock_waits` are sessions that wait for a lock, `active` those at work, `lately` those that did anything within the last five
    seconds, None where that is not seen; `lag` and `behind` are the seconds and the bytes that
    the worst standby has yet to replay, None where there is no standby or it is not seen; `commit` is the seconds that a tiny
    commit of ours took. `hidden` says, in words, what this role may not see: that part is unknown, not zero.
    """

    lock_waits: int
    active: int
    lately: int | None
    lag: float | None
    behind: int | None
    commit: float
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How far a figure may rise: `times` what it was in calm, and `slow` above that is too much, `pause` far too much."""

    slow: float
    pause: float
    times: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much production may feel. `recovered` is the share of a rise, measured by its bound, below which it counts as over.

    What is strained when we come is no calm: the most that is taken for calm are `calm_waits` sessions that wait for locks, and
    commits of `calm_commit` seconds.
    """

    lock_waits: Bounds = field(default_factory=lambda: Bounds(slow=2, pause=4))
    active: Bounds = field(default_factory=lambda: Bounds(slow=4, pause=12, times=1.5))
    lag: Bounds = field(default_factory=lambda: Bounds(slow=3, pause=15))
    behind: Bounds = field(default_factory=lambda: Bounds(slow=64 * _MIB, pause=512 * _MIB))
    commit: Bounds = field(default_factory=lambda: Bounds(slow=0.005, pause=0.05, times=2.0))
    recovered: float = 0.6
    calm_waits: int = 2
    calm_commit: float = 0.1


class Level(IntEnum):
    """How we go on: at full pace, slowly, or not at all."""

    FULL = 0
    SLOW = 1
    PAUSE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """How we have to go on, and why, in words; empty at full pace. `unknown`: because nobody can tell."""

    level: Level
    reason: str = ""
    unknown: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sessions:
    lock_waits: int
    active: int
    lately: int | None
    all_seen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standbys:
    standbys: int
    hidden: int
    seconds: float | None
    bytes: int | None


def measure(sql: SqlWriter) -> Strain:
    """Look at what others feel, and time a commit, in one short transaction; connecting is not timed.

    Raises ArrakisError: Unreachable and Denied, or Missing where the lease's table does not exist yet.
    """
    with sql.transaction() as transaction:
        sessions = transaction.rows(
            "read/strain/sessions", _Sessions, application=APPLICATION, recent=_RECENT
        )[0]
        standbys = transaction.rows("read/strain/standbys", _Standbys)[0]
        transaction.execute("write/strain/commit")
        began = time.monotonic()
    commit = time.monotonic() - began
    seen = standbys.standbys > standbys.hidden
    hidden = (_HIDDEN_SESSIONS,) if not sessions.all_seen else ()
    return Strain(
        lock_waits=sessions.lock_waits,
        active=sessions.active,
        lately=sessions.lately,
        lag=standbys.seconds or 0.0 if seen else None,
        behind=standbys.bytes if seen else None,
        commit=commit,
        hidden=(*hidden, _HIDDEN_STANDBYS) if standbys.hidden else hidden,
    )


def calm_of(samples: Sequence[Strain], limits: Limits) -> Strain:
    """Return how things were in calm times, as several samples have it; one at least. Pure."""
    lags = [each.lag for each in samples if each.lag is not None]
    lately = [each.lately for each in samples]
    behinds = [each.behind for each in samples if each.behind is not None]
    return Strain(
        lock_waits=min(limits.calm_waits, max(each.lock_waits for each in samples)),
        active=max(each.active for each in samples),
        lately=None if None in lately else max(filter(None, lately), default=0),
        lag=max(lags, default=None),
        behind=max(behinds, default=None),
        commit=min(limits.calm_commit, median(each.commit for each in samples)),
        hidden=samples[-1].hidden,
    )


def judge(strain: Fact[Strain], calm: Strain, limits: Limits, *, before: Level = Level.FULL) -> Pressure:
    """Say how to go on; `before` is how we go on just now, and is left only when it is clearly over. Pure.

    What nobody can tell is no calm. What this role may not see is left out.
    """
    if isinstance(strain, Unknown):
        return Pressure(
            level=Level.PAUSE, reason=f"nobody can tell what it feels: {strain.reason}", unknown=True
        )
    found = [
        Pressure(level=level, reason=said)
        for value, was, bounds, said in _figures(strain.value, calm, limits)
        if (level := _level(value, was, bounds, before=before, recovered=limits.recovered))
    ]
    return max(found, key=lambda pressure: pressure.level, default=Pressure(level=Level.FULL))


def _level(value: float, was: float, bounds: Bounds, *, before: Level, recovered: float) -> Level:
    def over(level: Level, more: float) -> bool:
        rise = was * (bounds.times - 1) + more
        return value >= was + rise * (recovered if before >= level else 1.0)

    if over(Level.PAUSE, bounds.pause):
        return Level.PAUSE
    return Level.SLOW if over(Level.SLOW, bounds.slow) else Level.FULL


def _figures(now: Strain, calm: Strain, limits: Limits) -> Iterator[tuple[float, float, Bounds, str]]:
    """Yield each figure that is known: as it is, as it was, its bounds, and what is said of it."""
    waits = "1 session waits" if now.lock_waits == 1 else f"{now.lock_waits} sessions wait"
    yield (
        now.lock_waits,
        calm.lock_waits,
        limits.lock_waits,
        f"{waits} for locks, {_was(str(calm.lock_waits))}",
    )
    at_work = "1 session is" if now.active == 1 else f"{now.active} sessions are"
    yield now.active, calm.active, limits.active, f"{at_work} at work, {_was(str(calm.active))}"
    yield (
        now.commit,
        calm.commit,
        limits.commit,
        f"commits take {_shown(now.commit)}, {_was(_shown(calm.commit))}",
    )
    if now.lag is not None:
        was = calm.lag or 0.0  # a standby that came since has fallen behind since
        yield now.lag, was, limits.lag, f"a standby is {_shown(now.lag)} behind, {_was(_shown(was))}"
    if now.behind is not None:
        bytes_was = calm.behind or 0
        said = f"a standby is {now.behind // _MIB} MiB behind, {_was(f'{bytes_was // _MIB} MiB')}"
        yield now.behind, bytes_was, limits.behind, said


def _was(figure: str) -> str:
    return f"{figure} before we began"


def _shown(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
