"""CloudWatch alarms, recognised by the end of their name, with the metric behind them."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sandbox.ports import AwsReader

__all__ = ["Alarm", "read_account", "read_alarm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """An alarm, its state and the metric's last hours. Times are UTC."""

    name: str
    state: str
    reason: str
    since: datetime | None
    threshold: float
    period: int
    points: tuple[tuple[datetime, float], ...]


def read_account(aws: AwsReader) -> str:
    """Return the number of the account that the credentials belong to."""
    return str(aws.read("sts", "get_caller_identity")["Account"])


def read_alarm(aws: AwsReader, *, suffix: str, prefix: str, now: datetime, window: timedelta) -> Alarm | None:
    """Return the alarm whose name is, or ends with, `suffix` and starts with `prefix`; None where there is none."""
    token: dict[str, object] = {}
    while True:
        page = aws.read("cloudwatch", "describe_alarms", AlarmTypes=["MetricAlarm"], **token)
        for raw in page.get("MetricAlarms", ()):
            name = str(raw["AlarmName"])
            if name.startswith(prefix) and (name == suffix or name.endswith(f"-{suffix}")):
                return _alarm(aws, raw, now=now, window=window)
        if not page.get("NextToken"):
            return None
        token = {"NextToken": page["NextToken"]}


def _alarm(aws: AwsReader, raw: dict[str, object], *, now: datetime, window: timedelta) -> Alarm:
    period = int(str(raw.get("Period") or 300))
    query = {
        "Id": "m1",
        "MetricStat": {
            "Metric": {
                "Namespace": raw["Namespace"],
                "MetricName": raw["MetricName"],
                "Dimensions": raw.get("Dimensions") or [],
            },
            "Period": period,
            "Stat": raw.get("Statistic") or "Maximum",
        },
    }
    data = aws.read(
        "cloudwatch",
        "get_metric_data",
        MetricDataQueries=[query],
        StartTime=now - window,
        EndTime=now + timedelta(seconds=period),  # the end is exclusive, and the last point is the news
        ScanBy="TimestampAscending",
    )
    result = (data.get("MetricDataResults") or [{}])[0]
    points = sorted(zip(result.get("Timestamps") or (), result.get("Values") or (), strict=True))
    since = raw.get("StateUpdatedTimestamp")
    return Alarm(
        name=str(raw["AlarmName"]),
        state=str(raw["StateValue"]),
        reason=str(raw.get("StateReason") or ""),
        since=since if isinstance(since, datetime) else None,
        threshold=float(str(raw["Threshold"])),
        period=period,
        points=tuple(points),
    )
