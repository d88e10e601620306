"""How hard the managed servers work: instance class, CPU and its credits, connections, latency of the storage."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypedDict

from diagnostics.alarms import pages
from diagnostics.servers import (
    ELASTICACHE,
    RDS,
    Cache,
    Instance,
    Points,
    read_cache,
    read_instance,
    read_metric,
)
from sandbox.errors import ArrakisError
from sandbox.ports import AwsReader

__all__ = [
    "SEE_CACHE_LOAD",
    "SEE_DATABASE_LOAD",
    "Load",
    "Metric",
    "read_cache_load",
    "read_database_load",
]

SEE_DATABASE_LOAD = (
    "aws cloudwatch get-metric-statistics --namespace AWS/RDS --metric-name CPUCreditBalance "
    "--dimensions Name=DBInstanceIdentifier,Value={name} --statistics Minimum --period 300 "
    "--start-time $(date -ud '1 hour ago' +%FT%TZ) --end-time $(date -u +%FT%TZ)  # cloudwatch:GetMetricStatistics"
)
SEE_CACHE_LOAD = SEE_DATABASE_LOAD.replace("AWS/RDS", "AWS/ElastiCache").replace(
    "DBInstanceIdentifier", "CacheClusterId"
)

_WINDOW, _PERIOD = timedelta(hours=3), 300
_BUSY = 90.0  # percent of the CPU
_SPENT = 1.0  # credits: a minute of one CPU
_DATABASE: Mapping[str, str] = {
    "CPUUtilization": "Average",
    "CPUCreditBalance": "Minimum",
    "DatabaseConnections": "Maximum",
    "ReadLatency": "Average",
    "WriteLatency": "Average",
    "DBLoad": "Average",
}
_CACHE: Mapping[str, str] = {"EngineCPUUtilization": "Average", "CPUCreditBalance": "Minimum"}


class _Metrics(TypedDict):
    metrics: Mapping[str, "Metric"]
    unread: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric of the last three hours, a point for five minutes, the oldest first; empty where nobody publishes it."""

    name: str
    points: Points

    @property
    def last(self) -> float | None:
        """Its last value; None where there is none."""
        return self.points[-1][1] if self.points else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A server's load. `throttled_when_spent`: without credits it gets its baseline of CPU and no more, else it is charged for.

    A metric that is missing could not be read; `unread` names them. CPU is in percent (of a cache, its engine's one thread), latencies in seconds.
    """

    name: str
    instance_class: str
    throttled_when_spent: bool
    metrics: Mapping[str, Metric]
    unread: tuple[str, ...] = ()

    @property
    def burstable(self) -> bool:
        """Whether its class works on CPU credits."""
        return ".t" in self.instance_class

    @property
    def credits(self) -> float | None:
        """The CPU credits left; None where the class has none, or they are not known."""
        return self.last("CPUCreditBalance") if self.burstable else None

    @property
    def spent(self) -> bool:
        """Whether its CPU credits are used up."""
        return self.credits is not None and self.credits < _SPENT

    @property
    def cpu(self) -> float | None:
        """The CPU that it uses, in percent; None where that is not known."""
        used = self.last("EngineCPUUtilization")
        return used if used is not None else self.last("CPUUtilization")

    @property
    def busy(self) -> bool:
        """Whether hardly any CPU is left."""
        return self.cpu is not None and self.cpu >= _BUSY

    def last(self, metric: str) -> float | None:
        """Return a metric's last value; None where there is none, or it is not known."""
        return self.metrics[metric].last if metric in self.metrics else None


def read_database_load(aws: AwsReader, *, identifier: str | None, now: datetime) -> tuple[Instance, Load]:
    """Return an RDS instance and its load. Raises as read_instance does.

    Of the burstable classes only T2 is held to its baseline without credits; RDS runs T3 and T4g in unlimited mode.
    """
    instance = read_instance(aws, identifier=identifier, now=now, window=_WINDOW)
    load = Load(
        name=instance.identifier,
        instance_class=instance.instance_class,
        throttled_when_spent=".t2." in instance.instance_class,
        **_metrics(aws, RDS, instance.identifier, _DATABASE, now=now),
    )
    return instance, load


def read_cache_load(
    aws: AwsReader, *, identifier: str | None, now: datetime
) -> tuple[Cache, tuple[Load, ...]]:
    """Return an ElastiCache group or cluster and each of its nodes' load. Raises as read_cache does.

    ElastiCache configures its burstable classes as standard: without credits they get their baseline and no more.
    """
    cache = read_cache(aws, identifier=identifier, now=now, window=_WINDOW)
    loads = []
    for member in cache.members:
        listed = pages(aws, "elasticache", "describe_cache_clusters", token="Marker", CacheClusterId=member)
        kind = next(str(raw["CacheNodeType"]) for page in listed for raw in page["CacheClusters"])
        metrics = _metrics(aws, ELASTICACHE, member, _CACHE, now=now)
        loads.append(Load(name=member, instance_class=kind, throttled_when_spent=True, **metrics))
    return cache, tuple(loads)


def _metrics(
    aws: AwsReader, source: tuple[str, str], name: str, wanted: Mapping[str, str], *, now: datetime
) -> "_Metrics":
    """Return those of the wanted metrics that can be read, and which cannot: the server itself is known without them."""
    found: dict[str, Metric] = {}
    for metric, statistic in wanted.items():
        with suppress(ArrakisError):
            points = read_metric(
                aws, source, name, metric, statistic, period=_PERIOD, now=now, window=_WINDOW
            )
            found[metric] = Metric(name=metric, points=points)
    return {"metrics": found, "unread": tuple(name for name in wanted if name not in found)}
