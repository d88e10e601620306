"""All that a lab's PostgreSQL and Redis hold, as plain values that can be compared."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
import redis
from psycopg import sql

from lab.control import Lab

_SCHEMAS = """
SELECT n.nspname, pg_get_userbyid(n.nspowner), n.nspacl::text
FROM pg_namespace n
WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'runbooks')
"""
_TABLES = """
SELECT c.relname, pg_get_userbyid(c.relowner), c.relacl::text
FROM pg_class c WHERE c.relnamespace = %s::regnamespace AND c.relkind IN ('r', 'p')
ORDER BY 1
"""
_STAMP = re.compile(r"(quarantine[_:])\d{14}")


@dataclass(frozen=True, slots=True)
class Dump:
    """Schemas by name, keys by name."""

    schemas: Mapping[str, Any]
    keys: Mapping[str, Any]

    def without_stamps(self) -> "Dump":
        """The same, with the moment of quarantine left out of the names."""
        return Dump(
            {_STAMP.sub(r"\1T", name): value for name, value in self.schemas.items()},
            {_STAMP.sub(r"\1T", name): value for name, value in self.keys.items()},
        )

    def tokens(self) -> set[str]:
        """The ids of which there are keys."""
        return {name.split(":")[1] for name in self.keys if name.startswith("sandbox:")}

    def only(self, schemas: set[str], tokens: set[str]) -> "Dump":
        """What is in these schemas and belongs to none of the other key families."""
        return Dump(
            {name: value for name, value in self.schemas.items() if name in schemas},
            {
                name: value
                for name, value in self.keys.items()
                if not name.startswith("sandbox:") or name.split(":")[1] in tokens
            },
        )


def dump(lab: Lab) -> Dump:
    """Read everything. Nothing that is read looks used afterwards."""
    return Dump(_schemas(lab.env["DATABASE_URL"]), _keys(lab.env["REDIS_URL"]))


def _schemas(url: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with psycopg.connect(url) as connection:
        for name, owner, acl in connection.execute(_SCHEMAS).fetchall():
            tables = connection.execute(_TABLES, [sql.Identifier(name).as_string(connection)]).fetchall()
            rows = {table[0]: _rows(connection, name, table[0]) for table in tables}
            found[name] = (owner, acl, tables, rows)
    return found


def _rows(connection: psycopg.Connection[Any], schema: str, table: str) -> list[str]:
    query = sql.SQL("SELECT t::text FROM {} t ORDER BY 1").format(sql.Identifier(schema, table))
    return [row for (row,) in connection.execute(query).fetchall()]


def _keys(url: str) -> dict[str, Any]:
    """Each key's payload and end; where the server cannot read without touching, its type, form and size."""
    with redis.Redis.from_url(url, single_connection_client=True) as client:
        untouched = _no_touch(client)
        names = sorted(set(client.scan_iter(count=5000)))
        pipeline = client.pipeline(transaction=False)  # on a connection of its own
        if untouched:
            pipeline.execute_command("CLIENT", "NO-TOUCH", "ON")
        for name in names:
            pipeline.execute_command("PEXPIRETIME", name)
            if untouched:
                pipeline.dump(name)
            else:
                pipeline.execute_command("MEMORY", "USAGE", name, "SAMPLES", 0)
        answers = pipeline.execute()[int(untouched) :]
    return {name.decode(): (answers[2 * index], answers[2 * index + 1]) for index, name in enumerate(names)}


def age(lab: Lab, tokens: Collection[str], *, seconds: int = 7200) -> None:
    """Make the keys of some families look unused for long: renaming them, as an undo does, counts as a use."""
    with redis.Redis.from_url(lab.env["REDIS_URL"]) as client:
        for token in tokens:
            names = sorted(set(client.scan_iter(match=f"sandbox:{token}:*", count=5000)))
            pipeline = client.pipeline(transaction=False)
            for name in names:
                pipeline.execute_command("PEXPIRETIME", name)
                pipeline.dump(name)
            answers = pipeline.execute()
            for name, ends, payload in zip(names, answers[::2], answers[1::2], strict=True):
                end = max(ends, 0)
                pipeline.execute_command(
                    "RESTORE", name, end, payload, "REPLACE", "ABSTTL", "IDLETIME", seconds
                )
            pipeline.execute()


def _no_touch(client: "redis.Redis") -> bool:
    try:
        client.execute_command("CLIENT", "NO-TOUCH", "ON")  # type: ignore[no-untyped-call]
    except redis.ResponseError:  # before Redis 7.2
        return False
    return True
