"""A Redis Cluster as one keyspace: whoever has a key's slot is asked about it, and all keys are read node by node.

redis-py's own cluster client is not used: of a pipeline that failed it repeats each command by itself, so that a node that
hangs costs minutes; and its scan does not see that keys moved meanwhile.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

from sandbox.adapters.redis_carry import carry
from sandbox.adapters.redis_errors import translated
from sandbox.adapters.redis_layout import Place, Primary, insist_on_all_slots, owners, primary
from sandbox.adapters.redis_node import Node, Question
from sandbox.errors import Unreachable

__all__ = ["Cluster"]

T = TypeVar("T")

_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)  # seconds before each time that a key is asked for
_ASKED = 3  # nodes that may each cost a time-out before one tells who has which slots


class Cluster:
    """All primaries of a cluster, found by the node that REDIS_URL names."""

    def __init__(self, first: Node) -> None:
        """Take a node, which may be a replica. Nothing is asked yet."""
        self._first = self._teller = first
        self._nodes: dict[Place, Node] = {}
        self._owners: dict[int, Place] = {}  # empty: not known, or not any more

    def each(self, call: Callable[[Node], T]) -> list[T]:
        """Return `call` of each primary, one after the other. Raises what it raises."""
        with self._forgetting():
            return [call(self._node(place)) for place in sorted(set(self._known_owners().values()))]

    def scan(self, pattern: str) -> Iterator[list[bytes]]:
        """Yield the keys that match a glob, a batch at a time, primary by primary.

        Raises Unreachable if a primary does not answer or moves slots; and at the end, if slots changed hands or a primary
        was started again meanwhile, as keys may have been missed. A key that was moved away and back within the pass by
        hand, its slot never given to another, is the one change that nobody shows.
        """
        with self._forgetting():
            before = self._primaries()
            for each in sorted(before, key=lambda each: each.place):
                for keys in self._node(each.place).scan(pattern):
                    # A slot that went may have left keys behind: no client can reach them, and its new owner has them.
                    if mine := [key for key in keys if key_slot(key) in each.slots]:
                        yield mine
            if moved := {each.place for each in before ^ self._primaries()}:
                where = ", ".join(sorted(f"{host}:{port}" for host, port in moved))
                raise Unreachable(
                    f"the Redis cluster at {self._first.host} changed while its keys were read, at {where}",
                    hint="a failover or a migration may have hidden keys: try again",
                )

    def replies(self, questions: Sequence[Question]) -> list[Any]:
        """Return the reply to each, None for a key without such a value; each node is asked for its keys at once.

        Follows slots that move. Raises Unreachable, Busy or Denied, with part of it done.
        """
        found: list[Any] = [None] * len(questions)
        left: dict[int, Exception] = dict.fromkeys(range(len(questions)), Exception())
        with self._forgetting():
            for pause in _PAUSES:
                time.sleep(pause)
                left = self._asked(questions, list(left), found)
                if not left:
                    return found
            raise translated(next(iter(left.values())), self._first.host)

    def unlink(self, groups: Sequence[Sequence[bytes]]) -> list[int]:
        """Delete keys, each with a command of its own, as they may be in slots of their own; return how many there were of each group."""
        gone = iter(self.replies([(key, ("UNLINK", key)) for keys in groups for key in keys]))
        return [sum(filter(None, islice(gone, len(keys)))) for keys in groups]

    def rename(self, pairs: Sequence[tuple[bytes, bytes]]) -> list[bool]:
        """Rename each key unless its new name exists; say which were renamed.

        Where both names are in one slot this is RENAMENX; where not, see `redis_carry` for what is not atomic.
        """
        distinct = dict.fromkeys(pairs)  # SCAN may report a key twice
        near = [pair for pair in distinct if key_slot(pair[0]) == key_slot(pair[1])]
        far = [pair for pair in distinct if key_slot(pair[0]) != key_slot(pair[1])]
        renamed = self.replies([(pair[0], ("RENAMENX", *pair)) for pair in near])
        done = dict(zip([*near, *far], [*map(bool, renamed), *carry(self.replies, far)], strict=True))
        return [done.pop(pair, False) for pair in pairs]

    def _asked(
        self, questions: Sequence[Question], numbers: Sequence[int], found: list[Any]
    ) -> dict[int, Exception]:
        """Ask these once, and write down what is found; return what has to be asked again, and why."""
        grouped: dict[Place, list[int]] = defaultdict(list)
        for number in numbers:
            grouped[self._owner(questions[number][0])].append(number)
        again: dict[int, Exception] = {}
        for place, mine in grouped.items():
            node = self._node(place)
            for number, reply in zip(mine, node.raw([questions[number][1] for number in mine]), strict=True):
                try:
                    found[number] = self._followed(node, questions[number], reply)
                except (ClusterDownError, MovedError, TryAgainError) as error:
                    again[number] = error
        return again

    def _followed(self, node: Node, question: Question, reply: Any) -> Any:
        """Return what a reply says; while a slot is on its way to another node, ask that one. Raises where to ask again."""
        if isinstance(reply, MovedError):
            self._owners[reply.slot_id] = (reply.host or node.name, reply.port)
        elif isinstance(reply, AskError):
            node = self._node((reply.host or node.name, reply.port))
            _, reply = node.raw([("ASKING",), question[1]])
        if isinstance(reply, ClusterDownError | MovedError | TryAgainError):
            raise reply
        return node.known(reply)

    def _primaries(self) -> frozenset[Primary]:
        """Return all primaries in their own words. Raises Unreachable if they do not have all slots between them."""
        self._owners = self._read_owners()
        places = sorted(set(self._owners.values()))
        found = frozenset(primary(self._node(place), place) for place in places)
        insist_on_all_slots(found, self._first.host)
        return found

    def _owner(self, key: bytes) -> Place:
        slot = key_slot(key)
        if slot not in self._known_owners():
            self._owners = self._read_owners()
        if slot not in self._owners:
            raise Unreachable(
                f"the Redis cluster at {self._first.host} has no node for slot {slot}",
                hint="redis-cli --cluster check tells what is wrong",
            )
        return self._owners[slot]

    def _known_owners(self) -> dict[int, Place]:
        self._owners = self._owners or self._read_owners()
        return self._owners

    def _read_owners(self) -> dict[int, Place]:
        """Ask who has which slots: who told it last, or where that does not answer, a few others that are known."""
        asked = list(dict.fromkeys([self._teller, self._first, *self._nodes.values()]))[:_ASKED]
        for node in asked:
            try:
                found = owners(node.ask("CLUSTER", "SLOTS"), node.name)
            except Unreachable:
                if node is asked[-1]:
                    raise
            else:
                self._teller = node
                return found
        raise AssertionError("one was asked at least")

    def _node(self, place: Place) -> Node:
        if place not in self._nodes:
            self._nodes[place] = self._first.at(*place)
        return self._nodes[place]

    @contextmanager
    def _forgetting(self) -> Iterator[None]:
        """Forget who has which slots where a node does not answer: another may have taken its place."""
        try:
            yield
        except Unreachable:
            self._owners = {}
            raise
