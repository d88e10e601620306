"""RB-SB-004: events do not reach sandboxes.

Trigger    alarm sandbox-routing-errors: EventRoutingErrors over 50 in five minutes, twice.
Symptoms   a sandbox gets no events of its guild, or gets another's; production gets what belongs to a sandbox.
Looks at   the alarm; the streams EVENTS and SANDBOX with their consumers: there, as configured, led, full, served; whether
           events circle; every cached route against the table; the service that the EventRouter runs in, its tasks and its
           log; the servers. With --guild or --sandbox, the whole way of its events, hop by hop; with --canary a test event
           is really published to that sandbox, and looked for.
May change it deletes cached routes that are wrong, makes a stream or consumer that is missing, corrects a stream that has
           drifted, and restarts the worker service (a new deployment, watched until it is stable). Only what cures with the
           least is proposed. It never changes how many tasks run, and stops no loop: a purge beside a running EventRouter
           loses events that were not routed yet.
Undo       `invoke undo --run ID` puts routes back with what was left of their life, gives a stream its old configuration, and
           deletes what was made and is still empty. A restart, and what a tighter stream has thrown away, cannot be undone:
           `restart N` or `drop N` has to be typed.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from uuid import NAMESPACE_URL, uuid5

from diagnostics.routes import Wrong
from diagnostics.streams import SeenStream, Served
from runbooks import rights
from runbooks.engine.model import Action, Finding, Resource, Reversibility, Runbook, Severity, Trial
from runbooks.engine.page import Page
from runbooks.engine.work import Result
from runbooks.findings import alarm_finding, left_alone
from runbooks.remedies import (
    CorrectStream,
    CreateConsumer,
    CreateStream,
    DeleteRoute,
    PublishCanary,
    RestartService,
    remedies,
    taking,
)
from runbooks.remedies.routing import CANARY, canary
from runbooks.routing import complaints, losses, page
from runbooks.routing.evidence import ALARM, Evidence, gather
from runbooks.routing.hops import way_findings
from runbooks.routing.losses import unserved, wrong_routes
from runbooks.routing.parts import part_findings, route_findings, unknown_findings
from sandbox.errors import ArrakisError
from sandbox.facts import Fact, Known, Unknown
from sandbox.model import ConsumerConfig, Status, StreamConfig
from sandbox.streams import CHANGEABLE, as_plain, subject_of
from sandbox.text import clean, counted

__all__ = ["ALARM", "RUNBOOK", "diagnose", "existing", "gather", "learn", "outlook", "propose", "try_canary"]

_AGAIN = (
    "; it begins with the oldest message that its stream keeps (DeliverPolicy all, as the EventRouter makes its own):"
    " what was handed out within the last five minutes is handed out again"
)
_CLEARED = "events are routed, so it clears within ten minutes"


def diagnose(evidence: Evidence) -> list[Finding]:
    """Say where events are lost, how every part of their way is, and what is unknown. Pure."""
    causes = _causes(evidence)
    confirmed = bool(causes or unknown_findings(evidence))
    return [
        *causes,
        *way_findings(evidence),
        alarm_finding(evidence.alarm, suffix=ALARM, confirmed=confirmed, cleared=_CLEARED),
        *part_findings(evidence, causes),
        *complaints.log_findings(evidence),
    ]


def propose(evidence: Evidence) -> tuple[list[Action], list[Finding]]:
    """Return what mends it with the least, and why anything wrong is left alone. Pure."""
    wanted = [*_mend_streams(evidence), *_mend_consumers(evidence)]
    if not wanted:
        wanted += _restart(evidence)
    wanted += [_delete(each) for each in wrong_routes(evidence) if _is_asked_about(each, evidence)]
    actions = [replace(action, id=f"a{number}") for number, action in enumerate(wanted, 1)]
    return actions, _left_alone(evidence, actions)


def outlook(evidence: Evidence) -> list[Finding]:
    """Say, after a run, whether events are routed again, or where they are still lost. Pure."""
    if wrong := [*_causes(evidence), *unknown_findings(evidence)]:
        return wrong
    well = "events are routed: streams and consumers are there and served, nothing circles, no cached route is wrong"
    return [Finding(check="routing", severity=Severity.OK, summary=well), *route_findings(evidence)]


def existing(evidence: Evidence) -> int | None:
    """Return how many guilds, streams, consumers and services are known to exist; None where none is known."""
    found = 0
    if isinstance(evidence.routes, Known):
        routes = evidence.routes.value
        found += len({*routes.cached, *(each.guild for each in routes.mapped)})
    if isinstance(evidence.messaging, Known):
        found += len(evidence.messaging.value.streams) + len(evidence.messaging.value.consumers)
    if isinstance(evidence.workers, Known) and evidence.workers.value.service:
        found += 1
    return found or None


def try_canary(evidence: Evidence) -> list[Action]:
    """Return the action that publishes a canary to the sandbox that was asked about. Pure.

    Raises ArrakisError where nobody asked about one, it is not known, or it is not running.
    """
    way = evidence.way
    if way is None:
        raise ArrakisError("a canary needs a guild or a sandbox", hint="say --guild ID or --sandbox NAME")
    if isinstance(way.asked, Unknown):
        raise ArrakisError(f"cannot tell where to send a canary: {way.asked.reason}", hint=way.asked.hint)
    row, guild = way.sandbox, next(iter(way.guilds), None)
    if row is None or row.status is not Status.RUNNING:
        why = f"{row.name} is {row.status}" if row else f"guild {guild} is mapped to no sandbox"
        raise ArrakisError(why, hint="events go to running sandboxes only")
    event = str(uuid5(NAMESPACE_URL, f"canary:{row.id}:{evidence.now.isoformat()}"))
    return [
        Action(
            id="a1",
            verb="publish canary",
            resource=Resource(kind="sandbox", id=row.name),
            before={"sandbox": str(row.id), "event": event, "planned_at": evidence.now.isoformat()},
            after={
                "subject": subject_of(row.id, CANARY),
                "payload": canary(event, guild=guild, at=evidence.now),
            },
            reason="asked for; it is marked as a canary, and ends with the stream's five minutes",
            reversibility=Reversibility.REVERSIBLE,
        )
    ]


def learn(evidence: Evidence, results: Fact[tuple[Result, ...]]) -> Evidence:
    """Return the evidence with what became of the canary in it. Pure."""
    return replace(evidence, canary=results)


def _causes(evidence: Evidence) -> list[Finding]:
    return [*losses.causes(evidence), *complaints.causes(evidence)]


def _mend_streams(evidence: Evidence) -> Iterator[Action]:
    if not isinstance(evidence.messaging, Known):
        return
    streams = evidence.messaging.value.streams
    for each in streams:
        if each.state is None:
            others = (other.state.config.replicas for other in streams if other.state)
            replicas = evidence.stack.stream_replicas or next(others, None) or 1
            yield _create(replace(each.expected, replicas=replicas))
        elif any(difference.field in CHANGEABLE for difference in each.drift):
            yield _correct(each, evidence)


def _mend_consumers(evidence: Evidence) -> Iterator[Action]:
    """Make those that are missing: the EventRouter makes its own only when it starts, and the workers' not at all."""
    if not isinstance(evidence.messaging, Known):
        return
    seen = evidence.messaging.value
    for each in seen.consumers:
        if each.state is None:
            again = _AGAIN if seen.stream(each.expected.stream).state else ""
            yield _create(each.expected, again)


def _create(config: StreamConfig | ConsumerConfig, note: str = "") -> Action:
    kind = "stream" if isinstance(config, StreamConfig) else "consumer"
    return Action(
        id="",
        verb=f"create {kind}",
        resource=Resource(kind=kind, id=config.name),
        before={},
        after={"config": as_plain(config)},
        reason=f"{config.where} is missing{note}",
        reversibility=Reversibility.REVERSIBLE,
    )


def _correct(each: SeenStream, evidence: Evidence) -> Action:
    """Give a stream what is expected of it, field by field; all else stays as it is."""
    assert each.state is not None
    actual = each.state.config
    differing = [difference for difference in each.drift if difference.field in CHANGEABLE]
    fields = [difference.field for difference in differing]
    wanted = replace(actual, **{name: getattr(each.expected, name) for name in fields})
    lost = each.beyond(wanted, evidence.now)
    return Action(
        id="",
        verb="correct stream",
        resource=Resource(kind="stream", id=each.name),
        before={"config": as_plain(actual), "fields": fields},
        after={"config": as_plain(wanted)},
        reason="; ".join([*map(clean, differing), *filter(None, [lost])]),
        reversibility=Reversibility.IRREVERSIBLE if lost else Reversibility.REVERSIBLE,
    )


def _is_asked_about(wrong: Wrong, evidence: Evidence) -> bool:
    """Whether a route is of a guild that was asked about, or leads to the sandbox; all are, where nobody asked for one."""
    way = evidence.way
    if way is None:
        return True
    leads = way.whole and way.sandbox is not None and wrong.cached.value == str(way.sandbox.id)
    return wrong.cached.guild in way.guilds or leads


def _delete(wrong: Wrong) -> Action:
    cached = wrong.cached
    return Action(
        id="",
        verb="delete route",
        resource=Resource(kind="route", id=cached.guild),
        before={
            "guild": cached.guild,
            "value": cached.value,
            "seconds_left": None if math.isinf(cached.left) else cached.left,
        },
        after={"value": None},
        reason=f"it leads to {wrong.fault}; it {cached.ending}",
        reversibility=Reversibility.REVERSIBLE,
    )


def _restart(evidence: Evidence) -> list[Action]:
    """Restart the service where nobody serves the way in, and nothing says that it would not help."""
    workers = evidence.workers
    service = workers.value.service if isinstance(workers, Known) else None
    if service is None or service.primary is None or not _idle(evidence) or _why_no_restart(evidence):
        return []
    runs = f"{service.running} of {service.desired} tasks run"
    return [
        Action(
            id="",
            verb="restart service",
            resource=Resource(kind="service", id=service.name),
            before={
                "cluster": evidence.stack.cluster,
                "service": service.name,
                "deployment": service.primary.id,
            },
            after={"stream": "SANDBOX"},
            reason=f"nobody serves sandbox-event-router, and {runs}: a new deployment of {service.definition}",
            reversibility=Reversibility.IRREVERSIBLE,
        )
    ]


def _idle(evidence: Evidence) -> bool:
    """Whether nobody takes what comes in."""
    return any(each.expected.stream == "EVENTS" for each in unserved(evidence))


def _why_no_restart(evidence: Evidence) -> str:
    """Say why a restart would not help, or must not be; empty where it may."""
    workers = evidence.workers
    service = workers.value.service if isinstance(workers, Known) else None
    if service is None or service.primary is None:
        return "nobody can tell what runs it"
    if not service.desired:
        return "it is told to run no task, and whoever told it so has to start it again"
    if not all(isinstance(fact, Known) for fact in (evidence.nats, evidence.postgres, evidence.redis)):
        return "a server that it needs does not answer"
    if losses.still_fails(evidence):
        return f"its tasks fail as they start, and so would new ones of {service.definition}"
    if len(service.deployments) > 1:
        return "a deployment of it is under way"
    return ""


def _left_alone(evidence: Evidence, actions: list[Action]) -> list[Finding]:
    """Say of what is wrong and not mended, why not."""
    told = []
    if _idle(evidence) and not any(action.verb != "delete route" for action in actions):
        told.append((evidence.stack.worker_service, f"not restarted: {_why_no_restart(evidence)}"))
    for each in unserved(evidence):
        if each.expected.stream != "EVENTS" and each.served is not Served.YES and not _idle(evidence):
            told.append(
                (each.name, "it is the sandbox workers' to serve, not the EventRouter's: restart those")
            )
    if isinstance(evidence.messaging, Known):
        for stream in evidence.messaging.value.streams:
            told += [
                (stream.name, f"{clean(each)}: JetStream does not change that; it has to be made anew")
                for each in stream.drift
                if each.field not in CHANGEABLE
            ]
        for consumer in evidence.messaging.value.consumers:
            told += [
                (
                    consumer.name,
                    f"{clean(each)}: change it with `nats consumer edit`, and whoever makes it so",
                )
                for each in consumer.drift
            ]
    if others := sum(not _is_asked_about(each, evidence) for each in wrong_routes(evidence)):
        told.append(
            (
                f"the cached routes of {counted(others, 'other guild')}",
                "nobody asked about them: rb-sb-004 without --guild or --sandbox proposes to delete them",
            )
        )
    return [left_alone(name, why) for name, why in told]


RUNBOOK = Runbook(
    name="rb-sb-004",
    title="Events do not reach sandboxes",
    alarm=ALARM,
    gather=gather,
    diagnose=diagnose,
    propose=propose,
    existing=existing,
    remedies=remedies,
    outlook=outlook,
    trial=Trial(propose=try_canary, learn=learn),
    page=Page(
        text=__doc__,
        reads=rights.SANDBOXES
        | rights.MAPPINGS
        | rights.SESSIONS
        | rights.ROUTES
        | rights.STREAMS
        | rights.MESSAGES
        | rights.LISTENERS
        | rights.ALARM
        | rights.SERVICE
        | rights.TASKS
        | rights.LOGS
        | rights.CACHE,
        writes=taking(
            DeleteRoute, CreateStream, CorrectStream, CreateConsumer, PublishCanary, RestartService
        ),
        examples=(
            (
                "rb-sb-004 --env production",
                "say where events are lost, and propose what mends it; changes nothing",
            ),
            (
                "rb-sb-004 --env production --guild 123456789012345678",
                "follow the way of one guild's events, hop by hop (or --sandbox NAME)",
            ),
            (
                "rb-sb-004 --env production --sandbox my-sandbox --canary",
                "publish a test event there for real, and look for it; asks first",
            ),
        ),
        looks=page.LOOKS,
        thresholds=page.THRESHOLDS,
    ),
)
