"""Subjects: who listens to a sandbox's events. Pure."""

from collections.abc import Iterable

from sandbox.naming import hex_of
from sandbox.ports import Subscription

__all__ = ["listeners"]


def listeners(subscriptions: Iterable[Subscription], token: str) -> list[str]:
    """Return the clients that listen to this sandbox in particular; those who listen to all of them do not count.

    Ids are compared by their digits, and a shorter one with the start of a longer one.
    """
    wanted = hex_of(token)
    found = {
        item.client
        for item in subscriptions
        if wanted
        and (heard := _subject_id(item.subject))
        and (heard.startswith(wanted) or wanted.startswith(heard))
    }
    return sorted(found)


def _subject_id(subject: str) -> str | None:
    parts = subject.split(".")
    return hex_of(parts[1]) if len(parts) > 1 and parts[0] == "sandbox" else None
