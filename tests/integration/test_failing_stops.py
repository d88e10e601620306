"""Each thing failing at each step of a stop and of its way back: the rest is done, what is not is told, and again finishes it."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runbooks import emergency_resume, emergency_stop
from runbooks.engine.apply import Outcome
from runbooks.engine.environment import command, resolve
from runbooks.engine.errors import Exit
from runbooks.engine.model import Phase, Runbook
from runbooks.engine.operate import Diagnosis, Operator
from runbooks.reports import terminal
from tests.acceptance.production import FLAG, ROWS, RULE, SCALING, SERVICE, Production
from tests.conftest import StartLab

ALL = {RULE, SERVICE, SCALING, ROWS, FLAG}
ADDRESSES = {
    "PostgreSQL": {"DATABASE_URL": "postgresql://lab@127.0.0.1:1/arrakis"},
    "Redis": {"REDIS_URL": "redis://127.0.0.1:1/0"},
    "AWS": {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
}


@dataclass(frozen=True)
class Done:
    """How a call ended, and all that was said."""

    exit: Exit
    said: str
    outcome: Outcome | None


class Scene:
    """Somebody in this very process who stops and resumes a lab."""

    def __init__(self, production: Production, state: Path) -> None:
        self.production, self._state = production, state

    def do(self, runbook: Runbook, **options: Any) -> Done:
        """Do as the command does."""
        told: list[str] = []
        operator = self._operator(told)
        found = operator.diagnose(runbook, **options)
        if found.plan is None:
            return Done(found.exit, _said(told, found, None), None)
        outcome = operator.apply(found.plan, runbook, ask=lambda *_: None, max_targets=None)
        return Done(outcome.exit, _said(told, found, outcome), outcome)

    def stop(self, **options: Any) -> Done:
        return self.do(emergency_stop.RUNBOOK, **options)

    def resume(self, **options: Any) -> Done:
        return self.do(emergency_resume.RUNBOOK, **options)

    def go_on(self, run: str) -> Exit:
        """Take up a run."""
        books = {each.name: each for each in (emergency_stop.RUNBOOK, emergency_resume.RUNBOOK)}
        return self._operator([]).resume(run, books, ask=lambda *_: None).exit

    def _operator(self, told: list[str]) -> Operator:
        environment = resolve(None, os.environ, self._state, self._state)
        return Operator(environment, timeout=10, progress=lambda result, *_: told.append(terminal.progress(result)), tell=told.append)  # fmt: skip


def _said(told: list[str], found: Diagnosis, outcome: Outcome | None) -> str:
    shown = terminal.diagnosis(found, colour=False)
    if outcome:
        shown += terminal.applied(outcome, environment=found.environment)
    return "\n".join([*told, shown])


@pytest.fixture(scope="module")
def production(start_lab: StartLab) -> Iterator[Production]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_PROFILE", raising=False)
        lab = start_lab()
        for name, value in lab.env.items():
            patch.setenv(name, value)
        yield Production(lab)


@pytest.fixture
def scene(production: Production, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Return a scene where all runs; afterwards it does again."""
    monkeypatch.setattr("runbooks.remedies.marking._PATIENCE", 0.2)
    made = Scene(production, tmp_path)
    yield made
    made.resume()
    assert production.runs() == ALL


def failing(scene: Scene, what: str, patch: pytest.MonkeyPatch) -> AbstractContextManager[None]:
    """Have an operation of AWS refused, a server unreachable, or a table locked, for as long as this lasts."""
    if what in ADDRESSES:
        for name, value in ADDRESSES[what].items():
            patch.setenv(name, value)
        return nullcontext()
    if "." in what:
        return _locked(scene.production.lab.env["DATABASE_URL"], what)
    return scene.production.refusing(what)


class _locked(AbstractContextManager[None]):
    """A table that can be read, and not written: somebody builds an index on it."""

    def __init__(self, url: str, table: str) -> None:
        self._sql = psycopg.connect(url)
        self._sql.execute(f"LOCK TABLE {table} IN SHARE MODE".encode())

    def __exit__(self, *_: object) -> None:
        self._sql.close()


def soak(*case: Any) -> Any:
    return pytest.param(*case, marks=pytest.mark.soak, id=case[0])


def daily(*case: Any) -> Any:
    return pytest.param(*case, id=case[0])


@pytest.mark.parametrize(
    ("what", "runs", "says"),
    [
        soak("DescribeRule", {RULE}, "`emergency-stop --only cleanup` does it"),
        soak("DisableRule", {RULE}, "FAILED   arrakis-sandbox-cleanup: AWS refused events:disable_rule"),
        soak("DescribeServices", {SERVICE, SCALING}, "`emergency-stop --only router` does it"),
        soak("UpdateService", {SERVICE}, "FAILED   arrakis-worker: AWS refused ecs:update_service"),
        daily("DescribeScalableTargets", {SCALING}, "FAILED   arrakis-worker: no task runs, but what autoscaling may do"),
        soak("RegisterScalableTarget", {SCALING}, "FAILED   arrakis-worker: no task runs, but autoscaling is not suspended"),
        daily("PostgreSQL", {ROWS, FLAG}, "running sandboxes are not marked destroyed: cannot tell"),
        soak("Redis", set(), "cached routes stay until they end, within a minute: Redis"),
        daily("AWS", {RULE, SERVICE, SCALING}, "by hand: aws events disable-rule --name arrakis-sandbox-cleanup"),
        soak("runbooks.stops", {ROWS, FLAG}, "could not take the lock"),
        soak("runbooks.stopped_sandboxes", {ROWS}, "could not take the lock"),
        soak("public.sandboxes", {ROWS}, "could not take the lock"),
        soak("public.sandbox_audit_log", {ROWS}, "could not take the lock"),
    ],
)  # fmt: skip
def test_whatever_fails_in_a_stop_the_rest_is_stopped_and_again_stops_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, what: str, runs: set[str], says: str
) -> None:
    production = scene.production
    if "." in what:  # the tables have to be there
        scene.stop()
        scene.resume()
    before = production.truth()
    with monkeypatch.context() as patch, failing(scene, what, patch):
        done = scene.stop()
    assert done.exit is Exit.PARTLY
    assert production.runs() == runs
    assert says in done.said
    assert done.outcome
    assert ("clean-ups and applies of this toolkit are NOT halted" in done.said) == (FLAG in runs)
    failed = [each for each in done.outcome.results if each.phase is Phase.FAILED]
    assert failed or done.outcome.left
    if failed:
        assert f"{command()} resume --run {done.outcome.run}" in done.said
        took_up = scene.go_on(done.outcome.run)
        assert took_up is (Exit.PARTLY if done.outcome.left else Exit.HEALTHY)
    if done.outcome.left:
        assert scene.stop().exit is Exit.HEALTHY
    assert production.runs() == set()
    assert all(production.tags())
    assert scene.resume().exit is Exit.HEALTHY
    assert production.truth() == before


@pytest.mark.parametrize(
    "what", [soak("ListTagsForResource"), soak("TagResource"), soak("GetCallerIdentity")]
)
def test_what_a_stop_can_do_without_does_not_hold_it_up(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    before = scene.production.truth()
    with monkeypatch.context() as patch, failing(scene, what, patch):
        done = scene.stop()
    assert done.exit is Exit.HEALTHY
    assert scene.production.runs() == set()
    assert done.said.count("how it was is not kept as tags: AWS refused") == (
        0 if what == "GetCallerIdentity" else 2
    )
    assert scene.resume().exit is Exit.HEALTHY
    assert scene.production.truth() == before


@pytest.mark.parametrize(
    ("what", "still", "says"),
    [
        soak("DescribeRule", {RULE, FLAG}, "by hand: aws events enable-rule --name arrakis-sandbox-cleanup"),
        soak("EnableRule", {RULE, FLAG}, "FAILED   arrakis-sandbox-cleanup: AWS refused events:enable_rule"),
        soak("DescribeServices", {SERVICE, SCALING, FLAG}, "by hand: aws ecs update-service"),
        daily("UpdateService", {SERVICE, SCALING, FLAG}, "FAILED   arrakis-worker: AWS refused ecs:update_service"),
        soak("DescribeScalableTargets", {SERVICE, SCALING, FLAG}, "--min-capacity 1"),
        soak("RegisterScalableTarget", {SCALING, FLAG}, "FAILED   arrakis-worker: AWS refused"),
        soak("UntagResource", {FLAG}, "FAILED   arrakis-worker: AWS refused ecs:untag_resource"),
        soak("PostgreSQL", {ROWS, FLAG}, "sandboxes that are marked destroyed: cannot tell how it is"),
        soak("Redis", set(), "cached routes stay until they end, within a minute: Redis"),
        soak("AWS", {RULE, SERVICE, SCALING, FLAG}, "by hand: aws ecs update-service"),
        soak("runbooks.stops", {FLAG}, "could not take the lock"),
        soak("runbooks.stopped_sandboxes", {ROWS, FLAG}, "could not take the lock"),
        soak("public.sandboxes", {ROWS, FLAG}, "could not take the lock"),
        soak("public.sandbox_audit_log", {ROWS, FLAG}, "could not take the lock"),
    ],
)  # fmt: skip
def test_whatever_fails_on_the_way_back_the_rest_comes_back_and_again_brings_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, what: str, still: set[str], says: str
) -> None:
    production = scene.production
    before = production.truth()
    assert scene.stop().exit is Exit.HEALTHY
    with monkeypatch.context() as patch, failing(scene, what, patch):
        done = scene.resume()
    assert done.exit is Exit.PARTLY
    assert production.still() == still
    assert says in done.said
    scene.resume()
    assert production.truth() == before
    assert scene.resume() == Done(Exit.HEALTHY, scene.resume().said, None)


@pytest.mark.parametrize("runbook", ["stop", "resume"])
def test_when_nothing_answers_all_of_it_is_told(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, runbook: str
) -> None:
    do: Callable[[], Done] = getattr(scene, runbook)
    with monkeypatch.context() as patch:
        for name in ADDRESSES:
            failing(scene, name, patch)
        done = do()
    assert done.exit is (Exit.ERROR if runbook == "stop" else Exit.UNKNOWN)
    assert done.said.count("cannot tell how it is") >= 3
    assert scene.production.runs() == ALL
