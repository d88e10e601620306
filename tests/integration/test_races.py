"""Randomised worlds on real servers, changed at random between plan and apply: what is live is never touched."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import psycopg
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.control import Lab
from runbooks import rb_sb_003
from runbooks.engine.environment import resolve
from runbooks.engine.model import Phase
from runbooks.engine.operate import Operator
from tests.conftest import StartLab

DECOYS = ("sandboxes", "sandbox-tools", "sandbox_notes")
SPELLINGS = (str, lambda i: i.hex, lambda i: i.hex[:8], lambda i: str(i).upper(), lambda i: i.hex[:13])
RACES = ("none", "born", "revived", "written", "dropped", "renamed")

sandboxes = st.lists(
    st.tuples(
        st.uuids(version=4),
        st.sampled_from(SPELLINGS),
        st.sampled_from(["running", "creating", "expired", "destroying", "destroyed", None]),
        st.sampled_from(RACES),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda made: made[0].hex[:8],
)


@pytest.fixture(scope="module")
def lab(start_lab: StartLab) -> Iterator[Lab]:
    running = start_lab()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in running.env.items():
            patch.setenv(name, value)
        yield running


def lay_out(
    sql: psycopg.Connection[tuple[object, ...]], keys: "redis.Redis", world: list[tuple[object, ...]]
) -> None:
    """Empty the servers, then make this world and its decoys."""
    found = sql.execute(
        "SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^(sandbox|quarantine|moved)_'"
    ).fetchall()
    for (name,) in found:
        sql.execute(f'DROP SCHEMA "{name}" CASCADE'.encode())
    sql.execute("DELETE FROM sandboxes")
    keys.flushdb()
    for name in DECOYS:
        sql.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE'.encode())
        sql.execute(f'CREATE SCHEMA "{name}"'.encode())
    for number, (sandbox, spelling, status, _) in enumerate(world):
        name = f"sandbox_{spelling(sandbox)}"  # type: ignore[operator]
        sql.execute(f'CREATE SCHEMA "{name}"; CREATE TABLE "{name}".kept (id int)'.encode())
        if status:
            add_row(sql, sandbox, str(status), f"n{number}")
    sql.execute("SELECT 1")  # or our own last statement would name a schema, and so be its user


def add_row(sql: psycopg.Connection[tuple[object, ...]], sandbox: object, status: str, name: str) -> None:
    sql.execute(
        "INSERT INTO sandboxes (id, name, owner, status, schema_name, expires_at)"
        " VALUES (%s, %s, 'chani', %s::sandbox_status, %s, now())",
        (sandbox, name, status, f"elsewhere_{name}"),
    )


def race(
    sql: psycopg.Connection[tuple[object, ...]], sandbox: UUID, schema: str, status: str | None, how: str
) -> None:
    """Change one sandbox between plan and apply."""
    if how == "born" and status is None:
        add_row(sql, sandbox, "creating", f"late-{sandbox.hex[:6]}")
    if how == "revived" and status == "destroyed":
        sql.execute("UPDATE sandboxes SET status = 'running' WHERE id = %s", (sandbox,))
    if how == "written":
        with psycopg.connect(sql.info.dsn) as other:  # its end hands its counters over at once
            other.execute(f'INSERT INTO "{schema}".kept VALUES (1)'.encode())
    if how == "dropped":
        sql.execute(f'DROP SCHEMA "{schema}" CASCADE'.encode())
    if how == "renamed":
        sql.execute(f'ALTER SCHEMA "{schema}" RENAME TO "moved_{sandbox.hex}"'.encode())


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(world=sandboxes)
def test_what_is_live_or_changed_is_never_touched(
    lab: Lab, world: list[tuple[UUID, object, str | None, str]]
) -> None:
    with (
        psycopg.connect(lab.env["DATABASE_URL"], autocommit=True) as sql,
        redis.Redis.from_url(lab.env["REDIS_URL"]) as keys,
        TemporaryDirectory() as state,
    ):
        lay_out(sql, keys, world)  # type: ignore[arg-type]
        environment = resolve(None, lab.env, Path(state), Path(state))
        operator = Operator(environment, timeout=10, progress=lambda *_: None, tell=lambda _: None)
        plan = operator.diagnose(rb_sb_003.RUNBOOK).plan
        names = {sandbox: f"sandbox_{spelling(sandbox)}" for sandbox, spelling, _, _ in world}  # type: ignore[operator]
        for sandbox, _, status, how in world:
            race(sql, sandbox, names[sandbox], status, how)
        sql.execute("SELECT 1")
        done: set[str] = set()
        if plan:
            outcome = operator.apply(plan, rb_sb_003.RUNBOOK, ask=lambda *_: None, max_targets=99)
            done = {result.action.resource.id for result in outcome.results if result.phase is Phase.DONE}
        left = {str(name) for (name,) in sql.execute("SELECT nspname::text FROM pg_namespace")}
    assert set(DECOYS) <= left
    for sandbox, _, status, how in world:
        orphan = status in ("destroyed", None)
        moved = orphan and (how == "none" or how == ("born" if status else "revived"))
        assert (names[sandbox] in done) is moved, (status, how)
        assert (names[sandbox] in left) is (not moved and how not in ("dropped", "renamed")), (status, how)
