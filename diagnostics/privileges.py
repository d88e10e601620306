"""Which rights a login holds, as the server itself tells it: PostgreSQL, Redis, NATS. Nothing is done, however it answers.

Rights are in each system's own words, as the runbooks' pages name them. Of one that has to do with something that is not there,
nothing is said.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.errors import Denied
from sandbox.ports import SqlSnapshot
from sandbox.streams import takes

if TYPE_CHECKING:
    from sandbox.adapters.nats_access import NatsAccess, Publishing
    from sandbox.adapters.redis_access import RedisAccess, Refusal
    from sandbox.adapters.redis_node import Command

__all__ = ["ON_CLUSTERS", "OWNER", "REDIS_WORDS", "Held", "Owned", "in_nats", "in_postgres", "in_redis"]

OWNER = "owner of "
"""What a right begins with that no GRANT gives: to be a member of the role that owns something."""

ON_CLUSTERS = frozenset({"+cluster|info", "+cluster|nodes", "+cluster|slots", "+info"})
"""What a Redis cluster's nodes are asked before anything else, and a server that stands alone never."""

_KEY, _PARKED = "sandbox:route:0", "quarantine:00000000000000:sandbox:0"  # they need not be there
_LOOKS = {
    "+scan": ("SCAN", "0", "COUNT", "1"),
    "+get": ("GET", _KEY),
    "+pttl": ("PTTL", _KEY),
    "+object|idletime": ("OBJECT", "IDLETIME", _KEY),
    "+memory|usage": ("MEMORY", "USAGE", _KEY),
    "+ping": ("PING",),
    "+info": ("INFO", "server"),
    "+slowlog|get": ("SLOWLOG", "GET", "1"),
    "+latency|latest": ("LATENCY", "LATEST"),
    "+cluster|info": ("CLUSTER", "INFO"),
    "+cluster|nodes": ("CLUSTER", "NODES"),
    "+cluster|slots": ("CLUSTER", "SLOTS"),
}
_CHANGES = {
    "+unlink": ("UNLINK", _KEY),
    "+set": ("SET", _KEY, "0"),
    "+renamenx": ("RENAMENX", _KEY, _KEY),
}
_BY_LOOKING: Mapping[str, tuple[tuple[str, ...], ...]] = {
    **{word: (command,) for word, command in _LOOKS.items()},
    "%R~sandbox:*": tuple(each for each in _LOOKS.values() if _KEY in each),
}
_BY_DRY_RUN: Mapping[str, tuple[tuple[str, ...], ...]] = {
    **_BY_LOOKING,
    **{word: (command,) for word, command in _CHANGES.items()},
    "~sandbox:*": tuple(_CHANGES.values()),
    "~quarantine:*": (("UNLINK", _PARKED), ("RENAMENX", _PARKED, _PARKED)),
}
"""Commands for each right: refused for what the right is about, it is lacking. Which of those about keys is allowed, differs."""

REDIS_WORDS = frozenset(_BY_DRY_RUN)
"""The rights that Redis can be asked about."""

_INFO = "$JS.API.STREAM.INFO.SANDBOX"

Held = Mapping[str, bool | None]
"""Rights by their word, and whether they are held; None where that cannot be told. What they are about may be missing: no word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """A right, whether all that it is about is open to this role, and whether any of it is; None where there is nothing of it."""

    word: str
    held: bool | None
    partly: bool | None


def in_postgres(snapshot: SqlSnapshot, words: Collection[str]) -> list[Owned]:
    """Return which of the rights the asking role holds, by one statement."""
    read = [(word, *_meaning(word)) for word in dict.fromkeys(words)]
    named = zip(("words", "kinds", "names", "privileges"), map(list, zip(*read, strict=True)), strict=True)
    return snapshot.rows("read/rights/held", Owned, **dict(named)) if read else []


def _meaning(word: str) -> tuple[str, str, str]:
    if word.startswith(OWNER):
        return "owner", word.removeprefix(OWNER), ""
    privilege, on, name = word.partition(" ON ")
    if not on:
        return "role", word, ""
    kind, _, rest = name.partition(" ")
    return (kind.lower(), rest, privilege) if kind in ("SCHEMA", "DATABASE") else ("table", name, privilege)


def in_redis(server: "RedisAccess", words: Collection[str], *, cluster: bool) -> Held:
    """Return which of the rights are held, by dry runs, or where those are not allowed by what only looks."""
    asked = [word for word in words if word in REDIS_WORDS and (cluster or word not in ON_CLUSTERS)]
    try:
        return _judged({word: _BY_DRY_RUN[word] for word in asked}, server.refusals)
    except Denied:
        looks = {word: _BY_LOOKING[word] for word in asked if word in _BY_LOOKING}
        return {**dict.fromkeys(asked), **_judged(looks, server.tried)}


def _judged(
    commands: "Mapping[str, Sequence[Command]]", ask: "Callable[[list[Command]], list[Refusal]]"
) -> Held:
    """Have each right's commands judged: those about a key, and no other, by one that may be run at all."""
    from sandbox.adapters.redis_access import Refusal

    told = iter(ask([command for each in commands.values() for command in each]))
    held: dict[str, bool | None] = {}
    for word, each in commands.items():
        said = {next(told) for _ in each}
        held[word] = (Refusal.COMMAND if word.startswith("+") else Refusal.KEY) not in said
    return held


def in_nats(server: "NatsAccess", words: Collection[str], *, heard: bool | None = None) -> Held:
    """Return to which of the subjects may be published.

    Where it may not even be asked that, `heard` says whether it let itself be asked about SANDBOX, and of others nothing is known.
    """
    try:
        may = server.publishing()
    except Denied:
        return {word: heard if word == _INFO else None for word in words}
    return {word: _may(may, word) for word in words}


def _may(publishing: "Publishing", subject: str) -> bool:
    """Whether a subject, or all that its pattern covers, may be published to."""
    allowed = publishing.allow is None or takes(publishing.allow, subject)
    return allowed and not any(takes([each], subject) or takes([subject], each) for each in publishing.deny)
