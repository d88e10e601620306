"""The credentials that this process works with, so that no message repeats them: a server, or whatever stands in its place, may."""

from contextlib import suppress
from urllib.parse import unquote, urlsplit

__all__ = ["concealed", "learn", "learn_address"]

_SHORTEST = 8  # characters; a shorter password is found in too many words that are none
_known: set[str] = set()


def learn(*values: str | None) -> None:
    """Remember credentials: passwords, keys, tokens. None, and what is too short to be told from other words, is passed over."""
    _known.update(value for value in values if value and len(value) >= _SHORTEST)


def learn_address(url: str) -> None:
    """Remember an address' password, as it is written and as it is meant; the user's name where that stands alone, a token then."""
    with suppress(ValueError):  # it is refused as malformed
        parts = urlsplit(url)
        secret = parts.password or (parts.username if parts.scheme in ("nats", "tls") else None)
        learn(secret, unquote(secret or ""))


def concealed(text: str) -> str:
    """Return text with stars in place of the credentials that are known here."""
    for secret in sorted(_known, key=len, reverse=True):  # a copy: others may learn meanwhile
        text = text.replace(secret, "***")
    return text
