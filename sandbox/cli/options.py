"""What the commands have in common: how names, guilds and durations are read, and in which form they answer."""

import functools
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from sandbox.cli.completion import suggest
from sandbox.errors import ArrakisError
from sandbox.limits import check_guild, check_name, check_new_name, parse_duration
from sandbox.text import clean

__all__ = ["DURATION", "GUILD", "NAME", "NEW_NAME", "SECONDS", "Answer", "answering", "on_terminal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The form of the answer that is wanted: one JSON document, as little as possible, or text."""

    json: bool
    quiet: bool

    def give(self, text: str, document: Mapping[str, Any], *, brief: str = "") -> None:
        """Print one of the three: the text, the document, or the brief form where there is one."""
        if self.json:
            print(json.dumps(document, indent=1))
        elif not self.quiet:
            print(text)
        elif brief:
            print(brief)

    def note(self, text: str) -> None:
        """Print a line for a person, on stderr, unless quiet is wanted."""
        if not self.quiet:
            print(text, file=sys.stderr)

    def warn(self, error: ArrakisError | None, consequence: str) -> Mapping[str, str]:
        """Print why something is unsettled, if it is, as one line on stderr; return it for the document."""
        if error is None:
            return {}
        text = f"{consequence}: {error}"
        print(f"gaib: warning: {clean(text)}", file=sys.stderr)
        return {"warning": text}


def on_terminal() -> bool:
    """Whether a person reads stdout on a terminal."""
    return sys.stdout.isatty()


def answering(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options --json and --quiet; it gets them as `answer`."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
    @click.option("-q", "--quiet", is_flag=True, help="Print as little as possible.")
    @functools.wraps(command)
    def wrapped(*args: Any, as_json: bool, quiet: bool, **options: Any) -> int:
        return command(*args, answer=Answer(json=as_json, quiet=quiet), **options)

    return wrapped


if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # generic for type checkers only, before 8.4


class _Checked(_ParamType):
    """An argument that is read, or refused, before anything else happens."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name, self._read = name, read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return self._read(value) if isinstance(value, str) else value


class _Name(_Checked):
    """The name of a sandbox that exists; the shell completes it."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[click.shell_completion.CompletionItem]":
        return suggest(incomplete)


def _passing(check: Callable[[str], None]) -> Callable[[str], str]:
    def read(text: str) -> str:
        check(text)
        return text

    return read


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= timedelta(days=1).total_seconds():  # nan is neither
        raise ArrakisError(f"{text!r} is no interval", hint="say a number of seconds above 0: --interval 5")
    return seconds


NAME = _Name("name", _passing(check_name))
NEW_NAME = _Checked("name", _passing(check_new_name))
GUILD = _Checked("guild", _passing(check_guild))
DURATION = _Checked("duration", parse_duration)
SECONDS = _Checked("seconds", _seconds)
