"""What the page of RB-SB-005 says of what it looks at, and of the figures by which it judges."""

from diagnostics import storage
from diagnostics.migration import SEE_OBJECTS
from diagnostics.pooler import SEE_POOLS
from diagnostics.rights import SEE_RIGHTS
from diagnostics.servers import SHORT_STORAGE
from diagnostics.sessions import SEE_SESSION
from runbooks import looks
from runbooks.creation.evidence import ALARM, WINDOW
from runbooks.creation.headroom import MANY_RELATIONS, MUCH_WAL, SOON
from runbooks.creation.obstacles import SEE_TRIAL, SEE_WRITES
from runbooks.engine.page import Look, Threshold
from runbooks.probing import FEW_CONNECTIONS
from runbooks.quarantined import GRACE
from runbooks.remedies.sessions import IDLE_LIMIT
from runbooks.remedies.storage import SETTLING
from sandbox.metrics import ALARMS
from sandbox.text import lasting, size

__all__ = ["LOOKS", "THRESHOLDS"]

LOOKS = (
    Look(what="create a schema, and take it back: what --probe does for real", command=SEE_TRIAL),
    looks.alarm(ALARM),
    looks.POSTGRES,
    Look(what="whether PostgreSQL takes writes", command=SEE_WRITES),
    looks.CONNECTIONS,
    Look(what="a session that is idle in a transaction", command=SEE_SESSION.format(pid="PID")),
    looks.WAITING,
    Look(what="PgBouncer's pools", command=SEE_POOLS),
    Look(what="rights", command=SEE_RIGHTS),
    Look(what="what the migration made", command=SEE_OBJECTS),
    looks.INSTANCE,
    Look(what="the largest schemas", command=storage.SEE_SIZES),
    Look(what="dead rows", command=storage.SEE_DEAD),
    Look(what="the write-ahead log", command=storage.SEE_WAL),
    Look(what="replication slots, which may hold it back", command=storage.SEE_SLOTS),
    Look(what="who keeps VACUUM from removing dead rows", command=storage.SEE_HOLDERS),
    looks.SESSIONS,
    Look(what="the catalog", command=storage.SEE_CATALOG),
    looks.log("the API", "api_logs"),
    looks.log("the worker", "worker_logs"),
)

THRESHOLDS = (
    Threshold(
        name="errors",
        value=str(ALARMS[ALARM].threshold),
        meaning="the alarm rings when more are counted",
    ),
    Threshold(
        name="idle in a transaction",
        value=lasting(IDLE_LIMIT),
        meaning="a session that is so for longer, and keeps others from something, may be ended",
    ),
    Threshold(
        name="connections left",
        value=str(FEW_CONNECTIONS),
        meaning="with no more than these, connections are short",
    ),
    Threshold(
        name="storage left",
        value=f"{SHORT_STORAGE:.0%}",
        meaning="with less of what is allocated, or less than 1 GiB, storage is short",
    ),
    Threshold(name="storage runs out", value=lasting(SOON), meaning="a warning, if it does so sooner"),
    Threshold(
        name="enlarged lately",
        value=lasting(SETTLING),
        meaning="RDS takes no other change of the storage for so long",
    ),
    Threshold(
        name="held back by a slot that nobody reads",
        value=size(MUCH_WAL),
        meaning="a warning, if it is more of the write-ahead log",
    ),
    Threshold(name="relations", value=f"{MANY_RELATIONS:,}", meaning="with more, the catalog is a warning"),
    Threshold(
        name="in quarantine for",
        value=lasting(GRACE),
        meaning="what has been there for longer is deleted where storage is full",
    ),
    Threshold(name="looking back", value=lasting(WINDOW), meaning="how much of logs and metrics is read"),
)
