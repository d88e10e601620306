"""Notifications of SNS over HTTPS: whether one is genuine, and how a subscription is confirmed.

The address of the certificate comes with the message and is not signed, so it is compared to the only one that there can be: that of
SNS in the topic's own region. Nothing else that a message names is ever called.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from runbooks.pagerduty.webhook.delivery import Forged, Malformed, document, moment

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

__all__ = ["Envelope", "confirmation", "opened", "verify"]

_NOTIFICATION = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_SUBSCRIPTION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_SIGNED = {
    "Notification": _NOTIFICATION,
    "SubscriptionConfirmation": _SUBSCRIPTION,
    "UnsubscribeConfirmation": _SUBSCRIPTION,
}
_OPTIONAL = "Subject"
_PATH = r"/SimpleNotificationService-[0-9a-f]{32}\.pem"
_OLDEST, _AHEAD = timedelta(hours=1), timedelta(minutes=10)
_TOKEN = re.compile(r"[0-9A-Za-z._-]{1,1024}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A message as SNS wraps it. `signed` is what the signature is of; `certificate` the address of what it is checked with."""

    type: str
    topic: str
    identity: str
    message: str
    token: str
    certificate: str
    version: str
    signature: bytes
    signed: bytes


def opened(body: bytes, topics: Mapping[str, str], now: datetime) -> Envelope:
    """Return the envelope of an allowed topic, by all that can be seen without its certificate. Raises Malformed or Forged."""
    content = document(body)
    kind, topic = _text(content, "Type"), _text(content, "TopicArn")
    if kind not in _SIGNED:
        raise Malformed("Type is none that SNS has")
    if topic not in topics:
        raise Forged("the topic is none of WEBHOOK_TOPICS")
    if _text(content, "SignatureVersion") != topics[topic]:
        raise Forged("SignatureVersion is not the one that is set for the topic")
    age = now - moment(content.get("Timestamp"), "Timestamp")
    if not -_AHEAD <= age <= _OLDEST:
        raise Forged("the message is not of this hour")
    certificate = _text(content, "SigningCertURL")
    if not re.fullmatch(re.escape(_base(topic)) + _PATH, certificate):
        raise Forged("SigningCertURL is not that of SNS in the topic's region")
    return Envelope(
        type=kind,
        topic=topic,
        identity=_text(content, "MessageId"),
        message=_text(content, "Message"),
        token="" if kind == "Notification" else _text(content, "Token"),
        certificate=certificate,
        version=topics[topic],
        signature=_signature(content),
        signed=_signed(content, _SIGNED[kind]),
    )


def verify(envelope: Envelope, key: "Callable[[str], RSAPublicKey]") -> None:
    """Return if the signature is genuine; `key` returns the public key of the certificate at an address.

    Raises Forged if it is not, and whatever `key` raises.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA1, SHA256

    digest = (
        SHA1() if envelope.version == "1" else SHA256()
    )  # what the topic is set to, never what the message says
    try:
        key(envelope.certificate).verify(envelope.signature, envelope.signed, PKCS1v15(), digest)
    except InvalidSignature:
        raise Forged("the signature is not that of SNS") from None


def confirmation(envelope: Envelope) -> str:
    """Return the address that confirms a subscription; made of checked parts, SubscribeURL is never called. Raises Malformed."""
    if not _TOKEN.fullmatch(envelope.token):
        raise Malformed("Token is none that can be used")
    topic = quote(envelope.topic, safe="")
    return f"{_base(envelope.topic)}/?Action=ConfirmSubscription&TopicArn={topic}&Token={envelope.token}"


def _base(topic: str) -> str:
    """Return where SNS is for a topic that is allowed, and so well formed."""
    _, partition, _, region, *_ = topic.split(":")
    return f"https://sns.{region}.amazonaws.com{'.cn' if partition == 'aws-cn' else ''}"


def _signature(content: Mapping[str, Any]) -> bytes:
    try:
        return base64.b64decode(_text(content, "Signature"), validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("Signature is not base64") from None


def _signed(content: Mapping[str, Any], names: tuple[str, ...]) -> bytes:
    present = [name for name in names if name != _OPTIONAL or content.get(name) is not None]
    try:
        return "".join(f"{name}\n{_text(content, name)}\n" for name in present).encode()
    except UnicodeEncodeError:
        raise Malformed("the message has half a character") from None


def _text(content: Mapping[str, Any], name: str) -> str:
    value = content.get(name)
    if isinstance(value, str):
        return value
    raise Malformed(f"{name} is no text")
