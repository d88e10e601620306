"""What the evidence says about a cause that a log names: confirmed, ruled out, or open. Pure."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from diagnostics import causes
from diagnostics.causes import Cause, Probe
from runbooks.overdue import Evidence
from sandbox.errors import Denied, Unreachable
from sandbox.facts import Fact, Known, Unknown

__all__ = ["Answer", "probed", "refused"]

_FEW_CONNECTIONS = 3
_MUCH_LOCKED = 0.8  # of the lock table
_OVER_WHEN_IT_ANSWERS = (
    "postgres-refused",
    "postgres-silent",
    "postgres-restarting",
    "redis-refused",
    "redis-silent",
    "redis-loading",
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


def probed(cause: Cause, evidence: Evidence) -> Probed:
    """Return what the cause's probe says now. A probe rules out no more than it has looked at."""
    test = _TESTS.get(cause.probe)
    return test(cause, evidence) if test else (Answer.UNKNOWN, f"no probe here sees it; {cause.check}")


def _server(name: str) -> Callable[[Cause, Evidence], Probed]:
    """Return the test of a server: that it answers rules out that it does not, and nothing else."""

    def answers(cause: Cause, evidence: Evidence) -> Probed:
        fact: Fact[Any] = getattr(evidence, name)
        if isinstance(fact, Unknown):
            same = causes.match(fact.reason)
            dead = (
                cause.key in _OVER_WHEN_IT_ANSWERS and same is not None and same.key in _OVER_WHEN_IT_ANSWERS
            )
            alike = same == cause or dead or (cause.step_only and refused(fact))
            return (Answer.CONFIRMED if alike else Answer.UNKNOWN), f"from here it is: {fact.reason}"
        if cause.step_only or cause.key in _OVER_WHEN_IT_ANSWERS:
            return Answer.RULED_OUT, f"{fact.value.system} answers from here"
        return (
            Answer.UNKNOWN,
            f"{fact.value.system} answers from here, which says nothing about this; {cause.check}",
        )

    return answers


def _from_here(cause: Cause, evidence: Evidence) -> Probed:
    """A login or a network: the task's own are another, but what fails here in the same way is confirmed."""
    for fact in (evidence.postgres, evidence.redis):
        if isinstance(fact, Unknown) and causes.match(fact.reason) == cause:
            return Answer.CONFIRMED, f"from here it is the same: {fact.reason}"
    return Answer.UNKNOWN, "the task's own address and login may differ from those used here"


def _connections(cause: Cause, evidence: Evidence) -> Probed:
    if not isinstance(evidence.database, Known):
        if isinstance(evidence.postgres, Unknown) and causes.match(evidence.postgres.reason) == cause:
            return Answer.CONFIRMED, "we are turned away as well"
        return Answer.UNKNOWN, "the database does not tell how many are used"
    seen = evidence.database.value.connections
    used = f"{seen.used} of {seen.limit} connections are used"
    return (Answer.CONFIRMED if seen.left <= _FEW_CONNECTIONS else Answer.RULED_OUT), used


def _blockers(cause: Cause, evidence: Evidence) -> Probed:
    if not isinstance(evidence.blockers, Known) or not isinstance(evidence.database, Known):
        return Answer.UNKNOWN, "nobody can tell what rests on the schemas"
    if any(evidence.blocking(each) for each in evidence.behind):
        return Answer.CONFIRMED, "it is in the way now"
    return Answer.RULED_OUT, "nothing elsewhere rests on a schema of those that are over"


def _locks(cause: Cause, evidence: Evidence) -> Probed:
    if not isinstance(evidence.holders, Known) or not isinstance(evidence.database, Known):
        return Answer.UNKNOWN, "nobody can tell who holds the schemas"
    if any(evidence.holding(each) for each in evidence.behind):
        return Answer.CONFIRMED, "a session is in the way now"
    if cause.key == "statement-timeout":
        return Answer.UNKNOWN, "no session is in the way; it may have worked for too long"
    return Answer.RULED_OUT, "no session holds a schema of those that are over"


def _disk(cause: Cause, evidence: Evidence) -> Probed:
    seen = evidence.instance.value if isinstance(evidence.instance, Known) else None
    if seen is None or seen.short_of_storage is None or seen.storage_left is None:
        return Answer.UNKNOWN, "the storage that is left is not known"
    told = f"{seen.storage_left / 2**30:.1f} of {seen.storage_gib} GiB of storage are left"
    return (Answer.CONFIRMED if seen.short_of_storage else Answer.RULED_OUT), told


def _memory(cause: Cause, evidence: Evidence) -> Probed:
    seen = evidence.cache.value if isinstance(evidence.cache, Known) else None
    if seen is None or seen.short_of_memory is None:
        return Answer.UNKNOWN, "how full Redis is, is not known"
    told = f"{seen.memory_used_percent:.0f} % of its memory is used"
    return (Answer.CONFIRMED if seen.short_of_memory else Answer.RULED_OUT), told


def _registry(cause: Cause, evidence: Evidence) -> Probed:
    if cause.key == "taken":
        return Answer.UNKNOWN, f"no probe here sees it; {cause.check}"
    if not isinstance(evidence.database, Known):
        return Answer.UNKNOWN, "the database could not be read"
    if evidence.behind:
        return Answer.CONFIRMED, f"{len(evidence.behind)} sandboxes are still there that should be gone"
    return Answer.RULED_OUT, "no sandbox is left that should be gone"


def _tasks(cause: Cause, evidence: Evidence) -> Probed:
    last = evidence.last_task
    if last is None:
        return Answer.UNKNOWN, "ECS knows of no task that has ended within the last hour"
    if last.failed:
        return Answer.CONFIRMED, last.failure
    return Answer.RULED_OUT, "the last task ended well"


def _rights(cause: Cause, evidence: Evidence) -> Probed:
    if cause.key != "rights" or not isinstance(evidence.database, Known):
        return Answer.UNKNOWN, f"no probe here sees it; {cause.check}"
    if names := evidence.database.value.not_ours:
        return Answer.CONFIRMED, f"the role used here may not drop {', '.join(names)} either"
    return Answer.UNKNOWN, "the role used here may drop what should go; is the task's the same?"


def _lock_table(cause: Cause, evidence: Evidence) -> Probed:
    if not isinstance(evidence.database, Known):
        return Answer.UNKNOWN, "the database could not be read"
    locks = evidence.database.value.locks
    full = locks.used > locks.room * _MUCH_LOCKED
    return (Answer.CONFIRMED if full else Answer.RULED_OUT), f"{locks.used} of {locks.room} locks are held"


_TESTS: Mapping[Probe, Callable[[Cause, Evidence], Probed]] = {
    Probe.POSTGRES: _server("postgres"),
    Probe.REDIS: _server("redis"),
    Probe.LOGIN: _from_here,
    Probe.NETWORK: _from_here,
    Probe.CONNECTIONS: _connections,
    Probe.BLOCKERS: _blockers,
    Probe.LOCKS: _locks,
    Probe.LOCK_TABLE: _lock_table,
    Probe.DISK: _disk,
    Probe.CACHE_MEMORY: _memory,
    Probe.RIGHTS: _rights,
    Probe.REGISTRY: _registry,
    Probe.TASK: _tasks,
}
