"""Who sent it: PagerDuty's signature over the raw bytes, or a secret that both sides know. Pure, and in constant time."""

import hashlib
import hmac
from collections.abc import Iterable

__all__ = ["known", "signed"]

_SCHEME = "v1="
_MOST = 16  # signatures in a header; PagerDuty sends one, and two while a secret is exchanged


def signed(header: str, body: bytes, secrets: Iterable[str]) -> bool:
    """Whether any of the header's `v1=` signatures is that of the raw body with any of the secrets."""
    given = [
        _bytes(entry.strip()) for entry in header.split(",")[:_MOST] if entry.strip().startswith(_SCHEME)
    ]
    found = False
    for secret in secrets:
        expected = _SCHEME + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        for entry in given:
            found |= hmac.compare_digest(entry, expected.encode())
    return found


def known(header: str, secrets: Iterable[str]) -> bool:
    """Whether a header is any of the secrets. Digests are compared, so that time does not tell a secret's length either."""
    given = hashlib.sha256(_bytes(header)).digest()
    found = False
    for secret in secrets:
        found |= hmac.compare_digest(given, hashlib.sha256(secret.encode()).digest())
    return found


def _bytes(text: str) -> bytes:
    """Return a header's bytes, whatever they are; as WSGI gives them, each character is one byte."""
    return text.encode("latin-1", "replace")
