"""Text for a terminal: what others wrote made fit for it, and numbers as a person says them. Pure."""

from datetime import timedelta

__all__ = ["brief", "clean", "counted", "lasting", "size"]

_UNITS = (
    ("day", timedelta(days=1)),
    ("hour", timedelta(hours=1)),
    ("minute", timedelta(minutes=1)),
    ("second", timedelta(seconds=1)),
)
_MANY_HOURS = timedelta(hours=72)  # more than these are told in days


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
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in str(value)
    )


def size(count: float) -> str:
    """Return a number of bytes as a person reads it, in powers of 1024."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"
