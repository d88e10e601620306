"""PagerDuty as it is reached from here, where an account is set up."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from runbooks.doctor.checks import Subject, well, wrong
from runbooks.engine.model import Finding
from runbooks.pagerduty.client import Client
from runbooks.pagerduty.reporter import account_of
from sandbox.facts import Fact, Unknown

__all__ = ["PAGERDUTY", "Paging", "findings", "read_paging"]

PAGERDUTY = "PagerDuty"

_NOBODYS = "arrakis-doctor"  # an alarm's name that no incident has


@dataclass(frozen=True, slots=True, kw_only=True)
class Paging:
    """An account that takes the key, within how many seconds; `sender` is in whose name notes are written."""

    sender: str
    seconds: float


def read_paging(subject: Subject, variables: Mapping[str, str]) -> Paging | None:
    """Look for incidents with the account's key; None where no account is set up. Raises as its client does."""
    account, bound = account_of(subject.environment.name, variables), subject.deadline
    if account is None:
        return None
    client, began = Client(replace(account, timeout=bound), budget=bound), time.monotonic()
    try:
        client.open_with(_NOBODYS)
    finally:
        client.close()
    return Paging(sender=account.sender, seconds=time.monotonic() - began)


def findings(fact: Fact[Paging | None]) -> Iterator[Finding]:
    """Say whether incidents can be read, and in whose name notes would be written. Nothing of a diagnosis needs it. Pure."""
    if isinstance(fact, Unknown):
        yield wrong(PAGERDUTY, "reach", fact.reason, fix=fact.hint or "see docs/pagerduty.md")
        return
    if seen := fact.value:
        told = f"incidents can be read, answered in {seen.seconds * 1000:.0f} ms; notes are {seen.sender}'s"
        yield well(PAGERDUTY, "reach", told, milliseconds=round(seen.seconds * 1000, 1))
