"""A run that is struck at a point, or one that is taken up, in a process of its own: `python -m tests.proof.dying` and a request as JSON.

It says how many points it passed, and ends as the task does. An operator confirms it, and its watches are in a hurry.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path

from diagnostics.strain import Level, Pressure
from runbooks.catalogue import RUNBOOKS
from runbooks.engine import plan as plans
from runbooks.engine import throttle
from runbooks.engine.environment import resolve
from runbooks.engine.model import Runbook
from runbooks.engine.operate import Operator
from runbooks.remedies import sessions
from runbooks.reports.document import exit_of
from sandbox.errors import ArrakisError
from tests.proof.points import Blow, Points

__all__ = ["Request", "main"]

_HURRY = 0.01  # seconds
_WATCHES = {
    "diagnostics.streams": ("_PAUSE",),
    "runbooks.engine.throttle": ("_CALM_EVERY", "_FIRST_STEP", "_LONGEST_STEP"),
    "runbooks.remedies.alone": ("_CHECK",),
    "runbooks.remedies.routing": ("_TAKEN_WITHIN",),
    "runbooks.remedies.service": ("_POLL", "_LONGEST_POLL"),
    "runbooks.remedies.stopping": ("_POLL", "_LONGEST_POLL"),
    "runbooks.remedies.storage": ("_POLL", "_LONGEST_POLL"),
    "runbooks.remedies.task": ("_POLL", "_LONGEST_POLL"),
    "sandbox.adapters.postgres": ("_GLANCE",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be done in `state`, the folder of a host: a saved plan applied, or its run taken up; and what happens at which point."""

    state: str
    plan: str = ""
    run: str = ""
    point: int = 0
    blow: str = Blow.BEFORE
    timeout: float = 5.0

    def words(self) -> list[str]:
        """Return what Python is to be called with."""
        return ["-m", "tests.proof.dying", json.dumps(asdict(self))]


def main(asked: Request) -> int:
    """Do it, and return its exit code."""
    for module, names in _WATCHES.items():
        for name in names:
            setattr(importlib.import_module(module), name, _HURRY)
    sessions.IDLE_LIMIT = timedelta(0)
    vars(throttle)["judge"] = lambda *_, **__: Pressure(level=Level.FULL)  # whatever else this machine does
    points = Points(asked.point, Blow(asked.blow))
    points.install()
    state = Path(asked.state)
    environment = resolve(None, os.environ, state, state)
    operator = Operator(environment, timeout=asked.timeout, progress=lambda *_: None, tell=_tell)

    def arm(*_: object) -> None:
        points.armed = True

    try:
        code = int(_work(operator, asked, arm))
    except ArrakisError as error:
        _tell(f"{error}; {error.hint}")
        code = int(exit_of(error))
    points.armed = False
    print(points.passed)
    return code


def _work(operator: Operator, asked: Request, arm: Callable[..., None]) -> int:
    """Apply or resume, without the look at all that the runbook is about, which comes after the run."""
    if asked.run:
        known = {name: _without_outlook(each) for name, each in RUNBOOKS.items()}
        outcome = operator.resume(asked.run, known, ask=arm)
    else:
        plan = plans.load(asked.plan, operator.environment.state / "plans")
        runbook = RUNBOOKS[plan.runbook]
        outcome = operator.apply(plan, runbook, ask=arm, max_targets=99, look_again=False)
    for each in outcome.results:
        _tell(f"{each.action.verb} {each.action.resource.id}: {each.phase} {each.reason}")
    return int(outcome.exit)


def _without_outlook(runbook: Runbook) -> Runbook:
    return replace(runbook, outlook=None)


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(Request(**json.loads(sys.argv[1]))))
