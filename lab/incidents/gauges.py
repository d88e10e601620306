"""What CloudWatch measures of the database server and the cache: six hours of it, healthy but for what is said."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from lab.incidents.cloud import Account
from lab.incidents.telemetry import Series
from lab.names import CACHE, INSTANCE
from sandbox.metrics import NAMESPACE

__all__ = ["POINTS", "STORAGE", "Values", "count", "let_pass", "level", "publish"]

Values = Mapping[str, Sequence[float]]
"""The points of metrics, by name."""
POINTS = 72
"""How many each has: one every five minutes, the last at this moment."""
STORAGE = 61.0e9
"""Bytes that are free on a day like any other, of 100 GiB."""

_STEP = timedelta(minutes=5)
_FORGOTTEN = timedelta(hours=7)
_BYTES, _PERCENT, _SECONDS = "Bytes", "Percent", "Seconds"
_DATABASE = ("AWS/RDS", "DBInstanceIdentifier", INSTANCE)
_CACHE = ("AWS/ElastiCache", "CacheClusterId", f"{CACHE}-001")
# On a day like any other: a value, and how far it swings.
_HEALTHY: Mapping[tuple[str, str, str], Mapping[str, tuple[float, float]]] = {
    _DATABASE: {
        "CPUUtilization": (11.0, 3.0),
        "CPUCreditBalance": (576.0, 0.0),
        "CPUSurplusCreditBalance": (0.0, 0.0),
        "BurstBalance": (100.0, 0.0),
        "FreeStorageSpace": (STORAGE, 0.0),
        "FreeableMemory": (1.9e9, 4.0e7),
        "SwapUsage": (0.0, 0.0),
        "DatabaseConnections": (14.0, 2.0),
        "DiskQueueDepth": (0.1, 0.1),
        "ReadLatency": (0.0006, 0.0002),
        "WriteLatency": (0.0011, 0.0003),
    },
    _CACHE: {
        "CPUUtilization": (4.0, 1.0),
        "EngineCPUUtilization": (2.0, 1.0),
        "CPUCreditBalance": (288.0, 0.0),
        "DatabaseMemoryUsagePercentage": (12.0, 1.0),
        "CurrConnections": (9.0, 2.0),
        "Evictions": (0.0, 0.0),
        "SwapUsage": (0.0, 0.0),
    },
}
_UNITS = {
    "CPUUtilization": _PERCENT,
    "EngineCPUUtilization": _PERCENT,
    "BurstBalance": _PERCENT,
    "DatabaseMemoryUsagePercentage": _PERCENT,
    "FreeStorageSpace": _BYTES,
    "FreeableMemory": _BYTES,
    "SwapUsage": _BYTES,
    "ReadLatency": _SECONDS,
    "WriteLatency": _SECONDS,
}


def level(value: float, swing: float = 0.0) -> list[float]:
    """Return a metric's points about a value: the same each time. Pure."""
    return [value + swing * (index * 7 % 5 - 2) / 2 for index in range(POINTS)]


def count(account: Account, series: Iterable[Series]) -> None:
    """Publish metrics of the sandboxes' own; the alarms follow."""
    dimensions = [{"Name": "Environment", "Value": "lab"}]
    points = [point for each in series for point in each.points(dimensions)]
    account.client("cloudwatch").put_metric_data(Namespace=NAMESPACE, MetricData=points)


def publish(env: Mapping[str, str], *, database: Values | None = None, cache: Values | None = None) -> None:
    """Publish all anew up to this moment, and forget what was published before; metrics that are named are as given."""
    cloudwatch, now = Account(env).client("cloudwatch"), datetime.now(UTC)
    for server, given in ((_DATABASE, database), (_CACHE, cache)):
        namespace, dimension, name = server
        healthy = {metric: level(*usual) for metric, usual in _HEALTHY[server].items()}
        series = [
            Series(metric=metric, values=values, until=now, step=_STEP, unit=_UNITS.get(metric, "Count"))
            for metric, values in {**healthy, **(given or {})}.items()
        ]
        points = [point for each in series for point in each.points([{"Name": dimension, "Value": name}])]
        _order(env, "forget", namespace=namespace)
        cloudwatch.put_metric_data(Namespace=namespace, MetricData=points)


def let_pass(env: Mapping[str, str]) -> None:
    """Let seven hours pass for what was logged and measured until now: longer than anybody looks back."""
    _order(env, "elapse", minutes=_FORGOTTEN // timedelta(minutes=1))


def _order(env: Mapping[str, str], what: str, **about: object) -> None:
    """Have the AWS endpoint do what no AWS API does."""
    url = f"{env['AWS_ENDPOINT_URL']}/moto-api/{what}?{urlencode(about)}"
    with urlopen(Request(url, method="POST"), timeout=10):
        pass
