"""Subjects: who listens to a sandbox's events. Pure."""

from collections.abc import Iterable

from sandbox.naming import same_sandbox
from sandbox.ports import Subscription

__all__ = ["listeners"]


def listeners(subscriptions: Iterable[Subscription], token: str) -> list[str]:
    """Return the clients that listen to this sandbox in particular; those who listen to all of them do not count.

    Ids are compared by their digits, and a shorter one with the start of a longer one.
    """
    return sorted({item.client for item in subscriptions if same_sandbox(_token_of(item.subject), token)})


def _token_of(subject: str) -> str:
    parts = subject.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "sandbox" else ""
