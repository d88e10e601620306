"""Whether a notification of SNS is genuine, by every rule there is."""

import base64
import json
import threading
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from runbooks.pagerduty.webhook import sns
from runbooks.pagerduty.webhook.certificates import Certificates
from runbooks.pagerduty.webhook.delivery import Forged, Malformed
from runbooks.pagerduty.webhook.errands import Errands
from runbooks.pagerduty.webhook.handler import Request
from sandbox.errors import Unreachable
from tests.unit.webhooks import (
    CERTIFICATE,
    NOW,
    OLD_TOPIC,
    SETTINGS,
    TOKEN,
    TOPIC,
    Sns,
    certificate,
    encoded,
    key,
    notification,
    sealed,
    subscription,
)

HOST = "https://sns.us-east-1.amazonaws.com"
FILE = "/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"


def _checked(request: Request, fetch: Sns | None = None, now: datetime = NOW) -> sns.Envelope:
    envelope = sns.opened(request.body, SETTINGS.topics, now)
    keys = Certificates((fetch or Sns()).fetch, clock=lambda: now, patience=5)
    sns.verify(envelope, keys.key)
    return envelope


@pytest.mark.parametrize(
    "content",
    [
        notification("text"),
        notification("text", Subject=None),
        notification("ünï\ncode 容"),
        subscription(),
        subscription("UnsubscribeConfirmation"),
    ],
)
def test_what_sns_signs_is_genuine(content: dict[str, Any]) -> None:
    fetched = Sns()
    assert _checked(sealed(content), fetched).message == content["Message"]
    assert fetched.asked == [CERTIFICATE]


def test_a_topic_that_still_signs_with_sha1_says_so_and_is_taken_at_its_word() -> None:
    address = CERTIFICATE.replace("us-east-1", "eu-central-1")
    old = {"TopicArn": OLD_TOPIC, "SigningCertURL": address}
    assert _checked(sealed(notification("text", SignatureVersion="1", **old))).version == "1"
    with pytest.raises(Forged, match="SignatureVersion"):
        _checked(sealed(notification("text", SignatureVersion="2", **old)))
    with pytest.raises(Forged, match="SignatureVersion"):
        _checked(sealed(notification("text", SignatureVersion="1")))


@pytest.mark.parametrize("name", ["Message", "MessageId", "Subject", "Timestamp"])
def test_a_word_that_was_changed_on_the_way_is_noticed(name: str) -> None:
    content = json.loads(sealed(notification("text")).body)
    content[name] = "2026-03-14T02:11:08.455Z" if name == "Timestamp" else content[name] + "x"
    with pytest.raises(Forged, match="signature"):
        _checked(Request(method="POST", path="/sns", headers={}, body=encoded(content)))


def test_a_subject_that_was_added_or_taken_away_is_noticed() -> None:
    for content, change in (
        (notification("a", Subject=None), {"Subject": "x"}),
        (notification("a"), {"Subject": None}),
    ):
        changed = json.loads(sealed(content).body) | change
        with pytest.raises(Forged, match="signature"):
            _checked(Request(method="POST", path="/sns", headers={}, body=encoded(changed)))


def test_a_signature_by_another_key_is_forged() -> None:
    with pytest.raises(Forged, match="signature"):
        _checked(sealed(notification("text"), key("another")))


@pytest.mark.parametrize(
    "topic",
    ["", f"{TOPIC}-other", TOPIC.replace("123456789012", "999999999999"), f"{TOPIC} ", TOPIC.upper()],
)
def test_another_topic_is_refused_before_anything_is_fetched(topic: str) -> None:
    fetched = Sns()
    with pytest.raises(Forged, match="topic"):
        _checked(sealed(notification("text", TopicArn=topic)), fetched)
    assert not fetched.asked


@pytest.mark.parametrize(
    "address",
    [
        "",
        HOST.replace("https", "http") + FILE,
        f"https://sns.eu-central-1.amazonaws.com{FILE}",
        f"https://sns.s3.amazonaws.com{FILE}",
        f"https://sns.s3-us-west-2.amazonaws.com{FILE}",
        f"https://sns.us-east-1.amazonaws.com.evil.test{FILE}",
        f"https://evil.test/sns.us-east-1.amazonaws.com{FILE}",
        f"https://sns.us-east-1.amazonaws.com.cn{FILE}",
        f"https://snsxus-east-1.amazonaws.com{FILE}",
        f"https://user@sns.us-east-1.amazonaws.com{FILE}",
        f"https://sns.us-east-1.amazonaws.com:443{FILE}",
        f"https://sns.us-east-1.amazonaws.com#@evil.test{FILE}",
        f"{HOST}{FILE}?x",
        f"{HOST}{FILE}#x",
        f"{HOST}{FILE}\n",
        f"{HOST}{FILE} ",
        f" {HOST}{FILE}",
        f"{HOST}/x{FILE}",
        f"{HOST}//..{FILE}",
        f"{HOST}{FILE[:-5]}.pem",
        f"{HOST}{FILE.replace('a', 'A')}",
        f"{HOST.upper()}{FILE}",
        "file:///etc/passwd",
    ],
)
def test_a_certificate_from_anywhere_else_is_never_fetched(address: str) -> None:
    fetched = Sns()
    with pytest.raises(Forged, match="SigningCertURL"):
        _checked(sealed(notification("text", SigningCertURL=address)), fetched)
    assert not fetched.asked


def test_china_has_hosts_of_its_own() -> None:
    topic = TOPIC.replace("aws", "aws-cn").replace("us-east-1", "cn-north-1")
    content = notification(
        "text", TopicArn=topic, SigningCertURL=f"https://sns.cn-north-1.amazonaws.com.cn{FILE}"
    )
    assert sns.opened(sealed(content).body, {topic: "2"}, NOW).topic == topic


@pytest.mark.parametrize(
    "at", ["2026-03-14T01:11:59.999Z", "2026-03-14T02:22:01Z", "2025-03-14T02:11:07Z", "2027-03-14T02:11:07Z"]
)
def test_a_message_that_is_not_of_this_hour_is_sent_again_by_somebody(at: str) -> None:
    with pytest.raises(Forged, match="hour"):
        _checked(sealed(notification("text", Timestamp=at)))


@pytest.mark.parametrize("at", ["2026-03-14T01:12:00Z", "2026-03-14T02:21:59Z"])
def test_a_message_of_this_hour_is_taken(at: str) -> None:
    _checked(sealed(notification("text", Timestamp=at)))


@pytest.mark.parametrize(
    "change",
    [
        {"Type": "Other"},
        {"Type": 7},
        {"Type": None},
        {"TopicArn": []},
        {"Message": {"AlarmName": "x"}},
        {"MessageId": None},
        {"Subject": 7},
        {"Timestamp": "soon"},
        {"Signature": "not base64!"},
        {"Signature": "ä"},
        {"Signature": None},
        {"SigningCertURL": [CERTIFICATE]},
        {"Message": "\ud800"},
    ],
)
def test_a_message_of_another_shape_is_malformed(change: dict[str, object]) -> None:
    content = json.loads(sealed(notification("text")).body) | change
    with pytest.raises(Malformed):
        _checked(Request(method="POST", path="/sns", headers={}, body=json.dumps(content).encode()))


@pytest.mark.parametrize("change", [{"Token": None}, {"SubscribeURL": 7}])
def test_a_subscription_without_its_parts_is_malformed(change: dict[str, object]) -> None:
    content = json.loads(sealed(subscription()).body) | change
    with pytest.raises(Malformed):
        sns.opened(encoded(content), SETTINGS.topics, NOW)


# ---------------------------------------------------------------- certificates


@pytest.mark.parametrize(
    ("pem", "said"),
    [
        (b"", "no certificate"),
        (b"<html>", "no certificate"),
        (certificate(key(), days=1), "valid today"),
        (certificate(key(), begins=NOW + timedelta(days=1)), "valid today"),
        (certificate(rsa.generate_private_key(public_exponent=65537, key_size=1024)), "2048"),
        (certificate(ec.generate_private_key(ec.SECP256R1())), "RSA"),  # type: ignore[arg-type]
    ],
    ids=["empty", "a page", "over", "not yet", "short", "another kind"],
)
def test_a_certificate_that_is_none_forges_the_message(pem: bytes, said: str) -> None:
    with pytest.raises(Forged, match=said):
        _checked(sealed(notification("text")), Sns(answer=pem))


def test_a_certificate_is_kept_for_a_day_and_not_beyond_its_end() -> None:
    now, fetched = [NOW], Sns(certificate(key(), days=10))  # it ends one day from now
    keys = Certificates(fetched.fetch, clock=lambda: now[0], patience=5)
    for _ in range(3):
        keys.key(CERTIFICATE)
    assert len(fetched.asked) == 1
    now[0] += timedelta(hours=23, minutes=59)
    keys.key(CERTIFICATE)
    assert len(fetched.asked) == 1
    now[0] += timedelta(minutes=2)
    with pytest.raises(Forged, match="valid today"):
        keys.key(CERTIFICATE)
    assert len(fetched.asked) == 2


def test_made_up_addresses_get_thirty_fetches_a_minute_out_of_us() -> None:
    fetched = Sns()
    keys = Certificates(fetched.fetch, clock=lambda: NOW, patience=5)
    for number in range(30):
        keys.key(f"{HOST}/{number}")
    with pytest.raises(Unreachable, match="too many"):
        keys.key(f"{HOST}/30")
    assert keys.key(f"{HOST}/29").key_size == 2048  # what is known needs no fetching
    assert len(fetched.asked) == 30


def test_a_slow_fetch_is_waited_for_briefly_and_there_for_the_next() -> None:
    gate, fetched = threading.Event(), Sns()

    def slow(address: str) -> bytes:
        gate.wait(30)
        return fetched.fetch(address)

    keys = Certificates(slow, clock=lambda: NOW, patience=0.02)
    for _ in range(3):
        with pytest.raises(Unreachable, match="no answer"):
            keys.key(CERTIFICATE)
    gate.set()
    patient = threading.Event()
    while not fetched.asked or not _known(keys):
        patient.wait(0.01)
    assert fetched.asked == [CERTIFICATE]


def _known(keys: Certificates) -> bool:
    try:
        return keys.key(CERTIFICATE).key_size == 2048
    except Unreachable:
        return False


def test_only_a_few_requests_wait_at_a_time() -> None:
    gate, errands = threading.Event(), Errands[int](patience=30, most=2)
    begun = threading.Semaphore(0)

    def slow() -> int:
        begun.release()
        gate.wait(30)
        return 7

    results: list[int] = []
    waiting = [
        threading.Thread(target=lambda name=name: results.append(errands.run(name, slow)))
        for name in ("a", "b")
    ]
    for thread in waiting:
        thread.start()
    assert begun.acquire(timeout=10)
    assert begun.acquire(timeout=10)
    with pytest.raises(Unreachable, match="too many"):
        errands.run("c", slow)
    gate.set()
    for thread in waiting:
        thread.join(10)
    assert results == [7, 7]
    assert errands.run("c", slow) == 7


def test_calls_that_nobody_waits_for_any_more_do_not_pile_up() -> None:
    gate, errands = threading.Event(), Errands[bool](patience=0.01, most=2)
    for name in ("a", "b"):
        with pytest.raises(Unreachable, match="no answer"):
            errands.run(name, lambda: gate.wait(30))
    with pytest.raises(Unreachable, match="too many calls"):
        errands.run("c", lambda: gate.wait(30))
    gate.set()


def test_a_confirmation_is_an_address_of_our_own_making() -> None:
    content = subscription() | {"SubscribeURL": "https://evil.test/"}
    address = sns.confirmation(_checked(sealed(content)))
    assert address == (
        f"{HOST}/?Action=ConfirmSubscription&TopicArn=arn%3Aaws%3Asns%3Aus-east-1%3A123456789012%3A"
        f"arrakis-production-pagerduty&Token={TOKEN}"
    )


@pytest.mark.parametrize("token", ["", "x&Action=Publish", "x y", "x" * 1025, "x\n"])
def test_a_token_that_would_add_to_the_address_is_malformed(token: str) -> None:
    envelope = _checked(sealed(subscription() | {"Token": token}))
    with pytest.raises(Malformed):
        sns.confirmation(envelope)


def test_a_signature_is_base64() -> None:
    envelope = _checked(sealed(notification("text")))
    assert len(envelope.signature) == 256
    assert base64.b64encode(envelope.signature) in sealed(notification("text")).body
