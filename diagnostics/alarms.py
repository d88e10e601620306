"""CloudWatch alarms, recognised by the end of their name, with the metric behind them and their last changes of state."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from sandbox.errors import ArrakisError, Unreachable
from sandbox.ports import AwsReader

__all__ = [
    "PUBLISHERS",
    "SEE_ALARM",
    "Alarm",
    "Change",
    "pages",
    "read_account",
    "read_alarm",
    "read_points",
]

SEE_ALARM = "aws cloudwatch describe-alarms --alarm-names {name}  # cloudwatch:DescribeAlarms"

_DAY = timedelta(days=1)
_PAGE, _PAGES = 100, 3  # of the history: an alarm that flaps more often than that has made its point

_CLEANUP = "the clean-up job, as a line of embedded metric format (EMF) on its stdout, every 15 minutes"
_COUNTING = "`invoke publish-metrics`, every 5 minutes"
PUBLISHERS = {
    "ActiveSandboxCount": _COUNTING,
    "GuildMappingCount": _COUNTING,
    "OrphanedResourceCount": f"{_COUNTING}, and `invoke orphan-detection`, daily",
    "CleanupFailures": _CLEANUP,
    "SandboxesCleanedUp": _CLEANUP,
    "CleanupDurationMs": _CLEANUP,
    "EventRoutingErrors": "the EventRouter, which runs inside the worker service",
    "SchemaCreationErrors": "the SchemaProvisioner, which runs wherever sandboxes are created",
}
"""Who publishes each metric, and how often."""

_ERRORS = ("EventRoutingErrors", "SchemaCreationErrors")  # counted as they happen: none, and there is no data


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of an alarm's state: OK, ALARM or INSUFFICIENT_DATA before and after."""

    at: datetime
    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """An alarm, its state and the metric's last hours. Times are UTC, `period` is in seconds.

    It breaches after `evaluations` periods over the threshold. `changes` are the last day's or the window's, whichever is
    longer, the newest first; None where the history could not be read.
    """

    name: str
    state: str
    reason: str
    since: datetime | None
    threshold: float
    period: int
    points: tuple[tuple[datetime, float], ...]
    metric: str = ""
    evaluations: int = 1
    changes: tuple[Change, ...] | None = None

    @property
    def blind(self) -> bool:
        """Whether there is no data, though there should be. Missing data is not breaching: such an alarm can only say OK."""
        return not self.points and self.metric not in _ERRORS

    @property
    def quiet(self) -> bool:
        """Whether no error was counted: there was none, or nobody counts them; from here that is the same."""
        return not self.points and self.metric in _ERRORS

    @property
    def publisher(self) -> str:
        """What should publish the metric, and how often."""
        return PUBLISHERS.get(self.metric, "nobody that is known here")


def read_account(aws: AwsReader) -> str:
    """Return the number of the account that the credentials belong to."""
    return str(aws.read("sts", "get_caller_identity")["Account"])


def read_alarm(aws: AwsReader, *, suffix: str, prefix: str, now: datetime, window: timedelta) -> Alarm | None:
    """Return the alarm whose name is, or ends with, `suffix` and starts with `prefix`; None where there is none.

    Of several, the one that is called just `prefix` and `suffix` is meant. Raises ArrakisError if none is, or if the alarm
    watches no single metric; Unreachable, Throttled or Denied if it or its metric cannot be read.
    """
    listed = pages(aws, "cloudwatch", "describe_alarms", token="NextToken", AlarmTypes=["MetricAlarm"])
    raws = {str(raw["AlarmName"]): raw for page in listed for raw in page.get("MetricAlarms", ())}
    names = [
        name for name in raws if name.startswith(prefix) and (name == suffix or name.endswith(f"-{suffix}"))
    ]
    if prefix and prefix + suffix in names:  # without a prefix it would be another environment's as likely
        names = [prefix + suffix]
    if len(names) > 1:
        raise ArrakisError(
            f"cannot tell which alarm is meant: {', '.join(sorted(names))}",
            hint="name `alarm_prefix` under [stack] in the environment's file",
        )
    return _alarm(aws, raws[names[0]], now=now, window=window) if names else None


def read_points(
    aws: AwsReader,
    *,
    namespace: str,
    metric: str,
    dimensions: Sequence[Mapping[str, str]],
    statistic: str,
    period: int,
    now: datetime,
    window: timedelta,
) -> tuple[tuple[datetime, float], ...]:
    """Return a metric's points of the last `window`, the oldest first, one for each `period` seconds that has data.

    Nothing tells a metric that does not exist from one that is silent. Raises Unreachable, Throttled or Denied.
    """
    about = {"Namespace": namespace, "MetricName": metric, "Dimensions": list(dimensions)}
    query = {"Id": "m1", "MetricStat": {"Metric": about, "Period": period, "Stat": statistic}}
    points: list[tuple[datetime, float]] = []
    for page in pages(
        aws,
        "cloudwatch",
        "get_metric_data",
        token="NextToken",
        MetricDataQueries=[query],
        StartTime=now - window,
        EndTime=now + timedelta(seconds=period),  # the end is exclusive, and the last point is the news
    ):
        for result in page.get("MetricDataResults", ()):
            if result.get("StatusCode") in ("InternalError", "Forbidden"):  # it comes with no values
                raise Unreachable(f"AWS cloudwatch:get_metric_data: {metric}: {result['StatusCode']}")
            points += zip(result["Timestamps"], result["Values"], strict=True)
    return tuple(sorted(points))


def pages(
    aws: AwsReader, service: str, operation: str, /, *, token: str, **params: object
) -> Iterator[Mapping[str, Any]]:
    """Yield every page of a listing; `token` is the member that leads on to the next one."""
    while True:
        page = aws.read(service, operation, **params)
        yield page
        if not page.get(token):
            return
        params[token] = page[token]


def _alarm(aws: AwsReader, raw: Mapping[str, Any], *, now: datetime, window: timedelta) -> Alarm:
    name, period = str(raw["AlarmName"]), int(raw.get("Period") or 300)
    if not raw.get("MetricName"):  # without points it would be called blind, which it is not
        raise ArrakisError(
            f"alarm {name} says {raw['StateValue']}, but watches an expression: there is no one metric to read",
            hint=SEE_ALARM.format(name=name),
        )
    points = read_points(
        aws,
        namespace=raw["Namespace"],
        metric=raw["MetricName"],
        dimensions=raw.get("Dimensions") or (),
        statistic=raw.get("ExtendedStatistic") or raw["Statistic"],  # a percentile is an extended one
        period=period,
        now=now,
        window=window,
    )
    return Alarm(
        name=name,
        state=str(raw["StateValue"]),
        reason=str(raw.get("StateReason") or ""),
        since=raw.get("StateUpdatedTimestamp"),
        threshold=float(raw["Threshold"]),
        period=period,
        points=points,
        metric=str(raw["MetricName"]),
        evaluations=int(raw.get("EvaluationPeriods") or 1),
        changes=_changes(aws, name, since=now - max(window, _DAY)),
    )


def _changes(aws: AwsReader, name: str, *, since: datetime) -> tuple[Change, ...] | None:
    """Return the changes of state; None where they are not known: the alarm itself is, without them."""
    history = pages(
        aws,
        "cloudwatch",
        "describe_alarm_history",
        token="NextToken",
        AlarmName=name,
        HistoryItemType="StateUpdate",
        StartDate=since,
        ScanBy="TimestampDescending",
        MaxRecords=_PAGE,
    )
    try:
        items = [item for page in islice(history, _PAGES) for item in page["AlarmHistoryItems"]]
        return tuple(map(_change, items))
    except (ArrakisError, KeyError, ValueError):
        return None


def _change(item: Mapping[str, Any]) -> Change:
    data = json.loads(item["HistoryData"])
    return Change(
        at=item["Timestamp"], old=data["oldState"]["stateValue"], new=data["newState"]["stateValue"]
    )
