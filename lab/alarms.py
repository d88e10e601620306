"""Alarms that follow their metric: moto keeps an alarm's state for ever, AWS evaluates it.

Simply: the newest value that is published decides. Where the statistic is a sum, those before it in the same period count
with it, back to the last that was zero: with a zero all is well at once. Other statistics, several periods and missing
data are left out.
"""

import json
import operator
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any

from moto.cloudwatch.models import CloudWatchBackend, MetricDatum

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
    return _aware(point.get("Timestamp") or datetime.now(UTC))


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _summed(backend: CloudWatchBackend, alarm: Any, at: datetime) -> float:
    """Add up what the alarm watches, from the newest value to the last zero, or to the period's beginning."""
    watched = {(each.name, each.value) for each in alarm.dimensions}
    values = [
        (moment, float(each.value))
        for each in backend.metric_data
        if isinstance(each, MetricDatum)
        and (each.namespace, each.name) == (alarm.namespace, alarm.metric_name)
        and {(one.name, one.value) for one in each.dimensions} == watched
        and at - timedelta(seconds=alarm.period) < (moment := _aware(each.timestamp)) <= at
    ]
    newest_first = (value for _, value in sorted(values, reverse=True))
    return sum(takewhile(bool, newest_first))


def _settle(backend: CloudWatchBackend, alarm: Any, point: dict[str, Any]) -> None:
    at, threshold = _moment(point), float(alarm.threshold)
    value = _summed(backend, alarm, at) if alarm.statistic == "Sum" else float(point["Value"])
    breached = _BREACHES[alarm.comparison_operator](value, threshold)
    state = "ALARM" if breached else "OK"
    if state == alarm.state_value:
        return
    reason = (
        f"Threshold Crossed: 1 datapoint [{value:.1f} ({at:%d/%m/%y %H:%M:%S})] was "
        f"{'' if breached else 'not '}greater than the threshold ({threshold:.1f})."
    )
    data = {"version": "1.0", "recentDatapoints": [value], "threshold": threshold}
    backend.set_alarm_state(alarm.name, reason, json.dumps(data), state)
