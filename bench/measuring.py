"""What a measurement is made of: ways of doing one thing, taken in turns, and what is claimed of how they compare."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

__all__ = ["Claim", "Figure", "Line", "Result", "Size", "in_turns", "ratios", "timed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How thoroughly to measure: so many rounds, on everything, or on a tenth of it to see that it works."""

    rounds: int = 5
    small: bool = False

    def of(self, count: int) -> int:
        """Return how many of a thing that the line has so many of."""
        return max(1, count // 10) if self.small else count


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What was measured of one way, once a round, in this unit: "s", "ms", "MiB", or a count's name."""

    name: str
    unit: str
    values: Sequence[float]

    @property
    def median(self) -> float:
        """Return the one in the middle."""
        return median(self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What has to hold of values measured once a round: their median is at most, or at least, this bound.

    `bound` None: nothing is asked, it is told for what it says. `missed` says what stands in the way where the claim does not hold, and what was tried.
    """

    said: str
    values: Sequence[float]
    bound: float | None
    at_least: bool = False
    unit: str = "x"
    missed: str = ""

    @property
    def median(self) -> float:
        """Return the one in the middle."""
        return median(self.values)

    @property
    def holds(self) -> bool:
        """Whether it does."""
        if self.bound is None:
            return True
        return self.median >= self.bound if self.at_least else self.median <= self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a line. `notes` are sentences: what was compared, what the peer leaves out, what bounds it."""

    figures: Sequence[Figure]
    claims: Sequence[Claim]
    notes: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of bench/RESULTS.md. `run` raises SystemExit, with a sentence, where it cannot be measured here."""

    name: str
    title: str
    on: str
    run: Callable[[Size], Result]


def in_turns(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Do each once a round, each round beginning with another one; return what each returned, round by round."""
    names = list(ways)
    values: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in _rotated(names, number):
            values[name].append(ways[name]())
    return values


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return how many times theirs ours is, round by round."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def timed(what: Callable[[], object]) -> float:
    """Return the seconds that it took."""
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def _rotated(names: Sequence[str], by: int) -> Iterator[str]:
    yield from (names[(by + place) % len(names)] for place in range(len(names)))
