"""An incident, and the alarms that it is about. Pure: what PagerDuty answered goes in, and none of it is trusted.

Any member may be missing, null or of another type: an alert's details come from whoever sent the event.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Alarm", "Incident", "incident_of"]

_ARN = re.compile(
    r"arn:aws[a-z-]*:cloudwatch:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):alarm:(?P<name>.{1,255})"
)
_SUBJECT = re.compile(r'(?:ALARM|OK|INSUFFICIENT_DATA): "(?P<name>.{1,255})" in ')
_CUT = "..."  # SNS ends a subject so that it cut
_LONGEST = 255  # characters of a name
_MOST = 20  # alarms of an incident


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A CloudWatch alarm. Two accounts or regions may each have one of the same name; None where nobody said which."""

    name: str
    account: str | None = None
    region: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """An incident of PagerDuty's. `status` is triggered, acknowledged or resolved."""

    id: str
    number: int | None
    title: str
    status: str
    alarms: tuple[Alarm, ...]


def incident_of(
    incident: Mapping[str, Any],
    alerts: Sequence[Mapping[str, Any]],
    *,
    trigger: Callable[[], Mapping[str, Any] | None],
    known: Callable[[str], bool],
) -> Incident:
    """Return an incident with every alarm that its alerts are about, each once.

    `known` says whether a name can be an alarm's of ours. `trigger` gets the first event as it came in, and is only asked where
    the alerts name no alarm.
    """
    title = _text(incident.get("title"))
    named = [alarm for alert in alerts for alarm in _of_alert(alert, known)]
    if not named and (entry := trigger()):
        named = _of_details(_at(entry, "channel", "cef_details", "details"))
        named = named or _of_details(_at(entry, "channel", "details"))
    named = named or _of_texts([title], known)
    number = incident.get("incident_number")
    return Incident(
        id=_text(incident.get("id")),
        number=number if isinstance(number, int) else None,
        title=title,
        status=_text(incident.get("status")),
        alarms=_distinct(named),
    )


def _of_alert(alert: Mapping[str, Any], known: Callable[[str], bool]) -> list[Alarm]:
    """Return the alarms of one alert, by the most certain place that names any."""
    for place in (("body", "cef_details", "details"), ("body", "details")):
        if found := _of_details(_at(alert, *place)):
            return found
    texts = [_text(alert.get("alert_key")), _text(alert.get("summary"))]
    return _of_texts(texts, known)


def _of_details(details: object) -> list[Alarm]:
    """Return the alarms of an event's details: CloudWatch's message, or EventBridge's; an object, or one written as text."""
    if isinstance(details, str):
        details = _read(details)
    if not isinstance(details, Mapping):
        return []
    placed = _by_arn(details.get("AlarmArn")) or next(map(_by_arn, _texts(details.get("resources"))), None)
    name = _text(details.get("AlarmName")) or _text(_at(details, "detail", "alarmName"))
    if name and (placed is None or placed.name != name):
        account = _text(details.get("AWSAccountId")) or _text(details.get("account"))
        placed = Alarm(name=name, account=account or None)
    children = details.get("TriggeringChildren")
    below = [_by_arn(_at(each, "Arn")) for each in children] if isinstance(children, list) else []
    return [alarm for alarm in (placed, *below) if alarm is not None]


def _of_texts(texts: Sequence[str], known: Callable[[str], bool]) -> list[Alarm]:
    """Return the alarm that a text names: by its exact name, or as the subject of a notification that was not cut."""
    for text in texts:
        if known(text):
            return [Alarm(name=text)]
    for text in texts:
        subject = _SUBJECT.match(text)
        if subject and not subject["name"].endswith(_CUT):
            return [Alarm(name=subject["name"])]
    return []


def _by_arn(arn: object) -> Alarm | None:
    read = _ARN.fullmatch(arn) if isinstance(arn, str) else None
    return Alarm(**read.groupdict()) if read else None


def _distinct(alarms: Sequence[Alarm]) -> tuple[Alarm, ...]:
    """Leave out repetitions, and more than an incident has; one that says where it is stands for those that do not."""
    placed = {alarm.name for alarm in alarms if alarm.region}
    named = (alarm for alarm in alarms if alarm.region or alarm.name not in placed)
    return tuple(dict.fromkeys(filter(_possible, named)))[:_MOST]


def _possible(alarm: Alarm) -> bool:
    """Whether CloudWatch can have an alarm of this name: what is longer, or moves the cursor, was made up."""
    return 0 < len(alarm.name) <= _LONGEST and alarm.name.isprintable()


def _at(value: object, *path: str) -> object:
    """Return what is at the end of a path of members; None where it breaks off."""
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _read(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> Iterator[str]:
    return (each for each in value if isinstance(each, str)) if isinstance(value, list) else iter(())
