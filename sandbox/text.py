"""Text for a terminal: what others wrote made fit for it, and numbers as a person says them. Pure."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache

__all__ = ["brief", "clean", "counted", "lasting", "moment", "near", "period", "size"]

_UNITS = (
    ("day", timedelta(days=1)),
    ("hour", timedelta(hours=1)),
    ("minute", timedelta(minutes=1)),
    ("second", timedelta(seconds=1)),
)
_MANY_HOURS = timedelta(hours=72)  # more than these are told in days
_NEAR = 0.7  # of its letters, in order, that a word shares with what was meant


def brief(number: float) -> str:
    """Return a number with no more digits than a person reads: 5.49997 is 5.5."""
    return f"{round(number, 1) if number >= 1 else number:g}"


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with what is counted, of which there may be one: 1 key, 3 keys; 1 session waits, 2 sessions wait."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def lasting(duration: timedelta) -> str:
    """Return a duration exactly, in the largest unit in which it is whole: 30 minutes, 72 hours, 7 days."""
    for unit, size in _UNITS:
        if duration % size == timedelta(0) and (unit != "day" or duration > _MANY_HOURS):
            return counted(duration // size, unit)
    return f"{duration.total_seconds():g} seconds"


def clean(value: object) -> str:
    """Return text that cannot move the cursor, break a line, hide or turn what follows: such characters are spelt out."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(map(_spelt, text))


@lru_cache(maxsize=1_000)
def _spelt(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")


def size(count: float) -> str:
    """Return a number of bytes as a person reads it, in powers of 1024."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"


def moment(at: datetime, *, exact: bool = False) -> str:
    """Return a moment as texts have it, in UTC to the minute: 2026-11-26T18:05Z; `exact`: to the second.

    Nobody reads it so: whatever shows a text to a person shows the moments in it by that person's clock.
    """
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M{':%S' if exact else ''}Z}"


def period(begin: datetime, end: datetime) -> str:
    """Return from when until when as texts have it, as moment() does: 2026-11-26T17:05Z/2026-11-26T18:05Z; once if it is one minute."""
    return "/".join(dict.fromkeys((moment(begin), moment(end))))


def near(word: str, known: Iterable[str]) -> str:
    """Return what of the known is most like a word, in whatever case and with whatever dashes it was typed; "" if nothing is."""
    plain = {_plain(each): each for each in known}
    found = get_close_matches(_plain(word), plain, n=1, cutoff=_NEAR)
    return plain[found[0]] if found else ""


def _plain(word: str) -> str:
    return word.lower().replace("_", "-").strip("-")
