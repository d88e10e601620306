"""The incident of RB-SB-003: the orphaned-resources alarm has gone off.

Twelve live sandboxes in all three namings of production, one that is being created right now; among
them seven orphaned schemas, three orphaned key families, and names that only look
like theirs.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from lab.incidents import cloud, keys, registry, streams
from lab.incidents.world import build

__all__ = ["lay_out"]


def lay_out(env: Mapping[str, str], *, now: datetime) -> None:
    """Write the world of RB-SB-003 into the lab that `env` names, all four servers side by side."""
    world = build(now)
    parts: tuple[Callable[[], None], ...] = (
        lambda: registry.lay_out(env["DATABASE_URL"], world),
        lambda: keys.lay_out(env["REDIS_URL"], world),
        lambda: streams.lay_out(env["NATS_URL"]),
        lambda: cloud.lay_out(env, world),
    )
    with ThreadPoolExecutor(len(parts)) as pool:
        for part in [pool.submit(part) for part in parts]:
            part.result()
