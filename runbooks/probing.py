"""What the evidence says about a cause that a log names: confirmed, ruled out, or open. Pure."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from diagnostics import causes
from diagnostics.causes import Cause, Probe
from runbooks.overdue import Evidence
from sandbox.facts import Fact, Known, Unknown

__all__ = ["Answer", "probed"]

_FEW_CONNECTIONS = 3
_LITTLE_STORAGE = 2**30  # bytes
_MUCH_LOCKED = 0.8  # of the lock table
_MUCH_MEMORY = 95.0  # per cent


class Answer(StrEnum):
    """What a probe says about a cause."""

    CONFIRMED = "confirmed"
    RULED_OUT = "ruled out"
    UNKNOWN = "cannot tell"


Probed = tuple[Answer, str]
"""An answer, and by what it was found."""


def probed(cause: Cause, evidence: Evidence) -> Probed:
    """Return what the cause's probe says now."""
    test = _TESTS.get(cause.probe)
    return test(evidence) if test else (Answer.UNKNOWN, f"no probe here sees it; {cause.check}")


def _answers(name: str, fact: Fact[Any]) -> Probed:
    if isinstance(fact, Unknown):
        return Answer.CONFIRMED, f"{name} does not answer here either: {fact.reason}"
    return Answer.RULED_OUT, f"{name} answers from here"


def _connections(evidence: Evidence) -> Probed:
    if not isinstance(evidence.database, Known):
        refused = causes.match(evidence.postgres.reason) if isinstance(evidence.postgres, Unknown) else None
        if refused and refused.probe is Probe.CONNECTIONS:
            return Answer.CONFIRMED, "we are turned away as well"
        return Answer.UNKNOWN, "the database does not tell how many are used"
    seen = evidence.database.value.connections
    used = f"{seen.used} of {seen.limit} connections are used"
    return (Answer.CONFIRMED if seen.left <= _FEW_CONNECTIONS else Answer.RULED_OUT), used


def _blockers(evidence: Evidence) -> Probed:
    if not isinstance(evidence.blockers, Known) or not isinstance(evidence.database, Known):
        return Answer.UNKNOWN, "nobody can tell what rests on the schemas"
    if any(evidence.blocking(each) for each in evidence.behind):
        return Answer.CONFIRMED, "it is in the way now"
    return Answer.RULED_OUT, "nothing elsewhere rests on a schema of those that are over"


def _locks(evidence: Evidence) -> Probed:
    if not isinstance(evidence.holders, Known) or not isinstance(evidence.database, Known):
        return Answer.UNKNOWN, "nobody can tell who holds the schemas"
    if any(evidence.holding(each) for each in evidence.behind):
        return Answer.CONFIRMED, "a session is in the way now"
    return Answer.RULED_OUT, "no session holds a schema of those that are over"


def _disk(evidence: Evidence) -> Probed:
    left = evidence.instance.value.storage_left if isinstance(evidence.instance, Known) else None
    if left is None:
        return Answer.UNKNOWN, "the storage that is left is not known"
    told = f"{left / 2**30:.1f} GiB of storage are left"
    return (Answer.CONFIRMED if left < _LITTLE_STORAGE else Answer.RULED_OUT), told


def _memory(evidence: Evidence) -> Probed:
    used = evidence.cache.value.memory_used_percent if isinstance(evidence.cache, Known) else None
    if used is None:
        return Answer.UNKNOWN, "how full Redis is, is not known"
    return (
        Answer.CONFIRMED if used > _MUCH_MEMORY else Answer.RULED_OUT
    ), f"{used:.0f} % of its memory is used"


def _migration(evidence: Evidence) -> Probed:
    if isinstance(evidence.database, Known):
        return Answer.RULED_OUT, "the control tables are there"
    return Answer.UNKNOWN, "the database could not be read"


def _registry(evidence: Evidence) -> Probed:
    if not isinstance(evidence.database, Known):
        return Answer.UNKNOWN, "the database could not be read"
    if evidence.behind:
        return Answer.CONFIRMED, f"{len(evidence.behind)} sandboxes are still there that should be gone"
    return Answer.RULED_OUT, "no sandbox is left that should be gone"


def _tasks(evidence: Evidence) -> Probed:
    ended = [task for task in evidence.tasks.value if task.ended] if isinstance(evidence.tasks, Known) else []
    if not ended:
        return Answer.UNKNOWN, "ECS knows of no task that has ended within the last hour"
    return (
        (Answer.CONFIRMED, ended[0].failure)
        if ended[0].failed
        else (Answer.RULED_OUT, "the last task ended well")
    )


def _rights(evidence: Evidence) -> Probed:
    if not isinstance(evidence.database, Known):
        return Answer.UNKNOWN, "the database could not be read"
    if names := evidence.database.value.not_ours:
        return Answer.CONFIRMED, f"the role used here may not drop {', '.join(names)}"
    return Answer.UNKNOWN, "the role used here may drop what should go; is the task's the same?"


def _lock_table(evidence: Evidence) -> Probed:
    if not isinstance(evidence.database, Known):
        return Answer.UNKNOWN, "the database could not be read"
    locks = evidence.database.value.locks
    full = locks.used > locks.room * _MUCH_LOCKED
    return (Answer.CONFIRMED if full else Answer.RULED_OUT), f"{locks.used} of {locks.room} locks are held"


def _from_here(evidence: Evidence) -> Probed:
    if isinstance(evidence.postgres, Known) and isinstance(evidence.redis, Known):
        return (
            Answer.UNKNOWN,
            "from here the servers answer this login; the task's address and login may differ",
        )
    return Answer.CONFIRMED, "from here it is no different"


_TESTS: Mapping[Probe, Callable[[Evidence], Probed]] = {
    Probe.POSTGRES: lambda evidence: _answers("PostgreSQL", evidence.postgres),
    Probe.REDIS: lambda evidence: _answers("Redis", evidence.redis),
    Probe.CONNECTIONS: _connections,
    Probe.BLOCKERS: _blockers,
    Probe.LOCKS: _locks,
    Probe.DISK: _disk,
    Probe.CACHE_MEMORY: _memory,
    Probe.MIGRATION: _migration,
    Probe.RIGHTS: _rights,
    Probe.LOCK_TABLE: _lock_table,
    Probe.LOGIN: _from_here,
    Probe.NETWORK: _from_here,
    Probe.REGISTRY: _registry,
    Probe.TASK: _tasks,
}
