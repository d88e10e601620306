"""What an alarm says of itself."""

from datetime import UTC, datetime
from typing import Any

import pytest

from diagnostics.alarms import Alarm
from runbooks.engine.model import Severity
from runbooks.findings import alarm_finding
from sandbox.facts import Known

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def alarm(**changes: Any) -> Alarm:
    fields = {
        "name": "arrakis-production-sandbox-count-high",
        "state": "OK",
        "reason": "",
        "since": None,
        "threshold": 100.0,
        "period": 300,
        "points": ((NOW, 7.0),),
        "metric": "ActiveSandboxCount",
    }
    return Alarm(**{**fields, **changes})


@pytest.mark.parametrize(("points", "blind"), [((), True), (((NOW, 0.0),), False)])
def test_an_alarm_without_data_is_blind_and_one_at_zero_is_not(
    points: tuple[tuple[datetime, float], ...], blind: bool
) -> None:
    assert alarm(points=points).blind is blind


@pytest.mark.parametrize("metric", ["EventRoutingErrors", "SchemaCreationErrors"])
def test_errors_that_nobody_counted_may_be_none_at_all(metric: str) -> None:
    silent = alarm(metric=metric, points=())
    finding = alarm_finding(Known(silent), suffix="x", confirmed=False, cleared="")
    assert finding.severity is Severity.OK
    assert f"no {metric} were counted: there were none, or nobody counts them" in finding.summary
    assert not silent.blind


@pytest.mark.parametrize(
    ("metric", "publisher"),
    [
        ("ActiveSandboxCount", "`invoke publish-metrics`, every 5 minutes"),
        (
            "OrphanedResourceCount",
            "`invoke publish-metrics`, every 5 minutes, and `invoke orphan-detection`, daily",
        ),
        (
            "CleanupFailures",
            "the clean-up job, as a line of embedded metric format (EMF) on its stdout, every 15 minutes",
        ),
        ("EventRoutingErrors", "the EventRouter, which runs inside the worker service"),
        ("SchemaCreationErrors", "the SchemaProvisioner, which runs wherever sandboxes are created"),
        ("CPUUtilization", "nobody that is known here"),
    ],
)
def test_each_alarm_of_the_page_names_what_should_publish_its_metric(metric: str, publisher: str) -> None:
    assert alarm(metric=metric).publisher == publisher


def test_changes_are_unknown_until_they_are_read() -> None:
    assert alarm().changes is None
    assert alarm(changes=()).changes == ()
