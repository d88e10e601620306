"""What PagerDuty, SNS and EventBridge send, made and signed here."""

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from runbooks.pagerduty.webhook.handler import Request
from runbooks.pagerduty.webhook.settings import Settings

NOW = datetime(2026, 3, 14, 2, 12, tzinfo=UTC)
SECRET, OLD_SECRET = "canary-pagerduty-secret-5f0c", "canary-pagerduty-older-secret-77"
ACTION_SECRET, EVENT_SECRET = "canary-action-secret-9a1e", "canary-event-secret-03bd"
SECRETS = (SECRET, OLD_SECRET, ACTION_SECRET, EVENT_SECRET)
TOPIC = "arn:aws:sns:us-east-1:123456789012:arrakis-production-pagerduty"
OLD_TOPIC = "arn:aws:sns:eu-central-1:123456789012:arrakis-staging-pagerduty"
CERTIFICATE = (
    "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
)
ALARM = "arrakis-production-sandbox-orphaned-resources"
SUBJECT = f"123456789012/us-east-1/{ALARM}"
TOKEN = "canary-subscription-token-2336412f37fb"

SETTINGS = Settings(
    pagerduty=(SECRET, OLD_SECRET),
    action=(ACTION_SECRET,),
    events=(EVENT_SECRET,),
    topics={TOPIC: "2", OLD_TOPIC: "1"},
)


def encoded(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


# ---------------------------------------------------------------- PagerDuty


def webhook(
    identity: str = "01HXEVENT1",
    *,
    kind: str = "incident.triggered",
    incident: str = "Q1ARRAKIS00001",
    at: datetime = NOW,
    **more: Any,
) -> dict[str, Any]:
    data = {"id": incident, "type": "incident", "title": ALARM, "incident_key": None, **more}
    return {
        "event": {
            "id": identity,
            "event_type": kind,
            "resource_type": "incident",
            "occurred_at": at.isoformat().replace("+00:00", "Z"),
            "agent": None,
            "client": None,
            "data": data,
        }
    }


def signature(body: bytes, secret: str = SECRET) -> str:
    return "v1=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def signed(content: object, **headers: str) -> Request:
    body = content if isinstance(content, bytes) else encoded(content)
    found = {"x-pagerduty-signature": signature(body), "content-type": "application/json", **headers}
    return Request(method="POST", path="/pagerduty", headers=found, body=body)


def pressed(identity: str = "5f0c1f2e-1f6b", *, incident: str = "Q1ARRAKIS00001") -> dict[str, Any]:
    shown = {"id": incident, "type": "incident", "status": "triggered", "alerts": []}
    entry = {"type": "custom_log_entry", "agent": {"id": "PUSR001", "type": "user_reference"}}
    message = {"id": identity, "event": "incident.custom", "incident": shown, "log_entries": [entry]}
    return {"messages": [message]}


def with_secret(path: str, content: object, secret: str) -> Request:
    body = content if isinstance(content, bytes) else encoded(content)
    return Request(method="POST", path=path, headers={"x-arrakis-secret": secret}, body=body)


# ---------------------------------------------------------------- AWS


def alarm(
    state: str = "ALARM", *, name: str = ALARM, region: str = "us-east-1", **more: Any
) -> dict[str, Any]:
    return {
        "AlarmName": name,
        "AWSAccountId": "123456789012",
        "NewStateValue": state,
        "Region": "US East (N. Virginia)",
        "AlarmArn": f"arn:aws:cloudwatch:{region}:123456789012:alarm:{name}",
        **more,
    }


def event(identity: str = "6f1d2c1e-2d0b", *, state: str = "ALARM", name: str = ALARM) -> dict[str, Any]:
    return {
        "version": "0",
        "id": identity,
        "detail-type": "CloudWatch Alarm State Change",
        "source": "aws.cloudwatch",
        "account": "123456789012",
        "region": "us-east-1",
        "resources": [f"arn:aws:cloudwatch:us-east-1:123456789012:alarm:{name}"],
        "detail": {"alarmName": name, "state": {"value": state}, "previousState": {"value": "OK"}},
    }


@cache
def key(name: str = "sns") -> rsa.RSAPrivateKey:
    """Return a key pair, the same for the same name."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate(
    owner: rsa.RSAPrivateKey, *, begins: datetime = NOW - timedelta(days=9), days: int = 30
) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(owner.public_key())
        .serial_number(1)
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=days))
        .sign(owner, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def notification(message: str, identity: str = "b7a1f3c2-5d0e", **more: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "Type": "Notification",
        "MessageId": identity,
        "TopicArn": TOPIC,
        "Subject": f'ALARM: "{ALARM}" in US East (N. Virginia)',
        "Message": message,
        "Timestamp": "2026-03-14T02:11:07.455Z",
        "SignatureVersion": "2",
        "SigningCertURL": CERTIFICATE,
        "UnsubscribeURL": "https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe",
    }
    return {name: value for name, value in (found | more).items() if value is not None}


def subscription(kind: str = "SubscriptionConfirmation") -> dict[str, Any]:
    address = "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=…&Token=…"
    return notification("You have chosen", Type=kind, Token=TOKEN, SubscribeURL=address, Subject=None)


def sealed(content: dict[str, Any], owner: rsa.RSAPrivateKey | None = None) -> Request:
    """Return the request with SNS' signature over it, with the digest that its SignatureVersion names."""
    names = ["Message", "MessageId", "SubscribeURL", "Subject", "Timestamp", "Token", "TopicArn", "Type"]
    text = "".join(f"{name}\n{content[name]}\n" for name in names if name in content)
    digest = hashes.SHA1() if content["SignatureVersion"] == "1" else hashes.SHA256()
    made = (owner or key()).sign(text.encode(), padding.PKCS1v15(), digest)
    body = encoded(content | {"Signature": base64.b64encode(made).decode()})
    return Request(
        method="POST", path="/sns", headers={"content-type": "text/plain; charset=UTF-8"}, body=body
    )


@dataclass(slots=True)
class Sns:
    """In the place of SNS: what it was asked for, and what it answers."""

    answer: bytes = field(default_factory=lambda: certificate(key()))
    asked: list[str] = field(default_factory=list)

    def fetch(self, address: str) -> bytes:
        self.asked.append(address)
        return self.answer
