"""What the page of RB-SB-004 says of what it looks at, and of the figures by which it judges."""

from diagnostics.routes import SEE_ROUTE, SEE_ROUTES
from diagnostics.streams import SEE_CONSUMER, SEE_LISTENERS, SEE_MESSAGES, SEE_STREAM
from runbooks import looks
from runbooks.engine.page import Look, Threshold
from runbooks.routing.evidence import ALARM, MOST_MESSAGES, WINDOW
from runbooks.routing.parts import LAG, REDELIVERED
from sandbox.metrics import ALARMS
from sandbox.routes import LIFETIME
from sandbox.streams import expected_consumers
from sandbox.text import lasting

__all__ = ["LOOKS", "THRESHOLDS"]

_CONSUMERS = tuple(
    Look(
        what=f"who takes what is in {each.stream}",
        command=SEE_CONSUMER.format(stream=each.stream, name=each.name),
    )
    for each in expected_consumers()
)

LOOKS = (
    looks.alarm(ALARM),
    Look(what="the stream that events come in by", command=SEE_STREAM.format(name="EVENTS")),
    Look(what="the stream that sandboxes are served from", command=SEE_STREAM.format(name="SANDBOX")),
    *_CONSUMERS,
    Look(what="whether events circle", command=SEE_MESSAGES.format(name="EVENTS", subject="events.>")),
    Look(
        what="what is on a sandbox's subjects, canaries too",
        command=SEE_MESSAGES.format(name="SANDBOX", subject="sandbox.ID.>"),
    ),
    Look(what="who listens to a sandbox", command=SEE_LISTENERS),
    looks.MAPPINGS,
    Look(what="the cached routes", command=SEE_ROUTES),
    Look(what="a guild's cached route, and how long it lasts", command=SEE_ROUTE.format(guild="GUILD")),
    looks.SERVICE,
    looks.log("the worker", "worker_logs"),
    looks.NATS,
    looks.POSTGRES,
    looks.CONNECTIONS,
    looks.REDIS,
    looks.CACHE,
)

THRESHOLDS = (
    Threshold(
        name="errors",
        value=str(ALARMS[ALARM].threshold),
        meaning="the alarm rings when more are counted in each of its periods",
    ),
    Threshold(
        name="a cached route lasts",
        value=lasting(LIFETIME),
        meaning="one that lasts longer is wrong: the next change of the mapping would not be seen",
    ),
    Threshold(name="lag", value=f"{LAG:,} messages", meaning="a consumer that more wait for is a warning"),
    Threshold(
        name="come again",
        value=f"{REDELIVERED} messages",
        meaning="a consumer that refused more, or did not acknowledge them in time, is a warning",
    ),
    Threshold(
        name="messages of a sandbox",
        value=str(MOST_MESSAGES),
        meaning="so many at most are counted, with --guild or --sandbox",
    ),
    Threshold(name="looking back", value=lasting(WINDOW), meaning="how much of log and metric is read"),
)
