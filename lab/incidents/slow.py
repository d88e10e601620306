"""The incidents of RB-SB-006: `gaib sandbox status` is slow, for one cause at a time, which is really made."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
import redis
from psycopg import errors

import sql as statements
from lab.errors import LabError
from lab.incidents import ages, database_world, gauges
from lab.incidents.gauges import Values
from lab.incidents.stage import Incident, Stage, incidents
from lab.names import APP
from lab.scene import Scene

__all__ = ["DROPPED", "INCIDENTS", "INVALID", "ROWS", "STALE_ROWS"]

DROPPED = ("idx_sandboxes_owner", "idx_sandboxes_status")
"""The indexes that somebody dropped."""
INVALID = "idx_sandboxes_owner"
"""The index that somebody began to make again, and gave up."""
ROWS, STALE_ROWS = 50_000, 200_000
"""How many destroyed sandboxes the table has where an index is missing, and where its statistics are stale."""

_OWNER = "load-test"
# In the order of their names, so that the indexes grow at their ends alone. Nothing of theirs exists.
_INSERT = """INSERT INTO public.sandboxes
        (id, name, owner, status, schema_name, created_at, expires_at, destroyed_at)
    SELECT id, 'load-' || lpad(n::text, 6, '0'), %(owner)s, 'destroyed', 'sandbox_' || id, moment,
           moment + interval '24 hours', moment + interval '24 hours'
    FROM (SELECT n, lpad(to_hex(n), 32, '0')::uuid AS id, now() - interval '300 days' + n * interval '1 minute' AS moment
          FROM generate_series(1, %(rows)s::integer) AS n) AS numbered"""
_QUEUE = f"SELECT pid FROM pg_catalog.pg_stat_activity WHERE usename = '{APP}'"
_QUEUE_SECONDS = 5.0
_FLUSH = "SELECT pg_catalog.pg_stat_force_next_flush()"
_REPAIR = (
    "ALTER TABLE public.sandboxes RESET (autovacuum_enabled)",
    "VACUUM (FULL) public.sandboxes",  # and with it every index
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cause:
    """A cause: how it is made and removed, and what CloudWatch measures of the cache under it."""

    name: str
    summary: str
    make: Callable[[Stage], None]
    remove: Callable[[Stage], None]
    cache: Values | None = None


def _lay_out(cause: _Cause, stage: Stage) -> None:
    cause.make(stage)
    if cause.cache:
        gauges.publish(stage.env, cache=cause.cache)


def _relieve(cause: _Cause, stage: Stage) -> None:
    cause.remove(stage)
    if cause.cache:
        gauges.publish(stage.env)


def _drop_indexes(stage: Stage) -> None:
    with stage.database() as connection:
        for name in DROPPED:
            connection.execute(f"DROP INDEX public.{name}".encode())
        _add_rows(connection, ROWS)
        connection.execute("VACUUM (ANALYZE) public.sandboxes")


def _spoil_index(stage: Stage) -> None:
    """Give up making an index while it waits for somebody's open transaction: what was begun stays, and is of no use."""
    with stage.database() as connection:
        connection.execute(f"DROP INDEX public.{INVALID}".encode())
        _add_rows(connection, ROWS)
        connection.execute("VACUUM (ANALYZE) public.sandboxes")
        with psycopg.connect(stage.env["DATABASE_URL"], connect_timeout=5) as other:
            other.execute("LOCK TABLE public.sandboxes IN ROW EXCLUSIVE MODE")
            connection.execute("SET statement_timeout = '250ms'")
            with suppress(errors.QueryCanceled):
                connection.execute(
                    f"CREATE INDEX CONCURRENTLY {INVALID} ON public.sandboxes (owner)".encode()
                )
            other.rollback()


def _add_stale_rows(stage: Stage) -> None:
    with stage.database() as connection:
        connection.execute("ALTER TABLE public.sandboxes SET (autovacuum_enabled = off)")
        _add_rows(connection, STALE_ROWS)


def _alter(stage: Stage) -> None:
    ages.age(stage.env["DATABASE_URL"], ["psql"])
    stage.play(Scene(actors={"alter-table": ()}))


def _let_go(stage: Stage) -> None:
    """End it; those who waited do what they came for, or see that nobody waits for it."""
    stage.play(Scene())
    ages.restore(stage.env["DATABASE_URL"])
    deadline = time.monotonic() + _QUEUE_SECONDS
    with stage.database() as connection:
        while connection.execute(_QUEUE).fetchall():
            if time.monotonic() > deadline:
                raise LabError("the sessions that waited for the ALTER TABLE do not end")
            time.sleep(0.02)
        database_world.prove_indexes(connection)


def _run_script(stage: Stage) -> None:
    stage.play(Scene(actors={"script": ()}))


def _end_script(stage: Stage) -> None:
    """End it, and let Redis forget how slow it was."""
    stage.play(Scene())
    with redis.Redis.from_url(stage.env["REDIS_URL"], socket_timeout=10) as client:
        client.slowlog_reset()
        client.execute_command("LATENCY RESET")


def _repair(stage: Stage) -> None:
    """Take the rows away, bring the indexes back, and take fresh statistics."""
    with stage.database() as connection:
        connection.execute(
            """DO $drop$ DECLARE i text; BEGIN
                FOR i IN SELECT indexrelid::regclass::text FROM pg_catalog.pg_index
                    WHERE indrelid = 'public.sandboxes'::regclass AND NOT indisvalid
                LOOP EXECUTE 'DROP INDEX ' || i; END LOOP;
            END $drop$"""
        )
        with connection.transaction():
            # Nothing refers to these rows: not to look for what does saves seconds.
            connection.execute("SET LOCAL session_replication_role = replica")
            connection.execute("DELETE FROM public.sandboxes WHERE owner = %s", (_OWNER,))
        connection.execute(_FLUSH)
        for statement in _REPAIR:
            connection.execute(statement.encode())
        connection.execute(statements.load("migrations/0001_control_tables").encode())
        database_world.prove_indexes(connection)


def _add_rows(connection: psycopg.Connection[Any], rows: int) -> None:
    connection.execute(_INSERT.encode(), {"owner": _OWNER, "rows": rows})
    connection.execute(_FLUSH)


_CAUSES = (
    _Cause(
        name="index-dropped",
        summary=f"somebody dropped the indexes {' and '.join(DROPPED)}",
        make=_drop_indexes,
        remove=_repair,
    ),
    _Cause(
        name="index-invalid",
        summary=f"CREATE INDEX CONCURRENTLY failed, and left {INVALID} invalid",
        make=_spoil_index,
        remove=_repair,
    ),
    _Cause(
        name="control-lock-held",
        summary="an ALTER TABLE of the sandboxes' table was left open, and others queue behind it (its age is made up)",
        make=_alter,
        remove=_let_go,
    ),
    _Cause(
        name="redis-slow",
        summary="a script keeps Redis busy for 300 ms of every 350",
        make=_run_script,
        remove=_end_script,
        cache={"EngineCPUUtilization": [*gauges.level(2.0, 1.0)[:-6], *[87.0] * 6]},
    ),
    _Cause(
        name="statistics-stale",
        summary=f"{STALE_ROWS} rows came since the sandboxes' table was last analysed, and autovacuum is off for it",
        make=_add_stale_rows,
        remove=_repair,
    ),
)

INCIDENTS: Sequence[Incident] = incidents(
    _CAUSES, lay_out=_lay_out, relieve=_relieve, world=database_world.lay_out
)
