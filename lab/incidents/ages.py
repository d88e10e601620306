"""Sessions that look older than they are: the one thing about a session that nobody can make real without the time.

A database's view pg_stat_activity is replaced by one that says so; the server's own functions know better. The original is
read from another database of the server, where it stays.
"""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

__all__ = ["age", "restore"]

_ELSEWHERE = "postgres"
_MOMENTS = ("backend_start", "xact_start", "query_start", "state_change")
_COLUMNS = """SELECT attname::text FROM pg_catalog.pg_attribute
    WHERE attrelid = 'pg_catalog.pg_stat_activity'::regclass AND attnum > 0 ORDER BY attnum"""
_VIEW = "CREATE OR REPLACE VIEW pg_catalog.pg_stat_activity AS "
_AGED = """SELECT {columns} FROM ({original}) AS a CROSS JOIN LATERAL (
    SELECT CASE WHEN a.application_name = ANY ({applications}) AND a.state = 'idle in transaction'
        THEN interval '11 minutes' + a.pid % 20 * interval '1 minute' ELSE interval '0' END AS passed) AS b"""


def age(database_url: str, applications: Sequence[str]) -> None:
    """Let these applications' sessions that are idle in a transaction look 11 to 30 minutes older, each by its own number."""
    with _connect(database_url) as connection:
        names = [str(name) for (name,) in connection.execute(_COLUMNS)]
        aged = sql.SQL(_AGED).format(
            columns=sql.SQL(", ").join(map(_column, names)),
            original=sql.SQL(_original(database_url)),
            applications=sql.Literal(list(applications)),
        )
        _replace(connection, aged)


def restore(database_url: str) -> None:
    """Let every session look as old as it is."""
    with _connect(database_url) as connection:
        _replace(connection, sql.SQL(_original(database_url)))


def _column(name: str) -> sql.Composable:
    found = sql.Identifier("a", name)
    return sql.SQL("{} - b.passed AS {}").format(found, sql.Identifier(name)) if name in _MOMENTS else found


def _original(database_url: str) -> str:
    with _connect(make_conninfo(database_url, dbname=_ELSEWHERE)) as connection:
        found = connection.execute(
            "SELECT pg_catalog.pg_get_viewdef('pg_catalog.pg_stat_activity'::regclass)"
        )
        [(definition,)] = found.fetchall()
    return str(definition).rstrip("; \n")


def _replace(connection: psycopg.Connection[Any], query: sql.Composable) -> None:
    connection.execute("SET allow_system_table_mods = on")
    connection.execute(sql.SQL(_VIEW) + query)


def _connect(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url, autocommit=True, connect_timeout=5)
