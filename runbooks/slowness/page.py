"""What the page of RB-SB-006 says of what it looks at, and of the figures by which it judges."""

from diagnostics.explain import SEE_PLAN
from diagnostics.indexes import SEE_INDEXES, SEE_PROGRESS, SEE_TABLES
from diagnostics.latency import SEE_INFO, SEE_LATENCY, SEE_SLOWLOG, SEE_STATUS
from diagnostics.load import SEE_CACHE_LOAD, SEE_DATABASE_LOAD
from runbooks import looks
from runbooks.engine.page import Look, Threshold
from runbooks.remedies.sessions import IDLE_LIMIT
from runbooks.slowness.answering import SLOW_LOGIN
from runbooks.slowness.evidence import FELT, PATIENCE
from runbooks.slowness.hindrances import FAR, MANY_KEYS, SLOW_PING, SLOW_WALK, STALL
from runbooks.slowness.measured import SLOW_STATEMENT
from sandbox.text import lasting

__all__ = ["LOOKS", "THRESHOLDS"]

LOOKS = (
    Look(what="the command itself, timed", command=SEE_STATUS.format(name="NAME")),
    Look(what="how PostgreSQL runs a statement of it", command=SEE_PLAN.format(statement="STATEMENT")),
    Look(what="the control tables' indexes", command=SEE_INDEXES),
    Look(what="indexes that are being made", command=SEE_PROGRESS),
    Look(what="the statistics that the planner works with", command=SEE_TABLES),
    looks.WAITING,
    Look(what="how fast Redis answers, and its own delays", command=SEE_LATENCY),
    Look(what="Redis' slow commands", command=SEE_SLOWLOG),
    Look(what="Redis' memory and clients", command=SEE_INFO),
    looks.POSTGRES,
    looks.REDIS,
    looks.NATS,
    looks.INSTANCE,
    looks.CACHE,
    Look(
        what="how hard the database works: CPU credits; other metrics likewise",
        command=SEE_DATABASE_LOAD.format(name="DATABASE_INSTANCE"),
    ),
    Look(what="how hard Redis works, likewise", command=SEE_CACHE_LOAD.format(name="CACHE")),
)

THRESHOLDS = (
    Threshold(
        name="a lock is held, or waited for",
        value=lasting(PATIENCE),
        meaning="for longer, it is more than work: it bars readers from the control tables",
    ),
    Threshold(
        name="idle in a transaction",
        value=lasting(IDLE_LIMIT),
        meaning="a session that bars readers and is so for longer may be ended, though nobody waits for it yet",
    ),
    Threshold(
        name="a wrong plan is felt",
        value=f"{FELT:g} ms",
        meaning="for a statement that takes as long, stale statistics are to blame",
    ),
    Threshold(
        name="a statement", value=f"{SLOW_STATEMENT:g} ms", meaning="from this on its plan is a warning"
    ),
    Threshold(
        name="a PING",
        value=f"{SLOW_PING:g} ms",
        meaning="where half take longer, or one in twenty beside a slow command, Redis is slow",
    ),
    Threshold(
        name="slow PINGs together",
        value=f"{STALL:g} ms",
        meaning="of the second in which they are sampled: so much beside a slow command, and Redis is slow",
    ),
    Threshold(
        name="the walk through Redis' keys",
        value=f"{SLOW_WALK:g} s",
        meaning=f"from this on, with {MANY_KEYS:,} keys or more, their number is to blame",
    ),
    Threshold(name="a TCP connection", value=f"{FAR:g} ms", meaning="from this on the network is to blame"),
    Threshold(name="connecting, TLS and login", value=f"{SLOW_LOGIN:g} ms", meaning="from this on a warning"),
)
