"""database-maintenance as an operator calls it: planned, applied, killed and taken up, undone; and with 300,000 rows."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runbooks.database_maintenance import RUNBOOK
from runbooks.engine.environment import resolve
from runbooks.engine.errors import Exit
from runbooks.engine.lease import Lease
from runbooks.engine.operate import Operator
from sandbox.adapters.postgres import Postgres
from sandbox.adapters.postgres_transaction import Transaction
from tests.acceptance.engineer import Engineer
from tests.waiting import eventually

FEW = 3_000
MANY = 300_000
Row = tuple[object, ...]


class Log:
    """The audit log of a lab, beside the toolkit; nobody is connected meanwhile, for whom it would take its time."""

    def __init__(self, url: str) -> None:
        self._url = url

    def run(self, query: str, *params: object) -> list[Row]:
        """Run a statement, and return its rows."""
        with psycopg.connect(self._url) as sql:
            cursor = sql.execute(query.encode(), params or None)
            return cursor.fetchall() if cursor.description else []

    def fill(self, rows: int) -> None:
        """Write audit rows of the sandboxes that are destroyed, a hundred days old and older."""
        self.run(
            "WITH gone AS (SELECT array_agg(id) AS ids FROM sandboxes WHERE status = 'destroyed')"
            " INSERT INTO sandbox_audit_log (sandbox_id, event_type, actor, details, created_at)"
            " SELECT ids[1 + n %% cardinality(ids)], 'status_changed', 'thufir',"
            " jsonb_build_object('n', n, 'from', 'running'), now() - interval '100 d' - n * interval '1 s'"
            " FROM generate_series(1, %s) AS n, gone",
            rows,
        )

    def dump(self) -> set[Row]:
        """Return every row, field by field."""
        query = (
            "SELECT id, sandbox_id, event_type, actor, details::text, created_at::text FROM sandbox_audit_log"
        )
        return set(self.run(query))

    @property
    def old(self) -> int:
        """How many of them are there."""
        return self.count("SELECT count(*) FROM sandbox_audit_log WHERE actor = 'thufir'")

    def count(self, query: str) -> int:
        [[number]] = self.run(query)
        return int(str(number))


@pytest.fixture
def log(engineer: Engineer) -> Iterator[Log]:
    """Return the audit log; what a test put there goes with it."""
    made = Log(engineer.lab.env["DATABASE_URL"])
    yield made
    made.run("DELETE FROM sandbox_audit_log WHERE actor = 'thufir'")


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Return a folder for archives."""
    made = tmp_path / "shelf"
    made.mkdir()
    return made


def test_from_the_plan_to_the_archive_and_back(newcomer: Engineer, log: Log, shelf: Path) -> None:
    log.fill(FEW)
    before = log.dump()
    asked = ("database-maintenance", "--archive", str(shelf), "--json")
    planned = newcomer.call(*asked)
    assert planned.code == 2, planned.said
    actions = planned.document["plan"]["actions"]
    assert [each["verb"] for each in actions] == ["trim audit log", *["vacuum table"] * 3]
    assert log.dump() == before

    applied = newcomer.call(*asked, "--apply", "--yes")
    assert applied.code == 0, applied.said
    assert f"{FEW:,} of {FEW:,} rows archived" in applied.err
    assert log.old == 0
    assert len(log.dump()) == len(before) - FEW
    document = applied.document
    assert [each["severity"] for each in document["run"]["outlook"]] == ["ok"] * 3
    [archive] = shelf.iterdir()
    assert archive.name.startswith("sandbox_audit_log-custom-before-")

    newcomer.undo(document["run"]["id"])
    assert log.dump() == before


@pytest.mark.soak
def test_without_an_archive_the_number_of_rows_is_typed(newcomer: Engineer, log: Log) -> None:
    log.fill(FEW)
    asked = ("database-maintenance", "--keep", "12w", "--apply")
    refused = newcomer.call(*asked, "--yes")
    assert (refused.code, "it cannot be undone" in refused.err) == (4, True), refused.said
    mistyped = newcomer.call(*asked, typing="trim 1")
    assert mistyped.code == 4, mistyped.said
    assert log.old == FEW
    typed = newcomer.call(*asked, typing=f"trim {FEW}")
    assert typed.code == 0, typed.said
    assert log.old == 0


@pytest.mark.soak
def test_a_killed_trim_is_taken_up_where_it_stopped(newcomer: Engineer, log: Log, shelf: Path) -> None:
    log.fill(FEW)
    before, url = log.dump(), newcomer.lab.env["DATABASE_URL"]
    asked = ("database-maintenance", "--archive", str(shelf), "--apply", "--yes")
    last = "SELECT id FROM sandbox_audit_log WHERE actor = 'thufir' ORDER BY ctid DESC LIMIT 1 FOR UPDATE"
    waits = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%DELETE FROM%'"
    )
    with psycopg.connect(url) as holder:
        holder.execute(last.encode())
        with newcomer.calling(*asked) as (process, _):
            eventually(lambda: log.count(waits) > 0 or process.poll() is not None, seconds=60, pause=0)
            process.kill()
            process.communicate()
    assert 0 < log.old < FEW
    [archive] = shelf.iterdir()
    written = archive.read_bytes()
    run = newcomer.journal()[-1]["run"]
    resumed = newcomer.call("resume", "--run", run, "--yes", "--json")
    assert resumed.code == 0, resumed.said
    assert log.old == 0
    assert [each.read_bytes() for each in shelf.iterdir()] == [written]
    newcomer.undo(run)
    assert log.dump() == before


def test_beside_another_run_nothing_is_begun(newcomer: Engineer, log: Log) -> None:
    database = Postgres(newcomer.lab.env["DATABASE_URL"], tag="tests")
    with Lease.held(database, holder="duncan on arrakeen", run="mass-cleanup-1"):
        refused = newcomer.call("database-maintenance", "--apply", "--yes")
    assert refused.code == 6, refused.said
    assert "duncan on arrakeen is at work since " in refused.err
    assert "run mass-cleanup-1" in refused.err


def timed(method: Callable[..., Any], took: dict[str, float]) -> Callable[..., Any]:
    """Note how long the longest call took, by the statement that it ran."""

    def call(*args: Any, **params: Any) -> Any:
        began = time.monotonic()
        try:
            return method(*args, **params)
        finally:
            name = args[1] if len(args) > 1 else method.__name__
            took[name] = max(took.get(name, 0.0), time.monotonic() - began)

    return call


@pytest.mark.soak
def test_300_000_rows_are_trimmed_without_a_statement_over_a_second(
    engineer: Engineer, log: Log, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.fill(MANY)
    before = log.dump()
    for name, value in engineer.lab.env.items():
        monkeypatch.setenv(name, value)
    took: dict[str, float] = {}
    for method in (Transaction.rows, Transaction.execute, Transaction.commit):
        monkeypatch.setattr(Transaction, method.__name__, timed(method, took))
    environment = resolve(None, engineer.lab.env, tmp_path, tmp_path / "state")
    operator = Operator(environment, timeout=10, progress=lambda *_: None, tell=lambda _: None)
    found = operator.diagnose(RUNBOOK, about={"archive": str(shelf)})
    assert found.plan
    outcome = operator.apply(found.plan, RUNBOOK, ask=lambda *_: None, max_targets=None)
    assert outcome.exit is Exit.HEALTHY, [result.reason for result in outcome.results]
    assert log.old == 0
    undone = operator.undo(outcome.run, {RUNBOOK.name: RUNBOOK}, ask=lambda *_: None)
    assert undone.exit is Exit.HEALTHY
    assert log.dump() == before
    print({name: round(took[name], 3) for name in sorted(took, key=lambda name: -took[name])[:5]})
    assert {"write/maintenance/trim", "write/maintenance/restore", "read/maintenance/old_rows"} <= set(took)
    assert max(took.values()) < 1.0
