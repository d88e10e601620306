"""How a run stands: what the mirrored journal answers, put together."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from runbooks.engine import standing as module
from runbooks.engine.copied import entry_as_json
from runbooks.engine.errors import PlanError, Refused
from runbooks.engine.journal import JournalEntry, _sealed
from runbooks.engine.model import Phase
from runbooks.engine.standing import Failure, Part, Standing
from sandbox.errors import Missing, Unreachable
from tests.unit.test_engine_stops import Answers

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUN = module._Run(queued=True, total=20, exit=None, strangers=2, now=NOW)
PARTS = [
    Part(worker=name, seen=NOW, done=done, skipped=1, failed=2, begun=3)
    for name, done in (("a", 4), ("b", 6))
]
FAILURE = Failure(at=NOW, worker="a", resource=None, reason="no")
ENTRY = _sealed(
    JournalEntry(chain="c", seq=1, run="r1", action="a1", phase=Phase.DONE, at=NOW, actor="ada", observed={"text": "\0"}, error=None, previous="")
)  # fmt: skip


def reader(**answers: Any) -> Any:
    return Answers(**answers)


def test_a_run_stands_as_its_records_and_its_parts_say() -> None:
    database = reader(standing=[RUN], parts=PARTS)
    found = module.standing(database, "r1")
    assert found == Standing(queued=True, total=20, exit=None, strangers=2, now=NOW, parts=tuple(PARTS))
    assert (found.done, found.skipped, found.failed, found.left) == (10, 2, 4, 4)
    assert database.asked == [("read/runs/standing", {"run": "r1"}), ("read/runs/parts", {"run": "r1"})]
    other = reader(standing=[replace(RUN, queued=False, exit=5, strangers=0, total=7)], parts=[])
    assert module.standing(other, "r1") == Standing(
        queued=False, total=7, exit=5, strangers=0, now=NOW, parts=()
    )


@pytest.mark.parametrize("answer", [[], Missing("no such table")])
def test_a_run_that_nobody_knows_stands_nowhere(answer: Any) -> None:
    database = reader(standing=answer)
    assert module.standing(database, "r1") is None
    assert len(database.asked) == 1


def test_its_failures_and_its_records_are_read() -> None:
    database = reader(failures=[FAILURE], records_of=[module._Record(record=entry_as_json(ENTRY))])
    assert module.failures(database, "r1", after=NOW) == [FAILURE]
    assert module.records_of(database, "r1", ("a1", "a2")) == [ENTRY]
    assert database.asked == [
        ("read/runs/failures", {"run": "r1", "after": NOW}),
        ("read/runs/records_of", {"run": "r1", "actions": ["a1", "a2"]}),
    ]


@pytest.mark.parametrize("record", [{}, {"line": "x"}, {**entry_as_json(ENTRY), "run": "r2"}, {"chain": 1, "seq": 1, "run": "", "observed": {}}, {**entry_as_json(replace(ENTRY, observed={})), "more": 1}])  # fmt: skip
def test_records_that_were_changed_are_refused(record: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="the mirrored records of r1 were changed"):
        module.records_of(reader(records_of=[module._Record(record=record)]), "r1", ["a1"])


def test_the_latest_run_is_the_one_to_look_at() -> None:
    database = reader(latest=[module._Name(run="r9")])
    assert module.latest_run(database, "rb-test") == "r9"
    assert database.asked == [("read/runs/latest", {"runbook": "rb-test"})]
    answers: list[Any] = [[], Missing("no such table")]
    for answer in answers:
        with pytest.raises(PlanError, match="no run of rb-test") as none:
            module.latest_run(reader(latest=answer), "rb-test")
        assert none.value.hint == "`rb-test` plans one"


def test_a_run_that_was_undone_is_refused_and_one_that_was_not_is_not() -> None:
    answers: list[Any] = [[], Missing("no such table")]
    for answer in answers:
        module.refuse_undone(reader(undone_by=answer), "r1")
    database = reader(undone_by=[module._Name(run="undo-1")])
    with pytest.raises(Refused, match=re.escape("run r1 was undone by undo-1")):
        module.refuse_undone(database, "r1")
    assert database.asked == [("read/runs/undone_by", {"run": "r1"})]
    with pytest.raises(Unreachable):
        module.refuse_undone(reader(undone_by=Unreachable("no answer")), "r1")
