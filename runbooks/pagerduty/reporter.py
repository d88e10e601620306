"""Tells an incident's timeline what became of a task. It never fails a task, and never delays what mends something.

Whatever is to be told is kept on this host's disk at once, and sent when the task has said its last word.
"""

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from runbooks.engine.apply import Outcome
from runbooks.engine.environment import Environment, settings_of
from runbooks.engine.errors import Exit
from runbooks.engine.lease import actor
from runbooks.engine.operate import Diagnosis
from runbooks.pagerduty.account import Account, account
from runbooks.pagerduty.timeline import Timeline
from runbooks.reports import note
from sandbox.errors import ArrakisError

__all__ = ["Reporter", "account_of", "waiting"]


class Reporter:
    """Reports one call of a task to one incident."""

    def __init__(
        self,
        incident: str,
        environment: Environment,
        *,
        tell: Callable[[str], None],
        variables: Mapping[str, str] = os.environ,
    ) -> None:
        """Take the incident's id, the environment, and who is told what was sent and what waits."""
        self._incident, self._environment, self._tell = incident, environment, tell
        found = partial(account, environment.pagerduty, variables, environment.region)
        self._timeline = Timeline(found, environment.state / "pagerduty", tell)

    def diagnosed(self, found: Diagnosis) -> None:
        """Keep what a diagnosis found; a later one by the same runbook takes its place."""
        text = note.diagnosis(found, incident=self._incident, at=_now(), actor=actor())
        self._keep(f"{found.environment.name} {found.runbook.name} diagnosis", text)

    def applied(self, outcome: Outcome) -> None:
        """Keep what became of a run; when it is taken up, that takes its place."""
        text = note.applied(outcome, environment=self._environment, at=_now(), actor=actor())
        self._keep(f"{self._environment.name} run {outcome.run}", text)

    def failed(self, task: str, error: ArrakisError) -> None:
        """Keep why a task came to no result."""
        name = self._environment.name
        text = note.failed(error, task=task, environment=name, at=_now(), actor=actor())
        self._keep(f"{name} {task} not done", text)

    def settle(
        self,
        outcome: Outcome,
        *,
        acknowledge: bool,
        resolve: bool,
        look: Callable[[], Diagnosis],
    ) -> None:
        """Change the incident's status as was asked for, and only after all was applied and verified.

        It is resolved if one more `look` finds everything healthy.
        """
        if outcome.exit is not Exit.HEALTHY:
            self._tell(f"{self._incident} stays as it is: not all was applied and verified")
            return
        if resolve:
            try:
                healthy = look().exit is Exit.HEALTHY
            except ArrakisError as error:
                healthy = False
                self._tell(f"looked once more, and cannot tell: {error}")
            if healthy:
                self._timeline.keep_status(self._incident, "resolved")
                return
            self._tell(f"{self._incident} is not resolved: not everything is healthy yet")
        if acknowledge:
            self._timeline.keep_status(self._incident, "acknowledged")

    def send(self) -> None:
        """Send what waits on this host, within the account's time-out; the rest goes on waiting, and that is told."""
        self._timeline.send()

    def _keep(self, step: str, text: str) -> None:
        self._timeline.keep(self._incident, step, text)


def account_of(name: str, folder: Path, variables: Mapping[str, str]) -> Account | None:
    """Return the account of a named environment, by its file and the variables; None where nobody set one up.

    Raises ArrakisError where the file or the secret that it names cannot be read.
    """
    settings = settings_of(name, folder) if (folder / f"{name}.toml").exists() else {}
    return account(settings.get("pagerduty", {}), variables, settings.get("region"))


def waiting(
    state: Path, folder: Path, *, tell: Callable[[str], None], variables: Mapping[str, str] = os.environ
) -> dict[str, Timeline]:
    """Return the timelines for which something may wait on this host, by their environments' names."""
    names = sorted(each.parent.name for each in state.glob("*/pagerduty"))
    return {
        name: Timeline(partial(account_of, name, folder, variables), state / name / "pagerduty", tell)
        for name in names
    }


def _now() -> datetime:
    return datetime.now(UTC)
