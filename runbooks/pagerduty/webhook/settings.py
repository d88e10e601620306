"""What the webhook is told: whose requests are taken, by secret or by topic. From variables, or a secret of Secrets Manager."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from runbooks.pagerduty.webhook.delivery import Malformed, document
from sandbox.errors import ArrakisError

__all__ = ["Settings", "resolve"]

_VARIABLES = {
    "pagerduty": "WEBHOOK_PAGERDUTY_SECRETS",
    "action": "WEBHOOK_ACTION_SECRETS",
    "events": "WEBHOOK_EVENT_SECRETS",
}
_TOPIC = re.compile(r"arn:aws(-[a-z]+)*:sns:[a-z]{2}(-[a-z]+)+-[0-9]{1,2}:[0-9]{12}:[A-Za-z0-9_-]{1,256}")
_SECRET = re.compile(r"[!-~]{16,}")  # fit for a header, and too long to be tried out


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Whose requests are taken. A source with no secret, or no topic, is not served. Never printed: it holds secrets.

    `topics` has for each topic's ARN the one SignatureVersion that is taken.
    """

    pagerduty: tuple[str, ...] = field(default=(), repr=False)
    action: tuple[str, ...] = field(default=(), repr=False)
    events: tuple[str, ...] = field(default=(), repr=False)
    topics: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def resolve(variables: Mapping[str, str], *, secret: Callable[[str], str] | None = None) -> Settings:
    """Return what the variables say, and the secret that WEBHOOK_SECRET names; `secret` returns one's text, by its name.

    It is Secrets Manager unless it is given. Raises ArrakisError where no source is set up, or one is set up wrongly; Unreachable
    or Denied where the secret cannot be had.
    """
    name = variables.get("WEBHOOK_SECRET")
    kept = _kept(name, secret or _manager(variables)) if name else {}
    secrets: dict[str, tuple[str, ...]] = {}
    for name, variable in _VARIABLES.items():
        given = [each.strip() for each in variables.get(variable, "").split(",") if each.strip()]
        _usable(given, variable)
        secrets[name] = tuple(dict.fromkeys([*given, *kept.get(name, ())]))
    topics = _topics(variables.get("WEBHOOK_TOPICS", ""))
    if not topics and not any(secrets.values()):
        raise ArrakisError(
            "the webhook knows nobody whose requests it may take",
            hint=f"set one of {', '.join(_VARIABLES.values())}, WEBHOOK_TOPICS, WEBHOOK_SECRET",
        )
    return Settings(**secrets, topics=MappingProxyType(topics))


def _manager(variables: Mapping[str, str]) -> Callable[[str], str]:
    from sandbox.adapters.aws import Aws

    aws = Aws(region=variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION"))
    return lambda name: str(aws.read("secretsmanager", "get_secret_value", SecretId=name).get("SecretString"))


def _kept(name: str, secret: Callable[[str], str]) -> dict[str, list[str]]:
    """Return the lists of a secret like {"pagerduty": ["…"], "action": ["…"], "events": ["…"]}."""
    wrong = ArrakisError(
        f"secret {name} is not of the form that the webhook reads",
        hint='it should be JSON: {"pagerduty": ["…"], "action": ["…"], "events": ["…"]}',
    )
    try:
        content = document(secret(name))
    except Malformed:
        raise wrong from None
    found: dict[str, list[str]] = {}
    for member, values in content.items():
        texts = isinstance(values, list) and all(isinstance(each, str) for each in values)
        if member not in _VARIABLES or not texts:
            raise wrong
        _usable(values, f"{member} in secret {name}")
        found[member] = values
    return found


def _usable(secrets: list[str], where: str) -> None:
    if not all(map(_SECRET.fullmatch, secrets)):
        raise ArrakisError(
            f"{where} has a secret that is shorter than 16 characters, or no plain text",
            hint="make one: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )


def _topics(text: str) -> dict[str, str]:
    """Return each topic's SignatureVersion: 2 (SHA256), unless `ARN=1` says that the topic still signs with SHA1."""
    found: dict[str, str] = {}
    for number, entry in enumerate(filter(None, map(str.strip, text.split(","))), 1):
        arn, _, version = entry.partition("=")
        if not _TOPIC.fullmatch(arn) or version not in ("", "1", "2"):
            raise ArrakisError(
                f"entry {number} of WEBHOOK_TOPICS names no topic",
                hint="write ARNs with a comma between them, each with =1 where the topic's SignatureVersion is 1",
            )
        found[arn] = version or "2"
    return found
