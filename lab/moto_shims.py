"""What moto leaves out, mended: log filter patterns and empty pages, alarm history, autoscaling that clamps a service,
and calls that AWS throttles or refuses.

They hold for the process that calls `install`, in `mock_aws` as well as in a `ThreadedMotoServer`. A server is told which
calls to refuse by `curl -X POST 'ENDPOINT/moto-api/faults?operation=FilterLogEvents&code=ThrottlingException&times=2'`,
and to let autoscaling act by `curl -X POST 'ENDPOINT/moto-api/scale?by=1'`.
"""

import json
import operator
import re
import warnings
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any

from moto.applicationautoscaling.models import (
    ApplicationAutoscalingBackend,
    FakeScalableTarget,
    applicationautoscaling_backends,
)
from moto.cloudtrail.responses import CloudTrailResponse
from moto.cloudwatch.models import cloudwatch_backends
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.responses import ActionResult, BaseResponse
from moto.logs import models as logs
from moto.moto_api._internal import urls as moto_api

__all__ = ["FilterPattern", "install", "refuse", "scale"]

_SCANNED = 5000  # events that a page of filter_log_events looks at, whether they match or not
_refusals: dict[str, list[str]] = {}  # by operation, the codes of the answers to come

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
    logs.LogGroup.filter_log_events = _filter_log_events  # type: ignore[method-assign]
    moto_api.url_paths["{0}/moto-api/faults"] = _take_refusals  # type: ignore[assignment]
    moto_api.url_paths["{0}/moto-api/forget"] = _forget_metrics  # type: ignore[assignment]
    moto_api.url_paths["{0}/moto-api/scale"] = _take_scaling  # type: ignore[assignment]
    if not hasattr(BaseResponse.call_action, "refuses"):
        BaseResponse.call_action = _refusing(BaseResponse.call_action)  # type: ignore[method-assign]
    CloudWatchResponse.describe_alarm_history = _describe_alarm_history  # type: ignore[attr-defined]
    CloudTrailResponse.lookup_events = _lookup_events  # type: ignore[attr-defined]
    current = ApplicationAutoscalingBackend.register_scalable_target
    if not hasattr(current, "clamps"):
        ApplicationAutoscalingBackend.register_scalable_target = _clamping(current)  # type: ignore[method-assign]


def refuse(operation: str, code: str, *, times: int) -> None:
    """Answer the next calls of an operation, e.g. FilterLogEvents, or `*` of any, with an error; 0 times takes that back."""
    _refusals[operation] = [code] * times


def scale(by: int) -> None:
    """Let autoscaling act now: so many tasks more, or fewer, of each service that it watches, where that is not suspended."""
    what = "DynamicScalingOutSuspended" if by > 0 else "DynamicScalingInSuspended"
    for regions in applicationautoscaling_backends.values():
        for backend in regions.values():
            for target in backend.describe_scalable_targets("ecs", None, None):
                suspended: Any = target.suspended_state or {}
                if not suspended.get(what):
                    _keep_within_limits(target, by)


def _take_refusals(request: Any, _url: str, _headers: Any) -> tuple[int, dict[str, str], str]:
    """Serve `POST /moto-api/faults`: `refuse` for those in another process."""
    wanted = request.args
    refuse(wanted["operation"], wanted["code"], times=int(wanted["times"]))
    return 200, {}, json.dumps({"status": "ok"})


def _take_scaling(request: Any, _url: str, _headers: Any) -> tuple[int, dict[str, str], str]:
    """Serve `POST /moto-api/scale?by=1`: `scale` for those in another process."""
    scale(int(request.args["by"]))
    return 200, {}, json.dumps({"status": "ok"})


def _forget_metrics(request: Any, _url: str, _headers: Any) -> tuple[int, dict[str, str], str]:
    """Serve `POST /moto-api/forget?namespace=AWS/RDS`: let a namespace's metrics be as if they had never been published."""
    for regions in cloudwatch_backends.values():
        for backend in regions.values():
            kept = [point for point in backend.metric_data if point.namespace != request.args["namespace"]]
            backend.metric_data[:] = kept
    return 200, {}, json.dumps({"status": "ok"})


class _Refusal(Exception):
    """An error of AWS by its code; of this module, as moto looks for those of its own in a service's model."""

    def __init__(self, code: str) -> None:
        self.code, self.message = code, "refused by the lab"
        super().__init__(self.message)


def _refusing(call: Callable[..., Any]) -> Callable[..., Any]:
    def call_or_refuse(self: BaseResponse) -> Any:
        if not (codes := _refusals.get(self._get_action()) or _refusals.get("*")):
            return call(self)
        # moto warns of codes that a service's model does not list, as that of an expired token.
        with warnings.catch_warnings(action="ignore"):
            status, headers, body = self.serialized(ActionResult(_Refusal(codes.pop())))
        return status, {**headers, "status": str(status)}, body

    call_or_refuse.refuses = True  # type: ignore[attr-defined]
    return call_or_refuse


def _filter_log_events(
    self: logs.LogGroup,
    log_group_name: str,
    log_stream_names: list[str],
    start_time: int | None,
    end_time: int | None,
    limit: int | None,
    next_token: str | None,
    filter_pattern: str | None,
    interleaved: bool,
) -> tuple[list[dict[str, Any]], str | None, list[dict[str, Any]]]:
    """As AWS does, look at so many events a page: one where none matches is empty, and yet there is a next one.

    A filter that found something is told to come again, too, and finds nothing more.
    """
    pattern, start, end = FilterPattern(filter_pattern), start_time or 0, end_time or 2**63
    names = [name for name in self.streams if not log_stream_names or name in log_stream_names]
    events = [
        (each, name) for name in names for each in self.streams[name].events if start <= each.timestamp <= end
    ]
    events.sort(key=lambda each: each[0].timestamp)
    position, page = int(next_token or 0), list[dict[str, Any]]()
    last = position + _SCANNED
    while position < min(last, len(events)) and len(page) < (limit or 10_000):
        event, name = events[position]
        position += 1
        if pattern.matches(event.message):
            page.append({**event.to_filter_dict(), "logStreamName": name})
    more = position < len(events) or bool(page and filter_pattern)
    searched = [{"logStreamName": name, "searchedCompletely": not more} for name in names]
    return page, str(position) if more else None, searched


@lru_cache
def _terms(pattern: str) -> tuple[list[str], list[str], list[str]]:
    """Return the terms that have to be there, of which one has to, and that must not be."""
    terms: dict[str, list[str]] = {"": [], "?": [], "-": []}
    for term in _TERM.finditer(pattern):
        terms[term["sign"]].append(term["bare"] if term["quoted"] is None else term["quoted"])
    return terms[""], terms["?"], terms["-"]


def _matches_terms(pattern: str, message: str) -> bool:
    required, alternatives, excluded = _terms(pattern)
    # AWS ignores the ?alternatives where other terms stand beside them.
    chosen = bool(required) or not alternatives or any(term in message for term in alternatives)
    return (
        chosen and all(term in message for term in required) and not any(term in message for term in excluded)
    )


def _matches_json(pattern: str, message: str) -> bool:
    if "{" not in message:
        return False
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
            _keep_within_limits(target)
        return target

    register_and_clamp.clamps = True  # type: ignore[attr-defined]
    return register_and_clamp


def _keep_within_limits(target: FakeScalableTarget, more: int = 0) -> None:
    """Let a service run so many tasks more than are desired, but not beyond its limits."""
    ecs = target.applicationautoscaling_backend.ecs_backend
    _, cluster, name = target.resource_id.split("/")
    service = ecs.describe_services(cluster, [name])[0][0]
    wanted = min(max(service.desired_count + more, target.min_capacity or 0), target.max_capacity or 0)
    if wanted != service.desired_count:
        ecs.update_service({"cluster": cluster, "service": name, "desired_count": wanted})
