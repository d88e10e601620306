"""What may be asked for: names, guilds, lifetimes, and how many sandboxes an owner may have. Pure.

Everything is checked here before anything is touched.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from sandbox.errors import ArrakisError, SandboxCode, SandboxError

__all__ = [
    "Limits",
    "check_guild",
    "check_name",
    "check_new_name",
    "check_ttl",
    "default_name",
    "parse_duration",
]

_NEW_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?")
_GUILD = re.compile(r"[0-9]{1,20}")
_DURATION = re.compile(r"([0-9]{1,6})([hd]?)")
_NAME_LENGTH = 64
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # without those that are mistaken for one another


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an owner may have, and how long a sandbox may live after its creation."""

    per_owner: int = 5
    default_ttl: timedelta = timedelta(hours=24)
    least_ttl: timedelta = timedelta(hours=1)
    most_ttl: timedelta = timedelta(hours=168)

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> "Limits":
        """Read MAX_SANDBOXES_PER_OWNER, DEFAULT_TTL_HOURS and MAX_TTL_HOURS. Raises ArrakisError on a malformed one."""
        return cls(
            per_owner=_count(variables, "MAX_SANDBOXES_PER_OWNER", 5),
            default_ttl=timedelta(hours=_count(variables, "DEFAULT_TTL_HOURS", 24)),
            most_ttl=timedelta(hours=_count(variables, "MAX_TTL_HOURS", 168)),
        )


def check_new_name(name: str) -> None:
    """Raise ArrakisError unless a sandbox may be given this name."""
    if not _NEW_NAME.fullmatch(name):
        raise ArrakisError(
            f"{name!r} is no name for a sandbox",
            hint="use 1 to 64 small letters, digits and hyphens, neither first nor last a hyphen: my-sandbox",
        )


def check_name(name: str) -> None:
    """Raise ArrakisError unless some sandbox could have this name: the deployed system is less strict than we are."""
    if not 0 < len(name) <= _NAME_LENGTH or not name.isprintable():
        raise ArrakisError(
            f"{name!r} can be no sandbox's name", hint="`gaib sandbox list --all` shows those that exist"
        )


def check_guild(guild: str) -> None:
    """Raise ArrakisError unless this can be a Discord guild's id."""
    if not _GUILD.fullmatch(guild):
        raise ArrakisError(
            f"{guild!r} is no guild id", hint="a Discord guild id is a number such as 123456789012345678"
        )


def check_ttl(ttl: timedelta, limits: Limits) -> None:
    """Raise SandboxError 002 unless a new sandbox may live this long."""
    if not limits.least_ttl <= ttl <= limits.most_ttl:
        least, most = (each // timedelta(hours=1) for each in (limits.least_ttl, limits.most_ttl))
        raise SandboxError(
            SandboxCode.LIMIT_EXCEEDED,
            f"a TTL is at least {least} h and at most {most} h",
            hint="say --ttl 48h; `gaib sandbox extend NAME 24h` adds to it later",
        )


def parse_duration(text: str) -> timedelta:
    """Read `24h`, `7d` or plain hours. Raises ArrakisError on anything else, and on nothing at all of it."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise ArrakisError(f"{text!r} is no duration", hint="say 24h, 7d, or a number of hours")
    return timedelta(days=int(match[1])) if match[2] == "d" else timedelta(hours=int(match[1]))


def default_name(owner: str) -> str:
    """Return `sandbox-{owner}-{6 random}`; what a name may not have in it is left out of the owner."""
    plain = re.sub(r"[^a-z0-9]+", "-", owner.lower()).strip("-")[:40].strip("-") or "dev"
    return f"sandbox-{plain}-{''.join(secrets.choice(_LETTERS) for _ in range(6))}"


def _count(variables: Mapping[str, str], name: str, default: int) -> int:
    text = variables.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 100_000:
        raise ArrakisError(
            f"{name} takes a whole number above 0, not {text!r}", hint=f"unset it, or say {default}"
        )
    return int(text)
