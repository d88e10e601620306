"""The incidents of RB-SB-004: events do not reach sandboxes. One for each cause, which is really made.

A real worker routes a gentle traffic of all guilds meanwhile, so that what follows from a cause follows for real.
"""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from lab import gateway
from lab.incidents import gauges, routing_world, streams
from lab.incidents.routing_scenery import Scenery, lay_out_world, wait_until
from lab.incidents.routing_world import STRAY
from lab.incidents.stage import Incident, Stage, incidents
from lab.names import WORKER_LOGS, WORKER_READY
from lab.processes import HOST
from sandbox import routes

__all__ = ["INCIDENTS"]

_ROUTER = ("EVENTS", "sandbox-event-router")
_CLOSED = 1  # a port on which nobody listens
_COPIES = 3  # of one event: it circles
_NARROW = {
    "subjects": ("sandbox.*.events.guild.>",),
    "max_msgs": 20,
    "max_age": timedelta(minutes=2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cause:
    """A cause: how it is made, which returns once what follows from it is seen, and how it is removed."""

    name: str
    summary: str
    make: Callable[[Scenery], None]
    remove: Callable[[Scenery], None]


def _lay_out(cause: _Cause, stage: Stage) -> None:
    cause.make(Scenery(stage))


def _relieve(cause: _Cause, stage: Stage) -> None:
    """Remove the cause, wait until all is served, and let what happened be an hour ago."""
    lab = Scenery(stage)
    cause.remove(lab)
    wait_until(lab.routes, "events are still not routed")
    wait_until(lambda: not lab.rings(), "the alarm still rings")
    lab.empty("EVENTS", "SANDBOX")
    lab.account.elapse(60)
    gauges.count(lab.account, [routing_world.quiet(datetime.now(UTC))])


def _cache_wrongly(lab: Scenery) -> None:
    """Write five routes without an end: two lead to destroyed sandboxes, one to another guild's, two nowhere."""
    gone = [str(row.id) for row in lab.world.sandboxes if row.status == "destroyed"][:2]
    wrong = dict(
        zip(lab.guilds, (*gone, str(list(lab.guilds.values())[-1]), *[routes.NOWHERE] * 2), strict=False)
    )
    lab.redis.mset({routes.key_of(guild): where for guild, where in wrong.items()})
    lab.send(*wrong, kinds=("member.join",))
    astray = [f"sandbox.{each}.>" for each in gone]
    wait_until(lambda: all(lab.nats.messages("SANDBOX", each, 1) for each in astray), "no event went astray")
    wait_until(lambda: _circling(lab), "no event of a guild without a route circles")


def _forget_routes(lab: Scenery) -> None:
    lab.redis.delete(*map(routes.key_of, lab.guilds))


def _delete_stream(lab: Scenery) -> None:
    lab.nats.delete_stream("SANDBOX")
    _fail(lab)


def _narrow_stream(lab: Scenery) -> None:
    lab.nats.change_stream("SANDBOX", _NARROW)
    _fail(lab)


def _fail(lab: Scenery) -> None:
    """Let events come that cannot be routed, until the alarm rings."""
    lab.send(*lab.guilds, kinds=("member.join",))
    wait_until(lab.rings, "the alarm does not ring")


def _set_up_streams(lab: Scenery) -> None:
    streams.put_right(lab.env["NATS_URL"])


def _hang(lab: Scenery) -> None:
    wait_until(lab.running, "the worker does not run")
    os.kill(_pid(lab), signal.SIGUSR1)
    lab.send(*lab.guilds, kinds=("member.join",))

    def piles_up() -> bool:
        state = lab.nats.consumer(*_ROUTER)
        return state is not None and state.pending > 0 and state.waiting_pulls == 0

    wait_until(piles_up, "the worker goes on")


def _pid(lab: Scenery) -> int:
    """The worker's process, by its own word."""
    pages = lab.account.client("logs").get_paginator("filter_log_events")
    said = pages.paginate(logGroupName=WORKER_LOGS, filterPattern=f'"{WORKER_READY}"')
    [*_, newest] = [event["message"] for page in said for event in page["events"]]
    return int(json.loads(newest)["pid"])


def _restart(lab: Scenery) -> None:
    if not streams.served(lab.env["NATS_URL"]):
        lab.account.update_worker(forceNewDeployment=True)


def _misdirect(lab: Scenery) -> None:
    lab.deploy(f"nats://{HOST}:{_CLOSED}")

    def fails() -> bool:
        service = lab.account.worker()
        return bool(service["runningCount"] == 0 and service["deployments"][0]["failedTasks"])

    wait_until(fails, "the worker runs")


def _direct(lab: Scenery) -> None:
    lab.deploy(lab.env["NATS_URL"])


def _send_production(lab: Scenery) -> None:
    lab.send(STRAY, kinds=gateway.KINDS[:2])
    wait_until(lambda: _circling(lab), "no event circles")


def _circling(lab: Scenery) -> bool:
    """Whether an event was seen several times in EVENTS."""
    state = lab.nats.stream("EVENTS")
    found = (
        lab.nats.messages("EVENTS", "events.>", 300, after=max(0, state.last_sequence - 300)) if state else []
    )
    return max(Counter(each.data for each in found).values(), default=0) >= _COPIES


def _end_loop(lab: Scenery) -> None:
    """An event in the worker's hands would come back: it is stopped meanwhile."""
    lab.account.update_worker(desiredCount=0)
    wait_until(lambda: lab.account.worker()["runningCount"] == 0, "the worker does not stop")
    lab.empty("EVENTS")
    lab.account.update_worker(desiredCount=1)


_CAUSES = (
    _Cause(
        name="routes-stale",
        summary="routes that were cached without an end lead to destroyed sandboxes, to another's, and nowhere",
        make=_cache_wrongly,
        remove=_forget_routes,
    ),
    _Cause(
        name="stream-missing",
        summary="the stream SANDBOX was deleted, and with it its consumer",
        make=_delete_stream,
        remove=_set_up_streams,
    ),
    _Cause(
        name="stream-drifted",
        summary="the stream SANDBOX takes guild events only, and keeps few of them, not for long",
        make=_narrow_stream,
        remove=_set_up_streams,
    ),
    _Cause(
        name="consumer-unserved",
        summary="the worker runs, but hangs: nobody takes what piles up at sandbox-event-router",
        make=_hang,
        remove=_restart,
    ),
    _Cause(
        name="worker-stopped",
        summary="the worker's task definition names a NATS that does not answer: no task of the service stays",
        make=_misdirect,
        remove=_direct,
    ),
    _Cause(
        name="events-looping",
        summary="events of a guild without a sandbox go back to where the EventRouter takes them from, for ever",
        make=_send_production,
        remove=_end_loop,
    ),
)

INCIDENTS: Sequence[Incident] = incidents(_CAUSES, lay_out=_lay_out, relieve=_relieve, world=lay_out_world)
