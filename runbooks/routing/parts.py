"""How the parts of the way that events take are: streams, consumers, routes, the worker service, the servers. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from diagnostics.reach import SEE_NATS, SEE_POSTGRES, SEE_REDIS
from diagnostics.routes import SEE_ROUTES
from diagnostics.streams import SEE_CONSUMER, SEE_MESSAGES, SEE_STREAM, SeenConsumer, SeenStream, Served
from runbooks.engine.model import Finding, Resource, Severity
from runbooks.findings import cache_finding, reach_finding, service_finding, span, unknown
from runbooks.probing import part
from runbooks.routing.evidence import Evidence
from runbooks.routing.losses import how_often, wrong_routes
from sandbox.facts import Known, Unknown
from sandbox.text import clean, counted

__all__ = ["part_findings", "route_findings", "unknown_findings"]

LAG = 1_000
"""Messages that a consumer has not handed out: more of them are a warning."""

REDELIVERED = 10
"""Messages that are under way for a second time: more of them are a warning."""

_SHOWN = 5
_NAMES = {
    "messaging": ("streams and consumers", SEE_NATS),
    "circling": ("whether events circle", SEE_MESSAGES.format(name="EVENTS", subject="events.>")),
    "routes": ("cached routes", SEE_ROUTES),
    "connections": ("connections", SEE_POSTGRES),
}


def part_findings(evidence: Evidence, causes: Sequence[Finding]) -> list[Finding]:
    """Return how each part is, but for those that are told as a cause."""
    told = [each.resource for each in causes if each.resource]
    found = [
        *_streams(evidence),
        *_consumers(evidence),
        *_circling(evidence),
        *route_findings(evidence),
        *_service(evidence),
    ]
    return [
        *(finding for finding in found if finding.resource not in told),
        reach_finding("NATS", evidence.nats, source=SEE_NATS),
        reach_finding("PostgreSQL", evidence.postgres, source=SEE_POSTGRES),
        reach_finding("Redis", evidence.redis, source=SEE_REDIS),
        cache_finding(evidence.cache),
        *unknown_findings(evidence),
    ]


def unknown_findings(evidence: Evidence) -> list[Finding]:
    """Return what could not be looked at; nothing is proposed for it."""
    facts = ((name, getattr(evidence, field), source) for field, (name, source) in _NAMES.items())
    return [unknown(name, fact, source=source) for name, fact, source in facts if isinstance(fact, Unknown)]


def route_findings(evidence: Evidence) -> list[Finding]:
    """Say how the cached routes are on the whole, and which of them last too long."""
    if not isinstance(evidence.routes, Known):
        return []
    seen = evidence.routes.value
    running = sum(each.routes for each in seen.mapped)
    others = len(seen.mapped) - running
    lasting = [each.cached for each in wrong_routes(evidence) if not each.loses]
    kept = f"; {len(lasting)} of those that are right last too long" if lasting else ""
    beside = f" ({others} more are mapped to sandboxes that do not run)" if others else ""
    return [
        Finding(
            check="routes",
            severity=Severity.WARNING if lasting else Severity.OK,
            summary=f"{counted(running, 'guild is', 'guilds are')} routed to sandboxes{beside}; {len(seen.cached)} routes are cached,"
            f" {seen.uncached} are cached at the guild's next event{kept}",
            evidence={"details": [f"guild {clean(each.guild)} {each.ending}" for each in lasting[:_SHOWN]]},
            source=SEE_ROUTES,
        )
    ]


def _streams(evidence: Evidence) -> list[Finding]:
    if not isinstance(evidence.messaging, Known):
        return []
    return [_stream(each, evidence) for each in evidence.messaging.value.streams]


def _stream(each: SeenStream, evidence: Evidence) -> Finding:
    wrong = [clean(difference) for difference in each.drift]
    state, what = each.state, f"there is no stream {each.name}"
    if state is not None:
        age = span(max(evidence.now - state.oldest, timedelta(0))) if state.oldest else ""
        what = f"stream {each.name}: {counted(state.messages, 'message')}" + (
            f", the oldest {age} old" if age else ""
        )
        if each.copies_missing:
            wrong.append(f"{each.copies_missing} of its {state.config.replicas} copies are not up to date")
        if state.full:
            wrong.append(
                f"full: what comes in throws the oldest away, before its {state.config.max_age} are over"
            )
    return Finding(
        check="stream",
        severity=Severity.WARNING if wrong or state is None else Severity.OK,
        summary=f"{what}; {wrong[0] if wrong else 'as expected'}" if state else what,
        resource=Resource(kind="stream", id=each.name),
        evidence={"details": wrong[1:]},
        source=SEE_STREAM.format(name=each.name),
    )


def _consumers(evidence: Evidence) -> list[Finding]:
    if not isinstance(evidence.messaging, Known):
        return []
    return [_consumer(each) for each in evidence.messaging.value.consumers]


def _consumer(each: SeenConsumer) -> Finding:
    """How a consumer is: whether it is served, what waits, what is not acknowledged or came again."""
    state, wrong = each.state, [clean(difference) for difference in each.drift]
    what = f"there is no consumer {each.name}"
    if state is not None:
        most = state.config.max_ack_pending or 0
        of_most = f" of {most}" if most > 0 else ""
        again = min(state.redelivered, state.ack_pending)  # the others were given up after the last try
        what = (
            f"consumer {each.name} is {each.served}: {state.pending} wait, {state.ack_pending}{of_most} are not"
            f" acknowledged, {again} of them come again"
        )
        if state.pending > LAG:
            wrong.append(f"it lags: more than {LAG} wait")
        if again > REDELIVERED:
            wrong.append("they were refused, or not acknowledged in time")
        if 0 < most <= state.ack_pending:
            wrong.append("as many are handed out as may be: no more are, until some are acknowledged")
    fine = state is not None and each.served is Served.YES and not wrong
    return Finding(
        check="consumer",
        severity=Severity.OK if fine else Severity.WARNING,
        summary=what,
        resource=Resource(kind="consumer", id=each.name),
        evidence={"details": wrong},
        source=SEE_CONSUMER.format(stream=each.expected.stream, name=each.name),
    )


def _circling(evidence: Evidence) -> list[Finding]:
    if not isinstance(evidence.circling, Known):
        return []
    seen = evidence.circling.value
    told = f"of the last {seen.read} messages of EVENTS {seen.events} are different events"
    if seen.circling:
        told += f": {seen.circling} circle, {how_often(seen)}"
    elif seen.late:
        told += f", and {seen.late} were stored long after they were made: more may circle than were read"
    return [
        Finding(
            check="loop",
            severity=Severity.WARNING if seen.circling or seen.late else Severity.OK,
            summary=told,
            resource=Resource(kind="loop", id="EVENTS"),
            source=SEE_MESSAGES.format(name="EVENTS", subject="events.>"),
        )
    ]


def _service(evidence: Evidence) -> list[Finding]:
    """How the service is that the EventRouter runs in."""
    found = service_finding(part(evidence.workers, lambda workers: workers.service), evidence.stack)
    return [replace(found, resource=Resource(kind="service", id=evidence.stack.worker_service))]
