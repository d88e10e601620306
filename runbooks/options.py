"""What is typed behind an option, read here: invoke answers a malformed one with a traceback."""

import re
import shlex
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

__all__ = ["Telling", "choice", "choices", "duration", "incident", "number", "one_way", "said"]

_DURATION = re.compile(r"(?P<count>[0-9]{1,6})(?P<unit>[hdw])")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}
_CENTURY = timedelta(days=36_525)
_INCIDENT = re.compile(r"[A-Z0-9]{1,40}")
_PAGE = re.compile(rf"https://[a-z0-9.-]+/incidents/({_INCIDENT.pattern})(?:[/?#].*)?")


def number(option: str, text: str, *, most: int = 1_000_000) -> int | None:
    """Read a number here, because invoke answers a malformed one with a traceback."""
    from sandbox.errors import ArrakisError

    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= most:
        raise ArrakisError(
            f"{option} takes a whole number from 1 to {most}, not {text!r}", hint=f"say {option} 10"
        )
    return int(text)


def choice(option: str, text: str, allowed: tuple[str, ...]) -> str:
    """Return what was chosen. Raises ArrakisError for what is not among the allowed."""
    from sandbox.errors import ArrakisError
    from sandbox.text import near

    if text not in allowed:
        meant = near(text, allowed) or allowed[0]
        raise ArrakisError(
            f"{option} takes {' or '.join(allowed)}, not {text!r}", hint=f"say {option} {meant}"
        )
    return text


def choices(option: str, text: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Return what was chosen, separated by commas; all of it where nothing was. Raises as `choice`."""
    chosen = [each.strip() for each in text.split(",")] if text else list(allowed)
    for each in chosen:
        choice(option, each, allowed)
    return tuple(each for each in allowed if each in chosen)


def duration(option: str, text: str) -> timedelta:
    """Read a time such as 90d, 12w or 36h. Raises ArrakisError for what is none, or longer than a century."""
    from sandbox.errors import ArrakisError

    read = _DURATION.fullmatch(text.strip())
    found = timedelta(**{_UNITS[read["unit"]]: int(read["count"])}) if read else timedelta(0)
    if not timedelta(0) < found <= _CENTURY:
        raise ArrakisError(
            f"{option} takes hours, days or weeks, not {text!r}", hint=f"say {option} 90d, 12w or 36h"
        )
    return found


def one_way(*, guild: str | None, sandbox: str | None, canary: bool) -> dict[str, Any]:
    """Return no options. Raises ArrakisError for a guild beside a sandbox, or a canary without either, before anything is read."""
    from sandbox.errors import ArrakisError

    hint = "say --guild ID or --sandbox NAME"
    if guild is not None and sandbox is not None:
        raise ArrakisError("--guild and --sandbox are not to be said together", hint=hint)
    if canary and guild is None and sandbox is None:
        raise ArrakisError("--canary needs a guild or a sandbox to send it to", hint=hint)
    return {}


def incident(text: str) -> str:
    """Return an incident's id, or its number, from itself or from its page's address; "" from nothing. Raises ArrakisError."""
    from sandbox.errors import ArrakisError

    page = _PAGE.fullmatch(text.strip())
    named = page[1] if page else text.strip()
    if text and not _INCIDENT.fullmatch(named):
        raise ArrakisError(
            f"--incident takes an incident's id or the address of its page, not {text!r}",
            hint="say --incident Q1ABC23DEF",
        )
    return named


def said(**given: object) -> str:
    """Return options as they are typed, those alone that say something, so that a command can be given again."""
    words: list[str] = []
    for name, value in given.items():
        option = f"--{name.rstrip('_').replace('_', '-')}"
        for each in value if isinstance(value, (list, tuple)) else [value]:
            if each is True:
                words.append(option)
            elif each not in (None, False, ""):
                words += [option, shlex.quote(str(each))]
    return " ".join(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """The incident that is to hear of a task, as it was typed, and what its status becomes after a verified apply.

    `said` are the task's own options, for the command that does the same again.
    """

    incident: str = ""
    acknowledge: bool = False
    resolve: bool = False
    said: str = ""

    @property
    def status(self) -> str:
        """The option that changes the status; "" where none does."""
        resolving = "--resolve-when-healthy" if self.resolve else ""
        return "--acknowledge" if self.acknowledge else resolving

    @property
    def named(self) -> str:
        """The incident's id, "" where none is to hear of it. Raises ArrakisError for a malformed one, or a status without one."""
        from sandbox.errors import ArrakisError

        if self.status and not self.incident:
            raise ArrakisError(f"{self.status} needs an incident", hint="say --incident Q1ABC23DEF")
        return incident(self.incident)

    def insist_on(self, apply: bool) -> None:
        """Raise ArrakisError for a status that is to change though nothing is to be applied."""
        from sandbox.errors import ArrakisError

        if self.status and not apply:
            raise ArrakisError(
                f"{self.status} needs --apply: a status changes only after a verified apply",
                hint="say --apply too, or give it to `apply --plan`",
            )
