"""A healthy database that is about to fall ill: twelve running sandboxes, and nothing wrong with anything.

The deployed system's own role is there with the rights that it has, and no more; its sandboxes' schemas are its own.
"""

import random
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import psycopg
import redis
from psycopg import sql

from lab.incidents import gauges, keys, registry, streams
from lab.incidents.cloud import Account
from lab.incidents.stage import Stage, side_by_side
from lab.incidents.telemetry import Line, Lines, Series, pino, plain, traffic
from lab.incidents.world import Sandbox, World
from lab.names import APP, MIGRATOR, POOL
from sandbox.naming import schema_for

__all__ = ["APP_CONNECTIONS", "build", "grant", "lay_out", "prove_indexes"]

APP_CONNECTIONS = 30
"""How many connections the deployed system's role may have."""

_RUNNING, _DESTROYED = 12, 4
_OWNERS = ("chani", "stilgar", "liet", "jessica", "harah")
_PURPOSES = ("onboarding", "tiers", "badges", "wallets", "ranking", "theming", "webhooks", "imports")
_TTLS = (72, 120, 168)
_QUARTER = timedelta(minutes=15)
_SEED = 5
_ROLES = f"""
    CREATE ROLE {APP} LOGIN CONNECTION LIMIT {APP_CONNECTIONS};
    CREATE ROLE {POOL} LOGIN;
    CREATE ROLE {MIGRATOR} LOGIN;
"""
_RIGHTS = f"""
    GRANT CONNECT, CREATE ON DATABASE arrakis TO {APP};
    GRANT USAGE ON SCHEMA public TO {APP}, {POOL};
    GRANT SELECT, INSERT, UPDATE, DELETE
        ON public.sandboxes, public.sandbox_guild_mapping, public.sandbox_audit_log TO {APP};
    GRANT SELECT ON public.sandboxes, public.sandbox_guild_mapping TO {POOL};
    GRANT EXECUTE ON FUNCTION public.create_sandbox_schema(text), public.drop_sandbox_schema(text),
        public.sandbox_schema_exists(text), public.get_sandbox_schema_stats(text) TO {APP};
"""
# What the role created is its own: the world's rows were written by the lab's superuser.
_OWN = f"""
DO $own$
DECLARE
    t record;
BEGIN
    FOR t IN SELECT nspname AS s FROM pg_catalog.pg_namespace WHERE starts_with(nspname, 'sandbox_') LOOP
        EXECUTE format('ALTER SCHEMA %I OWNER TO {APP}', t.s);
    END LOOP;
    FOR t IN SELECT schemaname AS s, tablename AS name FROM pg_catalog.pg_tables
        WHERE starts_with(schemaname, 'sandbox_') LOOP
        EXECUTE format('ALTER TABLE %I.%I OWNER TO {APP}', t.s, t.name);
    END LOOP;
END
$own$
"""
_TABLES = "public.sandboxes, public.sandbox_guild_mapping, public.sandbox_audit_log"
# One statement for each index that is the migration's: all are in use, as in a system at work.
_USES = (
    "SELECT id FROM public.sandboxes WHERE id = md5('nobody')::uuid",
    "SELECT id FROM public.sandboxes WHERE name = 'nobody'",
    "SELECT id FROM public.sandboxes WHERE schema_name = 'sandbox_nobody'",
    "SELECT id FROM public.sandboxes WHERE status = 'creating'",
    "SELECT id FROM public.sandboxes WHERE owner = 'nobody'",
    "SELECT id FROM public.sandboxes WHERE status = 'running' ORDER BY expires_at LIMIT 1",
    "SELECT id FROM public.sandboxes ORDER BY created_at DESC LIMIT 1",
    "SELECT sandbox_id FROM public.sandbox_guild_mapping WHERE guild_id = '1'",
    "SELECT guild_id FROM public.sandbox_guild_mapping WHERE sandbox_id = md5('nobody')::uuid",
    "SELECT id FROM public.sandbox_audit_log WHERE id = md5('nobody')::uuid",
    "SELECT id FROM public.sandbox_audit_log WHERE sandbox_id = md5('nobody')::uuid ORDER BY created_at DESC",
    "SELECT id FROM public.sandbox_audit_log WHERE event_type = 'nothing'",
)


def build(now: datetime) -> World:
    """The sandboxes as they are at `now`; only the moments differ from one call to the next. Pure."""
    chance = random.Random(_SEED)
    return World(now=now, sandboxes=(*_running(chance, now), *_destroyed(chance, now)))


def lay_out(stage: Stage) -> None:
    """Write it all: role and rights, rows, schemas, keys, streams, metrics, alarms, logs."""
    world, env = build(stage.now), stage.env
    side_by_side(
        lambda: _database(env["DATABASE_URL"], world),
        lambda: _keys(env["REDIS_URL"], world),
        lambda: streams.lay_out(env["NATS_URL"]),
        lambda: _cloud(env, world),
    )


def grant(connection: psycopg.Connection[Any]) -> None:
    """Give the deployed system's roles the rights that they have."""
    connection.execute(_RIGHTS.encode())


def prove_indexes(connection: psycopg.Connection[Any]) -> None:
    """Use each index of the control tables, and take fresh statistics of all tables."""
    with connection.transaction():
        connection.execute("SET LOCAL enable_seqscan = off")
        connection.execute("SET LOCAL enable_sort = off")
        for statement in _USES:
            connection.execute(statement.encode())
    connection.execute(f"VACUUM (ANALYZE) {_TABLES}".encode())
    connection.execute("ANALYZE")
    connection.execute("SELECT pg_catalog.pg_stat_force_next_flush()")


def _database(url: str, world: World) -> None:
    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        connection.execute(_ROLES.encode())
        owner, migrator = sql.Identifier(connection.info.user), sql.Identifier(MIGRATOR)
        connection.execute(sql.SQL("GRANT {} TO {}").format(owner, migrator))
        registry.lay_out(url, world)
        grant(connection)
        connection.execute(_OWN.encode())
        prove_indexes(connection)


def _keys(url: str, world: World) -> None:
    keys.lay_out(url, world)
    with redis.Redis.from_url(url, socket_timeout=10) as client:
        client.slowlog_reset()
        client.execute_command("LATENCY RESET")


def _cloud(env: Mapping[str, str], world: World) -> None:
    account = Account(env)
    counted = Series(metric="ActiveSandboxCount", values=[float(_RUNNING)] * 24, until=world.now)
    errors = Series(metric="SchemaCreationErrors", values=[0.0] * 24, until=world.now)
    gauges.publish(env)
    gauges.count(account, [counted, errors])
    account.alarm({})
    account.log(_lines(world))


def _lines(world: World) -> Lines:
    """Two hours of lines, in which nothing is wrong."""
    now, cleanup = world.now, list[Line]()
    said = traffic(now, [str(row.id) for row in world.sandboxes])
    for step in range(8):
        at = now - _QUARTER * (7 - step) - timedelta(minutes=5)
        cleanup.append(plain(at, "INFO Starting sandbox cleanup job"))
        done = "Expired sandbox cleanup completed"
        cleanup.append(pino(at + timedelta(seconds=1), 30, "CleanupProvider", done, cleanedUp=0, failed=0))
    for row in world.sandboxes[:2]:
        about = {"sandboxId": str(row.id), "schemaName": f"sandbox_{row.id.hex[:8]}", "durationMs": 41}
        done = "Sandbox schema created successfully"
        said["api"].append(pino(row.created_at, 30, "SchemaProvisioner", done, **about))
    return {**said, "sandbox-cleanup": cleanup}


def _running(chance: random.Random, now: datetime) -> Iterator[Sandbox]:
    """The youngest first; two of three name their schema in full, the others by eight digits, as deployed."""
    for index in range(_RUNNING):
        yield _sandbox(
            chance,
            index,
            created_at=now - timedelta(minutes=75) - timedelta(hours=4) * index,
            last_activity_at=now - timedelta(minutes=chance.randint(1, 40)),
            guild=f"{1_300_000_000_000_000_000 + chance.randrange(10**17)}",
            profiles=chance.randint(5, 60),
            keys=chance.randint(15, 60),
        )


def _destroyed(chance: random.Random, now: datetime) -> Iterator[Sandbox]:
    for index in range(_DESTROYED):
        ended = now - timedelta(days=1 + index, hours=3)
        born = ended - timedelta(hours=_TTLS[(_RUNNING + index) % 3])
        yield _sandbox(chance, _RUNNING + index, created_at=born, status="destroyed", destroyed_at=ended)


def _sandbox(
    chance: random.Random, index: int, *, created_at: datetime, status: str = "running", **more: object
) -> Sandbox:
    each = uuid.UUID(int=chance.getrandbits(128), version=4)
    ttl = _TTLS[index % 3]
    given: dict[str, object] = {
        "id": each,
        "name": f"{_PURPOSES[index % len(_PURPOSES)]}-{each.hex[:4]}",
        "owner": _OWNERS[index % len(_OWNERS)],
        "status": status,
        "schema_name": f"sandbox_{each.hex[:8]}" if index % 3 == 0 else schema_for(each),
        "schema_token": str(each),
        "created_at": created_at,
        "expires_at": created_at + timedelta(hours=ttl),
        "ttl_hours": ttl,
        "metadata_as_string": index % 2 == 0,
    }
    return Sandbox(**(given | more))  # type: ignore[arg-type]
