"""Many operators at once: one of them works, the others learn who that is; whoever lost the lease can write nothing."""

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lab.control import Lab
from tests.acceptance.dump import dump
from tests.acceptance.engineer import Engineer
from tests.acceptance.program import ROOT, Program
from tests.integration.crowd import fill
from tests.integration.world import World
from tests.waiting import eventually

APPLY = ("rb-sb-003", "--apply", "--yes", "--json", "--timeout", "5", "--max-targets", "99")
HELD = re.compile(
    r"stilgar on \S+ \([0-9a-f.]+, pid (\d+)\) is at work since (20[0-9-]{8} [0-9:]{8}) UTC, run (rb-sb-003-[0-9a-f-]+)"
)
SECONDS = 90


class Desks:
    """Operators at one lab, each with a host of their own, so that none finds another's plan."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self._folder = lab, folder
        self.engineers: dict[str, Engineer] = {}

    def of(self, name: str) -> Engineer:
        if name not in self.engineers:
            self.engineers[name] = Engineer(self.lab, self._folder / name, SANDBOX_OWNER=name)
        return self.engineers[name]

    def program(self, name: str, *words: str) -> Program:
        with Path(os.devnull).open() as nothing:
            return Program(["-m", *words], cwd=ROOT, env=self.of(name).env, stdin=nothing.fileno())

    @contextmanager
    def stalled(self, point: str, *words: str) -> Iterator[Program]:
        """Yield stilgar's program once it has come to this point and stands still; it does not outlive the block."""
        with self.program("stilgar", "tests.proof.rival", point, *(words or APPLY)) as program:
            eventually(lambda: program.poll() is not None or _state(program) == "T")
            assert program.poll() is None, program.communicate()
            yield program

    def phases(self, name: str, phase: str) -> list[str]:
        return [each["action"] for each in self.of(name).journal() if each["phase"] == phase]


def _state(program: Program) -> str:
    return Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()[0]


def woken(program: Program) -> tuple[int, str, str]:
    """Wake a program up, and return how it ended, and what it said."""
    os.kill(program.pid, signal.SIGCONT)
    out, err = program.communicate(SECONDS)
    return program.wait(), out, err


@pytest.fixture
def desks(grounds: Lab, world: World, tmp_path: Path) -> Desks:
    """Return operators at a lab where four schemas and four families of keys are orphans, and nobody works."""
    world.wipe()
    world.sql.execute("DROP SCHEMA IF EXISTS runbooks CASCADE")
    fill(grounds.env, strangers=4, keys=3)
    return Desks(grounds, tmp_path)


@pytest.mark.parametrize("crowd", [8, pytest.param(50, marks=pytest.mark.soak)])
def test_one_holds_the_lease_and_the_others_are_told_who(desks: Desks, world: World, crowd: int) -> None:
    with desks.stalled("sql") as first, ExitStack() as stack:
        held = world.one("SELECT holder || ' ' || run FROM runbooks.lease")
        before = dump(desks.lab)
        names = [f"operator-{number}" for number in range(crowd - 1)]
        others = [stack.enter_context(desks.program(name, "runbooks", *APPLY)) for name in names]
        for name, other in zip(names, others, strict=True):
            out, err = other.communicate(SECONDS)
            assert other.wait() == 6, out + err
            told = HELD.search(json.loads(out)["error"]["message"])
            assert told, out
            assert int(told[1]) == first.pid
            assert str(held).endswith(f" {told[3]}")
            assert HELD.search(err)
            assert not desks.phases(name, "started")
        assert dump(desks.lab) == before
        assert world.one("SELECT holder || ' ' || run FROM runbooks.lease") == held
        code, _, err = woken(first)
    assert code == 0, err
    assert len(desks.phases("stilgar", "done")) == 8
    assert world.one("SELECT holder FROM runbooks.lease") is None


def expire(world: World, point: str) -> None:
    """Do as time does: the lease runs out, and before that PostgreSQL ends the session that holds its row."""
    if point == "keys":
        world.sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'"
        )
    world.sql.execute("UPDATE runbooks.lease SET heartbeat = heartbeat - interval '1 minute'")


@pytest.mark.parametrize("point", ["sql", pytest.param("keys", marks=pytest.mark.soak)])
def test_who_stalls_until_another_took_over_writes_nothing_any_more(
    desks: Desks, world: World, point: str
) -> None:
    with desks.stalled(point) as late:
        done = desks.phases("stilgar", "done")
        assert len(done) == {"sql": 1, "keys": 4}[point]
        expire(world, point)
        answer = desks.of("chani").call(*APPLY)
        assert answer.code == 0, answer.said
        after = dump(desks.lab)
        code, out, err = woken(late)
    assert code not in (0, 2), out
    assert "took over" in out + err, out + err
    assert "Traceback" not in err
    assert dump(desks.lab) == after
    assert desks.phases("stilgar", "done") == done
    assert len(done) + len(desks.phases("chani", "done")) == 8
    assert not [name for name in (*after.schemas, *after.keys) if name.startswith("sandbox")]
