"""What production feels of a mass clean-up: `python -m bench.cleanup_under_load [ROUNDS] [SECONDS] [SHARE]`.

pgbench's transactions stand for production, at a fifth of the rate that this machine can take: then latency says something. They
run all the while; beside them, in turn, is nothing, four workers that clean up with the throttle, nothing again (how far two
looks at the same thing differ), and four workers without it. p50 and p99 of each are compared with those of the quiet slices.
Slices in which others used this machine are counted apart. The clean-up's client works on the same cores as the server, at the
lowest priority: where it has its own, production feels less.
"""

import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from uuid import UUID, uuid4

import psycopg
from psycopg import sql as composing

from bench.production import Load, Servers, Usage, servers
from runbooks.engine.lease import Lease
from runbooks.engine.throttle import SHARE, Throttle
from sandbox import lifecycle, removal
from sandbox.adapters.postgres import Postgres
from sandbox.adapters.redis import Redis
from sandbox.lifecycle import Request
from sandbox.model import Sandbox
from sandbox.removal import Terms
from sandbox.sweep import Sweep

_WORKERS, _LOT = 4, 25
_LOAD = 0.2  # of what the machine can take
_SETTLE = 2.5  # seconds before a slice
_GLANCE = 1.0  # seconds in which others are watched
_PATIENCE = 15  # times that, as long as others use the machine
_OTHERS = 0.1  # of this machine
_DRAWS = 200
_RESERVE = 50  # sandboxes for each second without the throttle
_MODES = ("quiet", "throttled", "quiet again", "unthrottled")
_ROWS = (
    "INSERT INTO {0}.communities (name) SELECT 'c' || n FROM generate_series(1, 10) AS n",
    "INSERT INTO {0}.profiles (community_id, discord_id) SELECT id, n FROM {0}.communities, generate_series(1, 20) AS n",
    "INSERT INTO {0}.badges (community_id, profile_id, badge_type) SELECT community_id, id, 'naib' FROM {0}.profiles",
)


@dataclass(frozen=True, kw_only=True)
class _Slice:
    """Seconds since the epoch; sandboxes that were cleaned; the share of the machine that others used."""

    mode: str
    began: float
    ended: float
    cleaned: float
    others: float


class _Crew:
    """Sandboxes, and workers that take them away, a lot at a time, while they are given a pace."""

    def __init__(self, at: Servers, database: Postgres, lease: Lease) -> None:
        self._at, self._database, self._lease = at, database, lease
        self._keys = Redis(at.redis_url)
        self._sweep = Sweep()
        self._ready: deque[UUID] = deque()
        self._pace: Callable[[], None] | None = None
        self._paced = threading.Condition()
        self.cleaned = 0.0

    def refill(self, count: int) -> None:
        """Make sandboxes until so many are ready, with rows in their three tables."""
        with psycopg.connect(self._at.url, autocommit=True) as connection:
            while len(self._ready) < count:
                id = uuid4()
                request = Request(id=id, name=id.hex, owner=id.hex, now=datetime.now(UTC))
                made = lifecycle.create(self._database, self._keys, request).sandbox
                for rows in _ROWS:
                    connection.execute(
                        composing.SQL(rows).format(composing.Identifier(str(made.schema_name)))
                    )
                self._ready.append(id)

    def start(self) -> None:
        """Let the workers wait for a pace."""
        for _ in range(_WORKERS):
            threading.Thread(target=self._work, daemon=True).start()

    @contextmanager
    def at_work(self, pace: Callable[[], None]) -> Iterator[None]:
        """Let them work, at this pace, until this ends; then each ends its step, and waits in the midst of its lot."""
        self._set(pace)
        try:
            yield
        finally:
            self._set(None)

    def _set(self, pace: Callable[[], None] | None) -> None:
        with self._paced:
            self._pace = pace
            self._paced.notify_all()

    def _pause(self) -> None:
        while True:
            with self._paced:
                self._paced.wait_for(lambda: self._pace is not None)
                pace = self._pace
            if pace:
                pace()
            if pace is self._pace:
                return

    def _work(self) -> None:
        while True:
            self._pause()
            lot = [self._ready.popleft() for _ in range(_LOT)]
            terms = Terms(
                actor="bench",
                now=datetime.now(UTC),
                fence=self._lease.fence,
                pause=self._pause,
                tell=self._count,
            )
            removal.clean_up(
                self._database, self._keys, lot, terms, insist=lambda *_: None, sweep=self._sweep
            )

    def _count(self, _: Sandbox, step: str, __: Mapping[str, object]) -> None:
        """Count each of the two long steps as half a sandbox: a slice ends in the midst of a lot."""
        self.cleaned += 0.5 * (step in ("condemned", "schemas dropped"))


def _slice(mode: str, seconds: float, share: float, crew: _Crew, database: Postgres, lease: Lease) -> _Slice:
    with ExitStack() as stack:
        pace = _at_once
        if mode == "throttled":
            tell = partial(print, "   ", flush=True)
            pace = stack.enter_context(Throttle(database, tell=tell, check=lease.check, share=share)).pause
            pace()  # how calm it is, is measured before the slice begins
        if not mode.startswith("quiet"):
            stack.enter_context(crew.at_work(pace))
        time.sleep(_SETTLE)  # until the workers take turns
        cleaned, usage, began = crew.cleaned, Usage(), time.time()
        time.sleep(seconds)
        cleaned, others = crew.cleaned - cleaned, usage.others()
    return _Slice(mode=mode, began=began, ended=began + seconds, cleaned=cleaned, others=others)


def _at_once() -> None:
    """Rest not at all."""


def _patiently() -> None:
    """Wait, but not for ever, until others hardly use this machine."""
    for _ in range(_PATIENCE):
        usage = Usage()
        time.sleep(_GLANCE)
        if usage.others() <= _OTHERS:
            return


def _percentile(slices: Sequence[Sequence[float]], share: float) -> float:
    """Return what this share of the transactions took at the most, in milliseconds."""
    took = sorted(seconds for each in slices for seconds in each)
    return took[int(len(took) * share)] * 1000


def _ratios(slices: Sequence[Sequence[float]], quiet: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return between which bounds the ratio of two p99 is in nine of ten cases, if other slices like these were drawn."""
    drawn = sorted(
        _percentile(random.choices(slices, k=len(slices)), 0.99)
        / _percentile(random.choices(quiet, k=len(quiet)), 0.99)
        for _ in range(_DRAWS)
    )
    return drawn[_DRAWS // 20], drawn[_DRAWS - _DRAWS // 20 - 1]


def _lines(slices: Sequence[_Slice], latencies: Sequence[tuple[float, float]]) -> Iterator[str]:
    """Yield the table's lines, one a mode."""
    took = {each: [s for at, s in latencies if each.began <= at < each.ended] for each in slices}
    quiet = [took[each] for each in slices if each.mode == "quiet"]
    yield f"{'':12} slices  p50 ms  p99 ms     p50     p99  in nine of ten  sandboxes/s"
    for mode in _MODES:
        those = [each for each in slices if each.mode == mode]
        if not (those and quiet):
            continue
        mine = [took[each] for each in those]
        p50, p99 = _percentile(mine, 0.5), _percentile(mine, 0.99)
        low, high = _ratios(mine, quiet)
        rate = sum(each.cleaned for each in those) / sum(each.ended - each.began for each in those)
        yield (
            f"{mode:12} {len(those):6} {p50:7.2f} {p99:7.2f} {p50 / _percentile(quiet, 0.5):6.2f}x"
            f" {p99 / _percentile(quiet, 0.99):6.2f}x {low:7.2f} - {high:4.2f} {rate:12.1f}"
        )


def main(rounds: int, seconds: float, share: float) -> None:
    """Measure, and print two tables: of the slices in which we were alone, and of all."""
    made: list[_Slice] = []
    with servers() as at:
        database = Postgres(at.url, tag="arrakis-runbooks:bench")
        database.script("migrations/0001_control_tables")
        load = Load(at, _LOAD)
        print(f"pgbench: {load.rate:.0f} transactions a second, of {load.most:.0f} at most", flush=True)
        with (
            database.keeping(2 * _WORKERS),
            Lease.held(database, holder="bench", run="bench") as lease,
            load.running(),
        ):
            crew = _Crew(at, database, lease)
            crew.start()
            for _ in range(rounds):
                crew.refill(_WORKERS * _LOT + int(_RESERVE * seconds))
                for mode in _MODES:
                    _patiently()
                    made.append(_slice(mode, seconds, share, crew, database, lease))
    alone = [each for each in made if each.others <= _OTHERS]
    for name, which in ((f"in which others used at most {_OTHERS:.0%}", alone), ("all", made)):
        print(f"\nslices of {seconds:g} s, {name}; a share of {share:g}:")
        print(*_lines(which, load.latencies), sep="\n")


if __name__ == "__main__":
    given = sys.argv[1:4]
    main(
        int(given[0]) if given else 20,
        float(given[1]) if given[1:] else 4.0,
        float(given[2]) if given[2:] else SHARE,
    )
