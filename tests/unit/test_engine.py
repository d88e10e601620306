"""Plans, guards, the journal, and the one way to change anything."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from runbooks.engine import guards
from runbooks.engine import plan as plans
from runbooks.engine.apply import Outcome, execute, inverse_actions, plan_of, started
from runbooks.engine.errors import Exit, LeaseHeld, PlanError, Refused
from runbooks.engine.journal import Journal, JournalEntry, verify
from runbooks.engine.lease import Lease
from runbooks.engine.model import Action, Observation, Phase, Plan, Reversibility, State
from runbooks.engine.page import Rights
from sandbox.errors import ArrakisError
from tests.unit.plans import NOW, TARGET, plan

# Plans


def test_a_saved_plan_reads_back_as_it_was_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    made = plan(lost=1)
    path = plans.save(made, tmp_path / "plans")
    assert plans.as_json(plans.load(made.id, path.parent)) == plans.as_json(made)
    assert path.stat().st_mode & 0o077 == 0
    assert made.id == f"rb-test-20260301-120000-{made.digest[:10]}"
    assert plan(undoes="r1").id.startswith("undo-rb-test-")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["runbook"], "rb-other"),
        (["environment", "name"], "production"),
        (["environment", "fingerprint"], None),
        (["created_at"], (NOW + timedelta(hours=1)).isoformat()),
        (["expires_at"], (NOW + timedelta(days=1)).isoformat()),
        (["existing"], 100_000),
        (["undoes"], "some run"),
        (["actions", 0, "resource", "id"], "sandbox_live"),
        (["actions", 0, "verb"], "drop"),
        (["actions", 0, "before", "keys"], 99),
        (["actions", 0, "reversibility"], "reversible"),
        (["actions"], []),
        (["findings"], []),
        (["findings", 0, "summary"], "all is well"),
        (["digest"], "0" * 64),
        (["id"], "rb-test-other"),
    ],
)
def test_an_edited_plan_is_refused(tmp_path: Path, path: list[Any], value: object) -> None:
    made = plan(lost=1)
    file = plans.save(made, tmp_path)
    data = json.loads(file.read_text())
    inner = data
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    file.write_text(json.dumps(data))
    with pytest.raises(Refused, match="was edited"):
        plans.load(made.id, tmp_path)


def test_an_edit_that_is_sealed_again_is_refused_under_the_old_name(tmp_path: Path) -> None:
    made = plan()
    file = plans.save(made, tmp_path)
    file.write_text(json.dumps(plans.as_json(plans.seal(replace(made, existing=9)))))
    with pytest.raises(Refused, match="was edited"):
        plans.load(made.id, tmp_path)


@pytest.mark.parametrize(
    ("text", "error"),
    [("{", Refused), ("", Refused), ("[]", PlanError), ("{}", PlanError), ('{"id": 1}', PlanError)],
)
def test_what_is_no_plan_is_said_so(tmp_path: Path, text: str, error: type[ArrakisError]) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(error):
        plans.load("x", tmp_path)


def test_a_missing_plan_names_the_latest(tmp_path: Path) -> None:
    with pytest.raises(PlanError) as none:
        plans.load("x", tmp_path)
    assert "run the runbook first" in none.value.hint
    older = plan(now=NOW - timedelta(days=1))
    for made in (plan(), older):
        plans.save(made, tmp_path)
    with pytest.raises(PlanError) as some:
        plans.load("../x", tmp_path)
    assert some.value.hint == f"the latest is {plan().id}"


# Guards


@pytest.mark.parametrize(
    ("count", "existing", "max_targets", "allowed"),
    [
        (25, 125, None, True),
        (26, 1000, None, False),
        (25, 124, None, False),
        (1, 5, None, True),
        (1, 4, None, False),
        (1, None, None, False),
        (1, None, 100, False),
        (1, 0, None, False),
        (26, 26, 26, True),
        (26, 26, 25, False),
        (1, 5, 0, False),
    ],
)
def test_blast_radius(count: int, existing: int | None, max_targets: int | None, allowed: bool) -> None:
    assert guards.blast_radius(plan(count, existing=existing), max_targets).allowed is allowed


def test_an_undo_has_no_blast_radius() -> None:
    assert guards.blast_radius(plan(30, existing=None, undoes="r1"), None).allowed


def test_blast_radius_says_how_to_raise_it() -> None:
    assert "--max-targets 30 raises it" in guards.blast_radius(plan(30), None).reason


def test_the_same_target_is_allowed() -> None:
    assert guards.same_target(plan(), TARGET).allowed


@pytest.mark.parametrize("what", ["name", "account", "region", "database", "fingerprint"])
def test_another_or_an_unknown_target_is_refused(what: str) -> None:
    fields: list[dict[str, Any]] = [{what: "other"}, {what: None}]
    other, unknown = (replace(TARGET, **field) for field in fields)
    verdict = guards.same_target(plan(), other)
    assert not verdict.allowed
    assert what in verdict.reason
    assert "other" in verdict.reason
    assert guards.same_target(plan(), unknown).reason == f"cannot tell this environment's {what} now"
    assert not guards.same_target(plan(environment=unknown), unknown).allowed
    assert not guards.same_target(plan(environment=unknown), TARGET).allowed


@pytest.mark.parametrize(
    ("age", "fresh"),
    [
        (timedelta(0), True),
        (timedelta(minutes=30) - timedelta(microseconds=1), True),
        (timedelta(minutes=30), False),
        (timedelta(seconds=-1), False),
    ],
)
def test_freshness(age: timedelta, fresh: bool) -> None:
    assert guards.still_fresh(plan(), NOW + age).allowed is fresh


@pytest.mark.parametrize(
    ("count", "lost", "typed"),
    [(3, 0, ()), (3, 1, ("drop 1", "t1")), (3, 2, ("drop 2",)), (1, 1, ("drop 1", "t1"))],
)
def test_phrases(count: int, lost: int, typed: tuple[str, ...]) -> None:
    assert guards.phrases(plan(count, lost=lost)) == typed


@pytest.mark.parametrize(
    ("verbs", "typed"),
    [
        (["end session", "cancel query", "end session"], ("end 2 and cancel 1",)),
        (["enlarge storage"], ("enlarge 1", "t1")),
        (["clean up sandbox", "end session"], ("drop 1 and end 1",)),
    ],
)
def test_what_is_typed_says_what_is_lost(verbs: list[str], typed: tuple[str, ...]) -> None:
    made = plan(len(verbs), lost=len(verbs))
    actions = tuple(replace(action, verb=verb) for action, verb in zip(made.actions, verbs, strict=True))
    assert guards.phrases(replace(made, actions=actions)) == typed


def test_the_first_refusal_wins() -> None:
    good, bad = guards.same_target(plan(), TARGET), guards.still_fresh(plan(), NOW - timedelta(1))
    assert guards.first_refusal([good, bad, guards.blast_radius(plan(30), None)]) is bad
    assert guards.first_refusal([good]) is None


# The journal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A journal whose clock gains a second at each look."""
    now = iter(NOW + timedelta(seconds=second) for second in range(1000))
    return Journal(tmp_path / "state" / "journal.jsonl", actor="ada", clock=lambda: next(now))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The journal's file."""
    return tmp_path / "state" / "journal.jsonl"


def _of_run(journal: Journal, run: str) -> list[JournalEntry]:
    return [entry for entry in journal.entries() if entry.run == run]


def _written(journal: Journal, file: Path) -> list[bytes]:
    for number in range(4):
        journal.append(f"r{number % 2}", Phase.STARTED, action="a1", observed={"n": number}, error="why")
    return file.read_bytes().splitlines()


def test_records_are_chained_and_read_back(journal: Journal, file: Path) -> None:
    mirrored: list[Any] = []
    journal.mirror = mirrored.extend
    _written(journal, file)
    entries = journal.entries()
    assert entries == mirrored
    assert [entry.seq for entry in entries] == [1, 2, 3, 4]
    assert [entry.previous for entry in entries] == ["0" * 64, *(entry.hash for entry in entries[:-1])]
    assert {entry.chain for entry in entries} == {entries[0].chain}
    assert [entry.observed["n"] for entry in entries] == [0, 1, 2, 3]
    assert file.stat().st_mode & 0o077 == 0


def test_an_empty_journal_has_no_records(journal: Journal) -> None:
    assert journal.entries() == []


@pytest.mark.parametrize("number", [0, 1, 3])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chain", "f" * 32),
        ("seq", 9),
        ("run", "r9"),
        ("action", None),
        ("phase", "done"),
        ("at", "2020-01-01T00:00:00+00:00"),
        ("actor", "eve"),
        ("observed", {"n": 9}),
        ("error", None),
        ("previous", "e" * 64),
        ("hash", "d" * 64),
    ],
)
def test_every_edit_is_found(journal: Journal, file: Path, number: int, field: str, value: object) -> None:
    lines = _written(journal, file)
    lines[number] = json.dumps({**json.loads(lines[number]), field: value}).encode()
    with pytest.raises(ArrakisError, match=f"changed at record {number + 1}$") as error:
        verify(_joined(lines))
    assert "mirror" in error.value.hint


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


@pytest.mark.parametrize(
    ("change", "at"),
    [
        (lambda lines: lines[1:], 1),
        (lambda lines: [lines[0], *lines[2:]], 2),
        (lambda lines: [lines[1], lines[0], *lines[2:]], 1),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], 2),
        (lambda lines: [*lines[:2], lines[3], lines[2]], 3),
        (lambda lines: [*lines, lines[3]], 5),
        (lambda lines: [lines[0], b"{torn", *lines[2:]], 2),
        (lambda lines: [lines[0], b"", *lines[1:]], 2),
        (lambda lines: [*lines[:3], b"{unreadable"], 4),
        (lambda lines: [*lines[:3], lines[3].replace(b'"phase":"', b'"phase":"x')], 4),
    ],
)
def test_every_deletion_reordering_and_insertion_is_found(
    journal: Journal, file: Path, change: Callable[[list[bytes]], list[bytes]], at: int
) -> None:
    with pytest.raises(ArrakisError, match=f"changed at record {at}$"):
        verify(_joined(change(_written(journal, file))))


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_torn_last_line_is_passed_over_and_the_next_record_still_verifies(
    journal: Journal, file: Path, cut: int
) -> None:
    whole = _written(journal, file)
    file.write_bytes(b"\n".join([*whole, whole[3][:cut]]))
    assert len(journal.entries()) == 4
    journal.append("r1", Phase.RUN_ENDED)
    assert [entry.seq for entry in journal.entries()] == [1, 2, 3, 4, 5]


def test_a_journal_that_cannot_be_written_stops_everything(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    journal = Journal(tmp_path / "folder", actor="ada", clock=lambda: NOW)
    with pytest.raises(ArrakisError, match="cannot be written"):
        journal.append("r1", Phase.STARTED)


# Applying


class Flip:
    """Things that are flipped. A call that no test prepared fails."""

    verb = "flip"
    rights = Rights()

    def __init__(self, **things: State) -> None:
        self.things, self.users, self.calls = things, dict[str, str](), list[str]()
        self.broken: dict[str, Exception] = {}
        self.useless: set[str] = set()

    def observe(self, action: Action) -> Observation:
        state = self.things[action.resource.id]
        return Observation(state=state, reason=f"it is {state}", evidence={"state": state.value})

    def in_use(self, action: Action) -> str | None:
        assert self.things[action.resource.id] in (State.BEFORE, State.PARTLY), "nobody needs to know"
        return self.users.get(action.resource.id)

    def apply(self, action: Action) -> None:
        self._turn(action, "apply", State.AFTER, (State.BEFORE, State.PARTLY))

    def revert(self, action: Action) -> None:
        self._turn(action, "revert", State.BEFORE, (State.AFTER, State.PARTLY))

    def _turn(self, action: Action, what: str, to: State, allowed: tuple[State, ...]) -> None:
        name = action.resource.id
        assert self.things[name] in allowed, f"unprepared {what} of {name}"
        self.calls.append(f"{what} {name}")
        if name in self.broken:
            raise self.broken[name]
        if name not in self.useless:
            self.things[name] = to


def _three(**changes: State) -> Flip:
    return Flip(**{"t1": State.BEFORE, "t2": State.BEFORE, "t3": State.BEFORE, **changes})


def _run(journal: Journal, remedy: Flip, made: Plan | None = None, run: str = "r1") -> Outcome:
    made = made or plan()
    journal.append(run, Phase.RUN_STARTED, observed=started(made))
    return execute(made, run, journal=journal, remedies={"flip": remedy}, check=lambda: None)


def _resumed(journal: Journal, remedy: Flip) -> Outcome:
    past = _of_run(journal, "r1")
    return execute(
        plan_of(past), "r1", journal=journal, remedies={"flip": remedy}, check=lambda: None, past=past
    )


def _phases(journal: Journal, run: str = "r1") -> list[tuple[str | None, Phase]]:
    return [(entry.action, entry.phase) for entry in _of_run(journal, run)][1:]


def test_all_is_done_in_order_and_written_before_the_act(journal: Journal) -> None:
    remedy, shown, checks = _three(), list[str](), list[int]()

    def check() -> None:
        checks.append(len(remedy.calls))

    journal.append("r1", Phase.RUN_STARTED, observed=started(plan()))
    outcome = execute(
        plan(),
        "r1",
        journal=journal,
        remedies={"flip": remedy},
        check=check,
        progress=lambda result, *_: shown.append(result.action.id),
    )
    assert outcome.exit is Exit.HEALTHY
    assert remedy.calls == ["apply t1", "apply t2", "apply t3"]
    assert checks == [0, 1, 2]
    assert shown == ["a1", "a2", "a3"]
    assert _phases(journal) == [
        *((f"a{n}", phase) for n in (1, 2, 3) for phase in (Phase.STARTED, Phase.DONE)),
        (None, Phase.RUN_ENDED),
    ]
    assert journal.entries()[-1].observed == {"exit": 0}


@pytest.mark.parametrize(
    ("state", "user", "settled", "reason", "code"),
    [
        (State.AFTER, None, True, "already so: it is after", Exit.HEALTHY),
        (State.CHANGED, None, False, "it is changed", Exit.PARTLY),
        (State.BEFORE, "ada", False, "in use: ada", Exit.PARTLY),
    ],
)
def test_what_is_done_changed_or_in_use_is_skipped_with_its_reason(
    journal: Journal, state: State, user: str | None, settled: bool, reason: str, code: Exit
) -> None:
    remedy = _three(t2=state)
    if user:
        remedy.users["t2"] = user
    outcome = _run(journal, remedy)
    result = outcome.results[1]
    assert (result.phase, result.settled, result.reason) == (Phase.SKIPPED, settled, reason)
    assert remedy.calls == ["apply t1", "apply t3"]
    assert outcome.exit is code


def test_nothing_but_refusals_is_refused(journal: Journal) -> None:
    gone = State.CHANGED
    assert _run(journal, _three(t1=gone, t2=gone, t3=gone)).exit is Exit.REFUSED


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ArrakisError("it is stuck"), "it is stuck"), (RuntimeError("bang"), "RuntimeError: bang"), (None, "")],
)
def test_the_first_failure_stops_the_run(journal: Journal, error: Exception | None, reason: str) -> None:
    remedy = _three()
    if error:
        remedy.broken["t2"] = error
    else:
        remedy.useless.add("t2")
        reason = "done, but it does not look so: it is before"
    outcome = _run(journal, remedy)
    assert [result.phase for result in outcome.results] == [Phase.DONE, Phase.FAILED, None]
    assert outcome.results[1].reason == reason
    assert outcome.exit is Exit.PARTLY
    assert remedy.calls == ["apply t1", "apply t2"]
    assert _phases(journal)[2:] == [("a2", Phase.STARTED), ("a2", Phase.FAILED), (None, Phase.RUN_ENDED)]


def test_a_failure_before_anything_was_done_is_an_error(journal: Journal) -> None:
    remedy = Flip(t1=State.BEFORE)
    remedy.broken["t1"] = ArrakisError("no")
    assert _run(journal, remedy, plan(1)).exit is Exit.ERROR


def test_a_lost_lease_stops_the_run_before_the_target_is_even_looked_at(journal: Journal) -> None:
    def check() -> None:
        raise LeaseHeld("another operator took over")

    outcome = execute(plan(2), "r1", journal=journal, remedies={"flip": Flip()}, check=check)
    assert [result.phase for result in outcome.results] == [None, None]
    assert all(entry.action is None for entry in journal.entries())


def test_a_failed_run_is_taken_up_where_it_stopped(journal: Journal) -> None:
    remedy = _three()
    remedy.broken["t2"] = ArrakisError("no")
    _run(journal, remedy)
    remedy.broken.clear()
    remedy.calls.clear()
    assert _resumed(journal, remedy).exit is Exit.HEALTHY
    assert remedy.calls == ["apply t2", "apply t3"]


@pytest.mark.parametrize(
    ("state", "calls", "phase"),
    [
        (State.BEFORE, ["apply t1"], Phase.DONE),
        (State.PARTLY, ["apply t1"], Phase.DONE),
        (State.AFTER, [], Phase.DONE),
        (State.CHANGED, [], Phase.SKIPPED),
    ],
)
def test_what_was_started_without_an_ending_is_looked_at(
    journal: Journal, state: State, calls: list[str], phase: Phase
) -> None:
    journal.append("r1", Phase.RUN_STARTED, observed=started(plan(1)))
    journal.append("r1", Phase.STARTED, action="a1")
    remedy = Flip(t1=state)
    assert [result.phase for result in _resumed(journal, remedy).results] == [phase]
    assert remedy.calls == calls
    assert ("a1", phase) in _phases(journal)


def test_a_run_without_a_start_has_no_plan(journal: Journal) -> None:
    journal.append("r1", Phase.DONE, action="a1")
    with pytest.raises(PlanError, match="never started"):
        plan_of(journal.entries())


def test_the_inverse_takes_back_what_was_begun_last_one_first(journal: Journal) -> None:
    remedy = _three(t2=State.CHANGED)
    remedy.broken["t3"] = ArrakisError("no")
    _run(journal, remedy)
    inverse = inverse_actions(_of_run(journal, "r1"))
    assert [(a.id, a.verb, a.reason) for a in inverse] == [
        ("a3", "undo flip", "undo of r1"),
        ("a1", "undo flip", "undo of r1"),
    ]

    remedy.broken.clear()
    remedy.calls.clear()
    remedy.things["t3"] = State.PARTLY
    outcome = _run(journal, remedy, plan(actions=inverse, undoes="r1"), "r2")
    assert outcome.exit is Exit.HEALTHY
    assert remedy.calls == ["revert t3", "revert t1"]
    assert remedy.things == {"t1": State.BEFORE, "t2": State.CHANGED, "t3": State.BEFORE}


def test_what_was_undone_already_is_not_undone_again(journal: Journal) -> None:
    remedy = _three()
    _run(journal, remedy)
    remedy.things["t2"] = State.BEFORE
    remedy.calls.clear()
    inverse = inverse_actions(_of_run(journal, "r1"))
    outcome = _run(journal, remedy, plan(actions=inverse, undoes="r1"), "r2")
    assert [result.reason for result in outcome.results][1] == "already so: it is before"
    assert outcome.exit is Exit.HEALTHY
    assert remedy.calls == ["revert t3", "revert t1"]


def test_what_cannot_be_undone_has_no_inverse(journal: Journal) -> None:
    _run(journal, _three(), plan(lost=2))
    inverse = inverse_actions(_of_run(journal, "r1"))
    assert [a.id for a in inverse] == ["a3"]
    assert inverse[0].reversibility is Reversibility.REVERSIBLE


def test_an_undo_cannot_be_undone(journal: Journal) -> None:
    _run(journal, _three(), plan(undoes="r0"))
    with pytest.raises(PlanError, match="itself an undo"):
        inverse_actions(_of_run(journal, "r1"))


def test_nothing_after_the_first_failure_is_touched(journal: Journal) -> None:
    remedy = _three()
    remedy.broken["t1"] = ArrakisError("no")
    outcome = _run(journal, remedy)
    assert [result.phase for result in outcome.results] == [Phase.FAILED, None, None]
    assert remedy.calls == ["apply t1"]
    assert outcome.exit is Exit.ERROR


@pytest.mark.parametrize("what", ["redis", "nats", "database", "fingerprint", "account", "region", "name"])
def test_a_plan_is_for_one_target_whole(what: str) -> None:
    elsewhere = replace(TARGET, **{what: "elsewhere"})
    assert not guards.same_target(plan(), elsewhere).allowed
    assert guards.same_target(plan(), TARGET).allowed


def test_a_run_whose_plan_was_forged_is_refused(journal: Journal) -> None:
    forged = replace(plan(), existing=1_000_000)
    entry = journal.append("r1", Phase.RUN_STARTED, observed=started(forged))
    with pytest.raises(Refused, match="edited"):
        plan_of([entry])


def test_a_lease_that_cannot_be_taken_says_that_nothing_was_changed_and_what_it_needs() -> None:
    database = Mock(snapshot=Mock(side_effect=ArrakisError("could not extend file: No space left on device")))
    with (
        pytest.raises(ArrakisError, match="No space left") as told,
        Lease.held(database, holder="c", run="r"),
    ):
        pass
    assert told.value.hint.startswith("nothing was changed: the lease is kept in PostgreSQL")
