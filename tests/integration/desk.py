"""Somebody at work with the variables of some logins, in this process: diagnosing, auditing, applying, undoing."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import pytest

from runbooks.audit.sections import SECTIONS, Section, look
from runbooks.catalogue import RUNBOOKS
from runbooks.engine.apply import Outcome
from runbooks.engine.distributed import Coordinator, work_queue
from runbooks.engine.environment import resolve
from runbooks.engine.model import Runbook
from runbooks.engine.operate import Ask, Diagnosis, Operator

__all__ = ["Desk"]

T = TypeVar("T")
_ALL = 1000  # targets: as many as a plan may have here


class Desk:
    """One login of each system, and a host of its own for plans and journal."""

    def __init__(self, env: Mapping[str, str], state: Path) -> None:
        """Take the variables, and where plans and journal live."""
        self._env = env
        environment = resolve(None, env, state, state)
        self.told: list[str] = []
        self._operator = Operator(environment, timeout=15, progress=lambda *_: None, tell=self.told.append)

    def diagnose(
        self, runbook: Runbook, options: Mapping[str, Any] = MappingProxyType({}), /, **about: str
    ) -> Diagnosis:
        """Diagnose and plan; `options` as the procedure's `propose` takes them."""
        return self._seated(lambda: self._operator.diagnose(runbook, about=about, **options))

    def audit(self) -> tuple[Section, ...]:
        """Look at everything."""
        environment, now = self._operator.environment, datetime.now(UTC)
        return self._seated(
            lambda: look(environment, list(SECTIONS), now=now, timeout=15, tell=lambda _: None)
        )

    def apply(self, found: Diagnosis, *, ask: Ask = lambda *_: None) -> Outcome:
        """Apply what was proposed, whole."""
        plan = found.plan
        assert plan, [each.summary for each in found.findings]
        return self._seated(lambda: self._operator.apply(plan, found.runbook, ask=ask, max_targets=_ALL))

    def hand_over(self, found: Diagnosis) -> str:
        """Lay what was proposed on the work queue, and return the run."""
        environment, plan = self._operator.environment, found.plan
        assert plan
        return self._seated(
            lambda: Coordinator(self._operator, work_queue(environment, timeout=5)).start(
                plan, found.runbook, ask=lambda *_: None, max_targets=_ALL
            )
        )

    def undo(self, outcome: Outcome) -> Outcome:
        """Undo a run."""
        return self._seated(lambda: self._operator.undo(outcome.run, RUNBOOKS, ask=lambda *_: None))

    def _seated(self, work: Callable[[], T]) -> T:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("AWS_PROFILE", raising=False)
            for name, value in self._env.items():
                patch.setenv(name, value)
            return work()
