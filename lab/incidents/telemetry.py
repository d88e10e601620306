"""Metrics with a history, log lines in the two formats that production has, and what an ordinary day's say. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

__all__ = ["Line", "Lines", "Series", "pino", "plain", "traffic"]

Line = tuple[datetime, str]
Lines = Mapping[str, Sequence[Line]]
"""A log group's lines, by the last word of its name: worker, sandbox-cleanup, api."""

_QUARTER = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A metric's values, one every `step`, the last at `until`."""

    metric: str
    values: Sequence[float]
    until: datetime
    step: timedelta = _QUARTER
    unit: str = "Count"

    def points(self, dimensions: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
        """Return them as put_metric_data takes them."""
        last = len(self.values) - 1
        return [
            {
                "MetricName": self.metric,
                "Dimensions": dimensions,
                "Timestamp": self.until - self.step * (last - index),
                "Value": float(value),
                "Unit": self.unit,
            }
            for index, value in enumerate(self.values)
        ]


def pino(at: datetime, level: int, component: str | None, message: str, **more: object) -> Line:
    """Return a JSON line as the deployed system logs it; the job itself has no component."""
    line: dict[str, object] = {"level": level, "time": int(at.timestamp() * 1000), "pid": 1}
    line |= {"hostname": "ip-10-0-3-17.lab"} | ({"component": component} if component else {})
    return at, json.dumps({**line, "msg": message, **more}, separators=(",", ":"))


def plain(at: datetime, text: str) -> Line:
    """Return a line without any form, such as `ERROR …`."""
    return at, text


def traffic(now: datetime, ids: Sequence[str]) -> dict[str, list[Line]]:
    """Return two hours of the worker's and the API's lines, in which nothing is wrong."""
    worker = [pino(now - timedelta(minutes=70), 40, "RouteProvider", "Route cache miss rate is high")]
    api = [plain(now - timedelta(minutes=45), "WARN slow query: sandbox list took 812 ms")]
    for step in range(8):
        at, sandbox = now - _QUARTER * (7 - step) - timedelta(minutes=5), ids[step % len(ids)]
        worker.append(plain(at + timedelta(seconds=30), f"INFO routed 412 events, last to sandbox {sandbox}"))
        worker.append(pino(at + timedelta(seconds=40), 30, "EventRouter", "Event routed", sandboxId=sandbox))
        api.append(plain(at + timedelta(seconds=50), "INFO GET /sandboxes 200 31ms"))
        listed = len(ids)
        api.append(pino(at + timedelta(minutes=1), 30, "SandboxManager", "Listed sandboxes", count=listed))
    return {"worker": worker, "api": api}
