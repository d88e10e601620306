"""What the AWS account knows of RB-SB-003: the metric that rose, two hours of logs. Pure."""

from datetime import timedelta

from lab.incidents.telemetry import Line, Lines, Series, pino, plain, traffic
from lab.incidents.world import World

__all__ = ["lines", "orphans"]

_POINTS = 24  # one every 15 minutes for six hours
_QUARTER = timedelta(minutes=15)


def orphans(world: World) -> Series:
    """OrphanedResourceCount rises from 1 to 10, seven schemas and three key families."""
    counts = [1.0 + 9 * index // (_POINTS - 1) for index in range(_POINTS)]
    return Series(metric="OrphanedResourceCount", values=counts, until=world.now)


def lines(world: World) -> Lines:
    """Two hours of lines; each group has plain ones and JSON ones, as in production."""
    now, cleanup = world.now, list[Line]()
    for step in range(8):
        at = now - _QUARTER * (7 - step) - timedelta(minutes=5)
        cleanup.append(plain(at, "INFO Starting sandbox cleanup job"))
        cleanup.append(pino(at + timedelta(seconds=2), 30, "CleanupProvider", "Cleanup finished", failed=0))
    remains = next(str(row.id) for row in world.sandboxes if row.status == "destroyed")
    timeout = {"type": "Error", "message": "canceling statement due to lock timeout", "code": "55P03"}
    failed = now - timedelta(minutes=110)
    cleanup += [
        pino(failed, 50, "CleanupProvider", "Failed to drop schema", sandboxId=remains, error=timeout),
        plain(
            failed + timedelta(seconds=1), f"ERROR Sandbox {remains} marked destroyed with its schema left"
        ),
    ]
    return {**traffic(now, [str(row.id) for row in world.sandboxes]), "sandbox-cleanup": cleanup}
