"""RB-SB-006 on each of its incidents, one after the other in one lab: the right cause first, applied, and well again."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from diagnostics import latency
from diagnostics.stack import Stack
from lab import control
from lab.incidents.slow import DROPPED, INVALID, STALE_ROWS
from lab.names import APP, POOL
from runbooks.engine.apply import Outcome
from runbooks.engine.environment import resolve
from runbooks.engine.errors import Exit
from runbooks.engine.guards import phrases
from runbooks.engine.model import Action, Finding, Severity
from runbooks.engine.operate import Operator
from runbooks.engine.systems import Readers, readers
from runbooks.rb_sb_006 import RUNBOOK
from runbooks.slowness import evidence as slowness
from sandbox.errors import ArrakisError, SandboxError
from tests.acceptance.engineer import Engineer
from tests.conftest import follow
from tests.waiting import eventually

CLOSED = "127.0.0.1:1"
STUBBORN = """DO $$ BEGIN PERFORM pg_sleep(60);
    EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(60); END $$"""


@dataclass(frozen=True)
class Look:
    """What was found, and what would be done about it."""

    findings: list[Finding]
    actions: list[Action]

    @property
    def causes(self) -> list[str]:
        """The causes, which stand before everything else."""
        named = [each.summary for each in self.findings if each.check == "cause"]
        assert [each.check for each in self.findings[: len(named)]] == ["cause"] * len(named)
        return named

    @property
    def wrong(self) -> list[str]:
        """Whatever is not well."""
        return [each.summary for each in self.findings if each.severity is not Severity.OK]

    @property
    def made(self) -> Mapping[str, str]:
        """What is proposed, by its target."""
        return {each.resource.id: each.verb for each in self.actions}


class Desk:
    """Somebody who asks the runbook, in this process, beside a lab."""

    def __init__(self, lab: control.Lab, state: Path) -> None:
        self.lab, self._state = lab, state
        self.environment = resolve(None, lab.env, state, state)
        self.readers = self.reading()

    def reading(self, **variables: str) -> Readers:
        """Return readers, some servers of which are elsewhere."""
        environment = resolve(None, {**self.lab.env, **variables}, self._state, self._state)
        return readers(environment, tag="arrakis-runbooks:rb-sb-006", timeout=10)

    def look(self, sandbox: str | None = None, **servers: Any) -> Look:
        """Diagnose; `servers` take the place of some of the readers."""
        evidence = RUNBOOK.gather(
            replace(self.readers, **servers),
            now=datetime.now(UTC),
            deadline=10,
            stack=Stack(),
            sandbox=sandbox,
        )
        actions, left = RUNBOOK.propose(evidence)
        return Look([*RUNBOOK.diagnose(evidence), *left], actions)

    def apply(self, *, left: int = 0) -> Outcome:
        """Plan and apply: it goes through, and what is measured again has no cause but those that are `left`."""
        operator = Operator(self.environment, timeout=10, progress=lambda *_: None, tell=lambda _: None)
        plan = operator.diagnose(RUNBOOK).plan
        assert plan is not None
        outcome = operator.apply(plan, RUNBOOK, ask=lambda *_: None, max_targets=None)
        assert outcome.exit is Exit.HEALTHY, [result.reason for result in outcome.results]
        assert [each.check for each in outcome.outlook] == ["cause"] * left + ["status command"]
        return outcome

    def undo(self, outcome: Outcome) -> None:
        """Undo a run, whole."""
        operator = Operator(self.environment, timeout=10, progress=lambda *_: None, tell=lambda _: None)
        undone = operator.undo(outcome.run, {"rb-sb-006": RUNBOOK}, ask=lambda *_: None)
        assert undone.exit is Exit.HEALTHY

    def lay_out(self, incident: str) -> None:
        self.lab = follow(self.lab, incident)

    def relieve(self, incident: str) -> None:
        """Relieve the lab, and see that all is well."""
        self.lab = control.relieve(self.lab, incident)
        assert ((seen := self.look()).wrong, seen.actions) == ([], [])

    @contextmanager
    def locked(self, then: str = "SELECT 1") -> Iterator[tuple[int, Callable[[], bool]]]:
        """Leave the sandboxes' table locked by the deployed system's role, and another waiting for it.

        `then` is what runs with the lock held. Yields the session's pid, and whether the other has what it waited for.
        """
        url, done = self.lab.env["DATABASE_URL"], threading.Event()

        def wait() -> None:
            with psycopg.connect(make_conninfo(url, user=POOL)) as client:
                client.execute("SELECT count(*) FROM sandboxes")
            done.set()

        holder = psycopg.connect(make_conninfo(url, user=APP, application_name="arrakis-api"))
        holder.execute("LOCK TABLE sandboxes IN ACCESS EXCLUSIVE MODE")
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        running = threading.Thread(target=_run, args=(holder, then), daemon=True)
        running.start()
        try:
            with psycopg.connect(url) as onlooker:
                query = "SELECT count(*) FROM pg_locks WHERE NOT granted"
                eventually(lambda: onlooker.execute(query).fetchone() == (1,))
            yield holder.info.backend_pid, done.is_set
        finally:
            holder.cancel_safe()
            running.join(10)
            holder.close()
            thread.join(10)


def _run(client: psycopg.Connection[Any], statement: str) -> None:
    with suppress(psycopg.Error):  # it is cancelled, or its session ended
        client.execute(statement.encode())


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Return somebody beside a lab that the module's tests share, each leaving it as it was."""
    home = tmp_path_factory.mktemp("lab") / "home"
    lab = control.start(home, watch_parent=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in lab.env.items():
            patch.setenv(name, value)
        patch.setattr(latency, "sample", partial(latency.sample, seconds=0.4))
        yield Desk(lab, tmp_path_factory.mktemp("state"))
    control.reset(home)


@pytest.mark.soak
def test_dropped_indexes_are_named_and_made_again(desk: Desk) -> None:
    desk.lay_out("index-dropped")
    found = desk.look()
    assert len(found.causes) == len(DROPPED)
    for name, cause in zip(sorted(DROPPED, reverse=True), found.causes, strict=True):
        assert cause.startswith(f"cause: index {name} is missing: every look-up reads all 50,0")
    assert found.made == dict.fromkeys(DROPPED, "create index")
    outcome = desk.apply()
    assert desk.look().wrong == []
    desk.undo(outcome)
    assert desk.look().made == found.made
    desk.relieve("index-dropped")


@pytest.mark.soak
def test_an_invalid_index_is_named_dropped_and_made_again(desk: Desk) -> None:
    desk.lay_out("index-invalid")
    found = desk.look()
    [cause] = found.causes
    assert cause.startswith(f"cause: index {INVALID} is invalid: every look-up reads all 50,0")
    assert found.made == {INVALID: "create index"}
    desk.apply()
    assert desk.look().wrong == []
    desk.relieve("index-invalid")


@pytest.mark.soak
def test_stale_statistics_are_named_and_taken_anew(desk: Desk) -> None:
    desk.lay_out("statistics-stale")
    found = desk.look()
    assert found.causes == ["cause: the statistics of sandboxes are stale, and mislead the planner"]
    [told, _] = found.findings[0].evidence["details"]
    assert f"sandboxes has {STALE_ROWS + 16:,} rows, the planner works with 16" in told
    assert found.made == {"sandboxes": "analyze table"}
    desk.apply()
    again = desk.look()
    [left] = again.wrong
    assert left.endswith("0 changes since; its autovacuum is off")
    assert again.actions == []
    desk.relieve("statistics-stale")


def test_a_slow_redis_and_a_lock_are_both_named_and_who_holds_the_lock_is_ended(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slowness, "PATIENCE", timedelta(0))
    desk.lay_out("redis-slow")
    found = desk.look()
    [cause] = found.causes
    assert cause.startswith("cause: Redis keeps its clients waiting: ")
    assert cause.endswith(", blocked by EVAL")
    assert found.actions == []
    with desk.locked() as (pid, is_through):
        outcome = desk.apply(left=1)
        eventually(is_through)
    named = Look([*outcome.plan.findings], [*outcome.plan.actions])
    assert named.made == {str(pid): "end session"}
    assert phrases(outcome.plan) == ("end 1", str(pid))
    first, second = named.causes
    assert first.startswith(f"cause: session {pid} of {APP} (arrakis-api), idle in transaction for ")
    assert second.startswith("cause: Redis keeps its clients waiting: ")
    desk.relieve("redis-slow")


@pytest.mark.soak
def test_an_alter_table_that_was_left_open_is_named_with_all_who_wait_for_it(desk: Desk) -> None:
    desk.lay_out("control-lock-held")
    found = desk.look()
    [cause] = found.causes
    assert "(psql), idle in transaction for " in cause
    assert cause.endswith(" keeps readers from sandboxes: 3 sessions wait")
    drawn = found.findings[0].evidence["drawn"]
    assert "ALTER TABLE public.sandboxes ADD COLUMN" in drawn[1]
    assert [APP in line for line in drawn if "waits for" in line] == [True] * 3
    assert max(map(len, drawn)) <= 71
    assert Severity.UNKNOWN not in {each.severity for each in found.findings}
    assert list(found.made.values()) == ["end session"]
    desk.apply()
    assert ((seen := desk.look()).wrong, seen.actions) == ([], [])
    desk.relieve("control-lock-held")


@pytest.mark.soak
def test_a_statement_that_swallows_its_cancellation_is_ended_by_the_next_run(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slowness, "PATIENCE", timedelta(0))
    monkeypatch.setattr("runbooks.remedies.sessions._PATIENCE", 0.5)
    with desk.locked(STUBBORN) as (pid, is_through):
        eventually(lambda: desk.look().made == {str(pid): "cancel query"})
        operator = Operator(desk.environment, timeout=10, progress=lambda *_: None, tell=lambda _: None)
        plan = operator.diagnose(RUNBOOK).plan
        assert plan is not None
        [result] = operator.apply(plan, RUNBOOK, ask=lambda *_: None, max_targets=None).results
        assert "was told to stop, and runs on" in result.reason
        outcome = desk.apply()
        [action] = outcome.plan.actions
        assert (action.verb, action.resource.id) == ("end session", str(pid))
        assert "cancelled its statement at" in action.reason
        eventually(is_through)
    assert desk.look().wrong == []


@pytest.mark.parametrize(
    ("server", "variable", "address", "unknown"),
    [
        ("sql", "DATABASE_URL", f"postgresql://lab@{CLOSED}/arrakis", "PostgreSQL"),
        pytest.param("keys", "REDIS_URL", f"redis://{CLOSED}/0", "Redis latency", marks=pytest.mark.soak),
        ("streams", "NATS_URL", f"nats://{CLOSED}", "NATS"),
        ("aws", "AWS_ENDPOINT_URL", f"http://{CLOSED}", "RDS"),
    ],
)
def test_a_source_that_is_down_is_unknown_and_nothing_is_healthy(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, server: str, variable: str, address: str, unknown: str
) -> None:
    monkeypatch.setenv(variable, address)
    elsewhere = getattr(desk.reading(**{variable: address}), server)
    found = desk.look(**{server: elsewhere}, **({"cache": elsewhere} if server == "keys" else {}))
    assert unknown in {each.check for each in found.findings if each.severity is Severity.UNKNOWN}
    assert len(found.causes) == (server != "aws")
    assert found.actions == []


def test_a_sandbox_is_asked_about_by_name(desk: Desk) -> None:
    with psycopg.connect(desk.lab.env["DATABASE_URL"]) as client:
        [(name,)] = client.execute(
            "SELECT name FROM sandboxes WHERE status = 'running' ORDER BY created_at LIMIT 1"
        )
    found = desk.look(str(name))
    assert found.wrong == []
    timed = next(each for each in found.findings if each.check == "status command")
    assert timed.summary.startswith(f"the status of {name} takes ")
    with pytest.raises(SandboxError, match="there is no sandbox named nobody"):
        desk.look("nobody")
    with pytest.raises(ArrakisError, match="can be no sandbox's name"):
        desk.look("no\nbody")


@pytest.mark.soak
def test_on_the_command_line(desk: Desk, tmp_path: Path) -> None:
    answer = Engineer(desk.lab, tmp_path).call("rb-sb-006", "--json")
    assert (answer.code, answer.document["outcome"]) == (0, "healthy")
    assert {each["check"] for each in answer.document["findings"]} >= {
        "plan",
        "indexes",
        "Redis latency",
        "load",
    }
