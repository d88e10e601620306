"""A runbook whose actions count in Redis how often they were done, and processes that work on it.

`python -m tests.integration.counting work IDLE` is a worker; `… hand-over PLAN` hands a plan over, and is killed half-way.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import redis

from runbooks.engine import plan as plans
from runbooks.engine.crew import Crew
from runbooks.engine.distributed import Coordinator, work_queue
from runbooks.engine.environment import resolve
from runbooks.engine.gate import Gate
from runbooks.engine.model import (
    Action,
    Observation,
    Pace,
    Phase,
    Plan,
    Remedy,
    Resource,
    Reversibility,
    Runbook,
    State,
)
from runbooks.engine.operate import Operator
from runbooks.engine.page import Rights
from runbooks.engine.systems import readers, target
from runbooks.reports.document import exit_of
from sandbox.adapters.workqueue import JetStreamQueue
from sandbox.errors import ArrakisError, Unreachable

NAME = "rb-count"
PACE = Pace(workers=2, lot=5, failures=2)
BROKEN = "broken"
"""While this key is there, actions that are to fail do."""


class Count:
    """Counts a key up, in a transaction behind the fence; many at once. An action may be slow, fail, find no server at first, or kill its worker."""

    verb = "count"
    rights = Rights()

    def __init__(self, gate: Gate, meddle: Callable[[Action], None]) -> None:
        self._gate, self._meddle = gate, meddle
        self._redis = redis.Redis.from_url(os.environ["REDIS_URL"])

    def observe(self, action: Action) -> Observation:
        return self.observe_all([action])[action.id]

    def observe_all(self, actions: Sequence[Action]) -> Mapping[str, Observation]:
        counts: list[Any] = self._redis.mget([key(action.id) for action in actions])
        states = [State.AFTER if count else State.BEFORE for count in counts]
        pairs = zip(actions, states, strict=True)
        return {action.id: Observation(state=state, reason="looked") for action, state in pairs}

    def in_use(self, action: Action) -> str | None:
        return None

    def in_use_all(self, actions: Sequence[Action]) -> Mapping[str, str]:
        return {}

    def apply(self, action: Action) -> None:
        time.sleep(action.before.get("seconds", 0))
        if action.before.get("kills"):
            os.kill(os.getpid(), signal.SIGKILL)
        if action.before.get("fails") and self._redis.exists(BROKEN):
            raise ArrakisError("it is broken")
        if action.before.get("away") and not self._redis.getset(f"back:{action.id}", "yes"):
            raise Unreachable("the server gave no answer")
        with self._gate.write.sql.transaction() as transaction:
            self._gate.fence(transaction)
            self._redis.incr(key(action.id))
        self._meddle(action)

    def apply_all(self, actions: Sequence[Action]) -> Mapping[str, Exception]:
        failed: dict[str, Exception] = {}
        for action in actions:
            self._gate.pause()
            try:
                self.apply(action)
            except ArrakisError as error:
                failed[action.id] = error
        return failed

    def revert(self, action: Action) -> None:
        self._redis.delete(key(action.id))


def key(action: str) -> str:
    """Return where it is counted how often an action was done."""
    return f"counted:{action}"


def counting(meddle: Callable[[Action], None] = lambda _: None, *, pace: Pace = PACE) -> Runbook:
    """Return the runbook; `meddle` is called after each action, before anything is said about it."""

    def remedies(gate: Gate) -> Mapping[str, Remedy]:
        return {Count.verb: Count(gate, meddle)}

    return Runbook(
        name=NAME,
        title="Counts",
        gather=lambda *_, **__: None,
        diagnose=lambda _: [],
        propose=lambda _: ([], []),
        existing=lambda _: None,
        remedies=remedies,
        pace=pace,
    )


def action(number: int, **before: Any) -> Action:
    """Return the action `a{number}`."""
    return Action(
        id=f"a{number}",
        verb=Count.verb,
        resource=Resource(kind="count", id=f"thing-{number}"),
        before=before,
        after={},
        reason="asked for",
        reversibility=Reversibility.REVERSIBLE,
    )


def operator_at(
    env: Mapping[str, str], state: Path, tell: Callable[[str], None] = lambda _: None, timeout: float = 5
) -> Operator:
    """Return an operator on a host of their own."""
    environment = resolve(None, env, state, state)
    return Operator(environment, timeout=timeout, progress=lambda *_: None, tell=tell)


def planned(operator: Operator, actions: Sequence[Action]) -> Plan:
    """Return a plan of these actions, made and kept by an operator."""
    read = readers(operator.environment, tag="tests", timeout=5)
    plan = plans.make(
        runbook=NAME,
        environment=target(operator.environment, read, deadline=5),
        now=datetime.now(UTC),
        findings=(),
        actions=actions,
        existing=10 * len(actions),
    )
    plans.save(plan, operator.environment.state / "plans")
    operator.journal.append(plan.id, Phase.PLANNED, observed={"digest": plan.digest})
    return plan


def hand_over(
    operator: Operator, plan: Plan, runbook: Runbook, *, patience: float, queue: Any = None
) -> tuple[Coordinator, str]:
    """Put a plan's run on the queue, as confirmed; return by whom, and the run."""
    laid_on = queue or work_queue(operator.environment, timeout=5)
    coordinator = Coordinator(operator, laid_on, patience=timedelta(seconds=patience))
    run = coordinator.start(plan, runbook, ask=lambda *_: None, max_targets=len(plan.actions))
    return coordinator, run


class _Killing(JetStreamQueue):
    """Lays out half of what it is given, and is killed."""

    def put(self, run: str, actions: Sequence[str]) -> int:
        super().put(run, actions[: len(actions) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
        return 0


def main(what: str, argument: str) -> int:
    """Be one of the processes; return its exit code."""
    state = Path(os.environ["RUNBOOKS_STATE_DIR"])
    operator = operator_at(os.environ, state, _note)
    try:
        if what == "hand-over":
            killing = _Killing(os.environ["NATS_URL"], timeout=5)
            hand_over(operator, operator.saved(argument), counting(), patience=2, queue=killing)
        queue = work_queue(operator.environment, timeout=5)
        tally = Crew(operator, queue, {NAME: counting()}, tell=_note, idle=float(argument)).work()
    except ArrakisError as error:
        _note(str(error))
        return exit_of(error)
    print(json.dumps(tally.document()))
    return tally.exit


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
