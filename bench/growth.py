"""How time and memory grow with the number of sandboxes: what is looked at, and what is cleaned up, among ever more of them."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import redis

from bench.measuring import Claim, Figure, Line, Result, Size, timed
from bench.memory import peak
from bench.plot import Curve, drawn, power
from bench.sandboxes import DEADLINE, Ground, grounds, versions
from runbooks import mass_cleanup, rb_sb_003
from runbooks.engine.environment import Environment
from runbooks.engine.errors import Exit
from runbooks.engine.systems import readers
from runbooks.orphaned import evidence as orphaned

__all__ = ["LINE"]

_COUNTS = (1_000, 10_000, 100_000)
_EXPIRED, _KEYS, _SCHEMAS = 100, 10, 10_000
_AT_ONCE = 10_000  # rows or keys
_PLOT = Path(__file__).with_name("growth.svg")
_CLEANING = f"cleaning up {_EXPIRED} of them"
_ROWS = """
INSERT INTO public.sandboxes (id, name, owner, status, schema_name, created_at, expires_at)
SELECT id, id::text, 'owner-' || n %% 500, 'running', 'sandbox_' || id, now() - interval '1 day', now() + interval '1 day'
FROM unnest(%s::uuid[]) WITH ORDINALITY AS each (id, n)
"""
_EMPTY = """
DO $do$ DECLARE id text; BEGIN
    FOR id IN SELECT s.id::text FROM public.sandboxes AS s WHERE s.owner <> 'bench' ORDER BY s.id OFFSET {0} LIMIT {1}
    LOOP EXECUTE format('CREATE SCHEMA %I', 'sandbox_' || id); END LOOP;
END $do$
"""


def look_for_orphans(environment: Environment) -> None:
    """Gather, diagnose and propose as rb-sb-003 does, but for its alarm: there is no AWS here."""
    read = readers(environment, tag="bench", timeout=DEADLINE)
    now, stack = datetime.now(UTC), environment.stack
    facts = orphaned.gather(read, now=now, deadline=DEADLINE, stack=stack, brief=True)
    rb_sb_003.RUNBOOK.diagnose(facts)
    rb_sb_003.RUNBOOK.propose(facts)


def look_for_what_is_over(environment: Environment) -> None:
    """Gather, diagnose and propose as the mass clean-up does."""
    read = readers(environment, tag="bench", timeout=DEADLINE)
    now, stack = datetime.now(UTC), environment.stack
    evidence = mass_cleanup.RUNBOOK.gather(read, now=now, deadline=DEADLINE, stack=stack)
    mass_cleanup.diagnose(evidence)
    mass_cleanup.propose(evidence)


_LOOKS: Mapping[str, Callable[[Environment], None]] = {
    "look for orphans": look_for_orphans,
    "look for what is over": look_for_what_is_over,
}


@dataclass(slots=True)
class _Measured:
    """What was measured at each count, by its name: seconds, and the most memory that a process of its own took, in MiB."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    memory: dict[str, list[float]] = field(default_factory=dict)

    def add(self, ground: Ground) -> None:
        """Measure once more."""
        environment, plan = ground.plan()
        for name, look in _LOOKS.items():
            self.seconds.setdefault(name, []).append(timed(partial(look, environment)))
            self.memory.setdefault(name, []).append(peak(look, environment))
        began = time.perf_counter()
        outcome = ground.applied(environment, plan)
        self.seconds.setdefault(_CLEANING, []).append(time.perf_counter() - began)
        assert outcome.exit is Exit.HEALTHY, f"{outcome.exit!r}"


def _crowd(ground: Ground, count: int) -> None:
    """Add so many that live: each a row and its keys; a schema, as far as there may be so many, without a table."""
    ids = [uuid4() for _ in range(count)]
    with psycopg.connect(ground.url, autocommit=True) as sql:
        for some in _parts(ids):
            sql.execute(_ROWS, (list(some),))
        for start in range(0, min(count, _SCHEMAS), 500):
            sql.execute(_EMPTY.format(start, 500).encode())
        sql.execute("VACUUM ANALYZE")
    with redis.Redis.from_url(ground.at.redis_url) as client:
        for some in _parts(ids):
            client.mset({f"sandbox:{id}:session:{number}": 1 for id in some for number in range(_KEYS)})


def _parts(ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    for start in range(0, len(ids), _AT_ONCE):
        yield ids[start : start + _AT_ONCE]


def _run(size: Size) -> Result:
    counts, measured = [size.of(count) for count in _COUNTS], _Measured()
    with grounds(_EXPIRED, 0) as ground:
        for count in counts:
            ground.fresh()
            _crowd(ground, count)
            measured.add(ground)
        found = versions(ground)
    curves = [Curve(name=name, unit="s", values=values) for name, values in measured.seconds.items()]
    curves += [Curve(name=name, unit="MiB", values=values) for name, values in measured.memory.items()]
    if not size.small:
        _PLOT.write_text(drawn(counts, curves, across="sandboxes"))
    return Result(
        figures=[
            Figure(name=f"{each.name}, of {count:,}", unit=each.unit, values=[value])
            for each in curves
            for count, value in zip(counts, each.values, strict=True)
        ],
        claims=[
            Claim(
                said=f"{'memory' if each.unit == 'MiB' else 'time'} of: {each.name}, grows with this power of their number",
                values=[power(counts, each.values)],
                bound=None,
                unit="",
            )
            for each in curves
        ],
        notes=[
            *(_said(each, counts) for each in curves),
            f"\nAt each count there are {_EXPIRED} more that are expired, each with 3 tables with rows and 200 keys. Of those that"
            f" live, {_SCHEMAS:,} at the most have a schema, and it is empty: with their tables there would be more files than this machine's"
            " disk holds. Each figure is one measurement. Memory includes the interpreter and what it imports, which do not grow, so"
            " that the last step says more than the power.",
            f"\n![Time and memory by the number of sandboxes, both axes logarithmic]({_PLOT.name})",
        ],
        versions=found,
    )


def _said(curve: Curve, counts: Sequence[int]) -> str:
    grown = power(counts, curve.values)
    words = "hardly grows" if grown < 0.2 else "grows more slowly than their number"
    if grown > 0.8:
        words = "grows as their number does" if grown < 1.2 else "grows faster than their number"
    what = "memory" if curve.unit == "MiB" else "time"
    return (
        f"- {curve.name}: {what} {words} (power {grown:.2f}); from {counts[0]:,} to {counts[-1]:,},"
        f" {curve.values[-1] / curve.values[0]:.1f} times; from {counts[-2]:,} on, {curve.values[-1] / curve.values[-2]:.1f} times."
    )


LINE = Line(
    name="growth",
    title="Growth",
    on=f"{', '.join(f'{count:,}' for count in _COUNTS)} sandboxes that live, each a row and {_KEYS} keys",
    run=_run,
)
