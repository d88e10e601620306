"""One lot at a time, record by record: what is looked at, written down, done, and said of it; forwards and backwards."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from runbooks.engine import work as module
from runbooks.engine.errors import LeaseHeld, Stopped
from runbooks.engine.journal import Record
from runbooks.engine.model import Action, Observation, Pace, Phase, Reversibility, State
from runbooks.engine.page import Rights
from runbooks.engine.work import Result, Work
from sandbox.errors import ArrakisError, Halted, Unreachable
from tests.unit.plans import action

BEFORE, AFTER, PARTLY, CHANGED = State.BEFORE, State.AFTER, State.PARTLY, State.CHANGED
ACTIONS = [action(number) for number in range(1, 4)]
BACK = [replace(each, verb="undo flip") for each in ACTIONS]
LOT, BACK_LOT = ACTIONS[:2], BACK[:2]


class Things:
    """Things that are flipped one at a time, and a record of all that was asked. Satisfies Remedy."""

    verb, rights = "flip", Rights(redis=frozenset({"+get"}))

    def __init__(self, **states: State) -> None:
        self.states: dict[str, State] = {each.id: BEFORE for each in ACTIONS} | states
        self.users: dict[str, str] = {}
        self.broken: dict[str, Exception] = {}
        self.useless = False
        self.calls, self.looks = list[str](), list[int]()

    def observe(self, action: Action) -> Observation:
        state = self.states[action.id]
        return Observation(
            state=state, reason=f"{action.id} is {state}", evidence={"seen": f"{action.id} {state}"}
        )

    def in_use(self, action: Action) -> str | None:
        self.calls.append(f"who uses {action.id}")
        return self.users.get(action.id)

    def apply(self, action: Action) -> None:
        self._turn("apply", action, AFTER)

    def revert(self, action: Action) -> None:
        self._turn("revert", action, BEFORE)

    def _turn(self, what: str, action: Action, to: State) -> None:
        self.calls.append(f"{what} {action.id}")
        if action.id in self.broken:
            raise self.broken[action.id]
        if not self.useless:
            self.states[action.id] = to


class Forwards(Things):
    """The same, many together, but backwards one by one. Satisfies Bulk."""

    def observe_all(self, actions: Sequence[Action]) -> Mapping[str, Observation]:
        self.looks.append(len(actions))
        return {each.id: self.observe(each) for each in actions}

    def in_use_all(self, actions: Sequence[Action]) -> Mapping[str, str]:
        self.calls.append(f"who uses {len(actions)}")
        return {each.id: self.users[each.id] for each in actions if each.id in self.users}

    def apply_all(self, actions: Sequence[Action]) -> Mapping[str, Exception]:
        return self._all("apply", actions, AFTER)

    def _all(self, what: str, actions: Sequence[Action], to: State) -> Mapping[str, Exception]:
        self.calls.append(f"{what} {len(actions)}")
        for each in actions:
            if each.id not in self.broken and not self.useless:
                self.states[each.id] = to
        return MappingProxyType({each.id: self.broken[each.id] for each in actions if each.id in self.broken})


class Many(Forwards):
    """The same, many together, backwards too. Satisfies BulkUndo."""

    def revert_all(self, actions: Sequence[Action]) -> Mapping[str, Exception]:
        return self._all("revert", actions, BEFORE)


class Written:
    """A journal in memory; `full` lets it fail from so many calls on."""

    def __init__(self) -> None:
        self.calls = list[tuple[str, list[Record]]]()
        self.full = 99

    def extend(self, run: str, records: Sequence[Record]) -> None:
        if len(self.calls) >= self.full:
            raise ArrakisError("the disk is full")
        self.calls.append((run, list(records)))

    @property
    def records(self) -> list[Record]:
        assert {run for run, _ in self.calls} == {"r1"}
        return [record for _, records in self.calls for record in records]


def work(
    remedy: Any, journal: Written, *, pace: Pace | None = None, past: Any = (), check: Any = lambda: None
) -> Work:
    written: Any = journal
    return Work(
        "r1", journal=written, remedies={"flip": remedy}, check=check, pace=pace or Pace(lot=9), past=past
    )


def record(
    phase: Phase, number: int, observed: Mapping[str, Any] | None = None, error: str | None = None
) -> Record:
    return Record(phase=phase, action=f"a{number}", observed=observed or {}, error=error)


def done(one: Action, what: str, evidence: Mapping[str, Any]) -> Result:
    return Result(action=one, phase=Phase.DONE, reason=what, settled=True, evidence=evidence)


# Done


@pytest.mark.parametrize(
    ("remedy", "calls"),
    [
        (Things(), ["who uses a1", "who uses a2", "apply a1", "apply a2"]),
        (Many(), ["who uses 2", "apply 2"]),
        (Forwards(), ["who uses 2", "apply 2"]),
    ],
)
def test_what_is_as_planned_is_done_and_looked_at_again(remedy: Things, calls: list[str]) -> None:
    journal = Written()
    at_work = work(remedy, journal)
    found = at_work.do(LOT)
    assert found == [done(each, f"{each.id} is after", {"seen": f"{each.id} after"}) for each in LOT]
    assert remedy.calls == calls
    assert at_work.budget.halted == ""
    assert journal.records == [
        *(record(Phase.STARTED, n, {"seen": f"a{n} before"}) for n in (1, 2)),
        *(record(Phase.DONE, n, {"seen": f"a{n} after"}) for n in (1, 2)),
    ]


@pytest.mark.parametrize(
    ("remedy", "calls"),
    [(Things, ["revert a1", "revert a2"]), (Many, ["revert 2"]), (Forwards, ["revert a1", "revert a2"])],
)
def test_backwards_nobody_is_asked_and_before_is_after(remedy: type[Things], calls: list[str]) -> None:
    things, journal = remedy(a1=AFTER, a2=PARTLY), Written()
    found = work(things, journal).do(BACK_LOT)
    assert found == [done(each, f"{each.id} is before", {"seen": f"{each.id} before"}) for each in BACK_LOT]
    assert things.calls == calls
    changed = remedy(a1=BEFORE, a2=CHANGED)
    assert [(each.settled, each.reason) for each in work(changed, Written()).do(BACK_LOT)] == [
        (True, "already so: a1 is before"),
        (False, "a2 is changed"),
    ]
    assert changed.calls == []


# Not done


@pytest.mark.parametrize("kind", [Things, Many])
def test_what_is_refused_is_written_down_with_why(kind: type[Things]) -> None:
    things, journal = kind(a1=AFTER, a2=CHANGED), Written()
    things.users["a3"] = "ada"
    found = work(things, journal).do(ACTIONS)
    reasons = ["already so: a1 is after", "a2 is changed", "in use: ada"]
    assert found == [
        Result(action=each, phase=Phase.SKIPPED, reason=reason, settled=reason is reasons[0])
        for each, reason in zip(ACTIONS, reasons, strict=True)
    ]
    assert journal.records == [
        record(Phase.SKIPPED, 1, {"seen": "a1 after", "settled": True}, reasons[0]),
        record(Phase.SKIPPED, 2, {"seen": "a2 changed", "settled": False}, reasons[1]),
        record(Phase.SKIPPED, 3, {"seen": "a3 before", "settled": False}, reasons[2]),
    ]
    assert not [call for call in things.calls if call.startswith("apply")]
    assert "who uses a1" not in things.calls


def test_where_nothing_is_left_nobody_is_asked() -> None:
    many = Many(a1=AFTER, a2=CHANGED)
    work(many, Written()).do(LOT)
    assert many.calls == []


def test_what_was_begun_before_and_is_done_now_was_done() -> None:
    class Entry:
        action = "a1"

    class OfTheRun:
        action = None

    journal = Written()
    found = work(Many(a1=AFTER, a2=AFTER), journal, past=[Entry, OfTheRun]).do(LOT)
    assert [each.phase for each in found] == [Phase.DONE, Phase.SKIPPED]
    assert [each.phase for each in journal.records] == [Phase.DONE, Phase.SKIPPED]


@pytest.mark.parametrize(
    ("error", "reason", "observed"),
    [
        (ArrakisError("it is stuck"), "it is stuck", {}),
        (Unreachable("no answer"), "no answer", {"unreachable": True}),
        (RuntimeError("bang"), "RuntimeError: bang", {}),
    ],
)
def test_what_fails_is_written_down_with_why(
    error: Exception, reason: str, observed: Mapping[str, Any]
) -> None:
    many, journal = Many(), Written()
    many.broken["a1"] = error
    at_work = work(many, journal)
    found = at_work.do(LOT)
    assert found[0] == Result(action=LOT[0], phase=Phase.FAILED, reason=reason)
    assert found[1].phase is Phase.DONE
    assert journal.records[-1] == record(Phase.FAILED, 1, observed, reason)
    assert at_work.budget.halted == "one failed"


def test_of_what_is_taken_one_by_one_the_rest_fails_with_the_first() -> None:
    things, journal = Things(), Written()
    things.broken["a1"] = ArrakisError("it is stuck")
    found = work(things, journal).do(LOT)
    assert [(each.phase, each.reason) for each in found] == [(Phase.FAILED, "it is stuck")] * 2
    assert things.calls[-1] == "apply a1"


def test_where_all_fails_what_was_refused_stays_so() -> None:
    things = Things(a1=CHANGED)
    things.broken["a2"] = ArrakisError("it is stuck")
    found = work(things, Written()).do(LOT)
    assert [(each.phase, each.reason) for each in found] == [
        (Phase.SKIPPED, "a1 is changed"),
        (Phase.FAILED, "it is stuck"),
    ]


def test_where_nobody_can_look_again_what_failed_before_keeps_its_reason() -> None:
    class Blind(Many):
        def apply_all(self, actions: Sequence[Action]) -> Mapping[str, Exception]:
            failed = super().apply_all(actions)
            self.states.clear()
            return failed

    blind = Blind()
    blind.broken["a1"] = ArrakisError("it is stuck")
    found = work(blind, Written()).do(LOT)
    assert [(each.phase, each.reason) for each in found] == [
        (Phase.FAILED, "it is stuck"),
        (Phase.FAILED, "KeyError: 'a2'"),
    ]


def test_where_all_failed_there_is_nothing_to_look_at_again() -> None:
    many = Many()
    many.broken = {each.id: ArrakisError("it is stuck") for each in LOT}
    assert [each.reason for each in work(many, Written()).do(LOT)] == ["it is stuck"] * 2
    assert many.looks == [2]


def test_what_does_not_look_done_has_failed() -> None:
    many, journal = Many(), Written()
    many.useless = True
    found = work(many, journal).do(LOT)
    reasons = [f"done, but it does not look so: a{n} is before" for n in (1, 2)]
    assert found == [
        Result(action=each, phase=Phase.FAILED, reason=reason)
        for each, reason in zip(LOT, reasons, strict=True)
    ]
    assert [(each.phase, each.error) for each in journal.records] == [
        (Phase.STARTED, None),
        (Phase.STARTED, None),
        (Phase.FAILED, reasons[0]),
        (Phase.FAILED, reasons[1]),
    ]


# Halted


@pytest.mark.parametrize("error", [LeaseHeld("taken over"), Stopped("an emergency stop is raised")])
def test_who_may_not_go_on_says_nothing_of_the_targets(error: ArrakisError) -> None:
    def check() -> None:
        raise error

    many, journal = Many(), Written()
    at_work = work(many, journal, check=check, pace=Pace(lot=9, failures=9))
    assert at_work.do(LOT) == [
        Result(action=each, phase=None, reason=f"not reached: {error}") for each in LOT
    ]
    alone = work(many, journal, check=check)
    alone.do(LOT[:1])
    assert alone.budget.halted == str(error)
    assert (at_work.budget.halted, many.calls, journal.calls) == (str(error), [], [])


def test_a_halt_in_the_midst_is_no_failure_and_what_failed_before_it_keeps_its_reason() -> None:
    many, journal = Many(), Written()
    many.broken = {"a1": ArrakisError("stuck"), "a2": Halted("interrupted")}
    at_work = work(many, journal, pace=Pace(lot=9, failures=9))
    found = {each.action.id: (each.phase, each.reason) for each in at_work.do(LOT)}
    assert found["a1"] == (Phase.FAILED, "stuck")
    assert found["a2"] == (Phase.STARTED, "not finished: interrupted")
    assert [each.action for each in journal.records if each.phase is Phase.FAILED] == ["a1"]
    assert at_work.budget.halted == "interrupted"


def test_a_halt_that_comes_while_it_looks_begins_nothing() -> None:
    many, journal = Many(), Written()
    at_work = work(many, journal, pace=Pace(lot=9, failures=9))
    looking = many.observe_all

    def look(actions: Sequence[Action]) -> Any:
        at_work.budget.halt("interrupted")
        return looking(actions)

    many.observe_all = look  # type: ignore[method-assign]
    many.users = {"a1": "ada"}
    assert at_work.do(LOT) == [
        Result(action=LOT[0], phase=Phase.SKIPPED, reason="in use: ada"),
        Result(action=LOT[1], phase=None, reason="not reached: interrupted"),
    ]
    assert [record.phase for record in journal.records] == [Phase.SKIPPED]


@pytest.mark.parametrize(
    ("broken", "second", "halted"),
    [
        (False, LeaseHeld("taken over"), ""),
        (True, LeaseHeld("taken over"), "taken over"),
        (True, Unreachable("no answer"), "one failed"),
        (True, None, "one failed"),
    ],
)
def test_after_a_failure_it_is_asked_whether_another_took_over(
    broken: bool, second: ArrakisError | None, halted: str
) -> None:
    many, answers = Many(), [None, second]
    many.broken = {"a1": ArrakisError("stuck")} if broken else {}

    def check() -> None:
        if error := answers.pop(0):
            raise error

    at_work = work(many, Written(), check=check, pace=Pace(lot=9))
    at_work.do(LOT)
    assert at_work.budget.halted == halted


@pytest.mark.parametrize(
    ("allowed", "halts"),
    [
        (0, ["one failed"] * 3),
        (1, ["", "more failed than the 1 that may", "more failed than the 1 that may"]),
        (3, [""] * 3),
    ],
)
def test_more_failures_than_may_be_halt_it(allowed: int, halts: list[str]) -> None:
    many = Many()
    many.broken = {each.id: ArrakisError("stuck") for each in ACTIONS}
    at_work = work(many, Written(), pace=Pace(failures=allowed))
    told = list[str]()
    for each in ACTIONS:
        at_work.do([each])
        told.append(at_work.budget.halted)
    assert told == halts


def test_nothing_that_cannot_be_written_down_is_done_and_what_cannot_be_said_of_it_is_no_other_failure() -> (
    None
):
    many, journal = Many(), Written()
    journal.full = 1
    assert [each.reason for each in work(many, journal).do(LOT)] == ["the disk is full"] * 2
    assert many.calls == ["who uses 2"]


def test_a_verb_that_nobody_knows_fails() -> None:
    at_work = work(Many(), Written())
    [found] = at_work.do([replace(ACTIONS[0], verb="melt")])
    assert (found.phase, found.reason) == (Phase.FAILED, "nobody here knows how to 'melt'")
    [found] = work(Many(), Written()).do([replace(ACTIONS[0], verb="undo melt")])
    assert found.reason == "nobody here knows how to 'undo melt'"


# Lots


def test_lots_are_of_one_verb_and_never_larger_than_may_be() -> None:
    flips = [
        replace(action(number), verb=verb)
        for number, verb in enumerate(["flip"] * 5 + ["undo flip"] * 3 + ["flip"] + ["melt"] * 2)
    ]

    def sizes(remedy: Any, lot: int) -> list[int]:
        lots = work(remedy, Written(), pace=Pace(lot=lot)).lots(flips)
        assert [each for some in lots for each in some] == flips
        return [len(each) for each in lots]

    assert sizes(Many(), 2) == [2, 2, 1, 2, 1, 1, 1, 1]
    assert sizes(Many(), 9) == [5, 3, 1, 1, 1]
    assert sizes(Forwards(), 9) == [5, 1, 1, 1, 1, 1, 1]
    assert sizes(Things(), 9) == [1] * 11
    assert work(Many(), Written()).lots([]) == []


def test_an_inverse_is_a_remedy_that_can_be_taken_back_itself() -> None:
    things = Things(a1=AFTER)
    inverse = module._Inverse(things)
    assert (inverse.verb, inverse.rights) == ("undo flip", things.rights)
    inverse.apply(ACTIONS[0])
    inverse.revert(ACTIONS[0])
    assert things.calls == ["revert a1", "apply a1"]
    assert inverse.in_use(ACTIONS[0]) is None


def test_a_result_says_nothing_that_was_not_seen() -> None:
    result = Result(action=ACTIONS[0], phase=None, reason="")
    assert (result.settled, result.evidence) == (False, {})
    assert ACTIONS[0].reversibility is Reversibility.REVERSIBLE
