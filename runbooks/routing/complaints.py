"""What the worker's log complains of, and whether it still holds by what was seen of the way that events take. Pure."""

from collections.abc import Sequence
from datetime import timedelta

from diagnostics.causes import Probe
from diagnostics.grouping import ErrorGroup
from diagnostics.postgres import SEE_CONNECTIONS
from runbooks import findings, logged, probing
from runbooks.engine.model import Finding, Severity
from runbooks.probing import Answer, Probed
from runbooks.routing import losses
from runbooks.routing.evidence import Evidence
from sandbox.facts import Known

__all__ = ["causes", "log_findings"]

_OVER = timedelta(minutes=10)  # the alarm's two periods: an error that has not come again since is over


def log_findings(evidence: Evidence) -> list[Finding]:
    """Return a finding for each cause that the log names, with what its probe says; and for each error without one."""
    return logged.log_findings(
        evidence.errors, evidence.stack.worker_logs, lambda group: _judged(group, evidence)
    )


def causes(evidence: Evidence) -> list[Finding]:
    """Return the causes that only the log pointed to, and a probe confirms: memory, connections."""
    found = {}
    for group in evidence.groups:
        if group.cause and group.cause.probe in (Probe.CACHE_MEMORY, Probe.CONNECTIONS):
            answer, why = _probed(group, evidence)
            if answer is Answer.CONFIRMED and not probing.refused(evidence.postgres):
                source = (
                    SEE_CONNECTIONS
                    if group.cause.probe is Probe.CONNECTIONS
                    else logged.SEE_LOG.format(name=evidence.stack.worker_logs)
                )
                details = [f"means: {group.cause.meaning}", f"check: {group.cause.check}"]
                found[group.cause.key] = findings.cause(
                    f"{group.cause.title}: {why}", details=details, source=source
                )
    return list(found.values())


def _judged(group: ErrorGroup, evidence: Evidence) -> tuple[Severity, str]:
    """How bad an error of the log is by now: what a probe rules out is over."""
    answer, why = _probed(group, evidence)
    if answer is Answer.CONFIRMED:
        return Severity.WARNING, f"confirmed: {why}"
    if answer is Answer.RULED_OUT:
        return Severity.OK, f"ruled out now: {why}"
    if evidence.now - group.last > _OVER:
        return Severity.OK, f"not again for {findings.span(evidence.now - group.last)}"
    return Severity.WARNING, f"cannot tell whether it still holds: {why}"


def _probed(group: ErrorGroup, evidence: Evidence) -> Probed:
    """What the probe of the cause that an error names says now."""
    cause = group.cause
    if cause is None:
        return Answer.UNKNOWN, "no known cause matches"
    if cause.probe is Probe.STREAM or cause.key == "routing":
        return _by_way(evidence)
    if cause.probe in (Probe.POSTGRES, Probe.REDIS, Probe.NATS):
        reach = {Probe.POSTGRES: evidence.postgres, Probe.REDIS: evidence.redis, Probe.NATS: evidence.nats}
        return probing.by_server(cause, reach[cause.probe])
    if cause.probe in (Probe.LOGIN, Probe.NETWORK):
        return probing.by_login(cause, evidence.nats, evidence.postgres, evidence.redis)
    if cause.probe is Probe.CONNECTIONS:
        return probing.by_connections(cause, evidence.connections, evidence.postgres)
    if cause.probe is Probe.CACHE_MEMORY:
        return probing.by_cache_memory(evidence.cache)
    return probing.unseen(cause)


def _by_way(evidence: Evidence) -> Probed:
    """Ask for everything that routing an event needs: servers, streams, consumers."""
    if found := losses.in_the_way(evidence):
        return Answer.CONFIRMED, found[0].summary.removeprefix("cause: ")
    needed: Sequence[object] = (evidence.nats, evidence.postgres, evidence.redis, evidence.messaging)
    if not all(isinstance(fact, Known) for fact in needed):
        return Answer.UNKNOWN, "not everything that routing needs could be looked at"
    return Answer.RULED_OUT, "servers, streams and consumers are there"
