"""The incident of RB-SB-003: the orphaned-resources alarm has gone off.

Twelve live sandboxes in all three namings of production, one that is being created right now; among
them seven orphaned schemas, three orphaned key families, and names that only look
like theirs.
"""

from lab.incidents import keys, orphaned_story, registry, streams
from lab.incidents.cloud import Account
from lab.incidents.stage import Incident, Stage, side_by_side
from lab.incidents.world import World, build

__all__ = ["INCIDENT"]

_CONNECTIONS = [14.0] * 24


def _lay_out(stage: Stage) -> None:
    """Write the world of RB-SB-003, all four servers side by side."""
    world, env = build(stage.now), stage.env
    side_by_side(
        lambda: registry.lay_out(env["DATABASE_URL"], world),
        lambda: keys.lay_out(env["REDIS_URL"], world),
        lambda: streams.lay_out(env["NATS_URL"]),
        lambda: _cloud(Account(env), world),
    )


def _cloud(account: Account, world: World) -> None:
    orphans = orphaned_story.orphans(world)
    account.measure([orphans], connections=_CONNECTIONS, until=world.now)
    account.alarm({"sandbox-orphaned-resources": orphans.values})
    account.log(orphaned_story.lines(world))


INCIDENT = Incident(
    name="rb-sb-003", summary="schemas and keys that no sandbox owns have piled up", lay_out=_lay_out
)
