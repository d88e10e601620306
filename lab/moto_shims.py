"""What moto leaves out, mended: log filter patterns, alarm history, and autoscaling that clamps a service.

They hold for the process that calls `install`, in `mock_aws` as well as in a `ThreadedMotoServer`.
"""

import json
import operator
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from moto.applicationautoscaling.models import ApplicationAutoscalingBackend
from moto.cloudtrail.responses import CloudTrailResponse
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.responses import ActionResult
from moto.logs import models as logs

__all__ = ["FilterPattern", "install"]

_TERM = re.compile(r'(?P<sign>[?-]?)(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>\S+))')
_CONDITION = re.compile(r'\s*\(?\s*\$\.([\w.\-]+)\s*(=|!=|>=|<=|>|<)\s*("[^"]*"|\S+?)\s*\)?\s*')
_ORDER: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}


class FilterPattern:
    """A CloudWatch Logs filter pattern as AWS reads it: terms, `{ $.json }` conditions, `%regex%`."""

    def __init__(self, pattern: str | None) -> None:
        """Take the pattern as it comes in the request; an absent one matches everything."""
        self._pattern = (pattern or "").strip()

    def matches(self, message: str) -> bool:
        """Whether a log line passes."""
        if self._pattern.startswith("{"):
            return _matches_json(self._pattern, message)
        if self._pattern.startswith("%"):
            return re.search(self._pattern.strip("%"), message) is not None
        if self._pattern.startswith("["):
            raise NotImplementedError("space-delimited patterns")
        return _matches_terms(self._pattern, message)


def install() -> None:
    """Put the mended parts into moto, once per process; a second call changes nothing."""
    logs.EventMessageFilter = FilterPattern  # type: ignore[assignment, attr-defined, misc, unused-ignore]
    CloudWatchResponse.describe_alarm_history = _describe_alarm_history  # type: ignore[attr-defined]
    CloudTrailResponse.lookup_events = _lookup_events  # type: ignore[attr-defined]
    current = ApplicationAutoscalingBackend.register_scalable_target
    if not hasattr(current, "clamps"):
        ApplicationAutoscalingBackend.register_scalable_target = _clamping(current)  # type: ignore[method-assign]


def _matches_terms(pattern: str, message: str) -> bool:
    terms: dict[str, list[str]] = {"": [], "?": [], "-": []}
    for term in _TERM.finditer(pattern):
        terms[term["sign"]].append(term["bare"] if term["quoted"] is None else term["quoted"])
    required, alternatives, excluded = terms.values()
    # AWS ignores the ?alternatives where other terms stand beside them.
    chosen = bool(required) or not alternatives or any(term in message for term in alternatives)
    return (
        chosen and all(term in message for term in required) and not any(term in message for term in excluded)
    )


def _matches_json(pattern: str, message: str) -> bool:
    try:
        line = json.loads(message)
    except ValueError:
        return False
    alternatives = pattern.strip("{} ").split("||")
    return any(all(_holds(condition, line) for condition in each.split("&&")) for each in alternatives)


def _holds(condition: str, line: Any) -> bool:
    parsed = _CONDITION.fullmatch(condition)
    if parsed is None:
        raise ValueError(f"not a condition: {condition}")
    path, sign, wanted = parsed[1], parsed[2], parsed[3].strip('"')
    found = line
    for step in path.split("."):
        if not isinstance(found, dict) or step not in found:
            return False
        found = found[step]
    if sign in _ORDER:
        left, right = _number(found), _number(wanted)
        return left is not None and right is not None and _ORDER[sign](left, right)
    return _equal(found, wanted) == (sign == "=")


def _equal(found: Any, wanted: str) -> bool:
    left, right = _number(found), _number(wanted)
    if left is not None and right is not None:
        return left == right
    return re.fullmatch(re.escape(wanted).replace(r"\*", ".*"), str(found)) is not None


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _describe_alarm_history(self: CloudWatchResponse) -> ActionResult:
    """Only the changes of state, newest first."""
    wanted = self._get_param("AlarmName")
    alarms = [alarm for alarm in self.cloudwatch_backend.describe_alarms() if wanted in (None, alarm.name)]
    items = [item for alarm in alarms for item in _history_of(alarm)]
    items.sort(key=lambda item: item["Timestamp"], reverse=True)
    return ActionResult({"AlarmHistoryItems": items})


def _history_of(alarm: Any) -> list[dict[str, Any]]:
    current = ("StateUpdate", alarm.state_reason, None, alarm.state_value, alarm.state_updated_timestamp)
    states = [*alarm.history, current]
    return [_history_item(alarm.name, old, new) for old, new in pairwise(states)]


def _history_item(name: str, old: Any, new: Any) -> dict[str, Any]:
    _, reason, _, value, at = new
    data = {
        "version": "1.0",
        "oldState": {"stateValue": old[3]},
        "newState": {"stateValue": value, "stateReason": reason},
    }
    return {
        "AlarmName": name,
        "AlarmType": "MetricAlarm",
        "Timestamp": at,
        "HistoryItemType": "StateUpdate",
        "HistorySummary": f"Alarm updated from {old[3]} to {value}",
        "HistoryData": json.dumps(data),
    }


def _lookup_events(self: CloudTrailResponse) -> str:
    """Nothing was recorded; without this, the call is an HTTP 500 page."""
    return json.dumps({"Events": []})


def _clamping(register: Callable[..., Any]) -> Callable[..., Any]:
    """RegisterScalableTarget pulls a service's desired count into its limits, each time, as AWS does."""

    def register_and_clamp(
        self: ApplicationAutoscalingBackend, namespace: str, r_id: str, *rest: Any, **named: Any
    ) -> Any:
        target = register(self, namespace, r_id, *rest, **named)
        if namespace == "ecs":
            _, cluster, name = r_id.split("/")
            service = self.ecs_backend.describe_services(cluster, [name])[0][0]
            wanted = min(max(service.desired_count, target.min_capacity), target.max_capacity)
            if wanted != service.desired_count:
                change = {"cluster": cluster, "service": name, "desired_count": wanted}
                self.ecs_backend.update_service(change)
        return target

    register_and_clamp.clamps = True  # type: ignore[attr-defined]
    return register_and_clamp
