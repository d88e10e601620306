"""From an incident, or an alarm, to the diagnosis: which runbook, in which environment, and what it finds. Nothing is applied."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from runbooks.catalogue import called_for
from runbooks.engine.environment import Environment
from runbooks.engine.model import Runbook
from runbooks.engine.operate import Diagnosis, Operator
from runbooks.pagerduty.client import Client
from runbooks.pagerduty.incident import Alarm, Incident, incident_of
from sandbox.errors import ArrakisError, Missing
from sandbox.text import clean

__all__ = ["NoRunbook", "Triage", "Triaged", "Unmatched", "match", "read"]

_LOOKS, _PAUSE = 3, 1.0  # how often, and seconds between: an alert may be listed a little after its incident


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmatched:
    """An alarm for which nothing was run, and why."""

    alarm: Alarm
    error: ArrakisError

    @property
    def reason(self) -> str:
        """Say why, and what to do."""
        return f"{self.error}; {self.error.hint}" if self.error.hint else str(self.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Triaged:
    """What became of a triage: each diagnosis that was made, and the alarms for which there is none."""

    diagnoses: tuple[Diagnosis, ...]
    unmatched: tuple[Unmatched, ...]

    @property
    def exit(self) -> int:
        """Return the gravest exit code of the diagnoses; 3, cannot tell, where an alarm has no runbook or there is no alarm."""
        codes = [int(found.exit) for found in self.diagnoses]
        return max([*codes, 3 if self.unmatched or not codes else 0])


class NoRunbook(ArrakisError):
    """No runbook is for an alarm."""


class Triage:
    """Runs what alarms call for, each runbook once an environment."""

    def __init__(
        self,
        named: str,
        prefixes: Mapping[str, str],
        *,
        resolve: Callable[[str], Environment],
        timeout: float,
        tell: Callable[[str], None],
    ) -> None:
        """Take the environment that was named, or "", how alarms of each begin, how to get one, and seconds for each diagnosis."""
        self._named, self._prefixes = named, prefixes
        self._resolve, self._timeout, self._tell = resolve, timeout, tell

    def run(self, alarms: Sequence[Alarm]) -> Triaged:
        """Diagnose what the alarms call for. An environment that cannot be had is told of its alarms alone."""
        wanted: dict[tuple[str, str], tuple[Runbook, Alarm]] = {}
        unmatched = []
        for alarm in alarms:
            try:
                runbook, environment = match(alarm, self._named, self._prefixes)
                wanted.setdefault((runbook.name, environment), (runbook, alarm))
            except ArrakisError as error:
                unmatched.append(Unmatched(alarm=alarm, error=error))
        diagnoses = []
        for (_, environment), (runbook, alarm) in wanted.items():
            try:
                diagnoses.append(self._diagnose(runbook, environment, alarm))
            except ArrakisError as error:
                unmatched.append(Unmatched(alarm=alarm, error=error))
        return Triaged(diagnoses=tuple(diagnoses), unmatched=tuple(unmatched))

    def _diagnose(self, runbook: Runbook, name: str, alarm: Alarm) -> Diagnosis:
        environment = self._resolve(name)
        _insist_on_the_place(environment, alarm)
        self._tell(f"{clean(alarm.name)}: {runbook.name} in {environment.name}")
        operator = Operator(environment, timeout=self._timeout, progress=lambda *_: None, tell=self._tell)
        return operator.diagnose(runbook)


def match(alarm: Alarm, named: str, prefixes: Mapping[str, str]) -> tuple[Runbook, str]:
    """Return the runbook that an alarm calls for, and its environment: the named one, or the one whose alarms begin so.

    Raises ArrakisError where either is not certain, or the alarm is another environment's than the named one.
    """
    runbook = called_for(alarm.name)
    if runbook is None:
        raise NoRunbook("no runbook is for it")
    begins = alarm.name.removesuffix(runbook.alarm)
    owners = [name for name, prefix in prefixes.items() if prefix == begins]
    if named and owners and named not in owners:
        raise ArrakisError(f"it is {owners[0]}'s, and {named} is asked for", hint=f"say --env {owners[0]}")
    if not named and len(owners) != 1:
        raise ArrakisError("it is not certain which environment's it is", hint="say --env NAME")
    return runbook, named or owners[0]


def read(client: Client, incident: str, *, sleep: Callable[[float], None] = time.sleep) -> Incident:
    """Return an incident with its alarms; one that names none yet is looked at again for two seconds.

    Raises what the client raises.
    """
    for look in range(_LOOKS):
        if look:
            sleep(_PAUSE)
        answer = _incident(client, incident)
        name = str(answer["id"])
        seen = incident_of(
            answer,
            client.alerts(name),
            trigger=partial(client.trigger, answer),
            known=lambda text: called_for(text) is not None,
        )
        if seen.alarms:
            break
    return seen


def _incident(client: Client, asked: str) -> Mapping[str, Any]:
    try:
        return client.incident(asked)
    except Missing:
        raise ArrakisError(
            f"PagerDuty has no incident {asked}", hint="check its id, and that the key may see its service"
        ) from None


def _insist_on_the_place(environment: Environment, alarm: Alarm) -> None:
    """Raise ArrakisError for an alarm of another account or region: the same name may be in both."""
    for what, wanted, given in (
        ("account", environment.account, alarm.account),
        ("region", environment.region, alarm.region),
    ):
        if wanted and given and wanted != given:
            raise ArrakisError(
                f"it is of {what} {given}, and {environment.name} is {wanted}", hint="name another with --env"
            )
