"""Sandboxes by the dozen, or by the thousand: over, stuck, destroyed with remains; and what no row explains. All looks old."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg
import redis

__all__ = ["Crowd", "Dump", "dump", "fill"]

_AT_ONCE = 25  # schemas a transaction
_UNUSED = 7200  # seconds
_ROW = """
INSERT INTO sandboxes (id, name, owner, status, schema_name, created_at, expires_at, destroyed_at)
VALUES (%s, %s, %s, %s::sandbox_status, %s, now() - interval '3 days', now() - interval '1 day' - %s * interval '1 minute',
    CASE WHEN %s = 'destroyed' THEN now() - interval '20 hours' - %s * interval '1 minute' END)
"""


@dataclass(frozen=True)
class Crowd:
    """The ids of each group."""

    expired: Sequence[UUID]
    stuck: Sequence[UUID]
    remains: Sequence[UUID]
    strangers: Sequence[UUID]
    live: Sequence[UUID]


def fill(
    env: Mapping[str, str],
    *,
    expired: int = 0,
    stuck: int = 0,
    remains: int = 0,
    strangers: int = 0,
    live: int = 0,
    keys: int = 5,
    schemas: bool = True,
) -> Crowd:
    """Make so many of each, the first of a group the youngest, each with a schema, unless it is to have none, and keys."""
    made = Crowd(*([uuid4() for _ in range(count)] for count in (expired, stuck, remains, strangers, live)))
    with psycopg.connect(env["DATABASE_URL"], autocommit=True) as sql:
        for status, ids in (
            ("expired", made.expired),
            ("destroying", made.stuck),
            ("destroyed", made.remains),
            ("running", made.live),
        ):
            _write_rows(sql, status, ids)
        sql.execute(
            "UPDATE sandboxes SET expires_at = now() + interval '1 day' WHERE id = ANY (%s)", (made.live,)
        )
        everybody = [*made.expired, *made.stuck, *made.remains, *made.strangers, *made.live]
        for start in range(0, len(everybody) if schemas else 0, _AT_ONCE):
            sql.execute(
                "SELECT create_sandbox_schema(id::text) FROM unnest(%s) AS id",
                (everybody[start : start + _AT_ONCE],),
            )
    write_keys(env, everybody, keys=keys)
    return made


def write_keys(env: Mapping[str, str], ids: Sequence[object], *, keys: int = 5) -> None:
    """Give each of these so many keys that were not used for two hours."""
    with redis.Redis.from_url(env["REDIS_URL"]) as client:
        client.set("crowd", "1")
        value = client.dump("crowd")
        pipeline = client.pipeline(transaction=False)
        pipeline.delete("crowd")
        for id in ids:
            for number in range(keys):
                name = f"sandbox:{id}:session:{number}"
                pipeline.execute_command("RESTORE", name, 0, value, "REPLACE", "IDLETIME", _UNUSED)
        pipeline.execute()


def _write_rows(sql: "psycopg.Connection[Any]", status: str, ids: Sequence[UUID]) -> None:
    with sql.cursor() as cursor:
        rows = [
            (id, f"{status}-{number}", f"owner-{number % 7}", status, f"sandbox_{id.hex[:8]}", number, status, number)
            for number, id in enumerate(ids)
        ]  # fmt: skip
        cursor.executemany(_ROW, rows)


@dataclass(frozen=True)
class Dump:
    """Rows, history, mappings, schemas and keys, as plain values that can be compared."""

    rows: tuple[Any, ...]
    history: tuple[Any, ...]
    mappings: tuple[Any, ...]
    schemas: frozenset[str]
    keys: frozenset[str]


def dump(sql: "psycopg.Connection[Any]", client: "redis.Redis") -> Dump:
    """Read all that a clean-up could change."""

    def rows(query: str) -> tuple[Any, ...]:
        return tuple(sql.execute(query.encode()).fetchall())

    return Dump(
        rows=rows("SELECT id::text, name, status::text, expires_at FROM sandboxes ORDER BY 1"),
        history=rows(
            "SELECT sandbox_id::text, event_type, actor, details::text FROM sandbox_audit_log ORDER BY created_at, id"
        ),
        mappings=rows("SELECT guild_id, sandbox_id::text FROM sandbox_guild_mapping ORDER BY 1"),
        schemas=frozenset(
            str(name)
            for (name,) in rows("SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^(sandbox|quaran)'")
        ),
        keys=frozenset(key.decode() for key in client.scan_iter(count=5000)),
    )
