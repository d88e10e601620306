"""What the pages of RB-SB-001 and RB-SB-002 say alike: what both look at, and by which figures they judge."""

from diagnostics.postgres import see_dependents
from runbooks import looks
from runbooks.engine.page import Look, Threshold
from runbooks.logged import MISSED, SEE_RUNS
from runbooks.overdue.evidence import GRACE, WINDOW
from sandbox.cleanup import STUCK_AFTER
from sandbox.text import lasting

__all__ = ["LOOKS", "THRESHOLDS"]

LOOKS = (
    Look(what="what elsewhere rests on a schema that should go", command=see_dependents("SCHEMA")),
    looks.SESSIONS,
    looks.RULE,
    looks.DEFINITION,
    looks.TASKS,
    Look(what="what the clean-up says that it did", command=SEE_RUNS.format(name="CLEANUP_LOGS")),
    looks.log("the clean-up", "cleanup_logs"),
    looks.SERVICE,
    looks.POSTGRES,
    looks.REDIS,
    looks.CONNECTIONS,
    looks.INSTANCE,
    looks.CACHE,
    looks.ACCESS,
)

THRESHOLDS = (
    Threshold(
        name="over for",
        value=lasting(GRACE),
        meaning="a sandbox that ended longer ago should be gone; a younger one is the next clean-up's,"
        " unless something is in its way",
    ),
    Threshold(
        name="half made for",
        value=lasting(STUCK_AFTER),
        meaning="a sandbox that is pending or creating for longer is stuck, and over",
    ),
    Threshold(
        name="clean-up not started for",
        value=lasting(MISSED),
        meaning="after so long the schedule has missed three runs",
    ),
    Threshold(name="looking back", value=lasting(WINDOW), meaning="how much of logs and metrics is read"),
)
