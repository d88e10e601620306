"""Which name belongs to which sandbox. Pure.

Both spellings of schema names are in production: the registry's column has 8 hex digits, the schema itself the whole
id. A name therefore belongs to a sandbox when its suffix is the id, the id without hyphens or a prefix of 8 or more
hex digits of it, or when it equals the row's `schema_name`.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = [
    "SCHEMA_PREFIX",
    "Namesakes",
    "Quarantined",
    "family_of_key",
    "guild_of_route",
    "hex_of",
    "parked_key",
    "quarantined_schema",
    "read_quarantined_schema",
    "read_stamp",
    "same_sandbox",
    "schema_for",
    "stamp_of",
    "token_of_schema",
    "unparked_key",
]

SCHEMA_PREFIX = "sandbox_"
_NOT_IDS = frozenset({"route"})  # sandbox:route:{guild} is the route cache
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_PLAIN = re.compile(r"[0-9a-f]{8,32}")
_HEAD = 8  # digits that two spellings of one id have in common at least
_STAMP = "%Y%m%d%H%M%S"
_QUARANTINED = re.compile(r"quarantine_([0-9]{14})_(.+)")  # \d would take every script's digits
_PARKED = re.compile(rb"quarantine:([0-9]{14}):(.+)", re.DOTALL)


def hex_of(token: str) -> str | None:
    """The hex digits of a token that is an id: a uuid, 32 digits, or a prefix of 8 or more. Otherwise None."""
    lower = token.lower()
    if _UUID.fullmatch(lower):
        return lower.replace("-", "")
    return lower if _PLAIN.fullmatch(lower) else None


def same_sandbox(one: str, other: str) -> bool:
    """Whether two tokens may name the same sandbox: equal digits, or one the start of the other."""
    a, b = hex_of(one), hex_of(other)
    return a is not None and b is not None and (a.startswith(b) or b.startswith(a))


class Namesakes:
    """Tokens, indexed: those that may name the same sandbox as another one are found in constant time."""

    def __init__(self, tokens: Iterable[str]) -> None:
        """Index the tokens; what is no id has no namesake but itself."""
        self._tokens = frozenset(tokens)
        self._by_head: dict[str, list[str]] = defaultdict(list)
        for token in sorted(self._tokens):
            if digits := hex_of(token):
                self._by_head[digits[:_HEAD]].append(token)

    def of(self, token: str) -> list[str]:
        """Return the tokens that are this one, or may name the same sandbox."""
        digits = hex_of(token)
        if digits is None:
            return [token] if token in self._tokens else []
        return [each for each in self._by_head.get(digits[:_HEAD], ()) if same_sandbox(each, token)]


def token_of_schema(name: str) -> str | None:
    """What follows `sandbox_`, or None for a name that is no sandbox's, such as `sandboxes` or `sandbox-tools`."""
    return name[len(SCHEMA_PREFIX) :] or None if name.startswith(SCHEMA_PREFIX) else None


def schema_for(sandbox_id: object) -> str:
    """The schema of a sandbox that we create: the whole id, as the deployed clean-up expects it."""
    return f"{SCHEMA_PREFIX}{sandbox_id}"


def family_of_key(key: bytes) -> str | None:
    """The token of `sandbox:{token}` or `sandbox:{token}:…`; None for the route cache and for other keys."""
    parts = key.split(b":", 2)
    if len(parts) < 2 or parts[0] != b"sandbox" or not parts[1]:
        return None
    token = parts[1].decode("utf-8", "backslashreplace")
    return None if token in _NOT_IDS else token


def guild_of_route(key: bytes) -> str | None:
    """The guild of a cached route, `sandbox:route:{guild}`; None for any other key."""
    found = key.removeprefix(b"sandbox:route:")
    return found.decode("utf-8", "backslashreplace") if found and found != key else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """Something in quarantine: the name it had, and since when (UTC)."""

    original: str
    since: datetime


def quarantined_schema(name: str, at: datetime) -> str:
    """The name a schema has in quarantine.

    The prefix `sandbox_` is left out, so that the longest (36 characters of id) makes 62 of PostgreSQL's 63 bytes;
    one byte more and the server would cut the name silently. Raises ValueError for a name that would not fit.
    """
    token = token_of_schema(name)
    parked = f"quarantine_{at.astimezone(UTC):{_STAMP}}_{token}"
    if token is None or len(parked.encode()) > 63:
        raise ValueError(f"{name!r} has no quarantine name")
    return parked


def read_quarantined_schema(name: str) -> Quarantined | None:
    """The inverse of `quarantined_schema`; None for any other name."""
    match = _QUARANTINED.fullmatch(name)
    since = _read_stamp(match[1]) if match else None
    if match is None or since is None or hex_of(match[2]) is None:
        return None
    return Quarantined(original=SCHEMA_PREFIX + match[2], since=since)


def parked_key(key: bytes, stamp: str) -> bytes:
    """The name a key has in quarantine; `stamp` is the time as 14 digits."""
    return b"quarantine:" + stamp.encode() + b":" + key


def unparked_key(key: bytes) -> tuple[str, bytes] | None:
    """(stamp, original key) of a parked key; None for any other key."""
    match = _PARKED.fullmatch(key)
    if match is None or _read_stamp(match[1].decode()) is None:
        return None
    return match[1].decode(), match[2]


def stamp_of(at: datetime) -> str:
    """A moment as 14 digits, UTC, to the second."""
    return f"{at.astimezone(UTC):{_STAMP}}"


def read_stamp(stamp: str) -> datetime:
    """The inverse of `stamp_of`. Raises ValueError for what is no moment."""
    return datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)


def _read_stamp(stamp: str) -> datetime | None:
    try:
        return read_stamp(stamp)
    except ValueError:
        return None
