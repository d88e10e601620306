"""What the facts say about an error that the logs name: whether its cause holds still. Pure.

A logged cause is a suspicion: a probe confirms it or rules it out, and what was done since without it settles it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

from diagnostics import causes
from diagnostics.causes import Cause, Probe
from diagnostics.grouping import ErrorGroup
from runbooks import probing
from runbooks.creation.evidence import Facts
from runbooks.engine.model import Phase, Severity
from runbooks.probing import Answer, Probed, part, unseen
from sandbox.facts import Known, Unknown
from sandbox.text import moment

__all__ = ["judged", "met", "unsettled"]

_SAME = timedelta(seconds=5)  # a failure is logged by each part of the program that hands it on


def judged(group: ErrorGroup, facts: Facts) -> tuple[Severity, str]:
    """How bad a logged error is by now: what a probe rules out, or what was done since without it, is over.

    A line that says no more than that a step failed is judged by what was logged of a cause at the same moment.
    """
    step_only = group.cause is not None and group.cause.step_only
    if step_only and (same := _at_the_same_moment(group, facts)):
        return judged(same, facts)
    of_connections = group.cause is not None and group.cause.probe is Probe.CONNECTIONS
    if isinstance(facts.tried, Known) and facts.tried.value.settled and not of_connections:
        return Severity.OK, "ruled out now: a schema could be created"
    answer, why = _probed(group.cause, facts) if group.cause else (Answer.UNKNOWN, "no known cause matches")
    if answer is Answer.CONFIRMED:
        return Severity.WARNING, f"confirmed: {why}"
    if answer is Answer.RULED_OUT and not step_only:
        return Severity.OK, f"ruled out now: {why}"
    if isinstance(facts.created, Known) and facts.created.value and facts.created.value > group.last:
        return Severity.OK, f"a sandbox was created since, at {moment(facts.created.value)}"
    return Severity.WARNING, f"cannot tell whether it still holds: {why}"


def unsettled(facts: Facts) -> list[ErrorGroup]:
    """Return the logged errors that nothing says are over."""
    return [group for group in facts.groups if judged(group, facts)[0] is not Severity.OK]


def met(facts: Facts, key: str) -> bool:
    """Whether something failed for a known cause: in the logs, or in the trial."""
    tried = facts.tried.value if isinstance(facts.tried, Known) else None
    mine = causes.match(tried.reason) if tried and tried.phase is Phase.FAILED else None
    return any(
        each is not None and each.key == key for each in (mine, *(group.cause for group in facts.groups))
    )


def _at_the_same_moment(group: ErrorGroup, facts: Facts) -> ErrorGroup | None:
    """What was logged last at the same time of a cause that is known: it is the same failure, told in another line."""
    known = (each for each in facts.groups if each.cause and not each.cause.step_only)
    return next((each for each in known if abs(each.last - group.last) < _SAME), None)


def _probed(known: Cause, facts: Facts) -> Probed:
    """What the cause's probe says now."""
    test = _TESTS.get(known.probe)
    return test(known, facts) if test else unseen(known)


def _server(known: Cause, facts: Facts) -> Probed:
    if known.key != "pool-full":
        return probing.by_server(known, facts.postgres)
    if isinstance(facts.pooler, Unknown):
        return Answer.UNKNOWN, f"its console does not tell: {facts.pooler.reason}"
    if facts.pooler.value is None:
        return Answer.UNKNOWN, "no PgBouncer is at the address that is used here"
    if facts.pooler.value.full or facts.exhausted_pools:
        return Answer.CONFIRMED, "clients wait or are turned away now"
    return Answer.RULED_OUT, "no client waits in its pools"


def _locks(known: Cause, facts: Facts) -> Probed:
    if not isinstance(facts.database, Known):
        return Answer.UNKNOWN, "nobody can tell who waits for whom"
    if facts.blocking:
        return Answer.CONFIRMED, f"session {facts.blocking[0].pid} is in the way now"
    return Answer.UNKNOWN, "nobody who works on sandboxes waits for a lock now"


def _rights(known: Cause, facts: Facts) -> Probed:
    if known.key not in ("rights", "provisioning"):
        return unseen(known)
    if not isinstance(facts.rights, Known):
        return Answer.UNKNOWN, "nobody can tell which rights there are"
    if facts.lacking:
        return (
            Answer.CONFIRMED,
            f"{facts.lacking[0].role} lacks {facts.lacking[0].privilege} on {facts.lacking[0].name}",
        )
    return Answer.RULED_OUT, f"{facts.rights.value.creator} has every right that it needs"


def _migration(known: Cause, facts: Facts) -> Probed:
    if known.key != "missing-objects":
        return unseen(known)
    if not isinstance(facts.objects, Known):
        return Answer.UNKNOWN, "nobody can tell what there is"
    fatal = [fault.name for fault in facts.faults if fault.fatal]
    if fatal:
        return Answer.CONFIRMED, f"public.{fatal[0]} is missing"
    return Answer.RULED_OUT, "all that the migration makes is there"


_TESTS: Mapping[Probe, Callable[[Cause, Facts], Probed]] = {
    Probe.POSTGRES: _server,
    Probe.LOGIN: lambda known, facts: probing.by_login(known, facts.postgres),
    Probe.NETWORK: lambda known, facts: probing.by_login(known, facts.postgres),
    Probe.CONNECTIONS: lambda known, facts: probing.by_connections(
        known,
        part(facts.database, lambda database: replace(database.connections, quotas=facts.full_quotas)),
        facts.postgres,
    ),
    Probe.LOCKS: _locks,
    Probe.LOCK_TABLE: lambda _, facts: probing.by_lock_table(
        part(facts.database, lambda database: database.locks)
    ),
    Probe.DISK: lambda _, facts: probing.by_storage(facts.instance),
    Probe.RIGHTS: _rights,
    Probe.MIGRATION: _migration,
}
