"""The webhook as a Lambda function, with SQS, DynamoDB and Secrets Manager as moto serves them over HTTP."""

import base64
import io
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from runbooks.pagerduty import lambda_handler
from runbooks.pagerduty.webhook import function
from runbooks.pagerduty.webhook.claims import Claims, Standing
from runbooks.pagerduty.webhook.delivery import Delivery
from runbooks.pagerduty.webhook.function import Function
from runbooks.pagerduty.webhook.handler import LARGEST, Request
from sandbox.adapters.aws import Aws
from sandbox.errors import ArrakisError, Denied, Unreachable
from sandbox.joblog import logger
from tests.unit.webhooks import (
    ACTION_SECRET,
    EVENT_SECRET,
    NOW,
    SECRET,
    SECRETS,
    SUBJECT,
    TOPIC,
    Sns,
    alarm,
    encoded,
    event,
    notification,
    pressed,
    sealed,
    signed,
    webhook,
    with_secret,
)

TABLE, KEPT = "arrakis-webhook", "arrakis-production/webhook"


@dataclass(slots=True)
class Account:
    """An account with what the Terraform makes, and a function in it."""

    aws: Aws
    queue: str
    now: datetime = NOW
    triaged: list[Delivery] = field(default_factory=list)
    fails: list[BaseException] = field(default_factory=list)
    sns: Sns = field(default_factory=Sns)
    said: io.StringIO = field(default_factory=io.StringIO)

    def function(self, **more: str) -> Function:
        variables = {
            "WEBHOOK_QUEUE_URL": self.queue,
            "WEBHOOK_TABLE": TABLE,
            "WEBHOOK_SECRET": KEPT,
            "WEBHOOK_TOPICS": TOPIC,
            "AWS_REGION": "eu-central-1",
            **more,
        }
        log = logger("Webhook", level="debug", stream=self.said)
        return Function(
            variables, self.aws, self._triage, log=log, fetch=self.sns.fetch, clock=lambda: self.now
        )

    def _triage(self, delivery: Delivery) -> None:
        self.triaged.append(delivery)
        if self.fails:
            raise self.fails.pop(0)

    def keep(self, **secrets: list[str]) -> None:
        """Put the webhook's secret into Secrets Manager, in place of what was there."""
        self.aws.write("secretsmanager", "put_secret_value", SecretId=KEPT, SecretString=json.dumps(secrets))

    def batch(self) -> dict[str, Any]:
        """Return what the queue holds, as it is given to the function; it stays there until it is deleted."""
        answer = self.aws.write("sqs", "receive_message", QueueUrl=self.queue, MaxNumberOfMessages=10)
        records = [
            {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "eventSource": "aws:sqs",
            }
            for message in answer.get("Messages", [])
        ]
        return {"Records": records}


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def account(moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    for name, value in {
        "AWS_ENDPOINT_URL": moto,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    aws = Aws(region="eu-central-1")
    queue = aws.write("sqs", "create_queue", QueueName="arrakis-webhook")["QueueUrl"]
    aws.write(
        "dynamodb",
        "create_table",
        TableName=TABLE,
        KeySchema=[{"AttributeName": "key", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "key", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    content = {"pagerduty": [SECRET], "action": [ACTION_SECRET], "events": [EVENT_SECRET]}
    aws.write("secretsmanager", "create_secret", Name=KEPT, SecretString=json.dumps(content))
    yield Account(aws=aws, queue=queue)
    aws.write("sqs", "delete_queue", QueueUrl=queue)
    aws.write("dynamodb", "delete_table", TableName=TABLE)
    aws.write("secretsmanager", "delete_secret", SecretId=KEPT, ForceDeleteWithoutRecovery=True)


def _http(request: Request, *, coded: bool = False) -> dict[str, Any]:
    """Return a request as a function URL gives it."""
    return {
        "version": "2.0",
        "rawPath": request.path,
        "rawQueryString": "",
        "headers": dict(request.headers),
        "requestContext": {"http": {"method": request.method, "path": request.path}},
        "body": base64.b64encode(request.body).decode() if coded else request.body.decode(),
        "isBase64Encoded": coded,
    }


def _sent(account: Account) -> list[tuple[str, str]]:
    return [
        (content["key"], content["subject"])
        for content in (json.loads(record["body"]) for record in account.batch()["Records"])
    ]


def _message(identity: str = "a") -> dict[str, Any]:
    body = {"key": identity, "kind": "alarm", "subject": SUBJECT, "received": NOW.isoformat()}
    return {
        "messageId": f"m-{identity}",
        "receiptHandle": "none",
        "body": json.dumps(body),
        "eventSource": "aws:sqs",
    }


@pytest.mark.parametrize("coded", [False, True])
def test_a_signed_request_goes_into_the_queue_and_from_there_to_its_triage(
    account: Account, coded: bool
) -> None:
    served = account.function()
    answer = served.handle(_http(signed(webhook()), coded=coded), seconds=30)
    assert answer == {
        "statusCode": 202,
        "headers": {"content-type": "text/plain; charset=utf-8", "cache-control": "no-store"},
        "body": "accepted\n",
    }
    assert not account.triaged
    assert served.handle(account.batch(), seconds=30) == {"batchItemFailures": []}
    assert account.triaged == [
        Delivery(key="pagerduty:01HXEVENT1", kind="incident", subject="Q1ARRAKIS00001", received=NOW)
    ]


def test_every_door_leads_to_the_queue(account: Account) -> None:
    served = account.function()
    requests = [
        with_secret("/action", pressed(), ACTION_SECRET),
        with_secret("/events", event("over-http"), EVENT_SECRET),
        sealed(notification(encoded(alarm()).decode(), "over-https")),
    ]
    assert [served.handle(_http(each), seconds=30)["statusCode"] for each in requests] == [202] * 3  # type: ignore[index]
    assert served.handle(event("direct"), seconds=30) is None
    record = {"EventSource": "aws:sns", "Sns": notification(encoded(alarm()).decode(), "direct")}
    assert served.handle({"Records": [record]}, seconds=30) is None
    assert sorted(_sent(account)) == [
        ("action:5f0c1f2e-1f6b", "Q1ARRAKIS00001"),
        ("event:direct", SUBJECT),
        ("event:over-http", SUBJECT),
        ("sns:direct", SUBJECT),
        ("sns:over-https", SUBJECT),
    ]


@pytest.mark.parametrize(
    ("event_", "status"),
    [
        (_http(Request(method="POST", path="/pagerduty", headers={}, body=encoded(webhook()))), 403),
        (_http(with_secret("/action", pressed(), EVENT_SECRET)), 403),
        (_http(with_secret("/nowhere", pressed(), ACTION_SECRET)), 404),
        (_http(Request(method="GET", path="/pagerduty", headers={}, body=b"")), 405),
        (_http(signed(b"x" * (LARGEST + 1))), 413),
        (_http(signed(b"\xff\xfe"), coded=True), 400),
        (_http(signed(webhook())) | {"body": "not base64", "isBase64Encoded": True}, 400),
        (_http(signed(webhook())) | {"body": "\ud800"}, 400),
        (_http(signed(webhook())) | {"body": None}, 403),
    ],
)
def test_what_is_not_genuine_is_not_kept(account: Account, event_: dict[str, Any], status: int) -> None:
    answer = account.function().handle(event_, seconds=30)
    assert answer
    assert answer["statusCode"] == status
    assert not _sent(account)


def test_what_asks_for_nothing_is_not_kept(account: Account) -> None:
    served = account.function()
    for each in (
        event(state="OK"),
        {"Records": [{"EventSource": "aws:sns", "Sns": notification(encoded(alarm("OK")).decode())}]},
        {
            "Records": [
                {"EventSource": "aws:sns", "Sns": notification(encoded(alarm()).decode(), TopicArn="x")}
            ]
        },
        {"Records": [{"EventSource": "aws:sns", "Sns": notification(encoded(alarm(AlarmArn="x")).decode())}]},
    ):
        assert served.handle(each, seconds=30) is None
    assert not _sent(account)


@pytest.mark.parametrize("event_", [{}, {"Records": []}, {"Records": [{"eventSource": "aws:s3"}]}])
def test_an_event_from_elsewhere_is_an_error(account: Account, event_: dict[str, Any]) -> None:
    with pytest.raises(ArrakisError, match="none that the webhook knows"):
        account.function().handle(event_, seconds=30)


def test_a_queue_that_does_not_answer_is_no_202(account: Account) -> None:
    served = account.function(WEBHOOK_QUEUE_URL=account.queue + "-gone")
    answer = served.handle(_http(signed(webhook())), seconds=30)
    assert answer
    assert answer["statusCode"] == 503
    with pytest.raises(Unreachable):
        served.handle(event(), seconds=30)


def test_what_is_not_set_is_named(account: Account) -> None:
    with pytest.raises(ArrakisError, match="WEBHOOK_QUEUE_URL is not set"):
        account.function(WEBHOOK_QUEUE_URL="").handle(event(), seconds=30)


def test_a_changed_secret_takes_hold_within_five_minutes(account: Account) -> None:
    served, request = account.function(), _http(signed(webhook()))
    new = "a-new-secret-of-pagerduty"

    def status() -> int:
        answer = served.handle(request, seconds=30)
        assert answer
        return int(answer["statusCode"])

    assert status() == 202
    account.keep(pagerduty=[new])
    assert status() == 202
    account.now += timedelta(minutes=5)
    assert status() == 403
    account.keep(pagerduty=[new, SECRET])
    account.now += timedelta(minutes=5)
    assert status() == 202


def test_certificates_outlast_the_settings(account: Account) -> None:
    served = account.function()
    for _ in range(3):
        served.handle(_http(sealed(notification("x"))), seconds=30)
        account.now += timedelta(minutes=6)
    assert len(account.sns.asked) == 1


# ---------------------------------------------------------------- the queue gives it back


def test_the_same_message_again_gives_one_triage(account: Account) -> None:
    for _ in range(3):  # instances of the function share nothing but the table
        assert account.function().handle({"Records": [_message()]}, seconds=30) == {"batchItemFailures": []}
    assert len(account.triaged) == 1


def test_two_at_once_give_one_triage(account: Account) -> None:
    gate, began = threading.Event(), threading.Event()

    def triage(delivery: Delivery) -> None:
        account.triaged.append(delivery)
        began.set()
        gate.wait(30)

    variables = {"WEBHOOK_TABLE": TABLE}
    log = logger("Webhook", level="debug", stream=account.said)
    slow = Function(variables, account.aws, triage, log=log, clock=lambda: NOW)
    results: list[Any] = []
    thread = threading.Thread(
        target=lambda: results.append(slow.handle({"Records": [_message()]}, seconds=60))
    )
    thread.start()
    assert began.wait(30)
    held = account.function().handle({"Records": [_message()]}, seconds=30)
    assert held == {"batchItemFailures": [{"itemIdentifier": "m-a"}]}, (
        "it has to come again: who has it may die"
    )
    gate.set()
    thread.join(30)
    assert results == [{"batchItemFailures": []}]
    assert account.function().handle({"Records": [_message()]}, seconds=30) == {"batchItemFailures": []}
    assert len(account.triaged) == 1


@pytest.mark.parametrize(
    "error", [Unreachable("PagerDuty is down"), Denied("no"), KeyError("canary"), SystemExit(3)]
)
def test_what_fails_comes_again_and_the_rest_of_the_batch_does_not(
    account: Account, error: BaseException
) -> None:
    account.fails = [error]
    batch = {"Records": [_message("a"), _message("b")]}
    assert account.function().handle(batch, seconds=30) == {"batchItemFailures": [{"itemIdentifier": "m-a"}]}
    assert account.function().handle({"Records": [_message("a")]}, seconds=30) == {"batchItemFailures": []}
    assert [each.key for each in account.triaged] == ["a", "b", "a"]
    assert "canary" not in account.said.getvalue()


def test_a_claim_ends_with_the_time_of_the_invocation_that_made_it(account: Account) -> None:
    """It died: nothing was said of how it went."""
    dead = Claims(account.aws, TABLE, holder="dead")
    assert dead.take("a", now=NOW, until=NOW + timedelta(seconds=30)) is Standing.OURS
    served = account.function()
    account.now += timedelta(seconds=29)
    assert served.handle({"Records": [_message()]}, seconds=30) == {
        "batchItemFailures": [{"itemIdentifier": "m-a"}]
    }
    account.now += timedelta(seconds=2)
    assert served.handle({"Records": [_message()]}, seconds=30) == {"batchItemFailures": []}
    assert len(account.triaged) == 1


def test_a_claim_that_was_made_though_its_answer_was_lost_is_ours(account: Account) -> None:
    claims = Claims(account.aws, TABLE, holder="we")
    for _ in range(2):
        assert claims.take("a", now=NOW, until=NOW + timedelta(seconds=30)) is Standing.OURS


def test_a_claim_that_another_took_over_is_not_given_back_by_the_first(account: Account) -> None:
    first, second = (Claims(account.aws, TABLE, holder=name) for name in ("first", "second"))
    first.take("a", now=NOW, until=NOW + timedelta(seconds=1))
    later = NOW + timedelta(seconds=2)
    assert second.take("a", now=later, until=later + timedelta(seconds=30)) is Standing.OURS
    first.give_back("a")
    assert first.take("a", now=later, until=later + timedelta(seconds=30)) is Standing.HELD
    second.done("a", now=later)
    second.give_back("a")
    assert first.take("a", now=later + timedelta(days=1), until=later + timedelta(days=2)) is Standing.DONE


def test_what_is_done_is_forgotten_after_four_days_and_not_before_three(account: Account) -> None:
    Claims(account.aws, TABLE, holder="we").done("a", now=NOW)
    answer = account.aws.read("dynamodb", "get_item", TableName=TABLE, Key={"key": {"S": "a"}})
    assert int(answer["Item"]["expires"]["N"]) == int((NOW + timedelta(days=4)).timestamp())


def test_a_table_that_does_not_answer_triages_nothing(account: Account) -> None:
    served = account.function(WEBHOOK_TABLE="gone")
    assert served.handle({"Records": [_message()]}, seconds=30) == {
        "batchItemFailures": [{"itemIdentifier": "m-a"}]
    }
    assert not account.triaged


def test_a_triage_without_an_end_is_left_before_the_invocation_is(account: Account) -> None:
    gate = threading.Event()

    def waits(_: Delivery) -> None:
        gate.wait(30)

    log = logger("Webhook", level="debug", stream=account.said)
    slow = Function(
        {"WEBHOOK_TABLE": TABLE},
        account.aws,
        waits,
        log=log,
        clock=lambda: NOW,
    )
    assert slow.handle({"Records": [_message()]}, seconds=1) == {
        "batchItemFailures": [{"itemIdentifier": "m-a"}]
    }
    gate.set()
    assert account.function().handle({"Records": [_message()]}, seconds=30) == {"batchItemFailures": []}


def test_what_fails_comes_again_soon_and_then_less_often(account: Account) -> None:
    """The queue itself would keep it away for as long as the longest triage takes."""
    served = account.function()
    served.handle(_http(signed(webhook())), seconds=30)
    (record,) = account.batch()["Records"]
    account.fails = [Unreachable("PagerDuty is down")]
    calls: list[dict[str, Any]] = []
    write = account.aws.write

    def recorded(service: str, operation: str, /, **params: Any) -> Any:
        if operation == "change_message_visibility":
            calls.append(params)
        return write(service, operation, **params)

    account.aws.write = recorded  # type: ignore[method-assign]
    for tries, pause in ((1, 5), (2, 20), (9, 600)):
        account.fails = [Unreachable("PagerDuty is down")]
        record["attributes"] = {"ApproximateReceiveCount": str(tries)}
        served.handle({"Records": [record]}, seconds=30)
        assert calls[-1] == {
            "QueueUrl": account.queue,
            "ReceiptHandle": record["receiptHandle"],
            "VisibilityTimeout": pause,
        }
    assert "later than it could" not in account.said.getvalue()


@pytest.mark.parametrize(
    "body", ["", "{}", "[]", '{"kind": "apply", "key": "a", "subject": "x"}', '{"kind": "alarm"}']
)
def test_a_message_that_is_no_delivery_ends_among_the_dead_letters(account: Account, body: str) -> None:
    record = _message() | {"messageId": "odd", "body": body}
    assert account.function().handle({"Records": [record]}, seconds=30) == {
        "batchItemFailures": [{"itemIdentifier": "odd"}]
    }
    assert not account.triaged


def test_no_secret_is_in_the_log(account: Account) -> None:
    served = account.function()
    for each in (
        _http(signed(webhook())),
        _http(with_secret("/action", ACTION_SECRET.encode(), ACTION_SECRET)),
        _http(with_secret("/events", event(), EVENT_SECRET)),
        account.batch(),
    ):
        if each.get("Records") != []:
            served.handle(each, seconds=30)
    served.handle(account.batch(), seconds=30)
    assert "Triaged" in account.said.getvalue()
    assert not [secret for secret in SECRETS if secret in account.said.getvalue()]


def test_the_entry_point_hands_over_with_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    class Context:
        def get_remaining_time_in_millis(self) -> int:
            return 12_500

    class Served:
        def handle(self, event: object, *, seconds: float) -> dict[str, Any]:
            return {"event": event, "seconds": seconds}

    monkeypatch.setattr(function, "_function", Served)
    assert lambda_handler({"a": 1}, Context()) == {"event": {"a": 1}, "seconds": 12.5}
