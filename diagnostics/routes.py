"""Every cached route compared with the table, in one pass over the cache and one query.

The cache is read first and the table after it, so the table is never the older of the two; and what looks wrong is looked
at once more, a moment later. So a mapping that changes just now is not called a stale route.
"""

import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from uuid import UUID

from sandbox import registry, routes
from sandbox.model import Status
from sandbox.naming import guild_of_route
from sandbox.ports import KeyReader, SqlReader, SqlSnapshot
from sandbox.routes import LIFETIME, NOWHERE, key_of

__all__ = [
    "SEE_MAPPINGS",
    "SEE_ROUTE",
    "SEE_ROUTES",
    "Cached",
    "Fault",
    "Mapped",
    "Routes",
    "Wrong",
    "compare",
    "read_cached",
    "read_routes",
]

SEE_ROUTES = "redis-cli --scan --pattern 'sandbox:route:*' --count 1000"
SEE_ROUTE = "redis-cli get sandbox:route:{guild}; redis-cli pttl sandbox:route:{guild}"
SEE_MAPPINGS = (
    'psql -c "SELECT m.guild_id, s.id, s.name, s.status FROM public.sandbox_guild_mapping m'
    ' JOIN public.sandboxes s ON s.id = m.sandbox_id"'
)

_MOMENT = 0.3  # seconds in which whoever changes a mapping has deleted the route as well
_SLACK = timedelta(seconds=1)


class Fault(StrEnum):
    """What is wrong with a cached route."""

    OTHER = "another sandbox than the table says"
    GONE = "a sandbox that is gone"
    NEGATIVE = "nowhere, though the guild is mapped to a running sandbox"
    UNMAPPED = "a sandbox, though the guild is mapped to no running one"
    NONSENSE = "no sandbox's id"
    LASTING = "right, but it lasts: the next change of the mapping will not be seen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """A guild's row in the table, and the sandbox that it leads to. Only running ones route."""

    guild: str
    sandbox: UUID
    name: str
    status: Status

    def __post_init__(self) -> None:
        """Read the status, which the driver hands over as text."""
        object.__setattr__(self, "status", Status(self.status))

    @property
    def routes(self) -> bool:
        """Whether events go there."""
        return self.status is Status.RUNNING


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """A guild's cached route as it stands there, and the seconds until it ends by itself; infinity if it never does."""

    guild: str
    value: str
    left: float

    @property
    def lasts(self) -> bool:
        """Whether it lives for longer than the EventRouter lets one live."""
        return self.left > (LIFETIME + _SLACK).total_seconds()

    @property
    def ending(self) -> str:
        """When it ends, in words."""
        return "never ends" if math.isinf(self.left) else f"ends by itself in {self.left:.0f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """A cached route that is wrong, how, and where the events should go: a sandbox's name, or None for production."""

    cached: Cached
    fault: Fault
    wanted: str | None

    @property
    def loses(self) -> bool:
        """Whether events go wrong by it now."""
        return self.fault is not Fault.LASTING


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """Every mapping, how many guilds have a cached route, and those that are wrong, by guild."""

    mapped: tuple[Mapped, ...]
    cached: frozenset[str]
    wrong: tuple[Wrong, ...]

    @property
    def uncached(self) -> int:
        """How many guilds of running sandboxes have no cached route; the next event of theirs fills it in."""
        return sum(each.routes and each.guild not in self.cached for each in self.mapped)


def read_routes(sql: SqlReader, keys: KeyReader, *, pause: Callable[[float], None] = time.sleep) -> Routes:
    """Return every cached route that the table contradicts, by two looks. Raises Unreachable, Denied or Missing."""
    guilds = sorted(_guilds(keys))
    cached = read_cached(keys, guilds)
    mapped, wrong = _compared(sql, cached)
    if wrong:
        pause(_MOMENT)
        again = read_cached(keys, [each.cached.guild for each in wrong])
        before = {each.cached.guild: each for each in wrong}
        mapped, wrong = _compared(sql, again)
        wrong = [each for each in wrong if before[each.cached.guild].cached.value == each.cached.value]
    return Routes(mapped=tuple(mapped), cached=frozenset(each.guild for each in cached), wrong=tuple(wrong))


def read_cached(keys: KeyReader, guilds: Sequence[str]) -> list[Cached]:
    """Return the cached routes of these guilds; those that have none are left out."""
    names = [key_of(guild) for guild in guilds]
    values, lifetimes = routes.cached(keys, guilds), keys.lifetimes(names)
    return [
        Cached(guild=guild, value=values[guild], left=left)
        for guild, left in zip(guilds, lifetimes, strict=True)
        if left is not None and guild in values
    ]


def compare(cached: Iterable[Cached], mapped: Iterable[Mapped], live: Collection[UUID]) -> list[Wrong]:
    """Return the cached routes that are wrong; `live` are the sandboxes that are not destroyed. Pure."""
    by_guild = {each.guild: each for each in mapped if each.routes}
    found = [(each, by_guild.get(each.guild)) for each in cached]
    return [
        Wrong(cached=each, fault=fault, wanted=wanted.name if wanted else None)
        for each, wanted in found
        if (fault := _fault(each, wanted, live)) is not None
    ]


def _fault(cached: Cached, wanted: Mapped | None, live: Collection[UUID]) -> Fault | None:
    if cached.value == (str(wanted.sandbox) if wanted else NOWHERE):
        return Fault.LASTING if cached.lasts else None
    if cached.value == NOWHERE:
        return Fault.NEGATIVE
    target = _id(cached.value)
    if target is None:
        return Fault.NONSENSE
    if target not in live:
        return Fault.GONE
    return Fault.OTHER if wanted else Fault.UNMAPPED


def _compared(sql: SqlReader, cached: Sequence[Cached]) -> tuple[list[Mapped], list[Wrong]]:
    with sql.snapshot() as snapshot:
        mapped = snapshot.rows("read/routes/mappings", Mapped)
        return mapped, compare(cached, mapped, _live(snapshot, cached, mapped))


def _live(snapshot: SqlSnapshot, cached: Iterable[Cached], mapped: Iterable[Mapped]) -> set[UUID]:
    """The sandboxes that guilds are mapped to or cached routes lead to, but for destroyed ones."""
    live = {each.sandbox for each in mapped if each.status is not Status.DESTROYED}
    strange = {str(found) for each in cached if (found := _id(each.value)) and found not in live}
    rows = registry.claimants(snapshot, tokens=strange).rows if strange else ()
    return live | {row.id for row in rows if row.live}


def _id(value: str) -> UUID | None:
    """The id that a route holds, as the table writes it: in another spelling it is another subject."""
    try:
        found = UUID(value)
    except ValueError:
        return None
    return found if str(found) == value else None


def _guilds(keys: KeyReader) -> set[str]:
    found = (guild_of_route(key) for batch in keys.scan("sandbox:route:*") for key in batch)
    return {guild for guild in found if guild is not None}
