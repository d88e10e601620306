"""How a sandbox is, and how to connect to it, as text and as JSON objects. Pure."""

from collections.abc import Mapping
from typing import Any

from sandbox.cli.show import NOTHING, iso, joined, left, rows, summary
from sandbox.cli.watch import Blind
from sandbox.health import Connection, Health, Level
from sandbox.text import clean

__all__ = ["connected", "document", "facts", "milliseconds", "text", "verdict"]


def verdict(found: Health | Blind) -> str:
    """Return the answer in one line."""
    if isinstance(found, Blind):
        return f"{clean(found.name)}: {Level.UNKNOWN}"
    return f"{clean(found.sandbox.name)}: {found.level}"


def facts(health: Health) -> list[tuple[str, str]]:
    """Return what is known of a sandbox beside how it is."""
    row = health.sandbox
    end = ("expires", f"{iso(row.expires_at) or NOTHING} ({left(row, health.checked_at)})")
    return [
        ("id", str(row.id)),
        ("owner", clean(row.owner)),
        ("created", iso(row.created_at) or NOTHING),
        end if row.live else ("destroyed", iso(row.destroyed_at) or NOTHING),
        ("guilds", joined(health.guilds)),
    ]


def milliseconds(seconds: float | None) -> str:
    """Return how long a look took; nothing for one that did not end."""
    return f"{seconds * 1000:.0f} ms" if seconds is not None else ""


def text(found: Health | Blind) -> str:
    """Return how a sandbox is in full lines: the answer, what it is, what was looked at."""
    if isinstance(found, Blind):
        return f"{verdict(found)}\n{rows([('because', clean(found.error)), ('checked', str(iso(found.at)))])}"
    looks = [
        f"  {check.level:<9}  {check.name:<7}  {clean(check.message)}"
        + (f" ({milliseconds(check.seconds)})" if check.seconds is not None else "")
        for check in found.checks
    ]
    checked = ("checked", str(iso(found.checked_at)))
    return "\n".join([verdict(found), rows(facts(found)), *looks, rows([checked])])


def document(found: Health | Blind) -> dict[str, Any]:
    """Return how a sandbox is as a JSON object. Looks are in milliseconds, the time left is in seconds."""
    if isinstance(found, Blind):
        return {
            "success": True,
            "health": Level.UNKNOWN.value,
            "name": found.name,
            "message": str(found.error),
            "checkedAt": iso(found.at),
        }
    remains = found.time_left
    return {
        "success": True,
        "health": found.level.value,
        "sandbox": {**summary(found.sandbox), "schemas": list(found.schemas), "guildIds": list(found.guilds)},
        "timeLeftSeconds": int(remains.total_seconds()) if remains is not None else None,
        "checks": [
            {
                "name": check.name,
                "level": check.level.value,
                "message": check.message,
                "milliseconds": round(check.seconds * 1000, 1) if check.seconds is not None else None,
            }
            for check in found.checks
        ],
        "checkedAt": iso(found.checked_at),
    }


def connected(found: Connection, variables: Mapping[str, str]) -> dict[str, Any]:
    """Return how to connect to a sandbox as a JSON object."""
    return {
        "success": True,
        "sandbox": {
            "id": found.id,
            "name": found.name,
            "schema": found.schema,
            "redisPrefix": found.redis_prefix,
            "natsPrefix": found.nats_prefix,
        },
        "variables": dict(variables),
    }
