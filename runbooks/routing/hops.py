"""The way that a guild's or a sandbox's events take, hop by hop: one finding a hop, in order. Pure."""

import shlex
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from diagnostics.reach import SEE_NATS
from diagnostics.routes import SEE_MAPPINGS, SEE_ROUTE, Cached
from diagnostics.streams import (
    SEE_CONSUMER,
    SEE_LISTENERS,
    SEE_MESSAGES,
    SEE_STREAM,
    SeenConsumer,
    SeenStream,
    Served,
)
from runbooks.engine.model import Finding, Phase, Resource, Severity
from runbooks.findings import span
from runbooks.routing.evidence import MOST_MESSAGES, Asked, Evidence, Way
from sandbox.facts import Fact, Known, Unknown
from sandbox.model import Sandbox, Status
from sandbox.routes import NOWHERE
from sandbox.streams import subjects_of
from sandbox.text import clean, counted, moment

__all__ = ["way_findings"]

_SANDBOX, _EVENTS = "SANDBOX", "EVENTS"

Hop = tuple[Severity, str, str]
"""How it is, what is told of it, and how a person sees it."""


def way_findings(evidence: Evidence) -> list[Finding]:
    """Return a finding for each hop; none where nobody asked for a guild or a sandbox."""
    way = evidence.way
    if way is None:
        return _without_a_way(evidence)
    hops = [
        ("mapping", _mapping(way.asked)),
        ("sandbox", _sandbox(way, evidence.now)),
        *(("cached route", hop) for hop in _cached(way)),
        ("way in", _through(evidence, _EVENTS, "events.>")),
        ("stream", _stream(evidence, way)),
        ("consumer", _consumer(evidence, way)),
        ("canary", _canary(evidence, way.sandbox)),
    ]
    return [
        Finding(
            check="hop",
            severity=severity,
            summary=f"hop {number}, {name}: {told}",
            resource=Resource(kind="sandbox", id=way.sandbox.name) if way.sandbox else None,
            source=source,
        )
        for number, (name, (severity, told, source)) in enumerate(hops, 1)
    ]


def _without_a_way(evidence: Evidence) -> list[Finding]:
    """Say why no canary was sent, where one was asked for, but not where to."""
    if evidence.canary is None:
        return []
    severity, told, source = _canary(evidence, None)
    return [Finding(check="hop", severity=severity, summary=f"canary: {told}", source=source)]


def _mapping(asked: Fact[Asked]) -> Hop:
    if isinstance(asked, Unknown):
        return Severity.UNKNOWN, f"cannot tell: {asked.reason}", SEE_MAPPINGS
    guilds, row = ", ".join(map(clean, asked.value.guilds)), asked.value.sandbox
    if row is None:
        return Severity.CRITICAL, f"guild {guilds} is mapped to no sandbox", SEE_MAPPINGS
    if not guilds:
        return Severity.CRITICAL, f"no guild is mapped to {clean(row.name)}", SEE_MAPPINGS
    return Severity.OK, f"{guilds} → {clean(row.name)} ({row.id})", SEE_MAPPINGS


def _sandbox(way: Way, now: datetime) -> Hop:
    row = way.sandbox
    if row is None:
        return _blank(way.asked, "there is none", SEE_MAPPINGS)
    ends = f" until {moment(row.expires_at)}" if row.expires_at else ""
    if row.status is not Status.RUNNING:
        return (
            Severity.CRITICAL,
            f"{clean(row.name)} is {row.status}: only running ones are routed to",
            SEE_MAPPINGS,
        )
    over = row.expires_at is not None and row.expires_at < now
    told = f"{clean(row.name)} is running{ends}" + (", which is over" if over else "")
    return Severity.WARNING if over else Severity.OK, told, SEE_MAPPINGS


def _cached(way: Way) -> Iterator[Hop]:
    """A hop for each guild: what the EventRouter finds before it asks the table."""
    source = _see_route(next(iter(way.guilds), "ID"))
    if isinstance(way.asked, Known) and not way.guilds:
        yield _blank(way.asked, "no guild, no route", source)
        return
    if isinstance(way.cached, Unknown):
        yield Severity.UNKNOWN, f"cannot tell: {way.cached.reason}", source
        return
    found = {each.guild: each for each in way.cached.value}
    for guild in way.guilds or tuple(found):
        yield _route(found.get(guild), guild, way)


def _route(cached: Cached | None, guild: str, way: Way) -> Hop:
    name, source = clean(guild), _see_route(guild)
    if cached is None:
        return Severity.OK, f"none of {name}: the EventRouter asks the table at the next event", source
    told = f"{name} → {clean(cached.value)}, {cached.ending}"
    if isinstance(way.asked, Unknown):
        return Severity.UNKNOWN, f"{told}; cannot tell whether that is right", source
    row = way.sandbox
    right = str(row.id) if row and row.status is Status.RUNNING else NOWHERE
    if cached.value != right:
        return Severity.CRITICAL, f"{told}; should be {right}", source
    return (Severity.WARNING if cached.lasts else Severity.OK), told, source


def _through(evidence: Evidence, stream: str, subject: str) -> Hop:
    """A stream and its consumer, as far as a subject concerns them."""
    if isinstance(evidence.messaging, Unknown):
        return Severity.UNKNOWN, f"cannot tell: {evidence.messaging.reason}", SEE_NATS
    seen = evidence.messaging.value
    severity, told, source = _of_stream(seen.stream(stream), subject)
    if severity is not Severity.OK:
        return severity, told, source
    worse, more, its_source = _of_consumer(seen.consumer(stream), subject)
    return worse, f"{told}; {more}", source if worse is Severity.OK else its_source


def _of_stream(seen: SeenStream, subject: str) -> Hop:
    source = SEE_STREAM.format(name=seen.name)
    if seen.state is None:
        return Severity.CRITICAL, f"there is no stream {seen.name}", source
    if not seen.takes(subject):
        subjects = ", ".join(map(clean, seen.state.config.subjects))
        return Severity.CRITICAL, f"{seen.name} does not take {subject}, but {subjects}", source
    if seen.losses:
        return Severity.CRITICAL, f"{seen.name}: {clean(seen.losses[0])}", source
    return Severity.OK, f"{seen.name} takes {subject}", source


def _of_consumer(seen: SeenConsumer, subject: str) -> Hop:
    source = SEE_CONSUMER.format(stream=seen.expected.stream, name=seen.name)
    if seen.state is None:
        return Severity.CRITICAL, f"there is no consumer {seen.name}", source
    if not seen.takes(subject):
        filters = clean(seen.state.config.filter_subject)
        return Severity.CRITICAL, f"{seen.name} does not take {subject}, but {filters}", source
    lag = f"{seen.state.pending} wait" if seen.state.pending else "nothing waits"
    lost = Severity.CRITICAL if seen.matters else Severity.WARNING
    severity = Severity.OK if seen.served is Served.YES else lost
    return severity, f"{seen.name} is {seen.served}, {lag}", source


def _stream(evidence: Evidence, way: Way) -> Hop:
    """Whether the SANDBOX stream takes this sandbox's subjects, and what is on them now."""
    row = way.sandbox
    if row is None:
        return _blank(way.asked, "no sandbox, no subjects", SEE_NATS)
    if isinstance(evidence.messaging, Unknown):
        return Severity.UNKNOWN, f"cannot tell: {evidence.messaging.reason}", SEE_NATS
    severity, told, source = _of_stream(evidence.messaging.value.stream(_SANDBOX), subjects_of(row.id))
    if severity is not Severity.OK:
        return severity, told, source
    if isinstance(way.heard, Unknown):
        return Severity.UNKNOWN, f"{told}; cannot tell what is on them: {way.heard.reason}", source
    return severity, f"{told}; {_messages(way, evidence.now)}", _see_messages(row)


def _messages(way: Way, now: datetime) -> str:
    messages = way.heard.value.messages if isinstance(way.heard, Known) else ()
    if not messages:
        return "no message of the last five minutes is on them"
    count = counted(len(messages), "message is", "messages are")
    if len(messages) >= MOST_MESSAGES:
        count = f"{MOST_MESSAGES} or more messages are"
    return f"{count} on them, the last read {span(max(now - messages[-1].time, now - now))} old"


def _consumer(evidence: Evidence, way: Way) -> Hop:
    """Who takes what is on this sandbox's subjects: the workers' consumer, and whoever listens besides."""
    row = way.sandbox
    if row is None:
        return _blank(way.asked, "no sandbox, nobody to listen", SEE_NATS)
    if isinstance(evidence.messaging, Unknown):
        return Severity.UNKNOWN, f"cannot tell: {evidence.messaging.reason}", SEE_NATS
    severity, told, source = _of_consumer(evidence.messaging.value.consumer(_SANDBOX), subjects_of(row.id))
    if isinstance(way.heard, Unknown):
        unknown = Severity.UNKNOWN if severity is Severity.OK else severity
        return unknown, f"{told}; cannot tell who listens besides: {way.heard.reason}", source
    besides = ", ".join(map(clean, way.heard.value.listeners)) or "nobody"
    return severity, f"{told}; {besides} listens to this sandbox in particular", f"{source}; {SEE_LISTENERS}"


def _canary(evidence: Evidence, row: Sandbox | None) -> Hop:
    """What became of a canary, if one was sent."""
    source = _see_messages(row) if row else ""
    if evidence.canary is None:
        return Severity.OK, "none was sent; --canary publishes one for real and looks for it", source
    if isinstance(evidence.canary, Unknown):
        return Severity.UNKNOWN, f"none was sent: {evidence.canary.reason}", source
    [result] = evidence.canary.value
    if result.phase is Phase.STARTED:
        return Severity.UNKNOWN, f"cannot tell whether one was sent: {clean(result.reason)}", source
    if not result.settled and result.phase is not Phase.FAILED:
        return Severity.UNKNOWN, f"none was sent now: {clean(result.reason)}", source
    if "sequence" not in result.evidence:
        return Severity.CRITICAL, f"not stored: {clean(result.reason)}", source
    return *_taken(result.evidence), source


def _taken(seen: Mapping[str, Any]) -> tuple[Severity, str]:
    """How far a canary came that was stored; how long it took is known to whoever watched it."""
    if "stored_ms" not in seen:
        return Severity.OK, f"stored as sequence {seen['sequence']}; how far it came was not watched"
    stored = f"stored after {seen['stored_ms']:.0f} ms as sequence {seen['sequence']}"
    if seen["taken_ms"] is None:
        return Severity.CRITICAL, f"{stored}, and lost there: sandbox-consumer did not hand it out within 3 s"
    taken = f"{stored}; sandbox-consumer handed it out after {seen['taken_ms']:.0f} ms"
    if seen["acknowledged_ms"] is None:
        return Severity.WARNING, f"{taken}, and it was not acknowledged within 3 s"
    return Severity.OK, f"{taken}, and it was acknowledged after {seen['acknowledged_ms']:.0f} ms"


def _blank(asked: Fact[Asked], why: str, source: str) -> Hop:
    """A hop that cannot be looked at, as the one before it leads nowhere."""
    if isinstance(asked, Unknown):
        return Severity.UNKNOWN, f"cannot tell: {asked.reason}", source
    return Severity.OK, f"not looked at: {why}", source


def _see_route(guild: str) -> str:
    """Return the command by which a person sees a guild's cached route, safe to paste whatever the table has for a guild."""
    return SEE_ROUTE.format(guild=shlex.quote(clean(guild)))


def _see_messages(row: Sandbox) -> str:
    return SEE_MESSAGES.format(name=_SANDBOX, subject=subjects_of(row.id))
