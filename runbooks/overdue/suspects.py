"""What the evidence about sandboxes that are over says about a cause that the clean-up's log names. Pure."""

from collections.abc import Callable, Mapping

from diagnostics.causes import Cause, Probe
from runbooks import probing
from runbooks.overdue.evidence import Evidence
from runbooks.probing import Answer, Probed, part, unseen
from sandbox.facts import Known
from sandbox.text import counted

__all__ = ["probed"]


def probed(cause: Cause, evidence: Evidence) -> Probed:
    """Return what the cause's probe says now."""
    test = _TESTS.get(cause.probe)
    return test(cause, evidence) if test else unseen(cause)


def _connections(cause: Cause, evidence: Evidence) -> Probed:
    seen = part(evidence.database, lambda database: database.connections)
    return probing.by_connections(cause, seen, evidence.postgres)


def _login(cause: Cause, evidence: Evidence) -> Probed:
    return probing.by_login(cause, evidence.postgres, evidence.redis)


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


def _registry(cause: Cause, evidence: Evidence) -> Probed:
    if cause.key == "taken":
        return unseen(cause)
    if not isinstance(evidence.database, Known):
        return Answer.UNKNOWN, "the database could not be read"
    if evidence.behind:
        return (
            Answer.CONFIRMED,
            f"{counted(len(evidence.behind), 'sandbox is', 'sandboxes are')} still there that should be gone",
        )
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
        return unseen(cause)
    if names := evidence.database.value.not_ours:
        return Answer.CONFIRMED, f"the role used here may not drop {', '.join(names)} either"
    return Answer.UNKNOWN, "the role used here may drop what should go; is the task's the same?"


def _lock_table(cause: Cause, evidence: Evidence) -> Probed:
    return probing.by_lock_table(part(evidence.database, lambda database: database.locks))


_TESTS: Mapping[Probe, Callable[[Cause, Evidence], Probed]] = {
    Probe.POSTGRES: lambda cause, evidence: probing.by_server(cause, evidence.postgres),
    Probe.REDIS: lambda cause, evidence: probing.by_server(cause, evidence.redis),
    Probe.LOGIN: _login,
    Probe.NETWORK: _login,
    Probe.CONNECTIONS: _connections,
    Probe.BLOCKERS: _blockers,
    Probe.LOCKS: _locks,
    Probe.LOCK_TABLE: _lock_table,
    Probe.DISK: lambda _, evidence: probing.by_storage(evidence.instance),
    Probe.CACHE_MEMORY: lambda _, evidence: probing.by_cache_memory(evidence.cache),
    Probe.RIGHTS: _rights,
    Probe.REGISTRY: _registry,
    Probe.TASK: _tasks,
}
