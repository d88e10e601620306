"""What a stand-in for PagerDuty answers with: made up, in the shapes that PagerDuty gives. And what it proves itself with."""

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["HOST", "alert", "certificate", "incident", "message", "note", "now"]

HOST = "127.0.0.1"


def certificate(ca: Path) -> ssl.SSLContext:
    """Write a certificate that names this machine, and return what serves with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a stand-in")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(HOST))]
    today = datetime.now(UTC)
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - timedelta(hours=1))
        .not_valid_after(today + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=True, **usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    ca.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret = ca.with_name("key.pem")
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca, secret)
    return context


def now(at: float | None = None) -> str:
    """Return a moment, in seconds of the clock, as PagerDuty writes it; this one unless another is given."""
    moment = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _reference(kind: str, name: str, summary: str) -> dict[str, str]:
    return {
        "id": name,
        "type": f"{kind}_reference",
        "summary": summary,
        "self": f"https://api.pagerduty.com/{kind}s/{name}",
        "html_url": f"https://acme.pagerduty.com/{kind}s/{name}",
    }


def incident(name: str, number: int, title: str, entry: str, status: str) -> dict[str, Any]:
    return {
        "id": name,
        "type": "incident",
        "summary": f"[#{number}] {title}",
        "self": f"https://api.pagerduty.com/incidents/{name}",
        "html_url": f"https://acme.pagerduty.com/incidents/{name}",
        "incident_number": number,
        "title": title,
        "created_at": now(),
        "updated_at": now(),
        "last_status_change_at": now(),
        "status": status,
        "incident_key": None,
        "service": _reference("service", "PSVC001", "Arrakis Production Sandbox"),
        "first_trigger_log_entry": _reference("trigger_log_entry", entry, "Triggered through the API"),
        "priority": None,
        "alert_grouping": None,
        "resolve_reason": None,
        "urgency": "high",
    }


def alert(name: str, alarm: str, details: Any, incident: str) -> dict[str, Any]:
    return {
        "id": name,
        "type": "alert",
        "summary": alarm,
        "created_at": now(),
        "status": "triggered",
        "alert_key": alarm,
        "suppressed": False,
        "severity": "critical",
        "incident": _reference("incident", incident, alarm),
        "integration": _reference("aws_cloudwatch_inbound_integration", "PINTCW1", "Amazon CloudWatch"),
        "body": {
            "type": "alert_body",
            "contexts": [],
            "details": details,
            "cef_details": {"version": "1.0", "client": None, "dedup_key": alarm, "details": details},
        },
    }


def message(alarm: str, account: str, region: str) -> dict[str, Any]:
    """Return what CloudWatch says of an alarm."""
    return {
        "AlarmName": alarm,
        "AlarmDescription": "Something is wrong with the sandboxes.",
        "AWSAccountId": account,
        "NewStateValue": "ALARM",
        "NewStateReason": "Threshold Crossed: 1 datapoint [17.0] was greater than the threshold (0.0).",
        "StateChangeTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000"),
        "Region": "US East (N. Virginia)",
        "AlarmArn": f"arn:aws:cloudwatch:{region}:{account}:alarm:{alarm}",
        "OldStateValue": "OK",
        "Trigger": {"MetricName": "OrphanedResourceCount", "Namespace": "Arrakis/Sandbox", "Threshold": 0.0},
    }


def note(name: str, text: str, author: str) -> dict[str, Any]:
    """Return a note as that user writes it."""
    return {
        "id": name,
        "user": _reference("user", author, "On-call engineer"),
        "channel": {"summary": "The PagerDuty website or APIs"},
        "content": text,
        "created_at": now(),
        "updated_at": now(),
    }
