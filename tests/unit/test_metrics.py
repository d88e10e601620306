"""What a job says to CloudWatch and to its log."""

import io
import json
import logging
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from sandbox.errors import Busy
from sandbox.joblog import fields, logger
from sandbox.metrics import emf
from sandbox.model import Status
from tests.unit.worlds import row

ID = UUID("83963dd9-82b6-49b7-a7f6-d86f86e45136")
AT = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)


def test_embedded_metric_format() -> None:
    line = emf({"A": 3, "B": 1500}, units={"B": "Milliseconds"}, environment="staging", at=AT)
    assert "\n" not in line
    assert json.loads(line) == {
        "_aws": {
            "Timestamp": 1795489200000,
            "CloudWatchMetrics": [
                {
                    "Namespace": "Arrakis/Sandbox",
                    "Dimensions": [["Environment"]],
                    "Metrics": [{"Name": "A", "Unit": "Count"}, {"Name": "B", "Unit": "Milliseconds"}],
                }
            ],
        },
        "Environment": "staging",
        "A": 3,
        "B": 1500,
    }


def lines(level: str, *calls: Any) -> list[dict[str, Any]]:
    said = io.StringIO()
    log = logger("CleanupProvider", level=level, stream=said)
    for method, words, extra in calls:
        getattr(log, method)(words, extra=extra)
    return [json.loads(line) for line in said.getvalue().splitlines()]


def test_a_log_line_has_the_deployed_form() -> None:
    sandbox = row(ID, Status.RUNNING)
    error = Busy("somebody\nholds it", hint="wait")
    [line] = lines("info", ("error", "Sandbox cleanup failed", fields(sandbox, step="drop", error=error)))
    assert line.pop("time") > 1_700_000_000_000
    assert isinstance(line.pop("pid"), int)
    assert isinstance(line.pop("hostname"), str)
    assert line == {
        "level": 50,
        "component": "CleanupProvider",
        "msg": "Sandbox cleanup failed",
        "sandboxId": str(ID),
        "name": sandbox.name,
        "step": "drop",
        "error": {"type": "Busy", "message": "somebody holds it", "hint": "wait"},
    }


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("trace", [20, 30, 40, 50, 60]),
        ("debug", [20, 30, 40, 50, 60]),
        ("INFO", [30, 40, 50, 60]),
        ("warn", [40, 50, 60]),
        ("error", [50, 60]),
        ("fatal", [60]),
        ("silent", []),
    ],
)
def test_log_level_is_honoured(level: str, heard: list[int]) -> None:
    calls: list[Any] = [(name, "x", {}) for name in ("debug", "info", "warning", "error", "critical")]
    assert [line["level"] for line in lines(level, *calls)] == heard


def test_a_job_has_a_logger_of_its_own() -> None:
    logger("CleanupProvider", level="debug", stream=io.StringIO())
    assert "CleanupProvider" not in logging.Logger.manager.loggerDict
