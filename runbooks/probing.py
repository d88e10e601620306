"""What a probe says about a cause that a log names: confirmed, ruled out, or open. Pure.

A probe rules out no more than it has looked at.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar

from diagnostics import causes
from diagnostics.causes import Cause
from diagnostics.postgres import Connections, LockTable
from diagnostics.reach import Reach
from diagnostics.servers import Cache, Instance
from runbooks import findings
from runbooks.engine.model import Finding
from sandbox.errors import Denied, Unreachable
from sandbox.facts import Fact, Known, Unknown

__all__ = [
    "Answer",
    "Probed",
    "by_cache_memory",
    "by_connections",
    "by_lock_table",
    "by_login",
    "by_server",
    "by_storage",
    "dead_server",
    "part",
    "refused",
    "unseen",
]

T = TypeVar("T")
U = TypeVar("U")

FEW_CONNECTIONS = 3
_MUCH_LOCKED = 0.8  # of the lock table
_OVER_WHEN_IT_ANSWERS = (
    "postgres-refused",
    "postgres-silent",
    "postgres-restarting",
    "redis-refused",
    "redis-silent",
    "redis-loading",
    "nats-refused",
    "nats-silent",
)


class Answer(StrEnum):
    """What a probe says about a cause."""

    CONFIRMED = "confirmed"
    RULED_OUT = "ruled out"
    UNKNOWN = "cannot tell"


Probed = tuple[Answer, str]
"""An answer, and by what it was found."""


def refused(fact: Fact[Any]) -> bool:
    """Whether a server said no or nothing; a probe's own fault says nothing about it."""
    return isinstance(fact, Unknown) and (fact.error is None or isinstance(fact.error, Unreachable | Denied))


def part(fact: Fact[T], read: Callable[[T], U]) -> Fact[U]:
    """Return a part of what is known; what is unknown stays so."""
    return Known(read(fact.value)) if isinstance(fact, Known) else fact


def unseen(cause: Cause) -> Probed:
    """Say that no probe sees a cause, and how a person would."""
    return Answer.UNKNOWN, f"no probe here sees it; {cause.check}"


def dead_server(name: str, fact: Fact[Reach], *, source: str, note: str = "") -> list[Finding]:
    """Return the cause that a server refuses us or does not answer; none where it does, or our own probe failed."""
    if not isinstance(fact, Unknown) or not refused(fact):
        return []
    cause = causes.match(fact.reason)
    what = f"{name} cannot be used from here: {cause.title}" if cause else f"{name} does not answer"
    details = [fact.reason, *([f"means: {cause.meaning}", f"check: {cause.check}"] if cause else ())]
    return [findings.cause(what, details=[*details, *filter(None, [note])], source=source)]


def by_server(cause: Cause, fact: Fact[Reach]) -> Probed:
    """Ask whether a server answers: that it does rules out that it does not, and nothing else."""
    if isinstance(fact, Unknown):
        same = causes.match(fact.reason)
        dead = cause.key in _OVER_WHEN_IT_ANSWERS and same is not None and same.key in _OVER_WHEN_IT_ANSWERS
        alike = same == cause or dead or (cause.step_only and refused(fact))
        return (Answer.CONFIRMED if alike else Answer.UNKNOWN), f"from here it is: {fact.reason}"
    if cause.step_only or cause.key in _OVER_WHEN_IT_ANSWERS:
        return Answer.RULED_OUT, f"{fact.value.system} answers from here"
    return (
        Answer.UNKNOWN,
        f"{fact.value.system} answers from here, which says nothing about this; {cause.check}",
    )


def by_login(cause: Cause, *facts: Fact[Reach]) -> Probed:
    """Ask for a login or a network: the task's own are another, but what fails here in the same way is confirmed."""
    for fact in facts:
        if isinstance(fact, Unknown) and causes.match(fact.reason) == cause:
            return Answer.CONFIRMED, f"from here it is the same: {fact.reason}"
    return Answer.UNKNOWN, "the task's own address and login may differ from those used here"


def by_connections(cause: Cause, seen: Fact[Connections], reach: Fact[Reach]) -> Probed:
    """Ask how many connections are left, in all and of those that one role, or the database, may have."""
    if isinstance(seen, Known):
        if full := [f"{quota.kind} {quota.name}" for quota in seen.value.quotas if quota.full]:
            return Answer.CONFIRMED, f"all connections that {', '.join(full)} may have are used"
        used = f"{seen.value.used} of {seen.value.limit} connections are used"
        return (Answer.CONFIRMED if seen.value.left <= FEW_CONNECTIONS else Answer.RULED_OUT), used
    if isinstance(reach, Unknown) and causes.match(reach.reason) == cause:
        return Answer.CONFIRMED, "we are turned away as well"
    return Answer.UNKNOWN, "the database does not tell how many are used"


def by_storage(fact: Fact[Instance]) -> Probed:
    """Ask RDS how much storage is left."""
    seen = fact.value if isinstance(fact, Known) else None
    if seen is None or seen.short_of_storage is None or seen.storage_left is None:
        return Answer.UNKNOWN, "the storage that is left is not known"
    told = f"{seen.storage_left / 2**30:.1f} of {seen.storage_gib} GiB of storage are left"
    return (Answer.CONFIRMED if seen.short_of_storage else Answer.RULED_OUT), told


def by_cache_memory(fact: Fact[Cache]) -> Probed:
    """Ask ElastiCache how full Redis is."""
    seen = fact.value if isinstance(fact, Known) else None
    if seen is None or seen.short_of_memory is None:
        return Answer.UNKNOWN, "how full Redis is, is not known"
    told = f"{seen.memory_used_percent:.0f} % of its memory is used"
    return (Answer.CONFIRMED if seen.short_of_memory else Answer.RULED_OUT), told


def by_lock_table(fact: Fact[LockTable]) -> Probed:
    """Ask how full the table of locks is."""
    if not isinstance(fact, Known):
        return Answer.UNKNOWN, "the database could not be read"
    locks = fact.value
    full = locks.used > locks.room * _MUCH_LOCKED
    return (Answer.CONFIRMED if full else Answer.RULED_OUT), f"{locks.used} of {locks.room} locks are held"
