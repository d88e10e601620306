"""RDS storage that is real: who enlarges the instance enlarges the disk that PostgreSQL has, and the metric says so.

A MiB of that disk stands for a GiB of the instance's. Without such a disk, moto's answer is all there is.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from moto.cloudwatch.models import cloudwatch_backends
from moto.rds.models import RDSBackend

from lab import files, volume
from lab.names import INSTANCE

__all__ = ["free", "install"]

_NAMESPACE, _METRIC = "AWS/RDS", "FreeStorageSpace"
_MEASURED_ANEW = timedelta(minutes=5)
_MIB_PER_GIB = 1024


def free(pid: int) -> float:
    """Return the bytes that are free, as the instance's metric says them, by a process of PostgreSQL's."""
    return float(volume.left(pid) * _MIB_PER_GIB)


def install(state: Path) -> None:
    """Put it into moto, once per process; a second call changes nothing. `state` is the supervisor's file."""
    current = RDSBackend.modify_db_instance
    if not hasattr(current, "enlarges"):
        RDSBackend.modify_db_instance = _enlarging(current, state)  # type: ignore[method-assign]


def _enlarging(modify: Callable[..., Any], state: Path) -> Callable[..., Any]:
    def modify_and_enlarge(self: RDSBackend, identifier: str, changes: dict[str, Any]) -> Any:
        if not changes.get("apply_immediately"):
            changes.pop(
                "allocated_storage", None
            )  # it waits for a maintenance window, which never comes here
        wanted = changes.get("allocated_storage")
        instance = modify(self, identifier, changes)
        running = files.read(state)
        if wanted and running:
            pid = running["servers"]["postgres"]["pid"]
            if volume.find(pid):
                volume.resize(pid, wanted)
                _measure(self, free(pid))
        return instance

    modify_and_enlarge.enlarges = True  # type: ignore[attr-defined]
    return modify_and_enlarge


def _measure(backend: RDSBackend, value: float) -> None:
    """Publish what is free now, in place of what the last minutes said."""
    cloudwatch, now = cloudwatch_backends[backend.account_id][backend.region_name], datetime.now(UTC)
    recent = now.replace(tzinfo=None) - _MEASURED_ANEW
    cloudwatch.metric_data[:] = [
        point
        for point in cloudwatch.metric_data
        if (point.namespace, point.name) != (_NAMESPACE, _METRIC)
        or point.timestamp.replace(tzinfo=None) < recent
    ]
    point = {
        "MetricName": _METRIC,
        "Dimensions": [{"Name": "DBInstanceIdentifier", "Value": INSTANCE}],
        "Timestamp": now.replace(tzinfo=None),  # as moto keeps them
        "Value": value,
        "Unit": "Bytes",
    }
    cloudwatch.put_metric_data(_NAMESPACE, [point])
