"""Who has which slots of a cluster: what one node says of all, and what every primary says of itself.

One node's word is enough to ask the right server about a key. For all keys it is not: it may be of yesterday. There, each
primary is believed about itself alone, and together they must have every slot exactly once.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.adapters.redis_node import Node
from sandbox.errors import Unreachable

__all__ = ["SLOTS", "Place", "Primary", "insist_on_all_slots", "owners", "primary"]

SLOTS = 16384

Place = tuple[str, int]
"""Where a node listens: host and port, as the cluster announces it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Primary:
    """A primary in its own words. While none of it changes, its keys stay where they are.

    `epoch` rises with every failover and every slot that it takes over; `run` changes when it is started again.
    """

    place: Place
    id: str
    run: str
    epoch: int
    slots: frozenset[int]


def owners(said: Sequence[Any], asked: str) -> dict[int, Place]:
    """Return where each slot is, from the reply to CLUSTER SLOTS. Pure.

    A node that announces no host is at the one that was asked.
    """
    found: dict[int, Place] = {}
    for first, last, (host, port, *_), *_ in said:
        place = ((host or b"").decode() or asked, int(port))
        found.update(dict.fromkeys(range(first, last + 1), place))
    return found


def primary(node: Node, place: Place) -> Primary:
    """Ask a node about itself. Raises Unreachable if it is no primary, down, or gives or takes a slot just now."""
    state, nodes, server = (
        node.known(reply)
        for reply in node.raw([("CLUSTER", "INFO"), ("CLUSTER", "NODES"), ("INFO", "server")])
    )
    if b"cluster_state:ok" not in state:
        raise _unknown(node, "says that the cluster is down", hint="redis-cli CLUSTER INFO")
    return _in_its_words(node, place, nodes.decode(), run=str(server["run_id"]))


def insist_on_all_slots(primaries: Collection[Primary], cluster: str) -> None:
    """Raise Unreachable unless each slot is with exactly one of them."""
    count = sum(len(each.slots) for each in primaries)
    if count == SLOTS == len(frozenset[int]().union(*(each.slots for each in primaries))):
        return
    raise Unreachable(
        f"the nodes of the Redis cluster at {cluster} do not agree on who has which slots: {count:,} of {SLOTS:,}",
        hint="a failover or a migration is under way, or redis-cli --cluster check tells what is wrong: try again",
    )


def _in_its_words(node: Node, place: Place, nodes: str, *, run: str) -> Primary:
    """Read its own line of CLUSTER NODES: id, address, flags, primary, ping, pong, epoch, link, then its slots."""
    lines = [line.split() for line in nodes.splitlines()]
    id, _, flags, _, _, _, epoch, _, *ranges = next(line for line in lines if "myself" in line[2].split(","))
    if "master" not in flags.split(","):
        raise _unknown(node, "is no primary any more", hint="there was a failover: try again")
    if moving := [each for each in ranges if each.startswith("[")]:
        raise _unknown(
            node,
            f"is moving slots ({' '.join(moving[:3])}): a key on its way may be seen on neither side",
            hint="try again when they have arrived; redis-cli --cluster check shows slots that stay open",
        )
    return Primary(place=place, id=id, run=run, epoch=int(epoch), slots=_slots(ranges))


def _slots(ranges: Sequence[str]) -> frozenset[int]:
    found: set[int] = set()
    for each in ranges:
        first, _, last = each.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _unknown(node: Node, what: str, *, hint: str) -> Unreachable:
    return Unreachable(f"Redis at {node.host}, {what}", hint=hint)
