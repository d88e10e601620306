"""The incidents of RB-SB-005: schemas cannot be created, for one cause at a time, which is really made.

The API's own attempts really fail at it, are logged with what the server said, and let the alarm go off.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors, sql

import sql as statements
from lab import provisioner, storage, volume
from lab.errors import LabError
from lab.incidents import ages, database_world, gauges
from lab.incidents.gauges import Values
from lab.incidents.stage import Incident, Stage, incidents
from lab.names import APP, POOL
from lab.scene import Scene
from sandbox.naming import schema_for

__all__ = ["BALLAST", "INCIDENTS", "TABLESPACE"]

TABLESPACE = "arrakis_data"
"""What stands for the instance's storage when that is full: what is new goes there."""
BALLAST = "event_archive"
"""The table in a sandbox's schema that fills it."""

_MIB = 100  # as many as the instance has GiB
_SPARE = 1024 * 1024
_ROWS_A_PAGE, _PAGE = 7, 8192
_LAST_ROWS = 8 * _ROWS_A_PAGE
_HEALED_SECONDS = 5.0
_FILL = "INSERT INTO {} SELECT n, now(), repeat('x', 1000) FROM generate_series(1, {}) AS n"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cause:
    """A cause: the SQLSTATE that the API meets, how it is made and removed, and what CloudWatch measures under it."""

    name: str
    summary: str
    code: str
    make: Callable[[Stage], None]
    remove: Callable[[Stage], None]
    measured: Callable[[Stage], Values] = lambda _: {}


def _lay_out(cause: _Cause, stage: Stage) -> None:
    """Make the cause, and let the API meet it."""
    cause.make(stage)
    failed = provisioner.ask(stage.env)
    if not failed or any(each.code != cause.code for each in failed):
        met = ", ".join(sorted({f"{each.code} {each.words}" for each in failed})) or "nothing"
        raise LabError(f"the cause {cause.name} does not hold: the API met {met}")
    gauges.publish(stage.env, database=cause.measured(stage))


def _relieve(cause: _Cause, stage: Stage) -> None:
    """Remove the cause, let the time pass in which it would be remembered, and let the API succeed."""
    cause.remove(stage)
    deadline = time.monotonic() + _HEALED_SECONDS
    while (tried := provisioner.attempt(stage.env["DATABASE_URL"])).error:
        if time.monotonic() > deadline:
            raise LabError(f"the API still cannot create a schema: {tried.code} {tried.words}")
        time.sleep(0.02)
    gauges.let_pass(stage.env)
    provisioner.ask(stage.env)
    gauges.publish(stage.env)


def _idle(stage: Stage) -> None:
    ages.age(stage.env["DATABASE_URL"], ["arrakis-api"])
    stage.play(Scene(actors={"idle-in-transaction": ()}))


def _none_idle(stage: Stage) -> None:
    stage.play(Scene())
    ages.restore(stage.env["DATABASE_URL"])


def _leak(stage: Stage) -> None:
    stage.play(Scene(actors={"connections": (POOL,)}))


def _end_leak(stage: Stage) -> None:
    stage.play(Scene())


def _connected(stage: Stage) -> Values:
    """The connections, from a calm day's to as many as there are now."""
    query = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend'"
    with stage.database() as connection:
        [(now,)] = connection.execute(query).fetchall()
    calm = gauges.level(14.0, 2.0)
    climb = [14.0 + (now - 14.0) * index / 11 for index in range(12)]
    return {"DatabaseConnections": [*calm[: -len(climb)], *climb]}


def _revoke(stage: Stage) -> None:
    with stage.database() as connection:
        connection.execute(f"REVOKE CREATE ON DATABASE arrakis FROM {APP}".encode())


def _drop_function(stage: Stage) -> None:
    with stage.database() as connection:
        connection.execute("DROP FUNCTION public.create_sandbox_schema(text)")


def _migrate(stage: Stage) -> None:
    """Bring back what the migration makes, and the role's rights to it."""
    with stage.database() as connection:
        connection.execute(statements.load("migrations/0001_control_tables").encode())
        database_world.grant(connection)


def _fill(stage: Stage) -> None:
    """Let PostgreSQL put what is new on a small disk of its own, and fill that with one sandbox's rows."""
    volume.insist()
    stage.play(Scene(volume=_MIB))
    with stage.database() as connection:
        # This is no first run: on a disk that is full already, nobody could make the lease's table.
        for name in ("0002_runbooks", "0003_emergencies"):
            connection.execute(statements.load(f"migrations/{name}").encode())
        [(data,)] = connection.execute("SHOW data_directory").fetchall()
        location = sql.Literal(str(Path(data).parent / volume.FOLDER))
        create = sql.SQL(f"CREATE TABLESPACE {TABLESPACE} LOCATION {{}}")
        connection.execute(create.format(location))
        connection.execute(f"GRANT CREATE ON TABLESPACE {TABLESPACE} TO {APP}".encode())
        connection.execute(f"ALTER DATABASE arrakis SET default_tablespace = {TABLESPACE}".encode())
        table = _ballast(stage)
        columns = "(id integer, received_at timestamptz, payload text)"
        create = sql.SQL(
            f"CREATE UNLOGGED TABLE {{}} {columns} WITH (autovacuum_enabled = off) TABLESPACE {TABLESPACE}"
        )
        connection.execute(create.format(table))
        connection.execute(sql.SQL(f"ALTER TABLE {{}} OWNER TO {APP}").format(table))
        _fill_up(connection, table)


def _fill_up(connection: psycopg.Connection[Any], table: sql.Identifier) -> None:
    """Write as much as there is room for, then a little at a time until there is none."""
    rows = (volume.left(connection.info.backend_pid) - _SPARE) // _PAGE * _ROWS_A_PAGE
    try:
        while True:
            connection.execute(sql.SQL(_FILL).format(table, rows))
            rows = _LAST_ROWS
    except errors.DiskFull:
        return


def _empty(stage: Stage) -> None:
    """Take the rows away, and let what is new go where the rest is. The disk stays, for what was put there meanwhile."""
    with stage.database() as connection:
        connection.execute("ALTER DATABASE arrakis RESET default_tablespace")
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(_ballast(stage)))


def _draining(stage: Stage) -> Values:
    """The storage that is free, down to what is really free now."""
    with stage.database() as connection:
        now = storage.free(connection.info.backend_pid)
    last = gauges.POINTS - 1
    return {
        "FreeStorageSpace": [
            now + (gauges.STORAGE - now) * (last - index) / last for index in range(gauges.POINTS)
        ]
    }


def _ballast(stage: Stage) -> sql.Identifier:
    largest = next(row for row in database_world.build(stage.now).sandboxes if row.owner == "jessica")
    return sql.Identifier(schema_for(largest.id), BALLAST)


_CAUSES = (
    _Cause(
        name="idle-in-transaction",
        summary="sessions idle in transaction hold all the API's connections (their ages alone are made up)",
        code="53300",
        make=_idle,
        remove=_none_idle,
        measured=_connected,
    ),
    _Cause(
        name="connections-leaking",
        summary="the worker's pool leaks: PostgreSQL keeps its last connections for superusers",
        code="53300",
        make=_leak,
        remove=_end_leak,
        measured=_connected,
    ),
    _Cause(
        name="create-denied",
        summary=f"the role {APP} has lost its right to create schemas",
        code="42501",
        make=_revoke,
        remove=_migrate,
    ),
    _Cause(
        name="function-missing",
        summary="somebody dropped the function that creates schemas",
        code="42883",
        make=_drop_function,
        remove=_migrate,
    ),
    _Cause(
        name="disk-full",
        summary="the disk is full: one of 100 MiB, a MiB of which stands for a GiB of the instance's storage",
        code="53100",
        make=_fill,
        remove=_empty,
        measured=_draining,
    ),
)

INCIDENTS: Sequence[Incident] = incidents(
    _CAUSES, lay_out=_lay_out, relieve=_relieve, world=database_world.lay_out
)
