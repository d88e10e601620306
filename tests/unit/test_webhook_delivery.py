"""What a request asks for, whoever sent it."""

from datetime import timedelta
from typing import Any

import pytest

from runbooks.pagerduty.webhook.delivery import (
    Delivery,
    Malformed,
    document,
    from_action,
    from_alarm,
    from_event,
    from_pagerduty,
)
from tests.unit.webhooks import ALARM, NOW, SUBJECT, alarm, encoded, event, pressed, webhook

EVENTS = [
    "incident.acknowledged",
    "incident.annotated",
    "incident.delegated",
    "incident.escalated",
    "incident.resolved",
    "incident.priority_updated",
    "incident.status_update_published",
    "incident.action_invocation.created",
    "pagey.ping",
    "service.updated",
    "incident.something_new",
]


@pytest.mark.parametrize("kind", ["incident.triggered", "incident.reopened"])
def test_an_incident_that_begins_is_looked_at(kind: str) -> None:
    assert from_pagerduty(encoded(webhook(kind=kind)), NOW) == Delivery(
        key="pagerduty:01HXEVENT1", kind="incident", subject="Q1ARRAKIS00001", received=NOW
    )


@pytest.mark.parametrize("kind", EVENTS)
def test_what_only_tells_something_asks_for_nothing(kind: str) -> None:
    """Our own notes come back as incident.annotated: that would go round for ever."""
    assert from_pagerduty(encoded(webhook(kind=kind)), NOW) is None


def test_the_incident_may_be_what_the_data_belong_to() -> None:
    content = webhook()
    content["event"]["data"] = {"type": "incident_note", "id": "N1", "incident": {"id": "Q2"}}
    found = from_pagerduty(encoded(content), NOW)
    assert found
    assert found.subject == "Q2"


@pytest.mark.parametrize("hours", [0, 48, 60])
def test_a_webhook_is_taken_for_as_long_as_pagerduty_tries(hours: int) -> None:
    assert from_pagerduty(encoded(webhook(at=NOW - timedelta(hours=hours))), NOW)


def test_a_webhook_of_days_ago_is_a_replay_and_asks_for_nothing() -> None:
    """The queue has forgotten its key after 72 h."""
    assert from_pagerduty(encoded(webhook(at=NOW - timedelta(hours=60, seconds=1))), NOW) is None


def _changed(**changes: Any) -> dict[str, Any]:
    content = webhook()
    content["event"].update(changes)
    return content


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"event": []},
        {"event": {}},
        _changed(event_type=7),
        _changed(id=None),
        _changed(id="with a space"),
        _changed(id="x" * 129),
        _changed(id="line\nbreak"),
        _changed(occurred_at=None),
        _changed(occurred_at="yesterday"),
        _changed(occurred_at="2026-03-14T02:11:09"),
        _changed(data=None),
        _changed(data=[]),
        _changed(data={"id": "Q1/../../users/me", "type": "incident"}),
        _changed(data={"id": "Q1\n", "type": "incident"}),
        _changed(data={"id": 4711, "type": "incident"}),
        _changed(data={"type": "incident_note", "incident": "Q1"}),
    ],
)
def test_a_webhook_of_another_shape_is_malformed(content: object) -> None:
    with pytest.raises(Malformed):
        from_pagerduty(encoded(content), NOW)


def test_a_button_asks_for_the_incident_it_was_pressed_at() -> None:
    assert from_action(encoded(pressed()), NOW) == [
        Delivery(key="action:5f0c1f2e-1f6b", kind="incident", subject="Q1ARRAKIS00001", received=NOW)
    ]


@pytest.mark.parametrize("kind", ["incident.custom", "incident.triggered"])
def test_a_button_may_come_in_the_newer_shape(kind: str) -> None:
    (found,) = from_action(encoded(webhook(kind=kind)), NOW)
    assert (found.key, found.subject) == ("action:01HXEVENT1", "Q1ARRAKIS00001")


def test_what_is_no_button_asks_for_nothing() -> None:
    content = pressed()
    content["messages"][0]["event"] = "incident.annotate"
    assert from_action(encoded(content), NOW) == []
    assert from_action(encoded(webhook(kind="incident.annotated")), NOW) == []


@pytest.mark.parametrize(
    "content", [{}, {"messages": {}}, {"messages": [1]}, {"messages": [{"event": "incident.custom"}]}]
)
def test_a_button_of_another_shape_is_malformed(content: object) -> None:
    with pytest.raises(Malformed):
        from_action(encoded(content), NOW)


def test_an_alarm_is_named_by_account_region_and_name() -> None:
    """Region is a display name in SNS' messages, so the ARN tells it."""
    found = from_alarm(encoded(alarm()).decode(), "b7a1", NOW)
    assert found == Delivery(key="sns:b7a1", kind="alarm", subject=SUBJECT, received=NOW)
    assert from_event(event(), NOW) == Delivery(
        key="event:6f1d2c1e-2d0b", kind="alarm", subject=SUBJECT, received=NOW
    )


@pytest.mark.parametrize("name", ["a/b: c", "Überlauf 容量　不足", "x" * 255])
def test_an_alarms_name_may_be_what_aws_lets_it_be(name: str) -> None:
    for found in (
        from_alarm(encoded(alarm(name=name)).decode(), "1", NOW),
        from_event(event(name=name), NOW),
    ):
        assert found
        assert found.subject == f"123456789012/us-east-1/{name}"


@pytest.mark.parametrize("state", ["OK", "INSUFFICIENT_DATA", "", None])
def test_only_an_alarm_that_is_raised_asks_for_something(state: Any) -> None:
    assert from_alarm(encoded(alarm(state)).decode(), "1", NOW) is None
    assert from_event(event(state=state), NOW) is None


def test_what_is_no_alarm_asks_for_nothing() -> None:
    assert from_alarm("Hello from the console", "1", NOW) is None
    assert from_alarm("{}", "1", NOW) is None
    assert from_event({**event(), "source": "my.app"}, NOW) is None
    assert from_event({}, NOW) is None


@pytest.mark.parametrize("name", ["", "x" * 256, "a\nb", "a\x1b[2J", "a\u202eb", "a\ud800"])
def test_a_name_that_no_terminal_should_see_is_malformed(name: str) -> None:
    with pytest.raises(Malformed):
        from_event(event(name=name), NOW)
    content = encoded(alarm()).decode().replace(ALARM, name.encode("unicode_escape").decode())
    with pytest.raises(Malformed):
        from_alarm(content.replace("\\x1b", "\\u001b"), "1", NOW)


@pytest.mark.parametrize(
    "arn",
    ["", "arn:aws:s3:::bucket", "arn:aws:cloudwatch:us-east-1:12:alarm:x", "arn:aws:cloudwatch::1:alarm:x"],
)
def test_an_alarm_without_its_arn_is_malformed(arn: str) -> None:
    with pytest.raises(Malformed):
        from_alarm(encoded(alarm(AlarmArn=arn)).decode(), "1", NOW)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[",
        b"\xff{}",
        b"[]",
        b"7",
        b"null",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"9" * 5_000,
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_is_no_json_object_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        document(body)


def test_an_error_does_not_quote_the_body() -> None:
    with pytest.raises(Malformed) as caught:
        document(b'{"secret": "canary-')
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None
