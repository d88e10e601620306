"""The account at PagerDuty that notes are written to: its key, who writes, and where it is."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from sandbox.errors import ArrakisError
from sandbox.text import near

__all__ = ["Account", "account"]

_REGIONS = {"us": "https://api.pagerduty.com", "eu": "https://api.eu.pagerduty.com"}
_HOSTS = frozenset(urlsplit(url).hostname for url in _REGIONS.values())
_LOCAL = ("127.0.0.1", "localhost")
_KEYS = ("token", "from", "service_region")
_TOKEN = re.compile(r"[\x21-\x7e]+")  # what a header can carry
_SENDER = re.compile(r"[\x21-\x7e]+@[\x21-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account. `sender` is the e-mail address of one of its users; `timeout` bounds each call, in seconds."""

    token: str = field(repr=False)
    sender: str
    url: str
    timeout: float = 10.0

    @property
    def local(self) -> bool:
        """Whether it is a stand-in on this machine."""
        return urlsplit(self.url).hostname in _LOCAL


def account(
    settings: Mapping[str, Any], variables: Mapping[str, str], region: str | None = None
) -> Account | None:
    """Return the account of an environment, or None where no key is named.

    `settings` is the table [pagerduty] of the environment's file; PAGERDUTY_TOKEN, PAGERDUTY_FROM and PAGERDUTY_URL override
    it. `region` is that of AWS, where the secret is. Raises ArrakisError if something is missing or malformed, and as AWS does.
    """
    _check(settings)
    token = variables.get("PAGERDUTY_TOKEN", "").strip() or _named(settings.get("token"), region)
    if not token:
        return None
    if not _TOKEN.fullmatch(token):
        raise ArrakisError(
            "the key of PagerDuty is malformed", hint="it is one word; create another if in doubt"
        )
    sender = variables.get("PAGERDUTY_FROM", "").strip() or str(settings.get("from", ""))
    if not _SENDER.fullmatch(sender):
        raise ArrakisError(
            "PAGERDUTY_FROM is no e-mail address" if sender else "PAGERDUTY_FROM is not set",
            hint="set it to the e-mail address of a user of that account: PagerDuty wants to know who writes",
        )
    return Account(token=token, sender=sender, url=_url(settings, variables.get("PAGERDUTY_URL", "").strip()))


def _check(settings: Mapping[str, Any]) -> None:
    for key in settings:
        if key not in _KEYS:
            meant = near(key, _KEYS) or ", ".join(_KEYS)
            raise ArrakisError(f"[pagerduty] knows no {key!r}", hint=f"one of {meant}")


def _named(value: object, region: str | None) -> str:
    """Return the key that a secret's JSON has as `token`; nothing where none is named."""
    if value is None:
        return ""
    if not (isinstance(value, dict) and isinstance(value.get("secret"), str)):
        raise ArrakisError(
            "[pagerduty] token does not name a secret", hint='write token = { secret = "…" }, never the key'
        )
    try:
        return _from_secret(value["secret"], region)
    except ArrakisError as error:
        error.hint = (
            f"{error.hint}; or set PAGERDUTY_TOKEN yourself"  # the secret's keeper may be the patient
        )
        raise


def _from_secret(name: str, region: str | None) -> str:
    import json

    from sandbox.adapters.aws import Aws

    secret = Aws(region=region).read("secretsmanager", "get_secret_value", SecretId=name)
    try:
        return str(json.loads(secret["SecretString"])["token"]).strip()
    except (ValueError, KeyError, TypeError):
        raise ArrakisError(
            f"secret {name} has no `token` member", hint="it should be JSON with a token"
        ) from None


def _url(settings: Mapping[str, Any], given: str) -> str:
    """Return the base of the API: PagerDuty's own, or a stand-in's on this machine; the key goes nowhere else.

    It must be nothing but scheme, host and port: the official client only looks at how an address begins.
    """
    if not given:
        region = str(settings.get("service_region", "us"))
        if region not in _REGIONS:
            raise ArrakisError("[pagerduty] service_region is neither us nor eu", hint="see your web address")
        return _REGIONS[region]
    try:
        parts = urlsplit(given)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    bare = host is not None and given.rstrip("/") == f"https://{host}" + (f":{port}" if port else "")
    if not bare or not (host in _LOCAL or (host in _HOSTS and port in (None, 443))):
        raise ArrakisError(
            "PAGERDUTY_URL is not PagerDuty's",
            hint=f"one of {', '.join(_REGIONS.values())}; the key goes nowhere else",
        )
    return given.rstrip("/")
