"""A lab with the control tables and nothing else in it, and connections of the test's own beside the library's."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import redis
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from lab import control
from sandbox import lifecycle
from sandbox.adapters.nats import Nats
from sandbox.adapters.postgres import Postgres
from sandbox.adapters.redis import Redis
from sandbox.lifecycle import Request
from sandbox.model import Sandbox

NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True)
class World:
    """The library's systems, and a look at them from outside."""

    env: Mapping[str, str]
    database: Postgres
    keys: Redis
    sql: psycopg.Connection[tuple[object, ...]]
    redis: "redis.Redis"

    def one(self, query: str, *params: object) -> object:
        """Return the first value of a query."""
        row = self.sql.execute(query.encode(), params or None).fetchone()
        return row[0] if row else None

    def count(self, query: str, *params: object) -> int:
        """Return a count."""
        return int(str(self.one(query, *params)))

    def status(self, sandbox: UUID) -> str:
        """Return a row's status."""
        return str(self.one("SELECT status::text FROM sandboxes WHERE id = %s", sandbox))

    def schemas(self) -> set[str]:
        """Return the schemas that look like a sandbox's or like quarantine."""
        found = self.sql.execute(
            "SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^(sandbox|quarantine)'"
        )
        return {str(name) for (name,) in found}

    def mapped(self) -> dict[str, UUID]:
        """Return every mapping."""
        rows = self.sql.execute("SELECT guild_id, sandbox_id FROM sandbox_guild_mapping").fetchall()
        return {str(guild): UUID(str(sandbox)) for guild, sandbox in rows}

    def events(self, sandbox: UUID) -> list[str]:
        """Return a sandbox's audit rows' types, the oldest first."""
        query = "SELECT event_type FROM sandbox_audit_log WHERE sandbox_id = %s ORDER BY created_at"
        return [str(event) for (event,) in self.sql.execute(query, (sandbox,))]

    def key_names(self) -> set[str]:
        """Return every key."""
        return {key.decode() for key in self.redis.scan_iter(count=5000)}

    @contextmanager
    def visitor(self) -> Iterator[psycopg.Connection[Any]]:
        """Connect as somebody who leaves nothing of themselves: a backend goes on for a moment when its client has gone.

        Its counters are handed over before it leaves, and its last statement names nothing.
        """
        with psycopg.connect(self.env["DATABASE_URL"], autocommit=True) as connection:
            yield connection
            connection.execute("SELECT pg_stat_force_next_flush()")
            connection.execute("SELECT 1")

    def make(self, name: str, *, owner: str | None = None, guilds: tuple[str, ...] = ()) -> Sandbox:
        """Create a sandbox with keys and a cached route for each guild, as one that is in use has."""
        made = lifecycle.create(
            self.database, self.keys, request_for(name, owner=owner, guilds=guilds)
        ).sandbox
        self.redis.mset({f"sandbox:{made.id}:session:{number}": number for number in range(5)})
        for guild in guilds:
            self.redis.set(f"sandbox:route:{guild}", str(made.id))
        return made

    def write_row(
        self, name: str, status: str, *, ago: timedelta = timedelta(0), ends: timedelta = timedelta(hours=24)
    ) -> UUID:
        """Write a row by hand as the deployed system does: metadata in a string, the column's schema name short."""
        made = uuid4()
        self.sql.execute(
            "INSERT INTO sandboxes (id, name, owner, status, schema_name, created_at, expires_at, metadata)"
            " VALUES (%s, %s, 'chani', %s::sandbox_status, %s, %s, %s, to_jsonb('{\"ttlHours\":24}'::text))",
            (made, name, status, f"sandbox_{made.hex[:8]}", NOW - ago, NOW - ago + ends),
        )
        return made

    def wipe(self) -> None:
        """Take everything away again."""
        for name in self.schemas():
            self.sql.execute(f'DROP SCHEMA "{name}" CASCADE'.encode())
        self.sql.execute("DELETE FROM sandboxes")
        self.redis.flushall()


def request_for(name: str, *, owner: str | None = None, guilds: tuple[str, ...] = ()) -> Request:
    """Return a request that is fit to be granted."""
    return Request(id=uuid4(), name=name, owner=owner or name, now=NOW, guilds=guilds)


@contextmanager
def open_world(home: Path) -> Iterator[World]:
    """Start a lab under `home`, and stop it at the end."""
    lab = control.start(home, watch_parent=True)
    try:
        with world_of(lab) as opened:
            yield opened
    finally:
        control.reset(lab.home)


@contextmanager
def world_of(lab: control.Lab) -> Iterator[World]:
    """Make the control tables in a lab, and connect to it."""
    database = Postgres(lab.env["DATABASE_URL"], tag="tests")
    database.script("migrations/0001_control_tables")
    database.script("migrations/0001_control_tables")  # it must run where everything exists already
    with (
        psycopg.connect(lab.env["DATABASE_URL"], autocommit=True) as connection,
        redis.Redis.from_url(lab.env["REDIS_URL"]) as client,
    ):
        yield World(lab.env, database, Redis(lab.env["REDIS_URL"]), connection, client)


def clear(lab: control.Lab) -> None:
    """Bring a lab's PostgreSQL, Redis and NATS back to how they are when they have just started."""
    url = lab.env["DATABASE_URL"]
    name = conninfo_to_dict(url)["dbname"]
    with psycopg.connect(make_conninfo(url, dbname="postgres"), autocommit=True) as admin:
        made = admin.execute(
            "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'"
        )
        for (each,) in made.fetchall():
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(each)))
        roles = admin.execute("SELECT rolname FROM pg_roles WHERE oid >= 16384")
        for (each,) in roles.fetchall():
            admin.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(each)))
        admin.execute("ALTER SYSTEM RESET ALL")
        admin.execute("SELECT pg_reload_conf()")
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(str(name))))
    with redis.Redis.from_url(lab.env["REDIS_URL"]) as client:
        client.flushall()
        client.slowlog_reset()
        client.latency_reset()
    streams = Nats(lab.env["NATS_URL"])
    for each in ("SANDBOX", "EVENTS", "RUNBOOKS"):
        streams.delete_stream(each)
