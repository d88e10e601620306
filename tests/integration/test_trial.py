"""A trial: what a runbook tries out for real goes through the gate, and its diagnosis knows what became of it."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from diagnostics.stack import Stack
from runbooks.engine.environment import Environment, resolve
from runbooks.engine.errors import Exit, Refused
from runbooks.engine.gate import Gate
from runbooks.engine.lease import Lease
from runbooks.engine.model import (
    Action,
    Finding,
    Observation,
    Plan,
    Remedy,
    Resource,
    Reversibility,
    Runbook,
    Severity,
    State,
    Trial,
)
from runbooks.engine.operate import Diagnosis, Operator
from runbooks.engine.page import Rights
from runbooks.engine.systems import Readers, Writers
from sandbox.errors import ArrakisError
from sandbox.facts import Fact, Known, Unknown
from tests.integration.world import World

KEY = b"tried"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a runbook that looks at nothing has seen."""

    key: str
    tried: Fact[Any] | None = None


class PutKey:
    """Writes a key, and sees it there; what is to be tried says whether Redis is to refuse it."""

    verb = "put key"
    rights = Rights()

    def __init__(self, read: Readers, write: Writers) -> None:
        self._read, self._write = read, write

    def observe(self, action: Action) -> Observation:
        [value] = self._read.keys.values([KEY])
        evidence = {"value": value.decode()} if value else {}
        return Observation(state=State.AFTER if value else State.BEFORE, reason="looked", evidence=evidence)

    def in_use(self, action: Action) -> str | None:
        return None

    def apply(self, action: Action) -> None:
        if action.before["refused"]:
            raise ArrakisError("nobody may write it")
        self._write.keys.put(KEY, b"yes", lifetime=timedelta(minutes=1))

    def revert(self, action: Action) -> None:
        self._write.keys.unlink([KEY])


def runbook(propose: Callable[[Facts], list[Action]]) -> Runbook:
    """Return one that tries to put the key."""

    def remedies(gate: Gate) -> Mapping[str, Remedy]:
        return {PutKey.verb: PutKey(gate.read, gate.write)}

    def gather(readers: Readers, *, now: datetime, deadline: float, stack: Stack, key: str = "") -> Facts:
        return Facts(key=key)

    def diagnose(facts: Facts) -> list[Finding]:
        severity = Severity.UNKNOWN if isinstance(facts.tried, Unknown) else Severity.OK
        return [Finding(check="trial", severity=severity, summary=f"{facts.key}: {told(facts.tried)}")]

    return Runbook(
        name="rb-sb-004",
        title="A trial",
        gather=gather,
        diagnose=diagnose,
        propose=lambda _: ([], []),
        existing=lambda _: 1,
        remedies=remedies,
        trial=Trial(propose=propose, learn=lambda facts, tried: replace(facts, tried=tried)),
    )


def told(tried: Fact[Any] | None) -> str:
    """What the facts know of the trial."""
    if not isinstance(tried, Known):
        return f"unknown: {tried.reason}" if tried else "not tried"
    [result] = tried.value
    return f"{result.phase}: {result.reason}: {json.dumps(dict(result.evidence))}"


def putting(*, refused: bool = False) -> Callable[[Facts], list[Action]]:
    """Return what proposes the one action."""
    return lambda facts: [
        Action(
            id="a1",
            verb=PutKey.verb,
            resource=Resource(kind="key", id=facts.key),
            before={"refused": refused},
            after={},
            reason="asked for",
            reversibility=Reversibility.REVERSIBLE,
        )
    ]


@pytest.fixture
def environment(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    """Return the world as an operator's target."""
    for name, value in world.env.items():
        monkeypatch.setenv(name, value)
    yield resolve(None, world.env, tmp_path, tmp_path)
    world.wipe()


def diagnosed(
    environment: Environment,
    propose: Callable[[Facts], list[Action]],
    ask: Callable[[Environment, Plan, str], None] | None = lambda *_: None,
) -> Diagnosis:
    """Diagnose with a trial."""
    operator = Operator(environment, timeout=5, progress=lambda *_: None, tell=lambda _: None)
    return operator.diagnose(runbook(propose), about={"key": "mine"}, trial=ask)


def test_what_was_tried_is_known_to_the_diagnosis_and_is_a_run(
    world: World, environment: Environment
) -> None:
    asked: list[tuple[str, str]] = []
    found = diagnosed(environment, putting(), lambda _, plan, scope: asked.append((plan.id, scope)))
    assert [finding.summary for finding in found.findings] == ['mine: done: looked: {"value": "yes"}']
    assert (found.exit, found.plan) == (Exit.HEALTHY, None)
    assert world.redis.get(KEY) == b"yes"
    [(plan_id, scope)] = asked
    assert scope.startswith("1 target, ")
    lines = (environment.state / "journal.jsonl").read_text().splitlines()
    phases = [json.loads(line)["phase"] for line in lines]
    assert phases == ["planned", "run-started", "started", "done", "run-ended"]
    assert json.loads(lines[1])["observed"]["plan"]["id"] == plan_id


def test_one_that_fails_is_known_with_its_reason(world: World, environment: Environment) -> None:
    [finding] = diagnosed(environment, putting(refused=True)).findings
    assert finding.summary == "mine: failed: nobody may write it: {}"
    assert world.redis.get(KEY) is None


def test_without_being_asked_for_nothing_is_tried(world: World, environment: Environment) -> None:
    [finding] = diagnosed(environment, putting(), None).findings
    assert finding.summary == "mine: not tried"
    assert world.redis.get(KEY) is None


def test_where_it_is_refused_the_rest_is_still_diagnosed(world: World, environment: Environment) -> None:
    def refuse(*_: object) -> None:
        raise Refused("not confirmed by the operator")

    found = diagnosed(environment, putting(), refuse)
    assert [finding.summary for finding in found.findings] == ["mine: unknown: not confirmed by the operator"]
    assert found.exit is Exit.UNKNOWN
    assert world.redis.get(KEY) is None


def test_while_another_operator_is_at_work_nothing_is_tried(world: World, environment: Environment) -> None:
    with Lease.held(world.database, holder="stilgar", run="rb-sb-001-x"):
        [finding] = diagnosed(environment, putting()).findings
    assert "stilgar" in finding.summary
    assert finding.severity is Severity.UNKNOWN
    assert world.redis.get(KEY) is None


def test_what_cannot_be_tried_says_why(world: World, environment: Environment) -> None:
    def propose(_: Facts) -> list[Action]:
        raise ArrakisError("there is nothing to try it with")

    [finding] = diagnosed(environment, propose).findings
    assert finding.summary == "mine: unknown: there is nothing to try it with"
