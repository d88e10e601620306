"""What the guards say, word by word: who is named, how many, and which command helps."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from runbooks.engine import guards
from runbooks.engine.model import Action, Reversibility, Verdict
from runbooks.engine.stops import Stop
from tests.unit.plans import NOW, TARGET, action, plan

STOP = Stop(id="s", raised_at=NOW, raised_by="chani", reason="worms", halting=True, parts={})


def verdict(guard: str, allowed: bool, reason: str) -> Verdict:
    return Verdict(guard=guard, allowed=allowed, reason=reason)


def test_the_target_is_named_with_what_differs() -> None:
    assert guards.same_target(plan(), TARGET) == verdict(
        "target", True, "staging, account 123456789012, db:5432/app"
    )
    for what in ("name", "account", "region", "database", "fingerprint", "redis", "nats"):
        fields: list[dict[str, Any]] = [{what: "other"}, {what: None}]
        other, unknown = (replace(TARGET, **field) for field in fields)
        told = f"the plan was made for {what} {getattr(TARGET, what)}, this is other"
        assert guards.same_target(plan(), other) == verdict("target", False, told)
        assert guards.same_target(plan(), unknown) == verdict(
            "target", False, f"cannot tell this environment's {what} now"
        )


def test_a_stop_that_halts_refuses_and_one_that_does_not_is_none() -> None:
    none = verdict("stop", True, "no emergency stop is raised")
    assert guards.not_stopped(None) == none
    assert guards.not_stopped(replace(STOP, halting=False)) == none
    told = "an emergency stop is raised by chani, since 2026-03-01 12:00:00 UTC; `emergency-status` says what resuming would do"
    assert guards.not_stopped(STOP) == verdict("stop", False, told)


def test_the_rights_that_are_lacking_are_named_by_system() -> None:
    told = (
        "this login lacks rights at PostgreSQL: a, b; at NATS: c (deploy/rights/rb-test has what gives them)"
    )
    assert guards.permitted(plan(), {"PostgreSQL": ("a", "b"), "NATS": ("c",)}) == verdict(
        "rights", False, told
    )
    assert guards.permitted(plan(), {}) == verdict("rights", True, "none is lacking")


def test_an_emergency_has_no_limit() -> None:
    assert guards.urgent(plan(2, existing=None)) == verdict("emergency", True, "flip t1, flip t2")


def test_actions_are_named_one_after_the_other() -> None:
    assert guards.named([action(1), action(2)]) == "flip t1, flip t2"


RUNS = [("r1", "rb-1"), ("r2", "stop"), ("r3", "rb-1"), ("r4", "resume")]


@pytest.mark.parametrize(
    ("run", "urgent", "later"),
    [
        ("r1", {"stop", "resume"}, "r2"),
        ("r1", {"resume"}, "r4"),
        ("r1", set(), None),
        ("r2", {"stop", "resume"}, "r4"),
        ("r3", {"stop"}, None),
        ("r4", {"stop", "resume"}, None),
        ("r1", {"rb-1"}, None),  # the same runbook again
        ("r9", {"stop", "resume"}, None),
    ],
)
def test_another_emergency_procedure_since_overtakes_a_run(
    run: str, urgent: set[str], later: str | None
) -> None:
    since = f"{later} was run since; `emergency-status` says how all stands"
    none = "no other emergency procedure was run since"
    assert guards.not_overtaken(run, RUNS, urgent) == verdict(
        "overtaken", later is None, since if later else none
    )


def test_a_plan_says_how_long_it_is_valid() -> None:
    told = "the plan is valid from 12:00:00 to 12:30:00 UTC"
    assert guards.still_fresh(plan(), NOW) == verdict("fresh", True, told)
    assert guards.still_fresh(plan(), NOW + timedelta(hours=1)) == verdict("fresh", False, told)


@pytest.mark.parametrize(
    ("count", "existing", "most", "undoes", "allowed", "reason"),
    [
        (1, 100, None, None, True, "1 target, 1% of the 100 sandbox resources that exist"),
        (25, 125, None, None, True, "25 targets, 20% of the 125 sandbox resources that exist"),
        (30, 300, None, None, False, "30 targets, 10% of the 300 sandbox resources that exist; the limit is 25 and 20%. --max-targets 30 raises it"),
        (1, 0, None, None, False, "1 target, 100% of the 0 sandbox resources that exist; the limit is 25 and 20%. --max-targets 1 raises it"),
        (3, 4, 3, None, True, "3 targets, 75% of the 4 sandbox resources that exist; at most 3"),
        (3, 4, 2, None, False, "3 targets, 75% of the 4 sandbox resources that exist; at most 2"),
        (3, 4, 0, None, False, "3 targets, 75% of the 4 sandbox resources that exist; at most 0"),
        (3, None, 100, None, False, "cannot tell how many resources exist"),
        (30, None, None, "r1", True, "an undo touches only what its run did"),
    ],
)  # fmt: skip
def test_the_blast_radius_is_told_in_numbers(
    count: int, existing: int | None, most: int | None, undoes: str | None, allowed: bool, reason: str
) -> None:
    made = plan(count, existing=existing, undoes=undoes)
    assert guards.blast_radius(made, most) == verdict("blast radius", allowed, reason)


def lost(verb: str, **before: object) -> Action:
    return replace(action(1, lost=True), verb=verb, before=before)


@pytest.mark.parametrize(
    ("actions", "targets", "typed"),
    [
        ([], 0, ()),
        ([action(1)], 1, ()),
        ([lost("drop object")], 1, ("drop 1", "t1")),
        ([lost("drop object"), action(2)], 2, ("drop 1", "t1")),
        ([lost("drop object"), lost("drop object")], 2, ("drop 2",)),
        ([lost("drop sandboxes", sandboxes=["a", "b", "c"])], 3, ("drop 3",)),
        ([lost("drop sandboxes", sandboxes=["a"])], 1, ("drop 1",)),
        ([lost("drop sandboxes", sandboxes=[])], 1, ("drop 1",)),
        ([lost("drop sandboxes", sandboxes=["a", "b"]), lost("end session")], 3, ("drop 2 and end 1",)),
        ([lost("trim audit log", rows=9_000)], 1, ("trim 9000", "t1")),
        ([lost("trim audit log", rows=9_000), lost("drop object", rows=3)], 2, ("trim 9000 and drop 1",)),
        ([lost("end session")], 1, ("end 1", "t1")),
        ([lost("cancel query")], 1, ("cancel 1", "t1")),
        ([lost("enlarge storage")], 1, ("enlarge 1", "t1")),
        ([lost("restart service")], 1, ("restart 1", "t1")),
        ([replace(lost("x"), reversibility=Reversibility.NOTHING)], 1, ()),
    ],
)
def test_what_is_typed_names_what_goes_and_how_much(
    actions: list[Action], targets: int, typed: tuple[str, ...]
) -> None:
    assert guards.targets(actions) == targets
    assert guards.phrases(replace(plan(1), actions=tuple(actions))) == typed


def test_the_limits_are_those_that_the_handbook_names() -> None:
    assert (guards.MAX_TARGETS, guards.MAX_SHARE) == (25, 0.2)
