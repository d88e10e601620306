"""How a plan is written down: the same bytes for the same plan, whoever writes it, and back again."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from runbooks.engine import plan as plans
from runbooks.engine.errors import PlanError
from runbooks.engine.model import Resource
from tests.unit.plans import FINDING, NOW, plan


def test_canonical_json_is_sorted_without_spaces_and_plain_ascii() -> None:
    value = {
        "b": [1, None],
        "a": "ž",
        "c": NOW,
        "d": UUID(int=1),
        "e": Resource(kind="k", id="i"),
        "f": int,
        "g": Resource,
    }
    text = '{"a":"\\u017e","b":[1,null],"c":"2026-03-01T12:00:00+00:00","d":"00000000-0000-0000-0000-000000000001","e":{"id":"i","kind":"k"},"f":"<class \'int\'>","g":"<class \'runbooks.engine.model.Resource\'>"}'
    assert plans.dumps(value) == text


def test_a_plan_of_whatever_findings_reads_back(tmp_path: Path) -> None:
    made = plan(findings=(FINDING, replace(FINDING, resource=None)), undoes="r1")
    assert plans.as_json(plans.from_json(plans.as_json(made))) == plans.as_json(made)
    saved = plans.save(made, tmp_path)
    plans.save(made, tmp_path)
    assert saved == tmp_path / f"{made.id}.json"
    assert plans.load(made.id, tmp_path) == plans.from_json(plans.as_json(made))
    assert plans.load(made.id, tmp_path).expires_at == NOW + timedelta(minutes=30)


@pytest.mark.parametrize(("field", "value"), [("created_at", "noon"), ("expires_at", None), ("findings", [{"severity": "x", "resource": None}]), ("actions", 7)])  # fmt: skip
def test_what_is_no_plan_is_said_so(field: str, value: object) -> None:
    with pytest.raises(PlanError, match="this is no plan"):
        plans.from_json({**plans.as_json(plan()), field: value})


def test_the_latest_is_told_whatever_its_runbook_is_called(tmp_path: Path) -> None:
    made = [
        plan(runbook=name, now=NOW - timedelta(hours=ago))
        for name, ago in (("rb-a", 0), ("rb-z", 1), ("rb-m", 2))
    ]
    for each in made:
        plans.save(each, tmp_path)
    with pytest.raises(PlanError) as error:
        plans.load("x", tmp_path)
    assert error.value.hint == f"the latest is {made[0].id}"


def test_the_name_of_a_plan_says_whose_and_when_and_holds_its_digest() -> None:
    for undoes, begin in ((None, "rb-test"), ("r1", "undo-rb-test")):
        made = plan(undoes=undoes)
        assert made.id == f"{begin}-20260301-120000-{made.digest[:10]}"
        assert len(made.digest) == 64
        assert plans.seal(made) == made
