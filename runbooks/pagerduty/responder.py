"""Answers an incident or an alarm with a diagnosis, and puts it on the timeline. Whoever asks, nothing is applied."""

import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from runbooks.engine.environment import CUSTOM, FOLDER, Environment, resolve, state_folder
from runbooks.pagerduty.account import Account, account
from runbooks.pagerduty.client import Client
from runbooks.pagerduty.incident import Alarm, Incident
from runbooks.pagerduty.reporter import Reporter, account_of
from runbooks.pagerduty.triage import Triage, Triaged, read
from runbooks.pagerduty.webhook.delivery import Delivery
from sandbox.errors import ArrakisError, Unreachable

__all__ = ["Responder", "deliver", "named"]

_TIMEOUT = 10.0  # seconds for each diagnosis


class Responder:
    """Somebody who looks when called, from a terminal or over the network."""

    def __init__(
        self,
        named: str,
        folder: Path,
        state: Path,
        *,
        timeout: float,
        tell: Callable[[str], None],
        variables: Mapping[str, str] = os.environ,
    ) -> None:
        """Take the environment's name, or "" for the alarm's own, the folder of their files, and where state is kept.

        `timeout` is the seconds that each diagnosis may take.
        """
        self._named, self._folder, self._state = named, folder, state
        self._tell, self._variables = tell, variables
        self._triage = Triage(named, folder, resolve=self._environment, timeout=timeout, tell=tell)

    def incident(self, asked: str) -> tuple[Incident, Triaged]:
        """Return an incident, by id or number, and its diagnoses. Raises ArrakisError where the incident cannot be read."""
        incident = read(self._client(), asked)
        return incident, self._triage.run(incident.alarms)

    def alarm(self, alarm: Alarm) -> Triaged:
        """Return an alarm's diagnosis."""
        return self._triage.run([alarm])

    def report(self, incident: str, triaged: Triaged) -> None:
        """Put the diagnoses on an incident's timeline; what cannot be sent waits on this disk."""
        reporters = {}
        for found in triaged.diagnoses:
            reporter = Reporter(incident, found.environment, tell=self._tell, variables=self._variables)
            reporter.diagnosed(found)
            reporters[found.environment.name] = reporter
        for reporter in reporters.values():
            reporter.send()

    def answer(self, delivery: Delivery) -> None:
        """Answer what came over the network. Raises Unreachable where it is worth another try."""
        if delivery.kind == "incident":
            incident, triaged = self._unresolved(delivery.subject)
            called = [incident.id] if incident else []
        else:
            owner, region, name = delivery.subject.split("/", 2)
            called = [str(each["id"]) for each in self._client().open_with(name)]
            if not called:
                raise Unreachable(f"no open incident is about {name}", hint="it may be opened in a moment")
            triaged = self.alarm(Alarm(name=name, account=owner, region=region))
        for each in triaged.unmatched:
            self._tell(f"nothing was run for {each.alarm.name}: {each.reason}")
        for one in called:
            self.report(one, triaged)

    def _unresolved(self, asked: str) -> tuple[Incident | None, Triaged]:
        incident = read(self._client(), asked)
        if incident.status == "resolved":
            self._tell(f"{incident.id} is resolved: nothing was run")
            return None, Triaged(diagnoses=(), unmatched=())
        return incident, self._triage.run(incident.alarms)

    def _environment(self, name: str) -> Environment:
        return resolve(None if name == CUSTOM else name, self._variables, self._folder, self._state)

    def _client(self) -> Client:
        found = self._account()
        if found is None:
            raise ArrakisError(
                "PAGERDUTY_TOKEN is not set", hint="set it and PAGERDUTY_FROM, or name them under [pagerduty]"
            )
        return Client(found)

    def _account(self) -> Account | None:
        """Return the account to read incidents with: the named environment's, or the first that any file names."""
        if self._named:
            return account_of(self._named, self._folder, self._variables)
        named = (
            account_of(each.stem, self._folder, self._variables)
            for each in sorted(self._folder.glob("*.toml"))
        )
        return next(filter(None, named), None) or account({}, self._variables, None)


def named(option: str, variables: Mapping[str, str]) -> str:
    """Return the environment that is named, by --env or ARRAKIS_ENV, or described by variables; "" for the alarm's own."""
    described = CUSTOM if variables.get("DATABASE_URL") else ""
    return option or variables.get("ARRAKIS_ENV") or described


def deliver(delivery: Delivery) -> None:
    """Answer what came over the network where nobody is at a terminal, as in a Lambda. Raises as `Responder.answer`."""
    state = state_folder(os.environ)
    tell = partial(print, file=sys.stderr, flush=True)
    Responder(named("", os.environ), FOLDER, state, timeout=_TIMEOUT, tell=tell).answer(delivery)
