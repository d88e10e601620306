"""The mass clean-up by its four workers, beside the same by one; and how much of PostgreSQL's table of locks it takes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import psycopg

from bench.measuring import Claim, Figure, Line, Result, Size, in_turns, ratios
from bench.sandboxes import Ground, grounds, versions
from runbooks.mass_cleanup import WORKERS
from sandbox.ports import APPLICATION

__all__ = ["LINE"]

_SANDBOXES, _OTHERS = 2000, 200_000
_ONE, _MANY = "one worker", f"{WORKERS} workers"
_GLANCE = 0.02  # seconds between two looks at the locks
_LOCKS = """
SELECT count(*), (SELECT max(count) FROM (SELECT count(*) FROM pg_locks WHERE NOT fastpath GROUP BY pid) AS each)
FROM pg_locks WHERE NOT fastpath
"""
_TABLE = """
SELECT current_setting('max_locks_per_transaction')::int, current_setting('max_locks_per_transaction')::int
    * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int)
"""
_TIMED_OUT = "due to lock timeout"


@dataclass(slots=True, kw_only=True)
class _Locks:
    """The most that were seen: in the table of locks at once, and of one session."""

    table: int = 0
    session: int = 0


@contextmanager
def _watching(ground: Ground) -> Iterator[_Locks]:
    """Look at the locks, by a session of our own, until this ends."""
    most, over = _Locks(), threading.Event()

    def watch() -> None:
        # By our own name: the throttle would take anybody else for production at work.
        with psycopg.connect(ground.url, autocommit=True, application_name=APPLICATION) as sql:
            while not over.wait(_GLANCE):
                [(table, session)] = sql.execute(_LOCKS).fetchall()
                most.table, most.session = max(most.table, table), max(most.session, session or 0)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def _clean(ground: Ground, workers: int, seen: list[_Locks]) -> float:
    ground.fresh()
    environment, plan = ground.plan()
    with _watching(ground) as most:
        trial = ground.measured(partial(ground.applied, environment, plan, workers=workers))
    seen.append(most)
    return trial.seconds


def _room(ground: Ground) -> tuple[int, int]:
    """Return how many locks each session counts for, and how many the table has room for, whoever holds them."""
    with psycopg.connect(ground.url) as sql:
        [(each, room)] = sql.execute(_TABLE).fetchall()
    return int(each), int(room)


def _run(size: Size) -> Result:
    seen: list[_Locks] = []
    with grounds(size.of(_SANDBOXES), size.of(_OTHERS)) as ground:
        ways = {_ONE: partial(_clean, ground, 1, []), _MANY: partial(_clean, ground, WORKERS, seen)}
        took = in_turns(ways, size.rounds)
        timed_out = ground.log().count(_TIMED_OUT)
        (per_session, room), found = _room(ground), versions(ground)
    return Result(
        figures=[
            *(Figure(name=name, unit="s", values=values) for name, values in took.items()),
            Figure(name="locks in the table at once", unit="locks", values=[each.table for each in seen]),
            Figure(name="locks of one session at once", unit="locks", values=[each.session for each in seen]),
        ],
        claims=[
            Claim(
                said=f"mass clean-up by {_MANY}, to one worker",
                values=ratios(took[_MANY], took[_ONE]),
                bound=1,
            ),
            Claim(
                said="statements of a mass clean-up that gave up waiting for a lock",
                values=[timed_out],
                bound=0,
                unit="",
            ),
            Claim(
                said="the most locks of one session of a mass clean-up, to max_locks_per_transaction",
                values=[max(each.session for each in seen) / per_session],
                bound=0.5,
                missed="A bare DROP of one sandbox's schema takes more than that already, and nothing smaller can be dropped at once:"
                " each transaction drops one, and two do so at the same time.",
            ),
            Claim(
                said="the most locks of all its sessions, to what PostgreSQL's table of locks has room for",
                values=[max(each.table for each in seen) / room],
                bound=0.5,
            ),
        ],
        notes=[
            f"The table of locks has room for {room:,}: max_locks_per_transaction times (max_connections plus"
            " max_prepared_transactions), and whoever needs one may take it. A single bare DROP of a sandbox's schema takes"
            " some 75, more than max_locks_per_transaction itself, so that half of that setting is not what can be kept to:"
            " each transaction drops one sandbox's schema, and two do at once. The locks were looked at every 20 ms."
        ],
        versions=found,
    )


LINE = Line(
    name="mass_cleanup",
    title="Mass clean-up",
    on=f"{_SANDBOXES:,} expired sandboxes, each 3 tables with rows and 200 keys, beside {_OTHERS:,} unrelated keys",
    run=_run,
)
