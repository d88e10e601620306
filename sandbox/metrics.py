"""What the alarms watch, and when they ring: how many sandboxes, guilds and orphans there are; and how a job says what it did.

Metrics go to the namespace Arrakis/Sandbox with the dimension Environment, which has to match the alarms' exactly.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sandbox import keyspace, registry, schemas
from sandbox.facts import Fact, Known, gather
from sandbox.orphans import Orphan, find_orphans
from sandbox.ports import AwsWriter, KeyReader, SqlReader

__all__ = ["ALARMS", "NAMESPACE", "Watch", "emf", "measure", "orphans", "publish"]

NAMESPACE = "Arrakis/Sandbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """An alarm by the end of its name. It rings after `evaluations` periods, of `period` s each, over the threshold."""

    alarm: str
    metric: str
    statistic: str
    period: int
    evaluations: int
    threshold: int


_WATCHES = (
    Watch(
        alarm="sandbox-count-high",
        metric="ActiveSandboxCount",
        statistic="Maximum",
        period=300,
        evaluations=2,
        threshold=100,
    ),
    Watch(
        alarm="sandbox-cleanup-failures",
        metric="CleanupFailures",
        statistic="Sum",
        period=900,
        evaluations=1,
        threshold=0,
    ),
    Watch(
        alarm="sandbox-orphaned-resources",
        metric="OrphanedResourceCount",
        statistic="Maximum",
        period=900,
        evaluations=4,
        threshold=5,
    ),
    Watch(
        alarm="sandbox-routing-errors",
        metric="EventRoutingErrors",
        statistic="Sum",
        period=300,
        evaluations=2,
        threshold=50,
    ),
    Watch(
        alarm="sandbox-schema-failures",
        metric="SchemaCreationErrors",
        statistic="Sum",
        period=300,
        evaluations=1,
        threshold=3,
    ),
)

ALARMS = {each.alarm: each for each in _WATCHES}
"""The alarms as they are set up for production, by the end of their name. Missing data does not breach."""


def measure(database: SqlReader, keys: KeyReader, *, deadline: float) -> dict[str, Fact[int]]:
    """Return each metric's value, or why it is unknown, within `deadline` seconds.

    ActiveSandboxCount is every sandbox that is not destroyed: all that hold resources, those past their end too.
    """

    def counts() -> registry.Counts:
        with database.snapshot() as snapshot:
            return registry.counts(snapshot)

    facts = gather(
        {"counts": counts, "orphans": lambda: len(orphans(database, keys))},
        deadline=deadline,
    )
    counted: Fact[registry.Counts] = facts["counts"]
    return {
        "ActiveSandboxCount": Known(counted.value.sandboxes) if isinstance(counted, Known) else counted,
        "GuildMappingCount": Known(counted.value.guilds) if isinstance(counted, Known) else counted,
        "OrphanedResourceCount": facts["orphans"],
    }


def orphans(database: SqlReader, keys: KeyReader) -> list[Orphan]:
    """Return every schema and key family that no sandbox owns. Raises Unreachable where either cannot be read."""
    families = keyspace.survey(keys).families
    with database.snapshot() as snapshot:  # after the keys: a sandbox that is born meanwhile is known by then
        names = schemas.names(snapshot)
        roster = registry.claimants(snapshot, schemas=names, tokens=families)
    return find_orphans(roster, names, families)


def publish(aws: AwsWriter, values: Mapping[str, int], *, environment: str, at: datetime) -> None:
    """Put values into CloudWatch. Raises Unreachable or Denied."""
    data = [
        {
            "MetricName": name,
            "Dimensions": [{"Name": "Environment", "Value": environment}],
            "Timestamp": at,
            "Value": float(value),
            "Unit": "Count",
        }
        for name, value in values.items()
    ]
    aws.write("cloudwatch", "put_metric_data", Namespace=NAMESPACE, MetricData=data)


def emf(values: Mapping[str, float], *, units: Mapping[str, str], environment: str, at: datetime) -> str:
    """Return one line of CloudWatch's embedded metric format; a unit that is not named is Count."""
    metrics = [{"Name": name, "Unit": units.get(name, "Count")} for name in values]
    directive = {"Namespace": NAMESPACE, "Dimensions": [["Environment"]], "Metrics": metrics}
    head = {"Timestamp": int(at.timestamp() * 1000), "CloudWatchMetrics": [directive]}
    return json.dumps({"_aws": head, "Environment": environment, **values}, separators=(",", ":"))
