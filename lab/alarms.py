"""Alarms that follow their metric: moto keeps an alarm's state for ever, AWS evaluates it.

Simply: the newest value that is published decides. Periods, statistics and missing data are left out.
"""

import json
import operator
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from moto.cloudwatch.models import CloudWatchBackend

__all__ = ["install"]

_BREACHES: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}

Put = Callable[..., None]


def install() -> None:
    """Put it into moto, once per process; a second call changes nothing."""
    current = CloudWatchBackend.put_metric_data
    if not hasattr(current, "evaluates"):
        CloudWatchBackend.put_metric_data = _evaluating(current)  # type: ignore[method-assign]


def _evaluating(put: Put) -> Put:
    def put_and_evaluate(self: CloudWatchBackend, namespace: str, metric_data: list[dict[str, Any]]) -> None:
        put(self, namespace, metric_data)
        for alarm in self.describe_alarms():
            if points := [each for each in metric_data if _watches(alarm, namespace, each)]:
                _settle(self, alarm, max(points, key=_moment))

    put_and_evaluate.evaluates = True  # type: ignore[attr-defined]
    return put_and_evaluate


def _watches(alarm: Any, namespace: str, point: dict[str, Any]) -> bool:
    watched = {each.name: each.value for each in alarm.dimensions}
    named = {each["Name"]: each["Value"] for each in point.get("Dimensions") or ()}
    what = (alarm.namespace, alarm.metric_name, watched)
    return what == (namespace, point["MetricName"], named) and "Value" in point


def _moment(point: dict[str, Any]) -> datetime:
    """When a point was measured; one that does not say so, just now."""
    found: datetime = point.get("Timestamp") or datetime.now(UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _settle(backend: CloudWatchBackend, alarm: Any, point: dict[str, Any]) -> None:
    value, threshold = float(point["Value"]), float(alarm.threshold)
    breached = _BREACHES[alarm.comparison_operator](value, threshold)
    state = "ALARM" if breached else "OK"
    if state == alarm.state_value:
        return
    at = _moment(point)
    reason = (
        f"Threshold Crossed: 1 datapoint [{value:.1f} ({at:%d/%m/%y %H:%M:%S})] was "
        f"{'' if breached else 'not '}greater than the threshold ({threshold:.1f})."
    )
    data = {"version": "1.0", "recentDatapoints": [value], "threshold": threshold}
    backend.set_alarm_state(alarm.name, reason, json.dumps(data), state)
