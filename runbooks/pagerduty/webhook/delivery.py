"""What a request asks for: to look at an incident, or at an alarm. Pure.

Whoever sent it was found out before. What is written in a body is a name to look up, never a command: neither a runbook, nor an
environment, nor an address is taken from it.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sandbox.errors import ArrakisError

__all__ = [
    "Delivery",
    "Forged",
    "Malformed",
    "document",
    "from_action",
    "from_alarm",
    "from_event",
    "from_pagerduty",
    "identifier",
    "moment",
]

_WORK = frozenset({"incident.triggered", "incident.reopened"})
_BUTTON = "incident.custom"
_INCIDENT = re.compile(r"[A-Za-z0-9]{1,32}")
_IDENTIFIER = re.compile(r"[!-~]{1,128}")  # printable ASCII, no space
_ACCOUNT = re.compile(r"[0-9]{12}")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]{1,2}")
_ALARM_ARN = re.compile(r"arn:aws[a-z-]*:cloudwatch:([^:]+):([^:]+):alarm:(.+)", re.DOTALL)
_LONGEST_NAME = 255
_ASKS = "ALARM"
_OLDEST = timedelta(hours=60)
"""PagerDuty tries for 48 h; what is older is a replay. The queue remembers keys for 72 h, so that none comes through."""


class Malformed(ArrakisError):
    """The request cannot be understood, whoever sent it."""


class Forged(ArrakisError):
    """The request does not come from whom it says, or is an old one that somebody sends again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One thing to look at. `key` is the same however often it is sent; `subject` an incident's id, or account/region/alarm."""

    key: str
    kind: Literal["incident", "alarm"]
    subject: str
    received: datetime


def document(body: bytes | str) -> Mapping[str, Any]:
    """Return the JSON object that a body is. Raises Malformed."""
    try:
        found = json.loads(body if isinstance(body, str) else body.decode("utf-8"))
    except (ValueError, RecursionError):  # what it says may quote the body
        raise Malformed("the body is not JSON in UTF-8") from None
    return _mapping(found, "the body")


def from_pagerduty(body: bytes, now: datetime) -> Delivery | None:
    """Return what a signed V3 webhook asks for; None for what only tells something, and for a replay. Raises Malformed.

    The key is the event's id, which is signed; the header x-webhook-id is not, and would let anybody send a webhook again.
    """
    event = _mapping(document(body).get("event"), "event")
    if _text(event, "event_type") not in _WORK:
        return None
    if now - moment(event.get("occurred_at"), "occurred_at") > _OLDEST:
        return None
    key = f"pagerduty:{identifier(event.get('id'), 'the event')}"
    return Delivery(key=key, kind="incident", subject=_incident(event.get("data")), received=now)


def from_action(body: bytes, now: datetime) -> list[Delivery]:
    """Return what a press of a button asks for, in the shape of V2 or of V3. Raises Malformed."""
    content = document(body)
    if "event" in content:
        event = _mapping(content["event"], "event")
        if _text(event, "event_type") not in _WORK | {_BUTTON}:
            return []
        key = f"action:{identifier(event.get('id'), 'the event')}"
        return [Delivery(key=key, kind="incident", subject=_incident(event.get("data")), received=now)]
    messages = content.get("messages")
    if not isinstance(messages, list):
        raise Malformed("the body has neither event nor messages")
    found = []
    for each in messages:
        message = _mapping(each, "a message")
        if _text(message, "event") == _BUTTON:
            key = f"action:{identifier(message.get('id'), 'the message')}"
            subject = _incident(message.get("incident"))
            found.append(Delivery(key=key, kind="incident", subject=subject, received=now))
    return found


def from_alarm(message: str, identity: str, now: datetime) -> Delivery | None:
    """Return what an alarm's notification over SNS asks for; None for what is no alarm, or not raised. Raises Malformed.

    `message` is the envelope's Message, `identity` its MessageId.
    """
    try:
        content = document(message)
    except Malformed:  # somebody published a text
        return None
    if content.get("NewStateValue") != _ASKS:
        return None
    arn = _ALARM_ARN.fullmatch(_text(content, "AlarmArn"))
    if not arn:
        raise Malformed("AlarmArn is not the ARN of an alarm")
    region, account, name = arn.groups()
    key = f"sns:{identifier(identity, 'MessageId')}"
    return Delivery(key=key, kind="alarm", subject=_alarm(account, region, name), received=now)


def from_event(content: Mapping[str, Any], now: datetime) -> Delivery | None:
    """Return what an event of EventBridge asks for; None for what is no alarm, or not raised. Raises Malformed."""
    if (content.get("source"), content.get("detail-type")) != (
        "aws.cloudwatch",
        "CloudWatch Alarm State Change",
    ):
        return None
    detail = _mapping(content.get("detail"), "detail")
    if _mapping(detail.get("state"), "state").get("value") != _ASKS:
        return None
    subject = _alarm(_text(content, "account"), _text(content, "region"), _text(detail, "alarmName"))
    key = f"event:{identifier(content.get('id'), 'the event')}"
    return Delivery(key=key, kind="alarm", subject=subject, received=now)


def moment(value: object, what: str) -> datetime:
    """Return a moment as AWS and PagerDuty write it. Raises Malformed."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
        if found is not None and found.utcoffset() is not None:
            return found
    except ValueError:
        pass
    raise Malformed(f"{what} is no moment with a time zone")


def identifier(value: object, what: str) -> str:
    """Return an id that may be kept and shown. Raises Malformed."""
    if isinstance(value, str) and _IDENTIFIER.fullmatch(value):
        return value
    raise Malformed(f"{what} has no id that can be used")


def _incident(data: object) -> str:
    """Return the incident's id: of what is one, or belongs to one."""
    found = _mapping(data, "the incident")
    if found.get("type") != "incident" and "incident" in found:
        found = _mapping(found["incident"], "the incident")
    value = found.get("id")
    if isinstance(value, str) and _INCIDENT.fullmatch(value):
        return value
    raise Malformed("the incident has no id that can be used")


def _alarm(account: str, region: str, name: str) -> str:
    if not _ACCOUNT.fullmatch(account) or not _REGION.fullmatch(region):
        raise Malformed("the alarm names no account and region")
    if not 0 < len(name) <= _LONGEST_NAME or any(map(_unseen, name)):
        raise Malformed("the alarm has no name that can be used")
    return f"{account}/{region}/{name}"


def _unseen(character: str) -> bool:
    """Whether it is a control, a surrogate, a turn of direction, the end of a line."""
    return unicodedata.category(character)[0] == "C" or unicodedata.category(character) in ("Zl", "Zp")


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    raise Malformed(f"{what} is no JSON object")


def _text(content: Mapping[str, Any], name: str) -> str:
    value = content.get(name)
    if isinstance(value, str):
        return value
    raise Malformed(f"{name} is no text")
