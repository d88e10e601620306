"""What comes of a run as a whole, and of an interrupted one that is taken up: results, exit code, and who is told."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from runbooks.engine import apply as module
from runbooks.engine.apply import Outcome, execute, inverse_actions, plan_of, remembered, started, wait_for
from runbooks.engine.budget import Budget
from runbooks.engine.errors import Exit, PlanError, Refused
from runbooks.engine.journal import JournalEntry
from runbooks.engine.model import Action, Pace, Phase, State
from runbooks.engine.work import Result
from sandbox.errors import ArrakisError, Halted
from tests.unit.plans import FINDING, NOW, action, plan
from tests.unit.test_engine_work import AFTER, CHANGED, Many, Things, Written

PLAN = plan(3)


class Journal(Written):
    """A journal in memory whose last record can be refused."""

    refusing = False

    def append(self, run: str, phase: Phase, *, observed: Any) -> None:
        if self.refusing:
            raise ArrakisError("the disk is full")
        self.ended = (run, phase, observed)


def run(remedy: Any, *, journal: Journal | None = None, **more: Any) -> Outcome:
    written: Any = journal or Journal()
    return execute(PLAN, "r1", journal=written, remedies={"flip": remedy}, check=lambda: None, **more)


def entry(phase: Phase, name: str | None = "a1", **more: Any) -> JournalEntry:
    fields = {"observed": {}, "error": None} | more
    return JournalEntry(
        chain="c", seq=1, run="r1", action=name, phase=phase, at=NOW, actor="ada", previous="", **fields
    )


BEGIN = entry(Phase.RUN_STARTED, None, observed=started(PLAN))


# What comes of it


def result(phase: Phase | None, settled: bool) -> Result:
    return Result(action=action(1), phase=phase, reason="", settled=settled)


DONE, SKIPPED, FAILED, UNREACHED, UNFINISHED = (
    result(Phase.DONE, True),
    result(Phase.SKIPPED, False),
    result(Phase.FAILED, False),
    result(None, False),
    result(Phase.STARTED, False),
)


@pytest.mark.parametrize(
    ("results", "left", "code"),
    [
        ([], (), Exit.HEALTHY),
        ([DONE, DONE], (), Exit.HEALTHY),
        ([DONE, DONE], (FINDING,), Exit.PARTLY),
        ([DONE, SKIPPED], (), Exit.PARTLY),
        ([DONE, FAILED], (), Exit.PARTLY),
        ([FAILED, UNREACHED], (), Exit.ERROR),
        ([SKIPPED, FAILED], (FINDING,), Exit.ERROR),
        ([SKIPPED, SKIPPED], (), Exit.REFUSED),
        ([SKIPPED, UNREACHED], (), Exit.ERROR),
        ([SKIPPED, UNFINISHED], (), Exit.ERROR),
    ],
)
def test_the_exit_code_is_of_all_targets_together(results: list[Result], left: Any, code: Exit) -> None:
    assert Outcome(run="r1", plan=PLAN, results=tuple(results), left=left).exit is code
    assert Outcome(run="r1", plan=PLAN, results=tuple(results)).left == ()


def test_an_outcome_holds_everything_in_the_plans_order() -> None:
    journal = Journal()
    found = run(Many(a2=CHANGED), journal=journal, left=[FINDING], pace=Pace(lot=9))
    assert (found.run, found.plan, found.left, found.outlook) == ("r1", PLAN, (FINDING,), ())
    assert [(each.action.id, each.phase, each.reason) for each in found.results] == [
        ("a1", Phase.DONE, "a1 is after"),
        ("a2", Phase.SKIPPED, "a2 is changed"),
        ("a3", Phase.DONE, "a3 is after"),
    ]
    assert journal.ended == ("r1", Phase.RUN_ENDED, {"exit": 5})


def test_what_is_not_reached_says_why() -> None:
    things = Things()
    things.broken["a1"] = ArrakisError("stuck")
    found = run(things)
    assert [(each.phase, each.reason, each.settled) for each in found.results[1:]] == [
        (None, "not reached: one failed", False)
    ] * 2


def test_a_record_that_cannot_be_written_at_the_end_changes_nothing() -> None:
    journal = Journal()
    journal.refusing = True
    assert run(Things(), journal=journal).exit is Exit.HEALTHY


def test_each_ending_is_told_with_how_many_there_are() -> None:
    told = list[tuple[str, int, int]]()
    run(Things(), progress=lambda result, ended, total: told.append((result.action.id, ended, total)))
    assert told == [("a1", 1, 3), ("a2", 2, 3), ("a3", 3, 3)]


def test_where_nobody_reads_along_any_more_the_work_goes_on() -> None:
    def gone(*_: object) -> None:
        raise BrokenPipeError

    assert run(Things(), progress=gone).exit is Exit.HEALTHY


# Taken up


def test_what_had_ended_is_not_looked_at_again_and_counts() -> None:
    past = [
        BEGIN,
        entry(Phase.STARTED),
        entry(Phase.DONE),
        entry(Phase.SKIPPED, "a2", error="in use: ada", observed={"settled": False}),
        entry(Phase.STARTED, "a3"),
        entry(Phase.FAILED, "a3"),
        entry(Phase.DONE, None),
    ]
    things, told = Things(), list[tuple[str, int, int]]()
    found = run(
        things, past=past, progress=lambda result, ended, total: told.append((result.action.id, ended, total))
    )
    assert things.calls == ["who uses a3", "apply a3"]
    assert [each.action for each in found.results] == list(PLAN.actions)
    assert [(each.phase, each.reason, each.settled) for each in found.results] == [
        (Phase.DONE, "", True),
        (Phase.SKIPPED, "in use: ada", False),
        (Phase.DONE, "a3 is after", True),
    ]
    assert told == [("a3", 3, 3)]


def test_what_was_begun_before_and_is_done_now_was_done_by_us() -> None:
    found = run(Things(a1=AFTER, a2=AFTER), past=[BEGIN, entry(Phase.STARTED)])
    assert [each.phase for each in found.results] == [Phase.DONE, Phase.SKIPPED, Phase.DONE]


@pytest.mark.parametrize(
    ("phase", "observed", "settled"),
    [
        (Phase.DONE, {}, True),
        (Phase.SKIPPED, {"settled": True}, True),
        (Phase.SKIPPED, {"settled": False}, False),
        (Phase.SKIPPED, {"settled": "true"}, False),
        (Phase.SKIPPED, {}, False),
    ],
)
def test_an_earlier_ending_is_remembered(phase: Phase, observed: dict[str, Any], settled: bool) -> None:
    made = remembered(action(1), entry(phase, observed=observed, error="why"))
    assert made == Result(action=action(1), phase=phase, reason="why", settled=settled)
    assert remembered(action(1), entry(phase)).reason == ""


def test_the_plan_is_in_the_runs_first_record_wherever_that_stands() -> None:
    assert plan_of([entry(Phase.PLANNED), BEGIN]).id == PLAN.id
    with pytest.raises(PlanError, match="never started"):
        plan_of([])
    forged = entry(Phase.RUN_STARTED, None, observed=started(replace(PLAN, existing=9)))
    with pytest.raises(Refused, match="the plan of run r1 was edited"):
        plan_of([forged])


# Taken back


def inverse(*entries: JournalEntry, of: Any = PLAN) -> list[str]:
    begin = entry(Phase.RUN_STARTED, None, observed=started(of))
    return [each.id for each in inverse_actions([begin, *entries])]


@pytest.mark.parametrize(
    ("phase", "back"),
    [
        (Phase.STARTED, ["a2"]),
        (Phase.DONE, ["a2"]),
        (Phase.FAILED, ["a2"]),
        (Phase.SKIPPED, []),
        (Phase.PLANNED, []),
    ],
)
def test_all_that_was_begun_is_taken_back(phase: Phase, back: list[str]) -> None:
    assert inverse(entry(phase, "a2")) == back


def test_it_is_taken_back_last_one_first_and_says_of_what() -> None:
    entries = [BEGIN, *(entry(Phase.DONE, name) for name in ("a1", "a3"))]
    assert inverse_actions(entries) == [
        replace(PLAN.actions[number], verb="undo flip", reason="undo of r1") for number in (2, 0)
    ]


def test_what_cannot_be_taken_back_is_not_and_an_undo_is_none_to_be_undone() -> None:
    assert inverse(entry(Phase.DONE), of=plan(3, lost=1)) == []
    for other in (plan(undoes="r0"), plan(actions=[replace(action(1), verb="undo flip")])):
        with pytest.raises(PlanError, match="itself an undo"):
            inverse(entry(Phase.DONE), of=other)


# Several at once


@pytest.mark.parametrize(
    ("sizes", "room", "taken"),
    [
        ([2, 2, 2, 1], 0, [2, 2, 2, 1]),
        ([2, 2, 2, 1], 3, [2, 2, 3]),
        ([2, 2, 2, 1], 4, [4, 3]),
        ([2, 2, 2, 1], 7, [7]),
        ([2, 2, 2, 1], 9, [7]),
        ([1, 1, 1], 9, [1, 1, 1]),  # of what is done one at a time each lot is one action
        ([1, 2, 2], 9, [1, 4]),
        ([5, 2], 3, [5, 2]),
        ([], 9, []),
    ],
)
def test_lots_are_joined_as_far_as_there_is_room(sizes: list[int], room: int, taken: list[int]) -> None:
    numbers = iter(range(1, 20))
    each = [[action(next(numbers)) for _ in range(size)] for size in sizes]
    waiting = module._Lots(each, lambda: room)
    found = list(iter(waiting.take, []))
    assert [len(some) for some in found] == taken
    assert [one for some in found for one in some] == [one for some in each for one in some]
    assert waiting.take() == []


def test_lots_of_two_verbs_are_never_joined() -> None:
    one, other = [action(1), action(2)], [replace(action(number), verb="melt") for number in (3, 4)]
    waiting = module._Lots([one, other, one], lambda: 9)
    assert [waiting.take() for _ in range(3)] == [one, other, one]


def test_whether_anybody_else_is_at_work_is_asked_for_each_lot_and_not_when_there_are_none() -> None:
    asked = iter((0,))  # more than once it may not be asked
    waiting = module._Lots([[action(1)]], lambda: next(asked))
    assert [len(waiting.take()) for _ in range(3)] == [1, 0, 0]


@pytest.mark.parametrize(
    ("alone", "ample", "sizes"),
    [(False, 9, [2, 2, 2, 1]), (True, 9, [7]), (True, 4, [4, 3]), (True, 0, [2, 2, 2, 1])],
)
def test_lots_are_ample_where_nobody_else_is_at_work(alone: bool, ample: int, sizes: list[int]) -> None:
    many, made, written = Many(), plan(7), cast(Any, Journal())
    many.states |= {each.id: State.BEFORE for each in made.actions}
    pace = Pace(lot=2, ample=ample)
    execute(
        made,
        "r1",
        journal=written,
        remedies={"flip": many},
        check=lambda: None,
        pace=pace,
        alone=lambda: alone,
    )
    assert [call for call in many.calls if call.startswith("apply")] == [f"apply {size}" for size in sizes]


def test_an_ample_lot_is_no_more_than_each_worker_s_share() -> None:
    many, made, written = Many(), plan(8), cast(Any, Journal())
    many.states |= {each.id: State.BEFORE for each in made.actions}
    execute(
        made,
        "r1",
        journal=written,
        remedies={"flip": many},
        check=lambda: None,
        pace=Pace(workers=2, lot=2, ample=9),
        alone=lambda: True,
    )
    assert sorted(call for call in many.calls if call.startswith("apply")) == ["apply 4"] * 2


def test_what_is_told_in_the_midst_counts_for_the_budget_that_was_given() -> None:
    budget = Budget(2)
    budget.halt("another took over")
    outcome = run(Things(), budget=budget)
    assert {each.reason for each in outcome.results} == {"not reached: another took over"}


def test_what_a_halt_leaves_unfinished_is_so_in_the_outcome_and_the_others_are_told() -> None:
    class Halting(Many):
        def apply_all(self, actions: Sequence[Action]) -> Mapping[str, Exception]:
            super().apply_all(actions[1:])
            return {actions[0].id: Halted("interrupted")}

    many, told = Halting(), list[str]()
    many.states |= {each.id: State.BEFORE for each in PLAN.actions}
    outcome = run(
        many, pace=Pace(lot=3), progress=lambda result, ended, _: told.append(f"{result.action.id} {ended}")
    )
    assert [each.phase for each in outcome.results] == [Phase.STARTED, Phase.DONE, Phase.DONE]
    assert outcome.results[0].reason == "not finished: interrupted"
    assert told == ["a2 1", "a3 2"]


def test_workers_are_daemons_that_share_the_lots() -> None:
    seen, together = list[threading.Thread](), threading.Barrier(3, timeout=10)

    class Slow(Things):
        def apply(self, action: Action) -> None:
            seen.append(threading.current_thread())
            together.wait()
            super().apply(action)

    assert run(Slow(), pace=Pace(workers=3)).exit is Exit.HEALTHY
    assert sorted(each.name for each in seen) == ["worker 0", "worker 1", "worker 2"]
    assert all(each.daemon for each in seen)
    assert module._GLANCE < 1


def test_one_worker_that_is_throttled_may_be_long_at_it_and_has_a_thread() -> None:
    seen = list[threading.Thread]()

    class Slow(Things):
        def apply(self, action: Action) -> None:
            seen.append(threading.current_thread())
            super().apply(action)

    run(Slow(), pace=Pace(throttled=True))
    assert {each.name for each in seen} == {"worker 0"}


def test_one_worker_is_who_called() -> None:
    seen = list[threading.Thread]()

    class Here(Things):
        def apply(self, action: Action) -> None:
            seen.append(threading.current_thread())
            super().apply(action)

    run(Here())
    assert set(seen) == {threading.current_thread()}


@pytest.mark.parametrize(
    ("halted", "told"), [("", "not reached: interrupted"), ("one failed", "not reached: one failed")]
)
def test_ctrl_c_is_told_and_waited_for_and_the_first_reason_stays(
    monkeypatch: pytest.MonkeyPatch, halted: str, told: str
) -> None:
    waits, asked, go_on = list[Sequence[threading.Thread]](), list[str](), threading.Event()

    class Slow(Things):
        def apply(self, action: Action) -> None:
            assert go_on.wait(10)
            if halted:
                raise ArrakisError("stuck")
            super().apply(action)

    def waiting(crew: Sequence[threading.Thread]) -> None:
        waits.append(crew)
        if len(waits) == 1 and halted:
            go_on.set()
            wait_for(crew)
        if len(waits) == 1:
            raise KeyboardInterrupt
        wait_for(crew)

    def interrupted() -> None:
        asked.append("finishing")
        go_on.set()

    monkeypatch.setattr(module, "wait_for", waiting)
    found = run(Slow(), pace=Pace(workers=2), interrupted=interrupted)
    assert asked == ["finishing"]
    assert [len(crew) for crew in waits] == [2, 2]
    assert found.results[2].reason == told


def test_unless_it_is_said_that_nobody_else_is_at_work_somebody_is() -> None:
    many = Many()
    run(many, pace=Pace(lot=2, ample=9))
    assert [call for call in many.calls if call.startswith("apply")] == ["apply 2", "apply 1"]
