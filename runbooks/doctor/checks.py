"""What is said of each thing that is examined, in one form: what it takes away, and what mends it. Pure."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from diagnostics.privileges import Held
from runbooks.engine.environment import Environment
from runbooks.engine.model import Finding, Resource, Severity
from sandbox.errors import ArrakisError
from sandbox.facts import Unknown
from sandbox.text import counted

__all__ = [
    "Clock",
    "Needs",
    "Subject",
    "Takes",
    "Wanted",
    "clock",
    "reached",
    "rights",
    "unreached",
    "untold",
    "version",
    "well",
    "wrong",
]

_SKEW = 5.0  # seconds between two clocks that are more than a nuisance
_SHOWN = 3  # words that are told in a summary


class Takes(StrEnum):
    """What is not possible for want of something."""

    NOTHING = "nothing"
    CHANGING = "changing"
    LOOKING = "looking"


Wanted = Mapping[str, Sequence[str]]
"""Rights by their word, each with the procedures that need it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What the procedures need of one system, to look and to change."""

    reads: Wanted
    writes: Wanted

    @property
    def words(self) -> tuple[str, ...]:
        """Return all rights, each once, those to look first."""
        return tuple(dict.fromkeys((*self.reads, *self.writes)))

    @property
    def more(self) -> Wanted:
        """Return what a change needs beyond a look."""
        return {word: names for word, names in self.writes.items() if word not in self.reads}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is examined: an environment in a region, where one is named; each system within `deadline` s, by this machine's clock."""

    environment: Environment
    region: str | None
    deadline: float
    now: Callable[[], datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """By how many seconds another clock is ahead of this machine's, give or take some."""

    ahead: float
    give: float

    @classmethod
    def of(cls, said: datetime, *, before: datetime, after: datetime, step: float = 0.0) -> "Clock":
        """Compare what a server said between two moments of this machine; it counts in steps of so many seconds."""
        half = (after - before).total_seconds() / 2
        ahead = (said - before).total_seconds() - half + step / 2
        return cls(ahead=ahead, give=half + step / 2)


def well(system: str, check: str, summary: str, **evidence: Any) -> Finding:
    """Say that something is as it should be."""
    return _finding(system, check, Severity.OK, summary, evidence)


def wrong(
    system: str, check: str, summary: str, *, fix: str, takes: Takes = Takes.NOTHING, **evidence: Any
) -> Finding:
    """Say what is wrong or missing, what it takes away, and the next command."""
    severity = Severity.CRITICAL if takes is Takes.LOOKING else Severity.WARNING
    return _finding(system, check, severity, summary, {**evidence, "takes": takes.value, "hint": fix})


def untold(system: str, check: str, fact: Unknown) -> Finding:
    """Say that something cannot be told, why, and what to do about it."""
    told = {"hint": fact.hint} if fact.hint else {}
    return _finding(system, check, Severity.UNKNOWN, f"cannot tell: {fact.reason}", told)


def unreached(system: str, fact: Unknown, *, fix: str) -> Finding:
    """Say that a system cannot be used from here, and why; a fault of the examination's own says nothing about it."""
    if fact.error is not None and not isinstance(fact.error, ArrakisError):
        return untold(system, "reach", fact)
    return wrong(system, "reach", fact.reason, fix=fact.hint or fix, takes=Takes.LOOKING)


def reached(system: str, told: str, seconds: float) -> Finding:
    """Say that a system answers, and how fast."""
    return well(system, "reach", f"{told} in {seconds * 1000:.0f} ms", milliseconds=round(seconds * 1000, 1))


def version(
    system: str, product: str, number: str, *, least: tuple[int, ...], most: tuple[int, ...]
) -> Finding:
    """Say whether a server is of a version that this toolkit was tried with."""
    found = tuple(int(part) for part in number.split(".")[: max(len(least), len(most))] if part.isdecimal())
    span = f"{_dotted(least)} to {_dotted(most)}"
    if found < least:
        told, fix = f"{product} {number} is older than what this was tried with, {span}", "change by hand"
        return wrong(system, "version", told, fix=f"upgrade it; until then, {fix}", takes=Takes.CHANGING)
    if found[: len(most)] > most:
        told = f"{product} {number} is newer than what this was tried with, {span}"
        return wrong(system, "version", told, fix="look for a newer version of this toolkit")
    return well(system, "version", f"{product} {number}")


def clock(system: str, seen: Clock) -> Finding:
    """Say whether a server's clock and this machine's agree."""
    evidence: dict[str, Any] = {"seconds": round(seen.ahead, 3)}
    if abs(seen.ahead) - seen.give <= _SKEW:
        told = f"its clock and this machine's are {abs(seen.ahead):.1f} s apart"
        return well(system, "clock", told, **evidence)
    told = f"its clock is {abs(seen.ahead):.0f} s {'ahead of' if seen.ahead > 0 else 'behind'} this machine's"
    return wrong(system, "clock", told, fix="timedatectl set-ntp true  # on whichever is wrong", **evidence)


def rights(
    system: str, needs: Needs, held: Held, *, fix: Mapping[str, str], why: str = "", hint: str = ""
) -> Iterator[Finding]:
    """Say which rights are lacking to look, and which to change besides; of those that are not in `held`, nothing.

    `fix` has the command that gives a right, by its word; `why` says why some cannot be told, `hint` what to do about that.
    """
    for check, takes, wanted in (
        ("rights to look", Takes.LOOKING, needs.reads),
        ("rights to change", Takes.CHANGING, needs.more),
    ):
        judged = [word for word in wanted if word in held]
        lacking = [word for word in judged if held[word] is False]
        unsure = [word for word in judged if held[word] is None]
        if lacking:
            told = f"lacks {len(lacking)} of {len(judged)}: {_listed(lacking)}"
            details = [f"{word}, for {', '.join(wanted[word])}" for word in lacking]
            yield _lacking(
                system, check, told, takes, details, [fix[word] for word in lacking if word in fix]
            )
        elif unsure:
            reason = f"{counted(len(unsure), 'right')} of {len(judged)}: {why}"
            yield untold(system, check, Unknown(reason, hint))
        elif judged:
            yield well(system, check, f"all {len(judged)} are held")


def _lacking(
    system: str, check: str, told: str, takes: Takes, details: Sequence[str], commands: Sequence[str]
) -> Finding:
    more = f"  # and {len(commands) - 1} more: --json names them" if len(commands) > 1 else ""
    fix = f"{commands[0]}{more}" if commands else "ask whoever owns it"
    return wrong(system, check, told, fix=fix, takes=takes, details=details, commands=commands)


def _finding(
    system: str, check: str, severity: Severity, summary: str, evidence: Mapping[str, Any]
) -> Finding:
    resource = Resource(kind="system", id=system)
    return Finding(check=check, severity=severity, summary=summary, resource=resource, evidence=evidence)


def _listed(words: Collection[str]) -> str:
    first = ", ".join(list(words)[:_SHOWN])
    return f"{first} and {len(words) - _SHOWN} more" if len(words) > _SHOWN else first


def _dotted(number: tuple[int, ...]) -> str:
    return ".".join(map(str, number))
