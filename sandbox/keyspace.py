"""Sandbox keys: one-pass survey, how a family is used, parking, deleting."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from functools import cache
from uuid import UUID

from sandbox.errors import ArrakisError
from sandbox.naming import Namesakes, family_of_key, guild_of_route, parked_key, unparked_key
from sandbox.ports import KeyReader, KeyWriter

__all__ = [
    "FamilyUse",
    "Hold",
    "Parked",
    "Survey",
    "delete_families",
    "delete_family",
    "delete_parked",
    "park",
    "park_families",
    "survey",
    "unpark",
    "unpark_families",
    "usage",
]

Hold = Callable[[], AbstractContextManager[object]]
"""Keeps true, for the length of a batch, what a change rests on; raises where it is not."""

_BATCH = 1000  # keys that are renamed, or at least so many that are deleted, within one hold
_KEPT = 100_000  # names of keys that a pass holds, so that a family is held once and not for each batch that has a key of it

# One pass finds `sandbox…` and `quarantine…`: the server tests four letters, a few other keys come along.
_BOTH = "[sq][au][na][dr]*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """A family in quarantine: its token, and when it was parked, as 14 digits."""

    stamp: str
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """How many keys each family has, and each family in quarantine; and the guilds that have a cached route."""

    families: Mapping[str, int]
    parked: Mapping[Parked, int]
    routes: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyUse:
    """A family's keys, their bytes (None: not asked), and the seconds since any was last used (None: no keys)."""

    keys: int
    bytes: int | None
    idle_seconds: int | None


def survey(keys: KeyReader) -> Survey:
    """Count every family in one pass. Memory grows with the families and guilds, not with the keys."""
    families: Counter[str] = Counter()
    parked: Counter[Parked] = Counter()
    routes: set[str] = set()
    for batch in keys.scan(_BOTH):
        for key in batch:
            if (token := family_of_key(key)) is not None:
                families[token] += 1
            elif (guild := guild_of_route(key)) is not None:
                routes.add(guild)
            elif (found := _parked(key)) is not None:
                parked[found] += 1
    return Survey(families=families, parked=parked, routes=frozenset(routes))


def usage(keys: KeyReader, tokens: Collection[str], *, sizes: bool = False) -> Mapping[str, FamilyUse]:
    """Return how each family that may be one of these tokens' is used, in one pass; their bytes only with `sizes`."""
    found: dict[str, FamilyUse] = {}
    wanted = Namesakes(tokens)
    concerns = cache(lambda token: bool(wanted.of(token)))
    for batch in keys.scan("sandbox:*"):
        families = {key: family_of_key(key) for key in batch}  # a step may name a key twice
        members = {key: token for key, token in families.items() if token is not None and concerns(token)}
        asked = list(members)  # of all families together
        idle = keys.idle_seconds(asked)
        memory = keys.memory(asked) if sizes else [None] * len(asked)
        for token, seconds, size in zip(members.values(), idle, memory, strict=True):
            found[token] = _added(found.get(token), seconds, size, sizes=sizes)
    return found


def park(keys: KeyWriter, token: str, stamp: str, *, hold: Hold) -> int:
    """Rename a family's keys into quarantine, some within each `hold()`, which may raise. Returns how many."""
    family = Parked(stamp=stamp, token=token)
    moved, failures = park_families(keys, [family], hold=lambda _: hold())
    for error in failures.values():
        raise error
    return moved[token]


def park_families(
    keys: KeyWriter, families: Collection[Parked], *, hold: Callable[[str], AbstractContextManager[object]]
) -> tuple[Counter[str], dict[str, ArrakisError]]:
    """Rename many families' keys into quarantine, in one pass; no token may come twice.

    A family's keys are renamed, some at a time, within `hold(token)`. Where that raises, the family is left alone for the rest
    of the pass. Returns how many keys of each token were renamed, and what was raised for which. Raises Unreachable
    or Denied, with part of it done, where Redis does not do as it is told.
    """
    parking = _Parking(keys, families, hold)
    found: dict[str, list[bytes]] = defaultdict(list)
    kept = 0
    for batch in keys.scan(_pattern([family.token for family in families])):
        for key in batch:
            token = family_of_key(key)
            if token is not None and parking.concerns(token):
                found[token].append(key)
                kept += 1
        if kept >= _KEPT:
            parking.park(found)
            found.clear()
            kept = 0
    parking.park(found)
    return parking.moved, parking.failures


def delete_family(keys: KeyWriter, token: str, *, hold: Hold = nullcontext) -> int:
    """Delete a family's keys for good, each batch within `hold()`, which may raise. Returns how many."""
    return _deleted(keys, _family_batches(keys, token), hold)


def delete_families(
    keys: KeyWriter, owner: Callable[[str], UUID | None], *, hold: Hold = nullcontext
) -> Counter[UUID]:
    """Delete for good, in one pass, the keys of every family that has an owner; return how many of each.

    Each batch within `hold()`, which may raise.
    """
    gone: Counter[UUID] = Counter()
    owner = cache(owner)
    doomed: dict[bytes, UUID] = {}

    def delete() -> None:
        groups = _by_value(doomed)
        with hold():
            gone.update(dict(zip(groups, keys.unlink_each([*groups.values()]), strict=True)))
        doomed.clear()

    for batch in keys.scan("sandbox:*"):
        for key in batch:
            token = family_of_key(key)
            if token is not None and (whose := owner(token)) is not None:
                doomed[key] = whose
        if len(doomed) >= _BATCH:
            delete()
    if doomed:
        delete()
    return gone


def unpark(keys: KeyWriter, family: Parked, *, hold: Hold) -> int:
    """Give a parked family's keys their names back. A name that is taken meanwhile stays parked. Returns how many."""
    return unpark_families(keys, [family], hold=hold)


def unpark_families(keys: KeyWriter, families: Collection[Parked], *, hold: Hold) -> int:
    """Give many parked families' keys their names back, as `unpark` does, in one pass."""
    moved, pattern = 0, "quarantine:*"
    if len(families) == 1:  # little else matches
        [only] = families
        pattern = f"quarantine:{only.stamp}:sandbox:{_escaped(only.token)}*"
    wanted = frozenset(families)
    for batch in keys.scan(pattern):
        members = [key for key in batch if _parked(key) in wanted]
        if members:
            with hold():
                moved += sum(keys.rename([(key, key.split(b":", 2)[2]) for key in members]))
    return moved


def delete_parked(keys: KeyWriter, family: Parked, *, hold: Hold) -> int:
    """Delete a parked family for good. Returns how many keys there were."""
    return _deleted(keys, _parked_batches(keys, family), hold)


class _Parking:
    """The families that a pass parks: what came of each so far."""

    def __init__(
        self,
        keys: KeyWriter,
        families: Collection[Parked],
        hold: Callable[[str], AbstractContextManager[object]],
    ) -> None:
        self._keys, self._hold = keys, hold
        self._stamps = {family.token: family.stamp for family in families}
        self.moved: Counter[str] = Counter()
        self.failures: dict[str, ArrakisError] = {}

    def concerns(self, token: str) -> bool:
        return token in self._stamps and token not in self.failures

    def park(self, found: Mapping[str, Sequence[bytes]]) -> None:
        for token, members in found.items():
            for start in range(0, len(members), _BATCH):
                if self.concerns(token):
                    self._rename(token, members[start : start + _BATCH])

    def _rename(self, token: str, members: Sequence[bytes]) -> None:
        """Rename keys within their family's hold. What goes wrong at Redis ends the pass, what the hold says only the family's."""
        lost: ArrakisError | None = None
        try:
            with self._hold(token):
                try:
                    stamp = self._stamps[token]
                    self.moved[token] += sum(
                        self._keys.rename([(key, parked_key(key, stamp)) for key in members])
                    )
                except ArrakisError as error:
                    lost = error
                    raise
        except ArrakisError as error:
            if lost:
                raise
            self.failures[token] = error


def _by_value(owners: Mapping[bytes, UUID]) -> Mapping[UUID, list[bytes]]:
    found: dict[UUID, list[bytes]] = defaultdict(list)
    for key in sorted(owners):
        found[owners[key]].append(key)
    return found


def _deleted(keys: KeyWriter, batches: Generator[list[bytes]], hold: Hold) -> int:
    gone = 0
    with closing(batches):  # who looks ahead for the next one ends with us, whoever keeps an error of ours
        for batch in batches:
            with hold():
                gone += keys.unlink(batch)
    return gone


def _family_batches(keys: KeyReader, token: str) -> Generator[list[bytes]]:
    for batch in keys.scan(_pattern([token])):
        members = [key for key in batch if family_of_key(key) == token]
        if members:
            yield members


def _pattern(tokens: Collection[str]) -> str:
    """What the keys of these families match: of one, little else does."""
    [only] = tokens if len(tokens) == 1 else [""]
    return f"sandbox:{_escaped(only)}*"


def _parked_batches(keys: KeyReader, family: Parked) -> Generator[list[bytes]]:
    for batch in keys.scan(f"quarantine:{family.stamp}:sandbox:{_escaped(family.token)}*"):
        members = [key for key in batch if _parked(key) == family]
        if members:
            yield members


def _parked(key: bytes) -> Parked | None:
    parts = unparked_key(key)
    token = family_of_key(parts[1]) if parts else None
    return Parked(stamp=parts[0], token=token) if parts and token is not None else None


def _added(use: FamilyUse | None, idle: int | None, size: int | None, *, sizes: bool) -> FamilyUse:
    """Return a family's use with one more of its keys."""
    before = use or FamilyUse(keys=0, bytes=0 if sizes else None, idle_seconds=None)
    known = [seconds for seconds in (before.idle_seconds, idle) if seconds is not None]
    return FamilyUse(
        keys=before.keys + 1,
        bytes=(before.bytes or 0) + (size or 0) if sizes else None,
        idle_seconds=min(known, default=None),
    )


def _escaped(token: str) -> str:
    return "".join(f"\\{char}" if char in "*?[]^-\\" else char for char in token)
