"""What the engine's words mean where nothing is said, and what they are told by."""

from dataclasses import asdict
from typing import Any

from runbooks.engine.errors import Exit, Refused, Stopped
from runbooks.engine.model import (
    ENDED,
    LEFT_ALONE,
    SETTLED,
    Bulk,
    BulkUndo,
    Finding,
    Observation,
    Pace,
    Phase,
    Plan,
    Resource,
    Reversibility,
    Runbook,
    Severity,
    State,
)
from runbooks.engine.page import Page
from sandbox.errors import Halted
from tests.unit.plans import plan
from tests.unit.test_engine_work import Forwards, Many, Things


def test_what_is_not_said_is_the_careful_answer() -> None:
    nothing: Any = None
    pace = Pace()
    assert (pace.workers, pace.lot, pace.ample, pace.failures, pace.throttled) == (1, 1, 0, 0, False)
    finding = Finding(check="c", severity=Severity.OK, summary="s")
    assert (finding.resource, finding.evidence, finding.source) == (None, {}, "")
    assert Observation(state=State.BEFORE, reason="").evidence == {}
    made_of = asdict(plan())
    bare = Plan(**{name: value for name, value in made_of.items() if name not in ("undoes", "digest")})
    assert (bare.undoes, bare.digest) == (None, "")
    made = Runbook(
        name="rb", title="", gather=nothing, diagnose=nothing, propose=nothing, existing=nothing, remedies=nothing
    )  # fmt: skip
    assert (made.outlook, made.trial, made.pace, made.urgent, made.alarm, made.timed, made.page) == (
        None, None, Pace(), False, "", False, Page(),
    )  # fmt: skip


def test_exit_codes_are_those_that_are_documented() -> None:
    assert {each.name: int(each) for each in Exit} == {
        "HEALTHY": 0,
        "ERROR": 1,
        "PROPOSED": 2,
        "UNKNOWN": 3,
        "REFUSED": 4,
        "PARTLY": 5,
        "HELD": 6,
    }
    assert issubclass(Stopped, Refused)
    assert issubclass(Stopped, Halted)


def test_words_are_those_of_what_was_written_before() -> None:
    told = [(*(each.value for each in kind),) for kind in (Severity, Reversibility, State, Phase)]
    assert told == [
        ("ok", "warning", "critical", "unknown"),
        ("reversible", "nothing", "irreversible"),
        ("before", "after", "partly", "changed"),
        ("planned", "run-started", "started", "done", "skipped", "failed", "run-ended"),
    ]
    assert LEFT_ALONE == "left alone"
    assert Resource(kind="schema", id="x") == Resource(id="x", kind="schema")


def test_who_takes_many_together_is_told_by_what_it_can_do() -> None:
    for remedy, forwards, backwards in (
        (Things(), False, False),
        (Forwards(), True, False),
        (Many(), True, True),
    ):
        assert (isinstance(remedy, Bulk), isinstance(remedy, BulkUndo)) == (forwards, backwards)


def test_what_ends_an_action_and_what_a_resume_passes_over_besides() -> None:
    assert {phase for phase in Phase if phase in SETTLED} == {Phase.DONE, Phase.SKIPPED}
    assert {phase for phase in Phase if phase in ENDED} == {Phase.DONE, Phase.SKIPPED, Phase.FAILED}
