"""What logs and metrics tell of a clean-up that does not do its work, as the deployed code says it. Pure.

pino keeps of an Error under the key `error` its own fields alone, so that its message is lost there.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from lab.incidents.overdue_world import OVERDUE, count_at
from lab.incidents.telemetry import Line, Lines, Series, pino, plain, traffic
from lab.incidents.world import Sandbox, World

__all__ = [
    "BLOCKED",
    "Said",
    "counts",
    "fatal",
    "healthy",
    "lines",
    "refused",
    "results",
    "run_times",
    "stuck",
    "unkeyed",
]

BLOCKED = 2
"""Of the overdue: those that a foreign view or a lock is in the way of, the longest overdue."""

Said = Callable[[datetime, World], Iterable[Line]]
"""What one run says at a moment."""

_QUARTER = timedelta(minutes=15)
_FIVE = timedelta(minutes=5)
_HOURS = 6
_NO_DATABASE = ("10.0.5.12", 5432)  # where production's servers were
_NO_CACHE = "10.0.6.31:6379"
_BEFORE_KEYS = ("mark_destroying", "remove_guild_mappings", "invalidate_cache")


def run_times(now: datetime, *, last: timedelta, hours: int) -> list[datetime]:
    """When the job ran: every quarter of an hour for `hours`, the last time `last` ago; the oldest first."""
    return [now - last - _QUARTER * index for index in reversed(range(4 * hours))]


def counts(world: World) -> Series:
    """ActiveSandboxCount as the rows say it was, every five minutes for six hours."""
    moments = [world.now - _FIVE * index for index in reversed(range(12 * _HOURS))]
    values = [float(count_at(world, moment)) for moment in moments]
    return Series(metric="ActiveSandboxCount", values=values, until=world.now, step=_FIVE)


def results(world: World, times: Sequence[datetime], *, failed: int) -> Iterator[Series]:
    """What each run published of itself; the same number failed each time."""
    runs, last = len(times), times[-1]
    cleaned = [float(_cleaned(world, at)) for at in times]
    yield Series(metric="CleanupFailures", values=[float(failed)] * runs, until=last)
    yield Series(metric="SandboxesCleanedUp", values=cleaned, until=last)
    milliseconds = [900.0 + 37 * index % 200 for index in range(runs)]
    yield Series(metric="CleanupDurationMs", values=milliseconds, until=last, unit="Milliseconds")


def lines(world: World, times: Sequence[datetime], said: Said) -> Lines:
    """Every run's lines, and what the worker and the API said meanwhile."""
    cleanup: list[Line] = []
    for at in times:
        cleanup.append(plain(at, "INFO Starting sandbox cleanup job"))
        cleanup.append(pino(at, 30, None, "Starting sandbox cleanup job"))
        cleanup += said(at, world)
    ids = [str(row.id) for row in world.sandboxes]
    return {**traffic(world.now, ids), "sandbox-cleanup": cleanup}


def healthy(at: datetime, world: World) -> Iterator[Line]:
    """A run that did what there was to do."""
    yield _completed(at, world, failed=0)


def fatal(message: str, error: dict[str, object]) -> Said:
    """The job ends at its first step."""

    def said(at: datetime, world: World) -> Iterator[Line]:
        yield pino(at, 50, None, "Sandbox cleanup job failed", error=error)
        yield plain(at, f"Fatal error in sandbox cleanup job: {message}")
        yield plain(at, f"ERROR {message}")

    return said


refused = fatal(
    "connect ECONNREFUSED {}:{}".format(*_NO_DATABASE),
    {
        "errno": -111,
        "code": "ECONNREFUSED",
        "syscall": "connect",
        "address": _NO_DATABASE[0],
        "port": _NO_DATABASE[1],
    },
)
"""The database does not answer where the job looks for it."""


def stuck(code: str, reason: str) -> Said:
    """Two schemas cannot be dropped; `reason` names the schema as {schema}."""
    error = {"name": "PostgresError", "severity_local": "ERROR", "severity": "ERROR", "code": code}

    def said(at: datetime, world: World) -> Iterator[Line]:
        for row in world.sandboxes[:BLOCKED]:
            schema, steps = row.schema_name, [*_BEFORE_KEYS, "delete_redis_keys"]
            words = reason.format(schema=schema)
            about = {"sandboxId": str(row.id), "schemaName": schema, "error": error}
            yield pino(at, 50, "SchemaProvisioner", "Failed to drop sandbox schema", **about)
            yield from _failed(at, row, steps, error, words)
        yield _completed(at, world, failed=BLOCKED)

    return said


def unkeyed(at: datetime, world: World) -> Iterator[Line]:
    """Redis does not answer: each sandbox fails at its keys."""
    words = f"Failed to cleanup Redis keys: connect ECONNREFUSED {_NO_CACHE}"
    error = {"name": "SandboxError", "code": "SANDBOX_006"}
    for row in world.sandboxes[:OVERDUE]:
        about = {"sandboxId": str(row.id), "error": {}, "deleted": 0}
        yield pino(at, 50, "CleanupProvider", "Redis key cleanup failed", **about)
        yield from _failed(at, row, _BEFORE_KEYS[:2], error, words)
    yield _completed(at, world, failed=OVERDUE)


def _failed(
    at: datetime, row: Sandbox, steps: Sequence[str], error: dict[str, str], words: str
) -> Iterator[Line]:
    about = {"sandboxId": str(row.id), "stepsCompleted": list(steps), "error": error, "durationMs": 214}
    yield pino(at, 50, "CleanupProvider", "Sandbox cleanup failed", **about)
    yield pino(at, 50, "CleanupProvider", "Failed to cleanup sandbox", sandboxId=str(row.id), error=words)
    yield plain(at, f"ERROR {words}")


def _completed(at: datetime, world: World, *, failed: int) -> Line:
    counted = {"cleanedUp": _cleaned(world, at), "failed": failed}
    return pino(at, 30, "CleanupProvider", "Expired sandbox cleanup completed", **counted)


def _cleaned(world: World, at: datetime) -> int:
    """How many sandboxes a run took away."""
    ended = [row.destroyed_at for row in world.sandboxes if row.destroyed_at]
    return sum(at - _QUARTER < moment <= at for moment in ended)
