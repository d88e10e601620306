"""What an emergency stop writes on what it stops, as two tags: who stopped it, and how it was before. Pure.

They are there for the operator whose database is down. AWS takes at most 256 characters in a value: letters, digits, spaces
and + - = . _ : / @.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from diagnostics.scaling import Scaling
from sandbox.errors import ArrakisError
from sandbox.text import clean

__all__ = ["BEFORE", "KEYS", "STOP", "Kept", "RuleBefore", "ServiceBefore", "Stop", "decode", "encode", "fit"]

STOP = "arrakis-runbooks:stop"
BEFORE = "arrakis-runbooks:before"
KEYS = (STOP, BEFORE)

_TOKEN = r"[A-Za-z0-9+\-._:/@]"
_ID = re.compile(rf"{_TOKEN}{{1,100}}")
_NAME = 64  # characters of an operator's name
_COUNT = "0|[1-9][0-9]{0,8}"
_SUSPENDED = ("in", "out", "scheduled")
_STOP = re.compile(rf"id=(?P<id>{_TOKEN}{{1,100}}) by=(?P<by>{_TOKEN}{{1,64}}) at=(?P<at>{_TOKEN}+)")
_RULE = re.compile(r"state=(?P<state>[A-Z_]{1,100})")
_SERVICE = re.compile(rf"desired=(?P<desired>{_COUNT})")
_SCALED = re.compile(
    rf"{_SERVICE.pattern} min=(?P<min>{_COUNT}) max=(?P<max>{_COUNT}) suspended=(?P<suspended>[a-z+]+)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """An emergency stop: by whom, and when (UTC)."""

    id: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleBefore:
    """How a rule was before a stop: EventBridge's word for its state."""

    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceBefore:
    """How a service was before a stop; `scaling` is None where autoscaling did not watch it."""

    desired: int
    scaling: Scaling | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the two tags say."""

    stop: Stop
    before: RuleBefore | ServiceBefore


def fit(name: str) -> str:
    """Return an operator's name as a tag takes it: every other character is an underscore, and what is too long is cut."""
    return re.sub(rf"(?!{_TOKEN}).", "_", name, flags=re.DOTALL)[:_NAME] or "_"


def encode(kept: Kept) -> dict[str, str]:
    """Return the two tags. Raises ArrakisError where the stop's id or the rule's state does not fit into one."""
    stop = kept.stop
    if not _ID.fullmatch(stop.id):
        raise ArrakisError(f"no tag takes {clean(stop.id)!r} as the id of a stop")
    told = f"id={stop.id} by={fit(stop.by)} at={stop.at.astimezone(UTC).isoformat()}"
    return {STOP: told, BEFORE: _written(kept.before)}


def decode(tags: Mapping[str, str]) -> Kept | None:
    """Return what all the tags of a rule or service say of a stop; None where there is none.

    Raises ArrakisError where they are not such as `encode` writes: nothing is guessed.
    """
    if not any(key in tags for key in KEYS):
        return None
    told, before = (tags.get(key, "") for key in KEYS)
    try:
        kept = Kept(stop=_stop(told), before=_before(before))
        if encode(kept) == {STOP: told, BEFORE: before}:
            return kept
    except (ValueError, OverflowError):  # no moment, or one beyond the calendar
        pass
    raise ArrakisError(
        f"its tags {STOP}={clean(told)!r} and {BEFORE}={clean(before)!r} are not such as this toolkit writes",
        hint="somebody else wrote them, or another version did: read them, and take them away by hand",
    )


def _written(before: RuleBefore | ServiceBefore) -> str:
    if isinstance(before, RuleBefore):
        told = f"state={before.state}"
        if not _RULE.fullmatch(told):
            raise ArrakisError(f"no tag takes {clean(before.state)!r} as the state of a rule")
        return told
    told, scaling = f"desired={before.desired}", before.scaling
    if scaling is None:
        return told
    return f"{told} min={scaling.minimum} max={scaling.maximum} suspended={'+'.join(scaling.suspended) or 'none'}"


def _stop(told: str) -> Stop:
    """Read the first tag. Raises ValueError."""
    found = _STOP.fullmatch(told)
    if found is None:
        raise ValueError
    return Stop(id=found["id"], by=found["by"], at=datetime.fromisoformat(found["at"]))


def _before(told: str) -> RuleBefore | ServiceBefore:
    """Read the second tag. Raises ValueError."""
    if rule := _RULE.fullmatch(told):
        return RuleBefore(state=rule["state"])
    if service := _SERVICE.fullmatch(told):
        return ServiceBefore(desired=int(service["desired"]), scaling=None)
    scaled = _SCALED.fullmatch(told)
    if scaled is None:
        raise ValueError
    suspended = [name in scaled["suspended"].split("+") for name in _SUSPENDED]
    scaling = Scaling(
        minimum=int(scaled["min"]),
        maximum=int(scaled["max"]),
        in_suspended=suspended[0],
        out_suspended=suspended[1],
        scheduled_suspended=suspended[2],
    )
    return ServiceBefore(desired=int(scaled["desired"]), scaling=scaling)
