"""Which alarms an incident is about, whatever its alerts look like."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.catalogue import RUNBOOKS, called_for
from runbooks.pagerduty.incident import Alarm, incident_of
from runbooks.pagerduty.triage import match
from sandbox.errors import ArrakisError

NAME = "arrakis-production-sandbox-orphaned-resources"
OTHER = "arrakis-production-sandbox-cleanup-failures"
ARN = f"arn:aws:cloudwatch:eu-central-1:123456789012:alarm:{NAME}"
PLACED = Alarm(name=NAME, account="123456789012", region="eu-central-1")
MESSAGE = {"AlarmName": NAME, "AlarmArn": ARN, "AWSAccountId": "123456789012"}
EVENT = {"resources": [ARN], "account": "123456789012", "detail": {"alarmName": NAME}}


def alarms(
    *alerts: Any, title: Any = "17 resources", trigger: Any = None, known: bool = True
) -> tuple[Alarm, ...]:
    return incident_of(
        {"id": "Q1", "title": title, "status": "triggered"},
        alerts,
        trigger=lambda: trigger,
        known=lambda text: known and called_for(text) is not None,
    ).alarms


def body(**parts: Any) -> dict[str, Any]:
    return {"body": {"type": "alert_body", **parts}}


@pytest.mark.parametrize(
    ("alert", "found"),
    [
        (body(cef_details={"details": MESSAGE}), PLACED),
        (body(details=MESSAGE), PLACED),
        (body(details=json.dumps(MESSAGE)), PLACED),
        (body(details=EVENT), PLACED),
        (body(details={"AlarmArn": ARN}), PLACED),
        (body(details={"AlarmName": "a/b c", "AWSAccountId": "1"}), Alarm(name="a/b c", account="1")),
        (body(details={"AlarmName": OTHER, "AlarmArn": ARN}), Alarm(name=OTHER)),
        (body(cef_details=None, details=MESSAGE), PLACED),
        ({"body": None, "alert_key": NAME}, Alarm(name=NAME)),
        ({"alert_key": "cafe", "summary": NAME}, Alarm(name=NAME)),
        ({"summary": f'ALARM: "{NAME}" in Europe (Frankfurt)'}, Alarm(name=NAME)),
    ],
)
def test_an_alert_names_its_alarm_wherever_it_is_written(alert: Any, found: Alarm) -> None:
    assert alarms(alert) == (found,)


@pytest.mark.parametrize(
    "alert",
    [
        {},
        {"body": {"details": "{"}},
        {"body": {"details": "[" * 100_000}},
        {"body": {"details": [1, 2]}, "alert_key": 7, "summary": ["x"]},
        {"body": {"cef_details": {"details": {"AlarmName": None, "AlarmArn": "arn:aws:s3:::bucket"}}}},
        {"summary": 'ALARM: "arrakis-production-sandbox-orphaned-res..." in Europe (Frankfurt)'},
        {"summary": "orphaned-resources"},
    ],
)
def test_what_names_no_alarm_is_no_alarm(alert: Any) -> None:
    assert alarms(alert) == ()


def test_the_first_event_is_asked_for_only_where_the_alerts_say_nothing() -> None:
    entry = {"channel": {"type": "api", "details": MESSAGE}}
    assert alarms({}, trigger=entry) == (PLACED,)
    assert alarms(trigger={"channel": {"cef_details": {"details": MESSAGE}}}) == (PLACED,)
    assert alarms(body(details={"AlarmName": OTHER}), trigger=entry) == (Alarm(name=OTHER),)
    assert alarms(title=NAME) == (Alarm(name=NAME),)


def test_all_alarms_are_named_each_once() -> None:
    composite = {
        "AlarmName": "everything",
        "AlarmRule": "…",
        "TriggeringChildren": [{"Arn": ARN, "State": {"Value": "ALARM"}}, {"Arn": "?"}, None],
    }
    again = body(details={"AlarmName": NAME})
    assert alarms(body(details=MESSAGE), again, body(details=composite)) == (PLACED, Alarm(name="everything"))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just(NAME),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(
                [
                    "body",
                    "cef_details",
                    "details",
                    "detail",
                    "AlarmName",
                    "AlarmArn",
                    "TriggeringChildren",
                    "resources",
                ]
            ),
            inner,
        )
    ),
)


@given(alert=st.dictionaries(st.sampled_from(["body", "alert_key", "summary"]), anything), title=anything)
def test_no_alert_can_break_it(alert: Any, title: Any) -> None:
    assert all(alarm.name for alarm in alarms(alert, title=title))


@pytest.mark.parametrize(
    ("name", "runbook"),
    [
        ("arrakis-production-sandbox-count-high", "rb-sb-001"),
        (OTHER, "rb-sb-002"),
        (NAME, "rb-sb-003"),
        ("sandbox-routing-errors", "rb-sb-004"),
        ("x-sandbox-schema-failures", "rb-sb-005"),
        ("xsandbox-schema-failures", None),
        ("sandbox-schema-failures-2", None),
        ("", None),
    ],
)
def test_an_alarm_calls_for_one_runbook(name: str, runbook: str | None) -> None:
    found = called_for(name)
    assert (found and found.name) == runbook


PREFIXES = {"production": "arrakis-production-", "staging": "arrakis-staging-"}


def test_an_alarm_belongs_to_the_environment_whose_alarms_begin_so() -> None:
    assert match(PLACED, "", PREFIXES) == (RUNBOOKS["rb-sb-003"], "production")
    assert match(PLACED, "production", PREFIXES) == (RUNBOOKS["rb-sb-003"], "production")
    lab = Alarm(name="arrakis-lab-sandbox-orphaned-resources")
    assert match(lab, "lab", PREFIXES) == (RUNBOOKS["rb-sb-003"], "lab")


@pytest.mark.parametrize(
    ("name", "named", "prefixes", "words"),
    [
        ("billing", "production", PREFIXES, "no runbook is for it"),
        (NAME, "staging", PREFIXES, "it is production's, and staging is asked for"),
        ("sandbox-orphaned-resources", "", PREFIXES, "not certain which environment's"),
        (NAME, "", {"a": "arrakis-production-", "b": "arrakis-production-"}, "not certain"),
    ],
)
def test_what_is_not_certain_is_not_guessed(
    name: str, named: str, prefixes: dict[str, str], words: str
) -> None:
    with pytest.raises(ArrakisError, match=words):
        match(Alarm(name=name), named, prefixes)
