"""From a request to its answer, and from the queue to a triage."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runbooks.pagerduty.webhook.delivery import Delivery
from runbooks.pagerduty.webhook.handler import LARGEST, Answer, Handler, Ports, Request
from runbooks.pagerduty.webhook.queue import Queue, Receipt
from runbooks.pagerduty.webhook.settings import Settings
from runbooks.pagerduty.webhook.worker import Worker
from sandbox.errors import Unreachable
from sandbox.joblog import logger
from tests.unit.webhooks import (
    ACTION_SECRET,
    EVENT_SECRET,
    NOW,
    OLD_SECRET,
    SECRET,
    SECRETS,
    SETTINGS,
    SUBJECT,
    TOKEN,
    Sns,
    alarm,
    encoded,
    event,
    notification,
    pressed,
    sealed,
    signature,
    signed,
    subscription,
    webhook,
    with_secret,
)
from tests.waiting import eventually

ALARMED = sealed(notification(encoded(alarm()).decode()))


@dataclass(slots=True)
class Desk:
    """A handler, what it keeps, and what it says."""

    settings: Settings = SETTINGS
    receipt: Receipt | Exception = Receipt.ACCEPTED
    sns: Sns = field(default_factory=Sns)
    kept: list[Delivery] = field(default_factory=list)
    said: io.StringIO = field(default_factory=io.StringIO)
    ports: Ports = field(init=False)
    handler: Handler = field(init=False)

    def __post_init__(self) -> None:
        self.ports = Ports(
            put=self._put,
            fetch=self.sns.fetch,
            clock=lambda: NOW,
            log=logger("Webhook", level="debug", stream=self.said),
            patience=5,
        )
        self.handler = Handler(self.settings, self.ports)

    def _put(self, delivery: Delivery) -> Receipt:
        if isinstance(self.receipt, Exception):
            raise self.receipt
        self.kept.append(delivery)
        return self.receipt

    def ask(self, request: Request) -> Answer:
        return self.handler.handle(request)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.said.getvalue().splitlines()]


GENUINE = [
    (signed(webhook()), "pagerduty:01HXEVENT1", "Q1ARRAKIS00001"),
    (with_secret("/action", pressed(), ACTION_SECRET), "action:5f0c1f2e-1f6b", "Q1ARRAKIS00001"),
    (with_secret("/events", event(), EVENT_SECRET), "event:6f1d2c1e-2d0b", SUBJECT),
    (ALARMED, "sns:b7a1f3c2-5d0e", SUBJECT),
]


@pytest.mark.parametrize(("request_", "key", "subject"), GENUINE)
def test_what_is_genuine_is_kept_and_answered_202(request_: Request, key: str, subject: str) -> None:
    desk = Desk()
    assert desk.ask(request_) == Answer(status=202, text="accepted")
    assert [(each.key, each.subject) for each in desk.kept] == [(key, subject)]


@pytest.mark.parametrize("request_", [each[0] for each in GENUINE])
@pytest.mark.parametrize(
    ("receipt", "status"),
    [
        (Receipt.DUPLICATE, 202),
        (Receipt.FULL, 503),
        (Unreachable("the disk is full"), 503),
        (KeyError("canary"), 500),
    ],
)
def test_what_cannot_be_kept_is_asked_for_again(
    request_: Request, receipt: Receipt | Exception, status: int
) -> None:
    desk = Desk(receipt=receipt)
    assert desk.ask(request_).status == status
    assert "canary" not in desk.said.getvalue()


@pytest.mark.parametrize(
    "request_",
    [
        signed(webhook(kind="pagey.ping")),
        signed(webhook(kind="incident.annotated")),
        with_secret("/action", webhook(kind="incident.annotated"), ACTION_SECRET),
        with_secret("/events", event(state="OK"), EVENT_SECRET),
        sealed(notification(encoded(alarm("OK")).decode())),
        sealed(notification("hello")),
    ],
)
def test_what_asks_for_nothing_is_answered_202_and_dropped(request_: Request) -> None:
    desk = Desk()
    assert desk.ask(request_) == Answer(status=202, text="nothing to do")
    assert not desk.kept


def _without(request: Request) -> Request:
    return replace(request, headers={})


@pytest.mark.parametrize(
    "request_",
    [
        _without(GENUINE[0][0]),
        _without(GENUINE[1][0]),
        _without(GENUINE[2][0]),
        signed(webhook(), **{"x-pagerduty-signature": signature(encoded(webhook()), ACTION_SECRET)}),
        replace(GENUINE[0][0], body=GENUINE[0][0].body + b" "),
        with_secret("/pagerduty", webhook(), SECRET),
        with_secret("/action", pressed(), SECRET),
        with_secret("/action", pressed(), EVENT_SECRET),
        with_secret("/events", event(), ACTION_SECRET),
        replace(signed(pressed()), path="/action"),
        sealed(notification("x", TopicArn="arn:aws:sns:us-east-1:999999999999:theirs")),
    ],
)
def test_what_is_not_from_whom_it_says_is_answered_403(request_: Request) -> None:
    desk = Desk()
    assert desk.ask(request_) == Answer(status=403, text="not accepted")
    assert not desk.kept


def test_a_secret_that_is_being_exchanged_works_beside_the_new_one() -> None:
    body = encoded(webhook())
    desk = Desk()
    for secret in (SECRET, OLD_SECRET):
        assert desk.ask(signed(body, **{"x-pagerduty-signature": signature(body, secret)})).status == 202


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"\xff\xfe", 400),
        (b'{"a":' * 40_000, 400),
        (b" " * LARGEST, 400),
        (b" " * (LARGEST + 1), 413),
    ],
)
def test_a_body_of_another_shape_is_answered_400_though_it_is_signed(body: bytes, status: int) -> None:
    desk = Desk()
    for request in (
        signed(body),
        with_secret("/action", body, ACTION_SECRET),
        with_secret("/events", body, EVENT_SECRET),
        Request(method="POST", path="/sns", headers={}, body=body),
    ):
        assert desk.ask(request).status == status
    assert not desk.kept


@pytest.mark.parametrize(
    "path", ["/", "", "/pagerduty/", "//pagerduty", "/PAGERDUTY", "/apply", "/pagerduty\x00"]
)
def test_another_path_is_answered_404(path: str) -> None:
    assert Desk().ask(replace(GENUINE[0][0], path=path)).status == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "post", "X"])
def test_another_method_is_answered_405(method: str) -> None:
    assert Desk().ask(replace(GENUINE[0][0], method=method)).status == 405


def test_a_source_that_is_not_set_up_is_not_there() -> None:
    for number, settings in enumerate(
        (
            replace(SETTINGS, pagerduty=()),
            replace(SETTINGS, action=()),
            replace(SETTINGS, events=()),
            replace(SETTINGS, topics={}),
        )
    ):
        desk = Desk(settings=settings)
        assert [desk.ask(request).status for request, *_ in GENUINE] == [
            404 if at == number else 202 for at in range(4)
        ]


def test_several_presses_in_one_request_are_each_kept() -> None:
    desk = Desk()
    content = {"messages": [*pressed("a")["messages"], *pressed("b", incident="Q2")["messages"]]}
    assert desk.ask(with_secret("/action", content, ACTION_SECRET)).status == 202
    assert [each.subject for each in desk.kept] == ["Q1ARRAKIS00001", "Q2"]


def test_a_subscription_of_an_allowed_topic_is_confirmed_where_it_must_be() -> None:
    desk = Desk()
    assert desk.ask(sealed(subscription())).status == 202
    assert len(desk.sns.asked) == 2
    assert desk.sns.asked[1].startswith("https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&")
    assert not desk.kept


def test_the_end_of_a_subscription_is_told_and_its_address_never_called() -> None:
    desk = Desk()
    assert desk.ask(sealed(subscription("UnsubscribeConfirmation"))).status == 202
    assert len(desk.sns.asked) == 1  # the certificate
    assert desk.lines[-1]["msg"] == "Subscription ended"


def test_a_forged_subscription_is_not_confirmed() -> None:
    desk = Desk()
    request = sealed(subscription())
    forged = replace(request, body=request.body.replace(TOKEN.encode(), b"another-token"))
    assert desk.ask(forged).status == 403
    assert len(desk.sns.asked) == 1


def test_while_sns_is_slow_its_messages_are_asked_for_again_and_others_are_not_held_up() -> None:
    gate, desk = threading.Event(), Desk()
    fetch = desk.sns.fetch

    def slow(address: str) -> bytes:
        gate.wait(30)
        return fetch(address)

    ports = replace(desk.ports, fetch=slow, patience=0.05)
    handler = Handler(SETTINGS, ports)
    assert handler.handle(ALARMED) == Answer(status=503, text="try again")
    assert handler.handle(GENUINE[0][0]).status == 202
    gate.set()
    eventually(lambda: handler.handle(ALARMED).status == 202)
    assert len(desk.sns.asked) == 1


def test_strangers_do_not_fill_the_log() -> None:
    desk = Desk()
    for _ in range(1000):
        desk.ask(_without(GENUINE[0][0]))
    assert len(desk.lines) == 30
    assert desk.lines[0]["error"]["message"] == "the signature is none of PagerDuty's with our secrets"


def test_no_secret_is_in_an_answer_or_in_the_log() -> None:
    desk = Desk()
    answers = [desk.ask(request) for request, *_ in GENUINE]
    answers += [desk.ask(sealed(subscription())), desk.ask(_without(GENUINE[0][0]))]
    answers += [desk.ask(with_secret("/action", b"{" + secret.encode(), secret)) for secret in SECRETS]
    told = desk.said.getvalue() + repr(answers) + repr(desk.settings)
    assert desk.lines
    assert not [secret for secret in (*SECRETS, TOKEN) if secret in told]


# ---------------------------------------------------------------- the worker


@contextmanager
def _crew(
    folder: Path, triage: Callable[[Delivery], None], *, tries: int = 3, deadline: float = 30
) -> Iterator[tuple[Queue, list[str], io.StringIO]]:
    """A queue and its worker; what it is told of tries, and its log."""
    queue = Queue(folder, limit=100, clock=lambda: NOW)
    stop, heard, said = threading.Event(), list[str](), io.StringIO()
    worker = Worker(
        queue=queue,
        triage=triage,
        log=logger("Webhook", level="debug", stream=said),
        stop=stop,
        heard=heard.append,
        pauses=(0.0,) * (tries - 1),
        deadline=deadline,
    )
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield queue, heard, said
    finally:
        stop.set()
        thread.join(30)
        queue.close()


def _delivery(name: str) -> Delivery:
    return Delivery(key=name, kind="alarm", subject=SUBJECT, received=NOW)


def test_what_is_put_in_is_triaged_in_order(tmp_path: Path) -> None:
    seen: list[str] = []
    with _crew(tmp_path, lambda delivery: seen.append(delivery.key)) as (queue, heard, _):
        for name in "cab":
            queue.put(_delivery(name))
        eventually(lambda: len(heard) == 3)
        assert queue.waiting()[0] == 0
    assert (seen, heard) == (["c", "a", "b"], ["done"] * 3)


def test_what_cannot_be_reached_is_tried_again_and_then_set_aside(tmp_path: Path) -> None:
    tries: list[str] = []

    def triage(delivery: Delivery) -> None:
        tries.append(delivery.key)
        if delivery.key == "never" or tries.count(delivery.key) < 2:
            raise Unreachable("PagerDuty is down")

    with _crew(tmp_path, triage) as (queue, heard, _):
        queue.put(_delivery("never"))
        queue.put(_delivery("later"))
        eventually(lambda: "done" in heard and "aside" in heard)
        assert queue.put(_delivery("never")) is Receipt.DUPLICATE
    assert (tries.count("never"), tries.count("later")) == (3, 2)
    assert sorted(heard) == ["again", "again", "again", "aside", "done"]


@pytest.mark.parametrize(
    "error", [RuntimeError("canary"), KeyError("canary"), SystemExit(3), KeyboardInterrupt()]
)
def test_any_other_failure_is_set_aside_at_once_and_the_next_is_triaged(
    tmp_path: Path, error: BaseException
) -> None:
    def triage(delivery: Delivery) -> None:
        if delivery.key == "bad":
            raise error

    with _crew(tmp_path, triage) as (queue, heard, said):
        queue.put(_delivery("bad"))
        queue.put(_delivery("good"))
        eventually(lambda: len(heard) == 2)
    assert heard == ["aside", "done"]
    assert "canary" not in said.getvalue()
    assert type(error).__name__ in said.getvalue()


def test_a_triage_without_an_end_does_not_hold_up_the_next(tmp_path: Path) -> None:
    gate = threading.Event()

    def triage(delivery: Delivery) -> None:
        if delivery.key == "endless":
            gate.wait(30)

    with _crew(tmp_path, triage, tries=1, deadline=0.05) as (queue, heard, _):
        queue.put(_delivery("endless"))
        queue.put(_delivery("good"))
        eventually(lambda: len(heard) == 2)
        gate.set()
    assert heard == ["aside", "done"]


def test_a_worker_forgets_what_is_long_done(tmp_path: Path) -> None:
    queue = Queue(tmp_path, limit=10, clock=lambda: NOW)
    queue.put(replace(_delivery("old"), received=NOW - timedelta(hours=73)))
    queue.done("old")
    queue.close()
    with _crew(tmp_path, lambda _: None) as (queue, heard, _):
        queue.put(_delivery("new"))
        eventually(lambda: heard == ["done"])
        assert queue.put(_delivery("old")) is Receipt.ACCEPTED


def test_what_kills_the_process_each_time_is_set_aside(tmp_path: Path) -> None:
    for _ in range(3):
        queue = Queue(tmp_path, limit=10, clock=lambda: NOW)
        queue.put(_delivery("deadly"))
        assert queue.claim()
        queue.close()

    def triage(delivery: Delivery) -> None:
        raise AssertionError(delivery)

    with _crew(tmp_path, triage) as (_, heard, said):
        eventually(lambda: heard == ["aside"])
    assert "AssertionError" not in said.getvalue()
