"""mass-cleanup as an operator calls it: planned in groups, typed, interrupted and taken up, one that fails, all that are skipped."""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from lab import control
from runbooks.engine.journal import verify
from sandbox.adapters.postgres import Postgres
from sandbox.ports import APPLICATION
from tests.acceptance.dump import Dump, dump
from tests.acceptance.engineer import Answer, Engineer
from tests.acceptance.program import ROOT
from tests.integration.crowd import Crowd, fill
from tests.waiting import eventually

_TRAP = """
CREATE FUNCTION public.refused() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() WHERE object_type = 'schema' AND object_name ~ '{names}') THEN
        RAISE EXCEPTION 'disk on fire';
    END IF;
END $$;
CREATE EVENT TRIGGER trap ON sql_drop EXECUTE FUNCTION public.refused();
"""
_DISARM = "DROP EVENT TRIGGER IF EXISTS trap; DROP FUNCTION IF EXISTS public.refused()"


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[control.Lab]:
    """Return a lab with the control tables and nothing else in it."""
    lab = control.start(tmp_path_factory.mktemp("lab") / "home", watch_parent=True)
    Postgres(lab.env["DATABASE_URL"], tag="tests").script("migrations/0001_control_tables")
    yield lab
    control.reset(lab.home)


@pytest.fixture
def keeper(yard: control.Lab, tmp_path: Path) -> Iterator[Engineer]:
    """Return an engineer there; all that a test made is taken away again."""
    yield Engineer(yard, tmp_path / "state")
    with psycopg.connect(yard.env["DATABASE_URL"], autocommit=True) as sql:
        sql.execute(_DISARM)
        names = sql.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname ~ '^(sandbox|quarantine)_'"
        ).fetchall()
        for (name,) in names:
            sql.execute(f'DROP SCHEMA "{name}" CASCADE'.encode())
        sql.execute("DROP SCHEMA IF EXISTS runbooks CASCADE")
        sql.execute("DELETE FROM sandboxes")
    with redis.Redis.from_url(yard.env["REDIS_URL"]) as client:
        client.flushall()


def sql(lab: control.Lab, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements, and return what the last one says."""
    with psycopg.connect(lab.env["DATABASE_URL"], autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def plan(keeper: Engineer, *args: str) -> dict[str, Any]:
    """Plan, and return the one document."""
    answer = keeper.call("mass-cleanup", "--json", *args)
    assert answer.code == 2, answer.said
    return answer.document


def once(keeper: Engineer) -> None:
    """Insist that the journal is whole, and nothing was done twice."""
    entries = verify((keeper.state / "custom" / "journal.jsonl").read_bytes())
    done = Counter((entry.run, entry.action) for entry in entries if entry.phase == "done")
    assert done
    assert set(done.values()) == {1}
    destroyed = sql(
        keeper.lab,
        "SELECT count(*) FROM sandbox_audit_log WHERE event_type = 'sandbox_destroyed' GROUP BY sandbox_id",
    )
    assert {count for (count,) in destroyed} == {1}


def left(found: Dump) -> set[str]:
    """Return the ids that have a schema or keys under their own name."""
    return found.tokens() | {
        name.removeprefix("sandbox_") for name in found.schemas if name.startswith("sandbox_")
    }


@pytest.mark.parametrize(
    "times", [pytest.param(1, id="36 targets"), pytest.param(15, id="540 targets", marks=pytest.mark.soak)]
)
def test_planned_in_groups_typed_one_fails_the_rest_goes_on_resumed_and_undone(
    keeper: Engineer, times: int
) -> None:
    lab = keeper.lab
    made = fill(lab.env, expired=8 * times, stuck=4 * times, remains=6 * times, strangers=6 * times, live=4)
    before, total, lost = dump(lab), 36 * times, 12 * times
    planned = plan(keeper)
    groups = Counter(action["before"]["group"] for action in planned["plan"]["actions"])
    assert groups == {"expired": 8 * times, "stuck": 4 * times, "remains": 12 * times, "orphans": 12 * times}
    assert dump(lab) == before
    far = keeper.call("apply", "--plan", planned["plan"]["id"], "--yes")
    assert (far.code, f"--max-targets {total} raises it" in far.err) == (4, True), far.said
    limit = ("--max-targets", str(total))
    unasked = keeper.call("apply", "--plan", planned["plan"]["id"], "--yes", *limit)
    assert (unasked.code, "it cannot be undone" in unasked.err) == (4, True), unasked.said
    mistyped = keeper.call("mass-cleanup", "--apply", *limit, typing=f"drop {total}")
    assert mistyped.code == 4
    assert dump(lab) == before

    sql(lab, _TRAP.format(names=made.expired[3]))
    applied = call(keeper, "mass-cleanup", "--apply", "--json", *limit, typing=f"drop {lost}")
    assert applied.code == 5, applied.said
    run = applied.document["run"]
    failed = [result for result in run["results"] if not result["settled"]]
    assert [(each["resource"]["id"], each["phase"]) for each in failed] == [("expired-3", "failed")]
    assert "disk on fire" in failed[0]["reason"]
    assert f"{total} of {total}, " in applied.err
    assert applied.err.count("FAILED") == 1
    stayed = {str(id) for id in (*made.live, made.expired[3])}
    assert left(dump(lab)) == stayed
    sql(lab, _DISARM)
    resumed = call(keeper, "resume", "--run", run["id"], "--json", typing=f"drop {lost}")
    assert resumed.code == 0, resumed.said
    assert all(result["settled"] for result in resumed.document["run"]["results"])
    assert left(dump(lab)) == {str(id) for id in made.live}
    once(keeper)

    undone = call(keeper, "undo", "--run", run["id"], "--yes", "--json")
    assert undone.code == 0, undone.said
    kept = {str(id) for id in (*made.live, *made.remains, *made.strangers)}
    schemas = {f"sandbox_{id}" for id in kept}
    assert dump(lab).only(schemas, kept) == before.only(schemas, kept)
    assert left(dump(lab)) == kept
    once(keeper)


def call(keeper: Engineer, *args: str, typing: str | None = None) -> Answer:
    """Call a task that may take its time."""
    with keeper.calling(*args, terminal=typing is not None) as (program, terminal):
        if typing is not None:
            os.write(terminal, f"{typing}\n".encode())
        out, err = program.communicate(1_800)
    return Answer(code=program.wait(), out=out, err=err, seconds=0.0)


def test_the_operator_chooses_and_a_name_that_is_mistyped_costs_nobody_a_sandbox(keeper: Engineer) -> None:
    fill(keeper.lab.env, expired=3, stuck=2, remains=1)
    chosen = plan(keeper, "--only", "expired,stuck", "--limit", "2", "--except", "expired-2, destroying-0")
    assert [action["resource"]["id"] for action in chosen["plan"]["actions"]] == ["expired-1", "destroying-1"]
    told = [each["summary"] for each in chosen["findings"] if each["check"] == "not chosen"]
    assert told == [
        "not chosen: 2: excepted by name",
        "not chosen: 2: remains were not asked for",
        "not chosen: 1: the limit is 2, the oldest first",
    ]
    mine = plan(keeper, "--owner", "owner-1", "--older-than", "1d")
    assert [action["resource"]["id"] for action in mine["plan"]["actions"]] == ["expired-1", "destroying-1"]
    mistyped = keeper.call("mass-cleanup", "--except", "expired-O")
    assert mistyped.code == 1
    assert "nothing that is to be taken away is called 'expired-O'" in mistyped.err
    assert "did you mean expired-" in mistyped.err


def test_where_all_were_extended_since_the_plan_each_is_skipped_and_the_operator_sees_why(
    keeper: Engineer,
) -> None:
    fill(keeper.lab.env, expired=40)
    planned = plan(keeper)["plan"]["id"]
    sql(
        keeper.lab,
        "UPDATE sandboxes SET status = 'running', expires_at = now() + interval '1 hour' WHERE status = 'expired'",
    )
    before = dump(keeper.lab)
    applied = keeper.call("apply", "--plan", planned, "--max-targets", "40", typing="drop 40")
    assert applied.code == 4, applied.said
    assert dump(keeper.lab) == before
    lines = applied.out.splitlines()
    assert lines[0] == "applied: 0 of 40 actions"
    assert sum("it is running until" in line for line in lines) == 30
    assert f"  … and 10 more: `show --run {lines[1].split()[1]}` names them" in lines
    assert not any(line.startswith(("Go on", "Undo")) for line in lines)
    assert sum("it is running until" in line for line in applied.err.splitlines()) == 30
    assert "what else is skipped is counted only" in applied.err
    assert "40 of 40, 0 failed, 40 skipped" in applied.err


class Terminal:
    """A program at a terminal of 80 columns: what is typed, and all that was shown."""

    def __init__(self, keeper: Engineer, *args: str) -> None:
        here, there = pty.openpty()
        fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
        self._here, self._shown = here, bytearray()
        env = {**keeper.env, "TERM": "xterm-256color"}
        self.program = subprocess.Popen(
            [sys.executable, "-m", "runbooks", *args],
            cwd=ROOT,
            env=env,
            stdin=there,
            stdout=there,
            stderr=there,
        )
        os.close(there)
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.program.kill()
        self.program.wait()
        self._reading.join(10)
        os.close(self._here)

    @property
    def shown(self) -> str:
        return self._shown.decode(errors="replace")

    @property
    def lines(self) -> list[str]:
        """Return what was in a line at any time, without colours."""
        return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.shown))

    def type(self, text: str) -> None:
        """Type a line once it is asked for."""
        eventually(lambda: "to go on" in self.shown, seconds=60)
        os.write(self._here, f"{text}\n".encode())

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # its other end is closed
            while data := os.read(self._here, 65536):
                self._shown += data


def begun(keeper: Engineer) -> int:
    """Return how many actions were begun."""
    return sum(entry["phase"] == "started" for entry in keeper.journal())


@pytest.mark.soak
def test_ctrl_c_at_a_terminal_finishes_the_step_in_hand_and_resume_the_rest_none_twice(
    keeper: Engineer,
) -> None:
    lab = keeper.lab
    made = fill(lab.env, expired=60, remains=6, strangers=5, live=1)
    args = ("mass-cleanup", "--apply", "--max-targets", "82")
    with Terminal(keeper, *args) as terminal:
        terminal.type("drop 60")
        eventually(lambda: begun(keeper) > 0, seconds=60, pause=0)
        terminal.program.send_signal(signal.SIGINT)
        code = terminal.program.wait(180)
        eventually(lambda: "resume --run" in terminal.shown)
    shown = terminal.lines
    assert code in (1, 5), terminal.shown  # whether anything had ended by then, or not
    assert any(line.startswith("each finishes its step, and `resume` takes up the rest;") for line in shown)
    assert "0 failed" in terminal.shown or code == 1, terminal.shown
    halted = [re.fullmatch(r" *(\d+) were not (reached|finished): interrupted", line) for line in shown]
    unsettled = sum(int(each[1]) for each in halted if each)
    assert f"applied: {82 - unsettled} of 82 actions" in shown
    assert unsettled > 0
    bars = [line for line in shown if "/82 " in line]
    assert max(map(len, bars), default=0) <= 80
    assert terminal.shown.count("\x1b[?25h") >= terminal.shown.count("\x1b[?25l")  # the cursor is back
    run = next(line.split()[1] for line in shown if line.startswith("run mass-cleanup-"))
    resumed = keeper.call("resume", "--run", run, "--json", typing="drop 60")
    assert resumed.code == 0, resumed.said
    assert left(dump(lab)) == {str(id) for id in made.live}
    once(keeper)


@pytest.mark.soak
def test_a_second_ctrl_c_leaves_it_as_it_is_and_resume_takes_it_up(keeper: Engineer) -> None:
    fill(keeper.lab.env, expired=60)
    with Terminal(keeper, "mass-cleanup", "--apply", "--max-targets", "60") as terminal:
        terminal.type("drop 60")
        eventually(lambda: "/60" in terminal.shown, seconds=60)  # the bar is there
        for _ in range(2):
            terminal.program.send_signal(signal.SIGINT)
            eventually(lambda: "each finishes its step" in terminal.shown)
        assert terminal.program.wait(20) == 1
        eventually(lambda: "resume --run" in terminal.shown)
    assert terminal.shown.rindex("\x1b[?25h") > terminal.shown.rindex("\x1b[?25l")
    run = keeper.journal()[-1]["run"]
    resumed = call(keeper, "resume", "--run", run, "--json", typing="drop 60")
    assert resumed.code == 0, resumed.said
    assert left(dump(keeper.lab)) == set()
    once(keeper)


@pytest.mark.soak
def test_more_failures_than_may_be_stop_it_and_it_says_so(keeper: Engineer) -> None:
    made = fill(keeper.lab.env, expired=80)
    sql(keeper.lab, _TRAP.format(names="^sandbox_"))
    failing = call(keeper, "mass-cleanup", "--apply", "--max-targets", "80", typing="drop 80")
    assert failing.code == 1, failing.said
    told = re.search(r"(\d+) were not finished: more failed than the 20 that may", failing.out)
    assert told, failing.out
    assert 80 - int(told[1]) in range(21, 25)  # each of the four finishes the step that it has in hand
    assert (
        "`resume` takes a run up that was interrupted" in failing.out
    )  # and so all of them can be told of afterwards
    assert "resume --run" in failing.out
    sql(keeper.lab, _DISARM)
    run = keeper.journal()[-1]["run"]
    resumed = call(keeper, "resume", "--run", run, "--json", typing="drop 80")
    assert resumed.code == 0, resumed.said
    assert left(dump(keeper.lab)) == set()
    assert len(made.expired) == 80
    once(keeper)


class Watch:
    """Looks at a database all the while: how full the table of locks is at most, and of whom."""

    def __init__(self, lab: control.Lab) -> None:
        self._url, self._over = lab.env["DATABASE_URL"], threading.Event()
        self.most = self.room = 0
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        # By the toolkit's own name: the throttle would take anybody else for production at work.
        with psycopg.connect(self._url, autocommit=True, application_name=APPLICATION) as connection:
            settings = "SELECT current_setting('max_locks_per_transaction')::int * current_setting('max_connections')::int"
            self.room = int(connection.execute(settings).fetchall()[0][0])
            while not self._over.wait(0.02):
                # The fast path's locks are not in the table.
                [(locks,)] = connection.execute(
                    "SELECT count(*) FROM pg_locks WHERE NOT fastpath AND pid <> pg_backend_pid()"
                ).fetchall()
                self.most = max(self.most, locks)


def memory_of(program: int) -> int:
    """Return the most memory that a process has had, in kB."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{program}/status").read_text())
    return int(found[1]) if found else 0


@pytest.mark.soak
@pytest.mark.parametrize(
    ("crowd", "targets", "typed"),
    [
        pytest.param({"expired": 2_000, "live": 20, "keys": 10}, 2_000, "drop 2000", id="2,000 sandboxes"),
        pytest.param({"strangers": 2_000, "live": 20, "keys": 10}, 4_000, None, id="2,000 orphans"),
    ],
)
def test_by_the_thousand_all_are_clean_none_twice_and_the_table_of_locks_has_room(
    keeper: Engineer, crowd: dict[str, Any], targets: int, typed: str | None
) -> None:
    lab = keeper.lab
    made: Crowd = fill(lab.env, **crowd)
    args = ("mass-cleanup", "--apply", "--json", "--max-targets", str(targets), "--timeout", "120")
    began, most = time.monotonic(), 0
    with (
        Watch(lab) as watch,
        keeper.calling(*args, *([] if typed else ["--yes"]), terminal=bool(typed)) as (
            program,
            terminal,
        ),
    ):
        if typed:
            os.write(terminal, f"{typed}\n".encode())
        ended = threading.Thread(target=lambda: said.extend(program.communicate(3_600)), daemon=True)
        said: list[str] = []
        ended.start()
        while ended.is_alive():
            ended.join(0.5)
            with contextlib.suppress(OSError):
                most = max(most, memory_of(program.pid))
    seconds = time.monotonic() - began
    print(f"\n{targets} targets: {seconds:.0f} s, {most / 1024:.0f} MB, {watch.most} of {watch.room} locks")
    document = json.loads(said[0])
    assert document["exit"] == 0, said[1][-2000:]
    assert len(document["run"]["results"]) == targets
    assert left(dump_names(lab)) == {str(id) for id in made.live}
    assert watch.most < watch.room / 2
    assert most < 400 * 1024
    if typed:
        once(keeper)


def dump_names(lab: control.Lab) -> Dump:
    """Return the names of schemas and keys alone: of thousands nothing more is read."""
    names = sql(lab, "SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^sandbox_'")
    with redis.Redis.from_url(lab.env["REDIS_URL"]) as client:
        keys = {key.decode(): None for key in client.scan_iter(count=5000)}
    return Dump({str(name): None for (name,) in names}, keys)
