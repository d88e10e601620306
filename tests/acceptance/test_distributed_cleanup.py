"""mass-cleanup past one machine, by the real commands: handed over, done by workers of whom one is killed, followed, halted."""

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lab import control
from runbooks.engine.journal import verify
from sandbox.adapters.postgres import Postgres
from tests.acceptance.engineer import Engineer
from tests.acceptance.program import Program
from tests.integration.crowd import fill
from tests.waiting import eventually


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[control.Lab]:
    """Return a lab with the control tables and nothing else in it."""
    lab = control.start(tmp_path_factory.mktemp("lab") / "home", watch_parent=True)
    Postgres(lab.env["DATABASE_URL"], tag="tests").script("migrations/0001_control_tables")
    yield lab
    control.reset(lab.home)


@pytest.fixture(autouse=True)
def _nobody(yard: control.Lab) -> Iterator[None]:
    """Take the rows away that a test leaves: the next one's sandboxes have the same names."""
    yield
    with psycopg.connect(yard.env["DATABASE_URL"], autocommit=True) as sql:
        sql.execute("DELETE FROM sandbox_audit_log; DELETE FROM sandboxes")


def one(lab: control.Lab, query: str) -> Any:
    with psycopg.connect(lab.env["DATABASE_URL"], autocommit=True) as sql:
        row = sql.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def ended(lab: control.Lab) -> int:
    return int(one(lab, "SELECT count(*) FROM sandboxes WHERE status = 'destroyed'"))


def done(*states: Path) -> Counter[str]:
    """How often each action is said to be done, in the journals of all hosts, which are whole."""
    found: Counter[str] = Counter()
    for state in states:
        entries = verify((state / "custom" / "journal.jsonl").read_bytes())
        found.update(f"{entry.run} {entry.action}" for entry in entries if entry.phase == "done")
    return found


@pytest.mark.soak
def test_handed_over_done_by_a_worker_and_followed(yard: control.Lab, tmp_path: Path) -> None:
    fill(yard.env, expired=6)
    boss, host = Engineer(yard, tmp_path / "boss"), Engineer(yard, tmp_path / "host")
    asked = ("mass-cleanup", "--only", "expired", "--apply", "--distributed", "--max-targets", "6")
    with host.calling("cleanup-worker", "--idle", "0") as (worker, _):
        answer = boss.call(*asked, typing="drop 6")
        assert answer.code == 0, answer.said
        assert "applied: 6 of 6 actions, verified" in answer.out
        os.kill(worker.pid, signal.SIGINT)
        assert worker.wait(30) == 0
    assert one(yard, "SELECT count(*) FROM pg_namespace WHERE nspname ~ '^sandbox_'") == 0
    watched = host.call("mass-cleanup", "--watch", "--json")
    assert watched.code == 0, watched.said
    told = json.loads(watched.out.splitlines()[-1])
    assert (told["done"], told["left"], told["exit"]) == (6, 0, 0)
    [run] = {entry["run"] for entry in host.journal()}
    assert told["run"] == run
    again = boss.call("resume", "--run", run, "--json", typing="drop 6")
    assert again.code == 0, again.said
    assert set(done(boss.state, host.state).values()) == {1}


@pytest.mark.soak
@pytest.mark.parametrize(
    ("count", "seconds"),
    [pytest.param(30, 60, id="30 sandboxes"), pytest.param(2000, 1800, id="2000 sandboxes")],
)
def test_workers_on_two_hosts_of_whom_one_is_killed_halted_by_a_stop_and_gone_on_with(
    yard: control.Lab, tmp_path: Path, count: int, seconds: int
) -> None:
    fill(yard.env, expired=count)
    before, hosts = ended(yard), [tmp_path / name for name in ("boss", "first", "second", "third")]
    boss, first, second, third = (Engineer(yard, host) for host in hosts)
    plan = boss.call("mass-cleanup", "--only", "expired", "--json").document["plan"]
    assert len(plan["actions"]) == count
    limit = ("--max-targets", str(count))

    def work(stack: ExitStack, at: Engineer) -> Program:
        return stack.enter_context(at.calling("cleanup-worker", "--workers", "2", "--idle", "0"))[0]

    with (
        boss.calling("apply", "--plan", plan["id"], "--distributed", *limit, terminal=True) as (
            hand_over,
            end,
        ),
        ExitStack() as stack,
    ):
        os.write(end, f"drop {count}\n".encode())
        killed, other = work(stack, first), work(stack, second)
        eventually(lambda: ended(yard) - before >= count // 3, seconds=seconds)
        killed.kill()
        at_the_kill = ended(yard)
        # An emergency stop from elsewhere halts the one that is left.
        stopped = third.call("emergency-stop", "--only", "cleanup", "--yes", "--json")
        assert stopped.code in (0, 5), stopped.said
        assert other.wait(20) == 4
        halted = ended(yard)
        assert halted < before + count
        refused = third.call("cleanup-worker", "--idle", "1")
        assert (refused.code, ended(yard)) == (4, halted), refused.said
        assert third.call("emergency-resume", "--yes", "--json").code == 0
        last = work(stack, third)
        out, err = hand_over.communicate(seconds)
        assert hand_over.wait() == 0, out + err
        assert f"applied: {count} of {count} actions, verified" in out
        os.kill(last.pid, signal.SIGINT)
        assert last.wait(30) == 0
    assert at_the_kill < before + count
    assert ended(yard) == before + count
    assert one(yard, "SELECT count(*) FROM pg_namespace WHERE nspname ~ '^sandbox_'") == 0
    assert set(done(*hosts).values()) == {1}
    run = out.partition("run mass-cleanup-")[2].split()[0]
    assert one(
        yard, "SELECT max(n) FROM (SELECT count(*) AS n FROM sandbox_audit_log"
        " WHERE event_type = 'sandbox_destroyed' GROUP BY sandbox_id) AS each"
    ) == 1  # fmt: skip
    watched = second.call("mass-cleanup", "--watch", f"mass-cleanup-{run}", "--json")
    assert watched.code == 0, watched.said
    told = json.loads(watched.out.splitlines()[-1])
    assert (told["done"], told["left"], told["exit"]) == (count, 0, 0)
