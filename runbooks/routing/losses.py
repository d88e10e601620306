"""Where events are lost on their way to sandboxes: the causes that were seen for themselves. Pure.

What explains the others comes first: a server that does not answer, then a service that runs no task, a stream that does not
take events, a consumer that nobody serves, a loop, and at last single routes. What a deeper cause explains is none.
"""

from collections import Counter
from datetime import datetime, timedelta

from diagnostics import compute
from diagnostics.circling import Circling
from diagnostics.grouping import ErrorGroup
from diagnostics.reach import SEE_NATS, SEE_POSTGRES, SEE_REDIS
from diagnostics.routes import SEE_MAPPINGS, SEE_ROUTES, Fault, Wrong
from diagnostics.streams import SEE_CONSUMER, SEE_MESSAGES, SEE_STREAM, SeenConsumer, SeenStream, Served
from runbooks import findings, probing
from runbooks.engine.model import Finding, Resource
from runbooks.routing.evidence import Evidence
from sandbox.facts import Known
from sandbox.model import Status
from sandbox.text import clean, counted

__all__ = ["causes", "how_often", "in_the_way", "misled", "still_fails", "unserved", "wrong_routes"]

_SHOWN = 5  # routes that are told
_LATELY = timedelta(minutes=2)
_WORKER = "the EventRouter runs inside it"


def causes(evidence: Evidence) -> list[Finding]:
    """Return the causes, the one that explains the others first."""
    return [
        *_dead_servers(evidence),
        *_service(evidence),
        *_streams(evidence),
        *_missing_consumers(evidence),
        *_unserved(evidence),
        *_loop(evidence),
        *_asked(evidence),
        *_routes(evidence),
    ]


def in_the_way(evidence: Evidence) -> list[Finding]:
    """Return what keeps every event from being routed: a dead server, a stream or a consumer."""
    return [*_dead_servers(evidence), *_streams(evidence), *_missing_consumers(evidence)]


def wrong_routes(evidence: Evidence) -> tuple[Wrong, ...]:
    """Return the cached routes that are wrong, as far as they are known."""
    return evidence.routes.value.wrong if isinstance(evidence.routes, Known) else ()


def misled(evidence: Evidence) -> frozenset[str | None]:
    """Return the guilds of running sandboxes whose cached route sends their events to production."""
    return frozenset(each.cached.guild for each in wrong_routes(evidence) if each.fault is Fault.NEGATIVE)


def how_often(seen: Circling) -> str:
    """Say how often one event circles."""
    often = seen.period.total_seconds()
    return f"one on {clean(seen.subject)} came {seen.copies} times, every {often:.2g} s, among {seen.read} messages"


def unserved(evidence: Evidence) -> tuple[SeenConsumer, ...]:
    """Return the consumers that are there, and that nobody takes anything from, the way in first."""
    if not isinstance(evidence.messaging, Known):
        return ()
    seen = evidence.messaging.value
    there = (each for each in seen.consumers if each.state and seen.stream(each.expected.stream).state)
    return tuple(each for each in there if each.served is not Served.YES)


def _dead_servers(evidence: Evidence) -> list[Finding]:
    reached = (
        ("NATS", evidence.nats, SEE_NATS),
        ("PostgreSQL", evidence.postgres, SEE_POSTGRES),
        ("Redis", evidence.redis, SEE_REDIS),
    )
    routed = "events are routed all the same: perhaps it is only the way from here"
    return [
        finding
        for name, fact, source in reached
        for finding in probing.dead_server(
            name, fact, source=source, note=routed if _router_moves(evidence) else ""
        )
    ]


def _router_moves(evidence: Evidence) -> bool:
    """Whether the EventRouter was seen to take events and to acknowledge them."""
    if not isinstance(evidence.messaging, Known):
        return False
    looks = evidence.messaging.value.consumer("EVENTS").looks
    return bool(looks) and looks[0].acknowledged < looks[-1].acknowledged


def _router_served(evidence: Evidence) -> bool:
    """Whether somebody was seen to take what the EventRouter's consumer has."""
    if not isinstance(evidence.messaging, Known):
        return False
    router = evidence.messaging.value.consumer("EVENTS")
    return bool(router.looks) and router.served is Served.YES


def _service(evidence: Evidence) -> list[Finding]:
    """A service that runs no task, unless the EventRouter is at work somewhere all the same."""
    workers = evidence.workers
    if not isinstance(workers, Known) or workers.value.service is None or _router_served(evidence):
        return []
    service, stack = workers.value.service, evidence.stack
    if service.running and service.status == "ACTIVE":
        return []
    ended = next((task for task in workers.value.tasks if task.failed), None)
    details = [_WORKER, *([f"its last task: {clean(ended.failure)}"] if ended else [])]
    details += [f"its log says: {group.sample}" for group in sorted(evidence.groups, key=_last)[-1:]]
    if not service.desired:
        what = f"service {service.name} is told to run no task: somebody stopped it"
        details.insert(1, "what stopped it has to start it again: it is not restarted from here")
    else:
        what = f"service {service.name} runs none of its {service.desired} tasks"
    if still_fails(evidence):
        details.append(
            f"it fails though the servers answer from here: look at what {service.definition} says of addresses, rights and"
            " image; --task-definition of `aws ecs update-service` goes back to one before"
        )
    return [
        findings.cause(
            what,
            details=details,
            source=compute.SEE_SERVICE.format(cluster=stack.cluster, name=stack.worker_service),
            resource=Resource(kind="service", id=service.name),
        )
    ]


def still_fails(evidence: Evidence) -> bool:
    """Whether the service's tasks fail just now though the servers answer: ECS starts them again, as a restart would."""
    if not isinstance(evidence.workers, Known):
        return False
    ended = next((task for task in evidence.workers.value.tasks if task.ended), None)
    if ended is None or not ended.failed or ended.stopped_at is None:
        return False
    answer = all(isinstance(fact, Known) for fact in (evidence.nats, evidence.postgres, evidence.redis))
    return answer and evidence.now - ended.stopped_at < _LATELY


def _last(group: ErrorGroup) -> datetime:
    return group.last


def _streams(evidence: Evidence) -> list[Finding]:
    """Streams that are not there, or do not take or keep what they should."""
    if not isinstance(evidence.messaging, Known):
        return []
    found = []
    for each in evidence.messaging.value.streams:
        if each.state is None:
            found.append(_stream_cause(each, f"stream {each.name} is missing", _consequence(each)))
        elif each.losses:
            differing = [clean(difference) for difference in each.drift]
            found.append(_stream_cause(each, f"stream {each.name}: {clean(each.losses[0])}", *differing))
    return found


def _stream_cause(each: SeenStream, what: str, *details: str) -> Finding:
    return findings.cause(
        what,
        details=details,
        source=SEE_STREAM.format(name=each.name),
        resource=Resource(kind="stream", id=each.name),
    )


def _consequence(each: SeenStream) -> str:
    if each.name == "EVENTS":
        return (
            "nothing takes the gateway's events; it is kept in memory, so a server that restarted has lost it"
        )
    return "the EventRouter tries each event for a sandbox five times, then it is lost"


def _missing_consumers(evidence: Evidence) -> list[Finding]:
    """Consumers that are not there though their stream is, or are not handed what they should be."""
    if not isinstance(evidence.messaging, Known):
        return []
    seen, found = evidence.messaging.value, []
    for each in seen.consumers:
        stream = seen.stream(each.expected.stream)
        if stream.state is None:
            continue
        subject = stream.expected.subjects[0]
        if each.state is None:
            found.append(_consumer_cause(each, f"{each.expected.where} is missing"))
        elif not each.takes(subject):
            filters = clean(each.state.config.filter_subject)
            found.append(_consumer_cause(each, f"{each.expected.where} takes {filters}, not {subject}"))
    return found


def _consumer_cause(each: SeenConsumer, what: str, *details: str) -> Finding:
    return findings.cause(
        what,
        details=details,
        source=SEE_CONSUMER.format(stream=each.expected.stream, name=each.name),
        resource=Resource(kind="consumer", id=each.name),
    )


def _unserved(evidence: Evidence) -> list[Finding]:
    """Consumers that nobody serves, or whose worker acknowledges nothing, where nothing before explains it."""
    if _dead_servers(evidence) or _service(evidence) or _streams(evidence):
        return []
    idle = [each for each in unserved(evidence) if each.served is Served.NO and each.matters]
    stuck = [each for each in unserved(evidence) if each.served is Served.STUCK]
    found = []
    if idle:
        names = " and ".join(each.name for each in idle)
        found.append(
            _consumer_cause(
                idle[0], f"nobody serves {names}{_though(evidence)}", *map(_waiting, idle), _WORKER
            )
        )
    for each in stuck:
        what = f"{each.name} is stuck: as many events as may be are handed out, and none is acknowledged"
        found.append(_consumer_cause(each, what, _waiting(each)))
    return found


def _though(evidence: Evidence) -> str:
    workers = evidence.workers
    service = workers.value.service if isinstance(workers, Known) else None
    return (
        f", though service {service.name} runs {service.running} of {service.desired} tasks"
        if service
        else ""
    )


def _waiting(each: SeenConsumer) -> str:
    state = each.state
    assert state is not None
    return f"{each.name}: {state.pending} wait, {state.ack_pending} are handed out and not acknowledged"


def _loop(evidence: Evidence) -> list[Finding]:
    """A loop, unless all that circles is of guilds whose cached route sends them to production."""
    if not isinstance(evidence.circling, Known) or not evidence.circling.value.circling:
        return []
    seen = evidence.circling.value
    if seen.guilds <= misled(evidence):
        return []
    return [
        findings.cause(
            f"{counted(seen.circling, 'event circles', 'events circle')}: the EventRouter publishes what belongs to production back into EVENTS",
            details=[
                how_often(seen),
                "it is an event of a guild without a running sandbox, or of no guild",
                "an EventRouter that does not publish on the subject it takes from ends it; until there is one, stop the"
                " service, `nats stream purge EVENTS`, and start it again",
                "nothing is proposed: a purge beside a running EventRouter leaves what it has in hand, and loses what was"
                " not routed yet",
            ],
            source=SEE_MESSAGES.format(name="EVENTS", subject=clean(seen.subject).replace("'", r"'\''")),
            resource=Resource(kind="loop", id="EVENTS"),
        )
    ]


def _asked(evidence: Evidence) -> list[Finding]:
    """The guild that was asked about, where the table sends its events to production."""
    way = evidence.way
    if way is None or not isinstance(way.asked, Known):
        return []
    row = way.sandbox
    guilds = ", ".join(map(clean, way.guilds[:_SHOWN]))
    if row is None:
        what = f"guild {guilds} is mapped to no sandbox: its events go to production"
    elif not way.guilds:
        what = f"no guild is mapped to {clean(row.name)}: no events go there"
    elif row.status is not Status.RUNNING:
        what = f"{clean(row.name)} is {row.status}: events go to running sandboxes only"
    else:
        return []
    return [findings.cause(what, source=SEE_MAPPINGS)]


def _routes(evidence: Evidence) -> list[Finding]:
    """Cached routes by which events go wrong now."""
    losing = [each for each in wrong_routes(evidence) if each.loses]
    if not losing:
        return []
    counts = Counter(each.fault for each in losing)
    kinds = ", ".join(
        f"{counted(counts[fault], 'leads', 'lead')} to {fault}" for fault in Fault if counts[fault]
    )
    more = [f"and {len(losing) - _SHOWN} more"] if len(losing) > _SHOWN else []
    if isinstance(evidence.circling, Known) and evidence.circling.value.guilds & misled(evidence):
        more.append(f"so their events circle in EVENTS: {how_often(evidence.circling.value)}")
    return [
        findings.cause(
            f"the cached routes of {counted(len(losing), 'guild')} are wrong: {kinds}",
            details=[*map(_told, losing[:_SHOWN]), *more],
            source=SEE_ROUTES,
            resource=Resource(kind="route", id=losing[0].cached.guild),
        )
    ]


def _told(wrong: Wrong) -> str:
    cached = wrong.cached
    where = wrong.wanted or "production"
    return f"guild {clean(cached.guild)}: {clean(cached.value)}, should be {clean(where)}; it {cached.ending}"
