"""Sandboxes, and what destroying one takes, as text and as JSON objects. Pure."""

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sandbox.cli.listing import Listed
from sandbox.cli.preview import Preview
from sandbox.model import Sandbox, Status
from sandbox.removal import Destroyed
from sandbox.text import clean

__all__ = [
    "NOTHING",
    "argument",
    "created",
    "destroyed",
    "in_words",
    "iso",
    "joined",
    "left",
    "line",
    "listed_document",
    "preview_document",
    "preview_text",
    "rows",
    "summary",
]

NOTHING = "-"


def argument(name: str) -> str:
    """Return a name as it is typed behind a command."""
    return ("-- " if name.startswith("-") else "") + shlex.quote(clean(name))


def iso(moment: datetime | None) -> str | None:
    """Return a moment in UTC, to the second, as 2026-11-24T03:00:00Z."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if moment else None


def joined(words: Sequence[str]) -> str:
    """Return the words with commas between them, or a dash for none."""
    return ", ".join(map(clean, words)) or NOTHING


def in_words(duration: timedelta) -> str:
    """Return a duration in its two largest units, rounded down."""
    minutes = int(duration.total_seconds() // 60)
    hours, days = minutes // 60, minutes // 1440
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def left(row: Sandbox, now: datetime) -> str:
    """Return how long a sandbox may still live, in words."""
    if not row.live or row.expires_at is None:
        return NOTHING
    remains = row.expires_at - now
    return f"{in_words(remains)} left" if remains > timedelta(0) else f"ended {in_words(-remains)} ago"


def line(listed: Listed) -> str:
    """Return a sandbox as one line of fields with tabs between them, for grep, cut and wc."""
    row = listed.sandbox
    fields = (row.name, row.status, row.owner, iso(row.expires_at) or NOTHING, len(listed.guilds), row.id)
    schemas = ",".join(listed.schemas) or NOTHING
    return "\t".join(map(clean, (*fields, schemas)))


def summary(row: Sandbox) -> dict[str, Any]:
    """Return a sandbox as a JSON object, with the deployed system's names."""
    return {
        "id": str(row.id),
        "name": row.name,
        "owner": row.owner,
        "status": row.status.value,
        "schemaName": row.schema_name,
        "createdAt": iso(row.created_at),
        "expiresAt": iso(row.expires_at),
    }


def listed_document(listed: Listed) -> dict[str, Any]:
    """Return a sandbox of a list as a JSON object: its schemas are those that really exist."""
    return {**summary(listed.sandbox), "schemas": list(listed.schemas), "guildIds": list(listed.guilds)}


def rows(pairs: Sequence[tuple[str, str]]) -> str:
    """Return words and what they stand for, one under the other."""
    return "\n".join(f"  {word:<10}{what}" for word, what in pairs)


def created(row: Sandbox, guilds: Sequence[str], *, now: datetime) -> str:
    """Return what was made, and what to type next."""
    ends = f"{iso(row.expires_at)} ({left(row, now)})"
    made = [
        ("id", str(row.id)),
        ("schema", clean(row.schema_name)),
        ("expires", ends),
        ("guilds", joined(guilds)),
    ]
    name = argument(row.name)
    following = (f"gaib sandbox status {name}", f"eval $(gaib sandbox connect {name})")
    return "\n".join([f"created {clean(row.name)}", rows(made), *(f"  next: {each}" for each in following)])


def destroyed(gone: Destroyed, *, now: datetime) -> str:
    """Return what went; `now` is when it was asked for, which tells it from what was gone before."""
    name = clean(gone.sandbox.name)
    went = bool(gone.schemas or gone.guilds or gone.keys)
    if gone.sandbox.destroyed_at == now:
        head = f"destroyed {name}"
    elif not went:
        return f"{name} was destroyed before, and nothing was left of it"
    else:
        head = f"{name} was destroyed before; what was left of it is gone now"
    keys = "left" if gone.unsettled else str(gone.keys)
    return "\n".join(
        [head, rows([("schemas", joined(gone.schemas)), ("keys", keys), ("guilds", joined(gone.guilds))])]
    )


def preview_text(seen: Preview, *, who: str | None, now: datetime) -> str:
    """Return what destroying a sandbox would take; its owner is pointed out to anybody else."""
    row = seen.sandbox
    if seen.nothing:
        return f"{clean(row.name)} is {row.status}, and nothing is left of it"
    keys = f"cannot tell: {clean(seen.unknown)}" if seen.keys is None else str(seen.keys)
    whose = f"{clean(row.owner)}'s" + ("" if who == row.owner else ", not yours" if who else "")
    state = row.status if row.status is not Status.RUNNING else f"{row.status}, {left(row, now)}"
    return "\n".join(
        [
            f"{clean(row.name)} is {whose} ({state}). Destroying it takes, for good:",
            rows([("schemas", joined(seen.schemas)), ("keys", keys), ("guilds", joined(seen.guilds))]),
            *([f"It cannot go: {joined(seen.dependents)} would be taken along."] if seen.dependents else []),
        ]
    )


def preview_document(seen: Preview) -> dict[str, Any]:
    """Return what destroying a sandbox would take as a JSON object; `keys` is null where Redis did not say."""
    return {
        "success": True,
        "dryRun": True,
        "sandbox": summary(seen.sandbox),
        "schemas": list(seen.schemas),
        "guildIds": list(seen.guilds),
        "dependents": list(seen.dependents),
        "keys": seen.keys,
        **({"warning": seen.unknown} if seen.unknown else {}),
    }
