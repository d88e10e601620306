"""RB-SB-005 on each of its incidents, one after the other in one lab: the right cause first, applied, and well again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from lab import control
from lab.incidents.database_world import APP_CONNECTIONS
from lab.names import APP, POOL
from runbooks.engine.apply import Outcome
from runbooks.engine.environment import Environment, resolve
from runbooks.engine.errors import Exit
from runbooks.engine.guards import phrases
from runbooks.engine.model import Finding, Plan, Severity
from runbooks.engine.operate import Diagnosis, Operator
from runbooks.rb_sb_005 import RUNBOOK
from tests.acceptance.engineer import Engineer
from tests.conftest import suffering
from tests.integration.pgbouncer import pooled
from tests.waiting import eventually

CLOSED = "127.0.0.1:1"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
SCHEMAS = "SELECT count(*) FROM pg_namespace WHERE nspname ~ '^sandbox_'"


@dataclass(frozen=True)
class Look:
    """What was found, and what would be done about it."""

    diagnosis: Diagnosis

    @property
    def causes(self) -> list[str]:
        """The causes, which stand before everything else."""
        found = self.diagnosis.findings
        named = [each.summary.removeprefix("cause: ") for each in found if each.check == "cause"]
        assert [each.check for each in found[: len(named)]] == ["cause"] * len(named)
        return named

    @property
    def wrong(self) -> list[str]:
        """Whatever is not well."""
        return [each.summary for each in self.diagnosis.findings if each.severity is not Severity.OK]

    @property
    def made(self) -> list[str]:
        """What is proposed."""
        plan = self.diagnosis.plan
        return [f"{action.verb} {action.resource.id}" for action in plan.actions] if plan else []

    def about(self, check: str) -> Finding:
        """Return the one finding of a check."""
        [finding] = [each for each in self.diagnosis.findings if each.check == check]
        return finding

    def of(self, severity: Severity) -> set[str]:
        """Return the checks of a severity."""
        return {each.check for each in self.diagnosis.findings if each.severity is severity}


class Desk:
    """Somebody who asks the runbook, in this process, beside a lab."""

    def __init__(self, lab: control.Lab, state: Path) -> None:
        self.lab, self._state = lab, state
        self.environment = resolve(None, lab.env, state, state)

    def look(self, *, probe: bool = False, environment: Environment | None = None) -> Look:
        """Diagnose, with a trial or without."""
        operator = self._operator(environment or self.environment)
        return Look(operator.diagnose(RUNBOOK, trial=_agree if probe else None))

    def apply(self, look: Look) -> Outcome:
        """Do what is proposed."""
        assert look.diagnosis.plan
        plan = look.diagnosis.plan
        return self._operator(self.environment).apply(
            plan, RUNBOOK, ask=_agree, max_targets=len(plan.actions)
        )

    def but(self, **variables: str) -> Environment:
        """Return the environment with some servers elsewhere."""
        return resolve(None, {**self.lab.env, **variables}, self._state, self._state)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query says."""
        with psycopg.connect(self.lab.env["DATABASE_URL"], autocommit=True) as connection:
            found = connection.execute(query.encode())
            return found.fetchall() if found.description else []

    def connect(self, user: str, application: str) -> psycopg.Connection[Any]:
        """Connect as somebody."""
        return psycopg.connect(
            make_conninfo(self.lab.env["DATABASE_URL"], user=user), application_name=application
        )

    def _operator(self, environment: Environment) -> Operator:
        return Operator(environment, timeout=15, progress=lambda *_: None, tell=lambda _: None)


def _agree(environment: Environment, plan: Plan, scope: str) -> None:
    """Agree to everything."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Return somebody at a lab in which all is well."""
    home = tmp_path_factory.mktemp("lab") / "home"
    try:
        lab = control.start(home, watch_parent=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("AWS_PROFILE", raising=False)
            for name, value in lab.env.items():
                patch.setenv(name, value)
            yield Desk(lab, tmp_path_factory.mktemp("state"))
    finally:
        control.reset(home)


def well(desk: Desk) -> None:
    """Insist that all is well, and that a schema can really be created."""
    before = desk.rows(SCHEMAS)
    look = desk.look(probe=True)
    assert (look.wrong, look.made, look.diagnosis.exit) == ([], [], Exit.HEALTHY)
    trial = look.about("trial").summary
    assert trial.startswith("a schema was created in ")
    assert trial.endswith(f" ms as {APP}")
    assert desk.rows(SCHEMAS) == before


FUNCTION = "create_sandbox_schema(p_sandbox_id text)"
INCIDENTS: Sequence[tuple[str, str, list[str], str]] = (
    (  # the first: no run before it has made the lease's table
        "disk-full",
        "the database's storage is full: 0.0 of 100 GiB are left",
        ["enlarge storage arrakis-lab"],
        "No space left on device",
    ),
    (
        "create-denied",
        f"{APP} lacks CREATE on database arrakis",
        [f"grant right CREATE ON DATABASE arrakis TO {APP}"],
        "permission denied for database arrakis",
    ),
    (
        "function-missing",
        f"what creating a schema takes is missing: function public.{FUNCTION}",
        [f"migrate public.{FUNCTION}"],
        "function public.create_sandbox_schema(unknown) does not exist",
    ),
)


@pytest.mark.parametrize(
    ("incident", "cause", "made", "met"),
    [
        pytest.param(*each, id=each[0], marks=() if each[0] == "function-missing" else pytest.mark.soak)
        for each in INCIDENTS
    ],
)
def test_the_cause_is_named_alone_and_mended(
    desk: Desk, incident: str, cause: str, made: list[str], met: str
) -> None:
    with suffering(desk.lab, incident):
        before = desk.rows(SCHEMAS)
        look = desk.look(probe=True)
        assert (look.causes, look.made, look.diagnosis.exit) == ([cause], made, Exit.PROPOSED)
        assert met in look.about("trial").summary
        assert look.of(Severity.CRITICAL) == {"cause", "alarm", "trial"}
        outcome = desk.apply(look)
        assert outcome.exit is Exit.HEALTHY
        assert [each.severity for each in outcome.outlook] == [Severity.OK]
        well(desk)
        assert desk.rows(SCHEMAS) == before


@pytest.mark.soak
def test_sessions_idle_in_a_transaction_are_ended_and_no_others(desk: Desk) -> None:
    with suffering(desk.lab, "idle-in-transaction"):
        look = desk.look()
        [cause] = look.causes
        assert cause.startswith(
            f"no connections are left: role {APP} has all {APP_CONNECTIONS} that it may have; "
            f"{APP_CONNECTIONS - 3} are idle in a transaction, for 1"  # 11 minutes, and what this took
        )
        assert len(look.made) == APP_CONNECTIONS - 3
        plan = look.diagnosis.plan
        assert plan
        assert phrases(plan) == (f"end {APP_CONNECTIONS - 3}",)
        assert desk.apply(look).exit is Exit.HEALTHY
        well(desk)
        left = desk.rows(f"SELECT application_name FROM pg_stat_activity WHERE usename = '{APP}' ORDER BY 1")
        assert left == [("arrakis-api",), ("arrakis-api",), ("gaib",)]


@pytest.mark.soak
def test_who_leaks_connections_is_named_and_nothing_is_ended(desk: Desk) -> None:
    with suffering(desk.lab, "connections-leaking"):
        look = desk.look()
        [cause] = look.causes
        assert cause.startswith("no connections are left: ")
        details = look.diagnosis.findings[0].evidence["details"]
        assert f"as {POOL}, idle" in details[0]
        assert "arrakis-worker has the most: does it give its connections back?" in details
        assert look.made == []
    well(desk)


def test_two_causes_at_once_are_both_named_and_both_mended(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runbooks.remedies.sessions.IDLE_LIMIT", timedelta(0))
    monkeypatch.setattr("runbooks.creation.evidence._PATIENCE", timedelta(0))
    other = desk.connect(APP, "arrakis-api")
    desk.rows(f"REVOKE CREATE ON DATABASE arrakis FROM {APP}")
    with desk.connect(POOL, "arrakis-worker") as holder:
        desk.rows(f"GRANT UPDATE ON sandboxes TO {POOL}")
        holder.execute("LOCK sandboxes IN SHARE MODE")
        other.pgconn.send_query(b"UPDATE sandboxes SET last_activity_at = now()")
        eventually(lambda: desk.rows(WAITING) == [(1,)])
        look = desk.look()
        assert [cause.split()[0] for cause in look.causes] == ["session", APP]
        assert look.made == [
            f"end session {holder.info.backend_pid}",
            f"grant right CREATE ON DATABASE arrakis TO {APP}",
        ]
        assert desk.apply(look).exit is Exit.HEALTHY
        with pytest.raises(psycopg.OperationalError):
            holder.execute("SELECT 1")
    desk.rows(f"REVOKE UPDATE ON sandboxes FROM {POOL}")
    other.close()
    monkeypatch.undo()
    well(desk)


def test_a_session_that_idles_and_hinders_nobody_is_no_cause(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runbooks.remedies.sessions.IDLE_LIMIT", timedelta(0))
    with desk.connect(POOL, "psql") as idle:
        idle.execute("SELECT count(*) FROM sandboxes")
        look, pid = desk.look(), idle.info.backend_pid
    assert (look.causes, look.made, look.diagnosis.exit) == ([], [], Exit.HEALTHY)
    assert pid in look.about("idle in transaction").evidence["pids"]  # and ours, between two statements


def test_a_database_that_is_gone_is_the_cause_and_nothing_else_is_known(desk: Desk) -> None:
    look = desk.look(environment=desk.but(DATABASE_URL=f"postgresql://lab@{CLOSED}/arrakis"))
    assert look.causes == ["PostgreSQL cannot be used from here: PostgreSQL refuses connections"]
    assert look.made == []
    assert look.diagnosis.exit is Exit.UNKNOWN
    assert look.about("PostgreSQL").summary.endswith(
        "; so nothing is known of rights, objects, database, sizes, dead rows, WAL, replication slots, vacuum"
    )


def test_an_account_that_does_not_answer_is_unknown_and_the_rest_is_told(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{CLOSED}")
    look = desk.look()
    assert (look.causes, look.made, look.diagnosis.exit) == ([], [], Exit.UNKNOWN)
    assert look.of(Severity.UNKNOWN) == {"alarm", "RDS", "log"}
    assert look.about("rights").severity is look.about("connections").severity is Severity.OK


def test_a_role_that_sees_little_says_what_it_does_not_see(desk: Desk) -> None:
    desk.rows("CREATE ROLE stranger LOGIN")
    place = desk.lab.env["DATABASE_URL"].rpartition("@")[2]
    with desk.connect(APP, "arrakis-api"):
        look = desk.look(environment=desk.but(DATABASE_URL=f"postgresql://stranger@{place}"))
    assert (look.causes, look.made) == ([], [])
    assert look.of(Severity.UNKNOWN) == {"WAL", "connections", "rights to look", "vacuum"}
    desk.rows("DROP ROLE stranger")


def test_through_pgbouncer_its_pools_are_told_and_a_schema_can_be_created(desk: Desk, tmp_path: Path) -> None:
    with pooled(desk.lab.env["DATABASE_URL"], tmp_path) as address:
        look = desk.look(probe=True, environment=desk.but(DATABASE_URL=address))
    assert (look.wrong, look.made) == ([], [])
    pools = look.about("PgBouncer")
    assert pools.summary.startswith("PgBouncer: ")
    assert any(detail.startswith("lab on arrakis (transaction): ") for detail in pools.evidence["details"])
    assert look.about("trial").summary.endswith(f" ms as {APP}")


def test_the_commands_themselves(desk: Desk, tmp_path: Path) -> None:
    engineer = Engineer(desk.lab, tmp_path)
    answer = engineer.call("rb-sb-005", "--json")
    assert answer.code == 0, answer.said
    assert {each["severity"] for each in answer.document["findings"]} == {"ok"}
    tried = engineer.call("rb-sb-005", "--probe", "--yes")
    assert tried.code == 0, tried.said
    assert "a schema was created in" in " ".join(tried.out.split())
    phases = [entry["phase"] for entry in engineer.journal()]
    assert phases == ["planned", "run-started", "started", "done", "run-ended"]
