"""Sandbox keys: one-pass survey, how a family is used, parking, deleting."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from uuid import UUID

from sandbox.naming import family_of_key, guild_of_route, parked_key, same_sandbox, unparked_key
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
    "spellings",
    "survey",
    "unpark",
    "usage",
]

Hold = Callable[[], AbstractContextManager[object]]
"""Keeps true, for the length of a batch, what a change rests on; raises where it is not."""

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
    concerns = cache(lambda token: any(spellings([token], wanted) for wanted in tokens))
    for batch in keys.scan("sandbox:*"):
        grouped: dict[str, set[bytes]] = defaultdict(set)
        for key in batch:
            if (token := family_of_key(key)) is not None and concerns(token):
                grouped[token].add(key)
        for token, members in grouped.items():
            found[token] = _added(found.get(token), keys, sorted(members), sizes=sizes)
    return found


def spellings(families: Iterable[str], token: str) -> list[str]:
    """Return the families whose token may name the same sandbox: whole, short, with hyphens or without."""
    return [family for family in families if family == token or same_sandbox(family, token)]


def park(keys: KeyWriter, token: str, stamp: str, *, hold: Hold) -> int:
    """Rename a family's keys into quarantine, each batch within `hold()`, which may raise. Returns how many."""
    moved = 0
    for batch in _family_batches(keys, token):
        with hold():
            moved += sum(keys.rename([(key, parked_key(key, stamp)) for key in batch]))
    return moved


def delete_family(keys: KeyWriter, token: str, *, hold: Hold = nullcontext) -> int:
    """Delete a family's keys for good, each batch within `hold()`, which may raise. Returns how many."""
    return _deleted(keys, _family_batches(keys, token), hold)


def delete_families(keys: KeyWriter, owner: Callable[[str], UUID | None]) -> Counter[UUID]:
    """Delete for good, in one pass, the keys of every family that has an owner; return how many of each."""
    gone: Counter[UUID] = Counter()
    owner = cache(owner)
    for batch in keys.scan("sandbox:*"):
        doomed: dict[UUID, set[bytes]] = defaultdict(set)
        for key in batch:
            token = family_of_key(key)
            if token is not None and (whose := owner(token)) is not None:
                doomed[whose].add(key)
        for whose, members in doomed.items():
            gone[whose] += keys.unlink(sorted(members))
    return gone


def unpark(keys: KeyWriter, family: Parked, *, hold: Hold) -> int:
    """Give a parked family's keys their names back. A name that is taken meanwhile stays parked. Returns how many."""
    moved = 0
    for batch in _parked_batches(keys, family):
        with hold():
            moved += sum(keys.rename([(key, key.split(b":", 2)[2]) for key in batch]))
    return moved


def delete_parked(keys: KeyWriter, family: Parked, *, hold: Hold) -> int:
    """Delete a parked family for good. Returns how many keys there were."""
    return _deleted(keys, _parked_batches(keys, family), hold)


def _deleted(keys: KeyWriter, batches: Iterable[list[bytes]], hold: Hold) -> int:
    gone = 0
    for batch in batches:
        with hold():
            gone += keys.unlink(batch)
    return gone


def _family_batches(keys: KeyReader, token: str) -> Iterator[list[bytes]]:
    for batch in keys.scan(f"sandbox:{_escaped(token)}*"):
        members = [key for key in batch if family_of_key(key) == token]
        if members:
            yield members


def _parked_batches(keys: KeyReader, family: Parked) -> Iterator[list[bytes]]:
    for batch in keys.scan(f"quarantine:{family.stamp}:sandbox:{_escaped(family.token)}*"):
        members = [key for key in batch if _parked(key) == family]
        if members:
            yield members


def _parked(key: bytes) -> Parked | None:
    parts = unparked_key(key)
    token = family_of_key(parts[1]) if parts else None
    return Parked(stamp=parts[0], token=token) if parts and token is not None else None


def _added(use: FamilyUse | None, keys: KeyReader, members: list[bytes], *, sizes: bool) -> FamilyUse:
    """Return a family's use with some more of its keys."""
    idle = [seconds for seconds in keys.idle_seconds(members) if seconds is not None]
    if use and use.idle_seconds is not None:
        idle.append(use.idle_seconds)
    size = sum(filter(None, keys.memory(members))) if sizes else None
    return FamilyUse(
        keys=len(members) + (use.keys if use else 0),
        bytes=None if size is None else size + (use.bytes or 0 if use else 0),
        idle_seconds=min(idle, default=None),
    )


def _escaped(token: str) -> str:
    return "".join(f"\\{char}" if char in "*?[]^-\\" else char for char in token)
