"""Moments as people read them: by this host's clock with its offset, in UTC, or both. Texts have them as sandbox.text writes them."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, tzinfo

__all__ = ["beside", "both", "here", "local", "universal", "utc"]

_ONE = r"\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d)?Z"
_MOMENT = re.compile(rf"(?<![\w-])({_ONE})(?:/({_ONE}))?(?!\w)")
_EXACT = len("2026-11-26T18:05:00Z")


def here(at: datetime) -> str:
    """Return a moment by this host's clock, to the minute: 2026-11-26 23:35 +0530."""
    return _written([at], None)


def utc(at: datetime) -> str:
    """Return a moment in UTC, to the second: 2026-11-26 18:05:00 UTC."""
    return _written([at], UTC, exact=True)


def beside(at: datetime) -> str:
    """Return what stands beside a moment in UTC: the same by this host's clock, to the second; empty where that is UTC."""
    return _beside([at], exact=True)


def local(text: str) -> str:
    """Return a text with the moments in it by this host's clock."""
    return _each(text, lambda moments, exact: _written(moments, None, exact=exact))


def universal(text: str) -> str:
    """Return a text with the moments in it in UTC, for readers in other zones."""
    return _each(text, lambda moments, exact: _written(moments, UTC, exact=exact))


def both(text: str) -> str:
    """Return a text with the moments in it in UTC, and by this host's clock where that is another."""
    return _each(text, _both)


def _each(text: str, write: Callable[[Sequence[datetime], bool], str]) -> str:
    def written(found: re.Match[str]) -> str:
        exact = len(found[1]) == _EXACT
        try:
            return write([datetime.fromisoformat(each) for each in found.groups() if each], exact)
        except (ValueError, OverflowError):  # it only looks like a moment
            return found[0]

    return _MOMENT.sub(written, text)


def _both(moments: Sequence[datetime], exact: bool) -> str:
    there, ours = _written(moments, UTC, exact=exact), _beside(moments, exact=exact)
    return f"{there} ({ours})" if ours else there


def _beside(moments: Sequence[datetime], *, exact: bool) -> str:
    first = moments[0].astimezone(UTC)
    return _written(moments, None, exact=exact, day=first.date()) if first.astimezone().utcoffset() else ""


def _written(
    moments: Sequence[datetime], zone: tzinfo | None, *, exact: bool = False, day: date | None = None
) -> str:
    """Write moments in a zone, None for this host's, each with its day where that is another than the one before, at first `day`."""
    told = []
    for at in (moment.astimezone(zone) for moment in moments):
        clock = f"{at:%H:%M:%S}" if exact else f"{at:%H:%M}"
        told.append(clock if at.date() == day else f"{at:%Y-%m-%d} {clock}")
        day = at.date()
    return f"{'–'.join(told)} {'UTC' if zone else f'{at:%z}'}"
