"""A disk that is full, or takes no writes: no action without its record, and a torn record is never acted on."""

import os
import random
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.control import Lab
from runbooks import rb_sb_003
from runbooks.engine.apply import Outcome, execute, started
from runbooks.engine.environment import Environment, resolve
from runbooks.engine.errors import Exit
from runbooks.engine.journal import Journal, Record, read
from runbooks.engine.model import Pace, Phase, Plan
from runbooks.engine.operate import Operator
from runbooks.engine.plan import dumps, save
from sandbox.errors import Halted
from tests.acceptance.dump import dump
from tests.acceptance.engineer import Engineer
from tests.integration.world import World
from tests.proof.disk import PAGE, Disk, small_disk
from tests.proof.field import Field, Orphan
from tests.proof.journals import ticking
from tests.unit.plans import plan as plan_of_many
from tests.unit.test_work import Lights

FULL, READ_ONLY = "No space left on device", "Read-only file system"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Return a small disk with nothing on it."""
    with small_disk(tmp_path) as mounted:
        yield mounted


@pytest.fixture
def orphans(world: World) -> Iterator[list[Orphan]]:
    """Return some orphans, that nobody has used for long."""
    field = Field(world, random.Random(9))
    with field.laid(6) as laid:
        field.settle()
        yield laid


def test_where_nothing_can_be_written_down_nothing_is_done(
    grounds: Lab, world: World, orphans: list[Orphan], disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = operator_at(world, disk, monkeypatch)
    plan = planned(operator)
    records = operator.journal.entries()
    before = dump(grounds)
    disk.fill()
    with pytest.raises(Halted, match=FULL):
        apply(operator, plan)
    disk.clear()
    disk.protect()
    with pytest.raises(Halted, match=READ_ONLY) as refused:
        apply(operator, plan)
    assert "\n" not in str(refused.value)
    assert refused.value.hint.startswith("free some disk, or point RUNBOOKS_STATE_DIR elsewhere")
    assert dump(grounds) == before
    assert operator.journal.entries() == records
    assert [record.phase for record in records] == [Phase.PLANNED]
    assert world.count("SELECT count(*) FROM runbooks.used_plans WHERE plan = %s", plan.id) == 0


@pytest.mark.soak
def test_who_calls_the_task_reads_one_line_why_and_one_what_to_do(
    grounds: Lab, orphans: list[Orphan], disk: Disk
) -> None:
    engineer = Engineer(grounds, disk.folder)
    plan = engineer.plan()
    disk.fill()
    answer = engineer.call("apply", "--plan", plan["id"], "--yes", "--max-targets", "99")
    assert answer.code == 1, answer.said
    assert answer.err.splitlines()[-2:] == [
        f"the journal cannot be written: {FULL}",
        "  next: free some disk, or point RUNBOOKS_STATE_DIR elsewhere; nothing is done without its record",
    ]


def test_a_disk_that_fills_up_stops_the_run_and_once_there_is_room_it_goes_on(
    world: World, orphans: list[Orphan], disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = operator_at(world, disk, monkeypatch)
    plan = planned(operator)
    disk.leave(operator.journal.path, len(dumps(started(plan))) + 2_000)
    outcome = apply(operator, plan)
    assert outcome.exit is Exit.PARTLY
    phases = [result.phase for result in outcome.results]
    done = phases.count(Phase.DONE)
    assert 0 < done < len(phases)
    assert phases == [Phase.DONE] * done + [Phase.FAILED] + [None] * (len(phases) - done - 1)
    assert FULL in outcome.results[done].reason
    begun = {each.action for each in operator.journal.entries() if each.phase is Phase.STARTED}
    assert touched(world, plan) <= begun

    disk.clear()
    resumed = operator.resume(outcome.run, {plan.runbook: rb_sb_003.RUNBOOK}, ask=lambda *_: None)
    assert resumed.exit is Exit.HEALTHY
    everything = {action.id for action in plan.actions}
    assert touched(world, plan) == everything
    ended = [each.action for each in operator.journal.entries() if each.phase is Phase.DONE]
    assert Counter(ended) == Counter(everything)


def planned(operator: Operator) -> Plan:
    """Return what is proposed."""
    plan = operator.diagnose(rb_sb_003.RUNBOOK).plan
    assert plan is not None
    return plan


def apply(operator: Operator, plan: Plan) -> Outcome:
    """Apply it, whole."""
    return operator.apply(
        plan, rb_sb_003.RUNBOOK, ask=lambda *_: None, max_targets=len(plan.actions), look_again=False
    )


def operator_at(world: World, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Operator:
    """Return somebody whose plans and journal are on the disk."""
    for name, value in world.env.items():
        monkeypatch.setenv(name, value)
    environment: Environment = resolve(None, world.env, disk.folder, disk.folder)
    return Operator(environment, timeout=20, progress=lambda *_: None, tell=lambda _: None)


def touched(world: World, plan: Plan) -> set[str]:
    """Return the actions whose target is not where it was."""
    schemas, keys = world.schemas(), world.key_names()
    families = {name.split(":")[1] for name in keys if name.startswith("sandbox:")}
    there = {"schema": schemas, "keys": families}
    return {action.id for action in plan.actions if action.resource.id not in there[action.resource.kind]}


# The journal alone


def test_records_that_are_written_together_are_all_there_or_none_of_them(disk: Disk) -> None:
    journal = Journal(disk.folder / "state" / "journal.jsonl", actor="chani", clock=ticking())
    journal.append("r1", Phase.RUN_STARTED, observed={"plan": {}})
    disk.fill()
    small = journal.extend("r1", both("x"))
    before = journal.path.read_bytes()
    bare = max(map(len, before.splitlines()[1:])) + 1
    room = -len(before) % PAGE
    # From the least that is too much: the first record may be there then, and the second is cut anywhere.
    for letters in range(room // 2 - bare + 20, room, 50):
        with pytest.raises(Halted, match=FULL) as told:
            journal.extend("r1", both("x" * letters))
        assert "nothing is done without its record" in told.value.hint
        assert journal.path.read_bytes() == before
    disk.clear()
    assert journal.append("r1", Phase.RUN_ENDED).seq == small[-1].seq + 1
    assert read(journal.path.read_bytes()).broken is None


def both(letters: str) -> list[Record]:
    """Return two records of that length and more."""
    return [
        Record(phase=phase, action="a1", observed={"was": letters}) for phase in (Phase.STARTED, Phase.DONE)
    ]


def test_however_many_may_fail_no_lot_is_begun_where_nothing_can_be_written_down(disk: Disk) -> None:
    journal, lights, made = at_work(disk)
    disk.protect()
    pace = Pace(workers=2, lot=3, failures=len(made.actions))
    outcome = execute(made, "r1", journal=journal, remedies={"flip": lights}, check=lambda: None, pace=pace)
    assert lights.lit == set()
    assert outcome.exit is Exit.ERROR
    assert [result.phase for result in outcome.results].count(Phase.FAILED) <= 2 * 3
    assert outcome.results[-1].reason == f"not reached: the journal cannot be written: {READ_ONLY}"


def at_work(disk: Disk) -> tuple[Journal, Lights, Plan]:
    """Return a run of many actions that has begun."""
    journal = Journal(disk.folder / "state" / "journal.jsonl", actor="chani", clock=ticking())
    made = plan_of_many(30)
    journal.append("r1", Phase.RUN_STARTED, observed=started(made))
    return journal, Lights(), made


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277, 0o777], ids=oct)
def test_whatever_the_umask_nobody_else_may_look(tmp_path: Path, umask: int) -> None:
    state = tmp_path / "state" / "production"
    before = os.umask(umask)
    try:
        saved = save(plan_of_many(), state / "plans")
        journal = Journal(state / "journal.jsonl", actor="chani", clock=ticking())
        journal.append("r1", Phase.STARTED)
    finally:
        os.umask(before)
    assert [mode(each) for each in (saved, journal.path)] == [0o600] * 2
    assert [mode(each) for each in (saved.parent, state, state.parent)] == [0o700] * 3


def mode(path: Path) -> int:
    """Return who may do what."""
    return stat.S_IMODE(path.stat().st_mode)


def test_a_journal_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl", actor="chani", clock=ticking())
    journal.append("r1", Phase.STARTED)
    journal.path.chmod(0o644)
    journal.append("r1", Phase.DONE)
    assert mode(journal.path) == 0o600
