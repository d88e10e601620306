"""The PostgreSQL part of a world: control tables, sandboxes' schemas, orphans and decoys."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

import sql as statements
from lab.incidents.world import Orphan, Sandbox, World

__all__ = ["lay_out"]

_ROW = """INSERT INTO public.sandboxes (id, name, owner, status, schema_name, created_at, expires_at,
    destroyed_at, last_activity_at, metadata) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"""
_GUILD = "INSERT INTO public.sandbox_guild_mapping (guild_id, sandbox_id, created_at) VALUES (%s, %s, %s)"
_AUDIT = """INSERT INTO public.sandbox_audit_log (sandbox_id, event_type, actor, details, created_at)
    VALUES (%s, %s, %s, %s, %s)"""
_REGISTERED = timedelta(minutes=2)  # after its creation
_DECOY = "CREATE TABLE {}.settings (name text PRIMARY KEY, value text)"

# The ids are made from names, so that the same world has the same rows.
_COMMUNITIES = """INSERT INTO {schema}.communities
    (id, name, theme_id, subscription_tier, discord_guild_id, created_at, updated_at)
    SELECT md5({salt} || 'c' || n)::uuid, 'sietch ' || n, 'dune', 'pro', (100000000000000000 + n)::text,
           {at}::timestamptz - n * interval '3 hours', {at}::timestamptz - n * interval '1 hour'
    FROM generate_series(1, 2) AS n"""
_PROFILES = """INSERT INTO {schema}.profiles
    (id, community_id, discord_id, tier, current_rank, activity_score, joined_at, last_seen_at, metadata,
     created_at, updated_at)
    SELECT md5({salt} || 'p' || n)::uuid, md5({salt} || 'c' || 1 + n % 2)::uuid,
           (200000000000000000 + n)::text,
           'fremen', n, n * 7 % 1000, moment, moment, '{{"source": "seed"}}', moment, moment
    FROM (SELECT n, {at}::timestamptz - (n - 1) * interval '2 minutes' AS moment
          FROM generate_series(1, {count}::integer) AS n) AS numbered"""
_BADGES = """INSERT INTO {schema}.badges (id, community_id, profile_id, badge_type, awarded_at, created_at)
    SELECT md5(id::text || 'b')::uuid, community_id, id, 'water-bearer', updated_at, created_at
    FROM {schema}.profiles WHERE current_rank % 4 = 0"""


def lay_out(database_url: str, world: World) -> None:
    """Write it all in one transaction."""
    with psycopg.connect(database_url, connect_timeout=5) as connection:
        # It has several statements, which go only without parameters.
        connection.execute(statements.load("migrations/0001_control_tables").encode())
        _add_rows(connection, world.sandboxes)
        for sandbox in world.sandboxes:
            if sandbox.status != "destroyed" and not sandbox.bare:
                at = sandbox.last_activity_at or sandbox.created_at
                _add_schema(connection, sandbox.schema_token, sandbox.profiles, at)
        for orphan in world.orphans:
            _add_orphan(connection, orphan)
        for name in world.decoys:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
            connection.execute(sql.SQL(_DECOY).format(sql.Identifier(name)))


def _add_rows(connection: psycopg.Connection[Any], sandboxes: Sequence[Sandbox]) -> None:
    """Write rows, mappings and history, each table in one round trip."""
    with connection.cursor() as cursor:
        cursor.executemany(_ROW, map(_row, sandboxes))
        mapped = [(each.guild, each.id, each.created_at + _REGISTERED) for each in sandboxes if each.guild]
        cursor.executemany(_GUILD, mapped)
        cursor.executemany(_AUDIT, [event for each in sandboxes for event in _history(each)])


def _row(sandbox: Sandbox) -> tuple[object, ...]:
    metadata = {
        "tags": [],
        "ttlHours": sandbox.ttl_hours,
        "createdBy": sandbox.owner,
        "createdFrom": "cli",
    }
    return (
        sandbox.id,
        sandbox.name,
        sandbox.owner,
        sandbox.status,
        sandbox.schema_name,
        sandbox.created_at,
        sandbox.expires_at,
        sandbox.destroyed_at,
        sandbox.last_activity_at,
        _json(metadata, sandbox),
    )


def _history(sandbox: Sandbox) -> Iterator[tuple[object, ...]]:
    events: list[tuple[str, dict[str, Any], datetime]] = [
        ("sandbox_created", {"name": sandbox.name, "schemaName": sandbox.schema_name}, sandbox.created_at)
    ]
    if sandbox.guild:
        registered = sandbox.created_at + _REGISTERED
        events.append(("guild_registered", {"guildId": sandbox.guild}, registered))
    if sandbox.destroyed_at:
        events.append(("sandbox_destroying", {}, sandbox.destroyed_at - timedelta(seconds=4)))
        events.append(("sandbox_destroyed", {"schemaDropped": True}, sandbox.destroyed_at))
    for event, details, at in events:
        yield sandbox.id, event, sandbox.owner, _json(details, sandbox), at


def _add_orphan(connection: psycopg.Connection[Any], orphan: Orphan) -> None:
    _add_schema(connection, orphan.schema_token, orphan.profiles, orphan.last_active)


def _add_schema(connection: psycopg.Connection[Any], token: str, profiles: int, at: datetime) -> None:
    connection.execute("SELECT public.create_sandbox_schema(%s)", (token,))
    if not profiles:
        return
    values = {
        "schema": sql.Identifier(f"sandbox_{token}"),
        "salt": sql.Literal(token),
        "at": sql.Literal(at.isoformat()),
        "count": sql.Literal(profiles),
    }
    for statement in (_COMMUNITIES, _PROFILES, _BADGES):
        connection.execute(sql.SQL(statement).format(**values))


def _json(value: dict[str, Any], sandbox: Sandbox) -> Jsonb:
    """An object, or as the deployed code has it: a string that holds JSON."""
    return Jsonb(json.dumps(value) if sandbox.metadata_as_string else value)
