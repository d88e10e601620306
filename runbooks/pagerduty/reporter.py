"""Tells an incident's timeline what became of a task. It never fails a task, and never delays what mends something.

Whatever is to be told is kept on this host's disk at once, and sent when the task has said its last word.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from runbooks.engine.apply import Outcome
from runbooks.engine.environment import FOLDER, Environment, command, settings_of, state_folder
from runbooks.engine.errors import Exit
from runbooks.engine.lease import actor
from runbooks.engine.operate import Diagnosis
from runbooks.pagerduty.account import Account, account
from runbooks.pagerduty.timeline import Timeline
from runbooks.reports import note
from runbooks.reports.timeline import Note
from sandbox.errors import ArrakisError
from sandbox.text import clean

__all__ = ["Reporter", "account_of", "timeline", "waiting"]

_LINE = 200  # characters of a note that a report has


class Reporter:
    """Reports one call of a task to one incident."""

    def __init__(
        self,
        incident: str,
        name: str,
        *,
        tell: Callable[[str], None],
        said: str = "",
        variables: Mapping[str, str] = os.environ,
    ) -> None:
        """Take the incident's id, the environment's name, and who is told what was sent and what waits.

        `said` are the options that the task was called with, for the command that does it again.
        """
        self._incident, self._name, self._tell, self._said = incident, name, tell, said
        self._timeline = timeline(name, tell=tell, variables=variables)

    def diagnosed(self, found: Diagnosis) -> None:
        """Keep what a diagnosis found; a later one by the same runbook takes its place."""
        text = note.diagnosis(found, incident=self._incident, said=self._said, at=_now(), actor=actor())
        self._keep(f"{self._name} {found.runbook.name} diagnosis", text)

    def applied(self, outcome: Outcome, environment: Environment) -> None:
        """Keep what became of a run; when it is taken up, that takes its place."""
        text = note.applied(
            outcome, incident=self._incident, environment=environment, at=_now(), actor=actor()
        )
        self._keep(f"{self._name} run {outcome.run}", text)

    def failed(self, task: str, error: Exception) -> None:
        """Keep why a task came to no result; of a fault of ours, its kind alone."""
        if not isinstance(error, ArrakisError):
            error = ArrakisError(f"something unexpected went wrong ({type(error).__name__})")
        text = note.failed(error, task=task, environment=self._name, at=_now(), actor=actor())
        self._keep(f"{self._name} {task} not done", text)

    def left(self, unmatched: Sequence[tuple[str, str]]) -> None:
        """Keep for which alarms nothing was run, and why."""
        text = note.unmatched(unmatched, at=_now(), actor=actor())
        self._keep("triage", text)

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
                self._keep(f"{self._name} healthy", note.healthy(self._name, at=_now(), actor=actor()))
                self._timeline.keep_status(self._incident, "resolved")
                return
            self._tell(f"{self._incident} is not resolved: not everything is healthy yet")
        if acknowledge:
            self._timeline.keep_status(self._incident, "acknowledged")

    def notes(self) -> list[Note]:
        """Return what is on the incident's timeline: when, by whom, and the first line; none where PagerDuty does not tell."""
        return [
            (each.at, clean(each.by) or "somebody", clean(each.text.strip().partition("\n")[0])[:_LINE])
            for each in self._timeline.read(self._incident)
            if each.at
        ]

    def send(self) -> int:
        """Send what waits on this host, within the account's time-out; return how many notes go on waiting, which is told."""
        return self._timeline.send().left

    def _keep(self, step: str, text: str) -> None:
        self._timeline.keep(self._incident, step, text)


def account_of(name: str, variables: Mapping[str, str]) -> Account | None:
    """Return the account of a named environment, by its file and the variables; None where nobody set one up.

    Raises ArrakisError where the file or the secret that it names cannot be read.
    """
    settings = settings_of(name, FOLDER) if (FOLDER / f"{name}.toml").exists() else {}
    return account(settings.get("pagerduty", {}), variables, settings.get("region"))


def timeline(
    name: str, *, tell: Callable[[str], None], variables: Mapping[str, str] = os.environ
) -> Timeline:
    """Return the timelines of an environment's incidents, with what waits for them on this host."""
    base = f"{command()} lab" if name == "lab" else command()
    folder = state_folder(variables) / Path(name).name / "pagerduty"
    return Timeline(partial(account_of, name, variables), folder, tell, flush=f"{base} pagerduty-flush")


def waiting(variables: Mapping[str, str] = os.environ) -> list[str]:
    """Return the names of the environments for whose timelines something may wait on this host."""
    return sorted(each.parent.name for each in state_folder(variables).glob("*/pagerduty"))


def _now() -> datetime:
    return datetime.now(UTC)
