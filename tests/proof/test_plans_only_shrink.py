"""Between plan and apply anything may happen: nothing is acted on that was not planned, has changed, lives or is used."""

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from runbooks import rb_sb_003
from runbooks.engine import operate
from runbooks.engine.apply import Outcome
from runbooks.engine.environment import Environment, resolve
from runbooks.engine.errors import LeaseHeld, PlanError, Refused
from runbooks.engine.lease import Lease
from runbooks.engine.model import Phase, Plan
from runbooks.engine.operate import Operator
from sandbox.adapters.postgres import Postgres
from tests.integration.world import World
from tests.proof.field import EVENTS, Contents, Field, Orphan, Spared

MOVED = re.compile(r"quarantine[_:][0-9]{14}[_:](sandbox:)?(?P<rest>.*)", re.DOTALL)
EACH = 30  # orphans of a round: so many interleavings at once
ROUNDS = 334  # of the long proof: ten thousand interleavings
LARGE = 10_000  # no blast radius is in the way of what is to be shown here


@dataclass(frozen=True)
class Desk:
    """Somebody who plans and applies."""

    environment: Environment
    operator: Operator

    def planned(self) -> Plan:
        plan = self.operator.diagnose(rb_sb_003.RUNBOOK).plan
        assert plan is not None
        return plan

    def apply(self, plan: Plan) -> Outcome:
        return self.operator.apply(
            plan, rb_sb_003.RUNBOOK, ask=lambda *_: None, max_targets=LARGE, look_again=False
        )


@pytest.fixture
def desk(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    for name, value in world.env.items():
        monkeypatch.setenv(name, value)
    environment = resolve(None, world.env, tmp_path, tmp_path)
    return Desk(environment, Operator(environment, timeout=20, progress=lambda *_: None, tell=lambda _: None))


def name_before(name: str) -> str:
    """Return what something in quarantine was called."""
    found = MOVED.fullmatch(name)
    return (
        f"sandbox_{found['rest']}"
        if found and "_" in name[:11]
        else f"sandbox:{found['rest']}"
        if found
        else name
    )


def moved(field: Field, before: Contents) -> tuple[set[str], set[str]]:
    """Return which schemas and families were put into quarantine; nothing else may have changed, and nothing is lost."""
    after = field.contents()
    keys = {name: name_before(name.decode()).encode() for name in after.keys}
    assert {name_before(name): rows for name, rows in after.schemas.items()} == before.schemas
    assert set(keys.values()) == before.keys
    assert all(field.holds(was, name) for name, was in keys.items())
    schemas = {name_before(name) for name in after.schemas if MOVED.fullmatch(name)}
    families = {was.decode().split(":")[1] for name, was in keys.items() if name != was}
    return schemas, families


def interleave(field: Field, orphans: list[Orphan]) -> dict[Orphan, Spared]:
    """Let something happen to each, in any order, and to what nobody planned; return what must be left alone."""
    order = orphans[:]
    field.chance.shuffle(order)
    spared = {orphan: field.chance.choice(EVENTS)(field, orphan) for orphan in order}
    late = field.chance.getrandbits(128)
    field.make_schema(f"sandbox_{late:032x}", rows=1)  # an orphan that nobody planned
    field.world.make(f"new-{late:032x}"[:40])
    field.settle()
    return spared


def shrink(desk: Desk, world: World, seed: int, count: int) -> int:
    """Go through one round, and return how many targets were acted on."""
    field = Field(world, random.Random(seed))
    with field.laid(count) as orphans:
        field.settle()
        plan = desk.planned()
        planned = {action.resource.id for action in plan.actions}
        assert {orphan.schema for orphan in orphans} <= planned
        spared = interleave(field, orphans)
        before = field.contents()
        outcome = desk.apply(plan)
        unreached = {
            each.action.resource.id
            for each in outcome.results
            if each.phase in (Phase.FAILED, Phase.STARTED, None)
        }
        schemas, families = moved(field, before)
        for orphan, parts in spared.items():
            for part, name, those in (("schema", orphan.schema, schemas), ("keys", orphan.token, families)):
                if part in parts:
                    assert name not in those, (orphan, part)
                elif name in planned - unreached:  # a busy server may have been in the way of the rest
                    assert name in those, (orphan, part)
        assert schemas <= planned
        assert families <= planned
        assert_used_up(desk, plan, field)
        return len(schemas) + len(families)


def assert_used_up(desk: Desk, plan: Plan, field: Field) -> None:
    before = field.contents()
    with pytest.raises(Refused, match="was used already"):
        desk.apply(plan)
    assert field.contents() == before


def test_whatever_happens_meanwhile_is_left_alone(desk: Desk, world: World) -> None:
    assert shrink(desk, world, 0, EACH) > 0


@pytest.mark.soak
def test_ten_thousand_interleavings(desk: Desk, world: World) -> None:
    acted = [shrink(desk, world, seed, EACH) for seed in range(1_000, 1_000 + ROUNDS)]
    assert ROUNDS * EACH > 10_000
    assert all(acted)


@pytest.mark.parametrize(
    "step", [timedelta(minutes=31), timedelta(days=3), timedelta(seconds=-1), timedelta(hours=-5)]
)
def test_no_clock_makes_a_plan_valid_again(
    desk: Desk, world: World, monkeypatch: pytest.MonkeyPatch, step: timedelta
) -> None:
    field = Field(world, random.Random(7))
    with field.laid(3):
        field.settle()
        plan = desk.planned()
        before = field.contents()
        clock = plan.created_at + step
        monkeypatch.setattr(operate, "_now", lambda: clock)
        with pytest.raises(Refused, match="'fresh'"):
            desk.apply(plan)
        assert field.contents() == before


def test_another_operator_who_took_over_keeps_us_out(desk: Desk, world: World) -> None:
    field = Field(world, random.Random(8))
    with field.laid(3):
        field.settle()
        plan = desk.planned()
        before = field.contents()
        database = Postgres(world.env["DATABASE_URL"], tag="tests")
        with (
            Lease.held(database, holder="stilgar", run="run-of-stilgar"),
            pytest.raises(LeaseHeld, match="stilgar"),
        ):
            desk.apply(plan)
        assert field.contents() == before


@pytest.mark.parametrize("seed", range(12))
def test_no_edit_of_a_saved_plan_goes_through(desk: Desk, world: World, seed: int) -> None:
    field = Field(world, random.Random(9))
    with field.laid(2):
        field.settle()
        plan = desk.planned()
        [path] = (desk.environment.state / "plans").glob("*.json")
        edited(path, random.Random(seed), victim=world.make(f"victim-{seed}").schema_name or "")
        before = field.contents()
        with pytest.raises((Refused, PlanError)):
            desk.apply(desk.operator.saved(plan.id))
        assert field.contents() == before


def edited(path: Path, chance: random.Random, *, victim: str) -> None:
    """Change a plan as somebody might who wants more of it: another target, more time, fewer guards."""
    plan = json.loads(path.read_text())
    action = chance.choice(plan["actions"])
    later = datetime.fromisoformat(plan["expires_at"]) + timedelta(days=1)
    changes: list[Callable[[], object]] = [
        lambda: action["resource"].update(id=victim),
        lambda: action["before"].update(name=victim),
        lambda: action["after"].update(name="public"),
        lambda: action.update(verb="drop schema"),
        lambda: plan.update(expires_at=later.isoformat()),
        lambda: plan["actions"].append({**action, "id": "a99"}),
        lambda: plan["environment"].update(fingerprint="another"),
        lambda: plan.update(existing=100_000),
    ]
    chance.choice(changes)()
    path.write_text(json.dumps(plan))
