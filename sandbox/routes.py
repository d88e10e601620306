"""Where a guild's events go: the cache that the EventRouter reads, and the table behind it.

The table decides; the cache is a copy that lives a minute. Whoever changes the table deletes the copy. Where Redis
does not answer just then, the copy is wrong for a minute at most, and what should have no end is found by the
clean-up job, which compares every cached route with the table.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sandbox.errors import ArrakisError
from sandbox.ports import KeyReader, KeyWriter, SqlReader, SqlSnapshot

__all__ = [
    "LIFETIME",
    "NOWHERE",
    "Route",
    "cached",
    "forget",
    "forget_stale",
    "key_of",
    "look_up",
    "mapped",
    "stale",
]

LIFETIME = timedelta(minutes=1)
NOWHERE = "__NULL__"
"""What the EventRouter caches for a guild that is mapped to no running sandbox."""

_PREFIX = "sandbox:route:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a guild's events go: a sandbox, or production where it is None; and whether the cache said so."""

    sandbox: UUID | None
    from_cache: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mapping:
    guild_id: str
    sandbox_id: UUID


def key_of(guild: str) -> bytes:
    """Return the key of a guild's cached route."""
    return f"{_PREFIX}{guild}".encode()


def look_up(database: SqlReader, keys: KeyWriter, guild: str) -> Route:
    """Look a guild up as the EventRouter does: the cache, then the mapping of running sandboxes, which is then cached.

    A cache that does not answer, or holds nonsense, is passed over. Raises Unreachable if the table cannot be read.
    """
    try:
        [value] = keys.values([key_of(guild)])
        if value is not None:
            return Route(sandbox=_read(value), from_cache=True)
    except (ArrakisError, ValueError):
        pass
    with database.snapshot() as snapshot:
        sandbox = mapped(snapshot, [guild]).get(guild)
    with suppress(ArrakisError):
        keys.put(key_of(guild), str(sandbox or NOWHERE).encode(), lifetime=LIFETIME)
    return Route(sandbox=sandbox, from_cache=False)


def forget(keys: KeyWriter, guilds: Iterable[str]) -> ArrakisError | None:
    """Delete the cached routes of these guilds; return why not, where Redis does not answer."""
    try:
        keys.unlink([key_of(guild) for guild in guilds])
    except ArrakisError as error:
        return error
    return None


def cached(keys: KeyReader, guilds: Iterable[str]) -> Mapping[str, str]:
    """Return what the cache holds for these guilds, as it stands there; those it holds nothing for are left out."""
    wanted = list(guilds)
    values = keys.values([key_of(guild) for guild in wanted])
    return {
        guild: value.decode("utf-8", "backslashreplace")
        for guild, value in zip(wanted, values, strict=True)
        if value is not None
    }


def mapped(snapshot: SqlSnapshot, guilds: Iterable[str]) -> Mapping[str, UUID]:
    """Return the running sandbox that each of these guilds is mapped to; those without one are left out."""
    wanted = [guild for guild in guilds if "\0" not in guild]  # a key may hold one, a mapping cannot
    rows = snapshot.rows("read/routes/mapped", _Mapping, guilds=wanted)
    return {row.guild_id: row.sandbox_id for row in rows}


def stale(cached: Mapping[str, str], mapped: Mapping[str, UUID]) -> list[str]:
    """Return the guilds whose cached route is not what the table says. Pure."""
    return sorted(guild for guild, value in cached.items() if value != str(mapped.get(guild, NOWHERE)))


def forget_stale(database: SqlReader, keys: KeyWriter, guilds: Iterable[str]) -> list[str]:
    """Delete those cached routes of these guilds that are not what the table says; return them.

    Deleting one too many costs the EventRouter a look at the table, so it needs no guard.
    """
    found = cached(keys, guilds)
    with database.snapshot() as snapshot:
        wrong = stale(found, mapped(snapshot, found))
    keys.unlink([key_of(guild) for guild in wrong])
    return wrong


def _read(value: bytes) -> UUID | None:
    text = value.decode("utf-8", "backslashreplace")
    return None if text == NOWHERE else UUID(text)
