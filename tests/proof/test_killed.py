"""Killed or cut off at each point of a run of every procedure: a resume reaches what an undisturbed run reaches, and nothing is done twice."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count, takewhile
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest

from lab.control import Lab
from lab.incidents.cloud import Account
from runbooks.catalogue import RUNBOOKS
from runbooks.engine import plan as plans
from runbooks.engine.environment import resolve
from runbooks.engine.gate import Gate
from runbooks.engine.model import Plan, Target
from runbooks.engine.systems import readers, target, writers
from tests.acceptance.production import Production
from tests.acceptance.program import ROOT, Program
from tests.integration.world import World
from tests.proof.dying import Request
from tests.proof.ground import Ground
from tests.proof.points import Blow
from tests.proof.troubles import TROUBLES, Trouble

_SECONDS = 60
_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended: by which code, or minus a signal; how many points it passed; what it said."""

    code: int
    passed: int
    said: str


@dataclass
class Host:
    """A host of its own for each case, with a plan on it."""

    ground: Ground
    place: Target
    folder: Path
    cases: Iterator[int] = field(default_factory=count)

    def lay_out(self, trouble: Trouble) -> tuple[Path, Plan]:
        """Clear the ground, make the trouble, and save the plan that mends it on a host where nothing was ever done."""
        self.ground.clear(account=trouble.account)
        actions = trouble.lay_out(self.ground)
        assert {each.verb for each in actions} == trouble.verbs
        self.ground.begin()
        state = self.folder / f"case-{next(self.cases)}"
        plan = plans.make(
            runbook=trouble.procedure,
            environment=self.place,
            now=datetime.now(UTC),
            findings=(),
            actions=[replace(each, id=f"a{number}") for number, each in enumerate(actions, 1)],
            existing=100,
        )
        plans.save(plan, state / self.place.name / "plans")
        return state, plan

    def ask(self, request: Request) -> Ended:
        """Do it in a process of its own."""
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        env = {**inherited, **self.ground.world.env, "SANDBOX_OWNER": "chani"}
        with (
            Path(os.devnull).open() as nothing,
            Program(request.words(), cwd=ROOT, env=env, stdin=nothing.fileno()) as program,
        ):
            out, err = program.communicate(_SECONDS)
            code = program.wait()
        assert "Traceback" not in err, err
        return Ended(code=code, passed=int(out or 0), said=err)

    def records(self, state: Path) -> list[dict[str, Any]]:
        """Return what a host's journal says."""
        file = state / self.place.name / "journal.jsonl"
        return [json.loads(line) for line in file.read_bytes().splitlines()] if file.exists() else []


@pytest.fixture(scope="module")
def host(grounds: Lab, world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Return a host beside servers whose changes are witnessed."""
    folder = tmp_path_factory.mktemp("hosts")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_PROFILE", raising=False)
        patch.setattr("diagnostics.streams._PAUSE", 0.02)  # nobody serves these consumers
        for name, value in world.env.items():
            patch.setenv(name, value)
        environment = resolve(None, world.env, folder, folder)
        read = readers(environment, tag="tests:proof", timeout=10)
        write = writers(environment, tag="tests:proof", actor="chani", timeout=10)
        gate = Gate(read=read, write=write, fence=lambda _: None, tell=lambda _: None)
        (folder / "shelf").mkdir()
        ground = Ground(world, gate, Production(grounds), Account(grounds.env), folder / "shelf")
        with ground.witnessed():
            yield Host(ground, target(environment, read, deadline=10), folder)


def strike(host: Host, name: str, blow: Blow, *, stride: int = 1, resume: bool = False) -> int:
    """Strike at each point, or at some, one after the other, until the run ends before it; return how many there were.

    With `resume` the run is killed half way each time, and it is its resume that is struck.
    """
    trouble = TROUBLES[name]
    aim, changes = _undisturbed(host, trouble)
    half, points = changes // 2 if resume else 0, count(1, stride)
    return sum(1 for _ in takewhile(lambda point: struck(host, trouble, aim, blow, point, half), points))


def struck(
    host: Host, trouble: Trouble, aim: Mapping[str, Any], blow: Blow, point: int, half: int = 0
) -> bool:
    """Strike at a point, take the run up, and insist that it has come where it should; False where it ended before that point."""
    state, plan = host.lay_out(trouble)
    if half:
        killed = host.ask(replace(_next(host, state, plan), point=half, blow=Blow.AFTER))
        assert killed.code == -SIGKILL, killed
    ended = host.ask(replace(_next(host, state, plan), point=point, blow=blow))
    where = f"{blow}, point {point}: {ended}"
    fell = ended.code == -SIGKILL or ended.passed >= point
    if fell:
        assert ended.code == -SIGKILL if blow.kills else ended.code in (0, 1, 3, 5, 6), where
        if ended.code:
            again = host.ask(_next(host, state, plan))
            assert again.code == 0, f"{where}\n{again}"
    _assert_reached(host, trouble, state, plan, aim, where)
    return fell


def _undisturbed(host: Host, trouble: Trouble) -> tuple[Mapping[str, Any], int]:
    """Return what a run reaches that nothing befalls, and how many changes it makes."""
    host.ground.clear()  # what others did to the account, too
    state, plan = host.lay_out(trouble)
    ended = host.ask(replace(_next(host, state, plan), blow=Blow.AFTER))
    assert ended.code == 0, ended.said
    return host.ground.truth(account=trouble.account), ended.passed


def _next(host: Host, state: Path, plan: Plan) -> Request:
    """Return what is to be asked for: that the run is taken up, or that the plan is applied, where none was begun."""
    for each in host.records(state):
        if each["phase"] == "run-started":
            return Request(state=str(state), run=each["run"])
    return Request(state=str(state), plan=plan.id)


def _assert_reached(
    host: Host, trouble: Trouble, state: Path, plan: Plan, aim: Mapping[str, Any], where: str
) -> None:
    done = Counter(each["action"] for each in host.records(state) if each["phase"] == "done")
    assert done == Counter(each.id for each in plan.actions), where
    truth = host.ground.truth(account=trouble.account)
    for what in aim.keys() | truth.keys():
        if what != "witnessed" or not trouble.again:
            assert truth.get(what) == aim.get(what), f"{where}\n{what}"


def test_every_verb_has_its_trouble() -> None:
    verbs = set().union(*(each.verbs for each in TROUBLES.values()))
    known = {verb for each in RUNBOOKS.values() for verb in each.remedies(None)}
    assert {verb.removeprefix("undo ") for verb in verbs} == known


@pytest.mark.parametrize("blow", [Blow.AFTER, Blow.UNANSWERED])
def test_a_run_that_is_struck_is_finished_by_a_resume(host: Host, blow: Blow) -> None:
    assert strike(host, "quarantine", blow, stride=11) > 1


def test_a_resume_that_is_struck_is_finished_by_the_next(host: Host) -> None:
    assert strike(host, "quarantine", Blow.AFTER, stride=9, resume=True) > 1


@pytest.mark.soak
@pytest.mark.parametrize("blow", [each for each in Blow if each.kills], ids=lambda blow: blow.name.lower())
@pytest.mark.parametrize("name", TROUBLES)
def test_every_resume_that_is_killed_at_any_point_is_finished_by_the_next(
    host: Host, name: str, blow: Blow
) -> None:
    assert strike(host, name, blow, resume=True) > 1


@pytest.mark.soak
@pytest.mark.parametrize("blow", Blow, ids=lambda blow: blow.name.lower())
@pytest.mark.parametrize("name", TROUBLES)
def test_every_run_that_is_struck_at_any_point_is_finished_by_a_resume(
    host: Host, name: str, blow: Blow
) -> None:
    assert strike(host, name, blow) > 3
