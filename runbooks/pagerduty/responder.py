"""Answers an incident or an alarm with a diagnosis, and puts it on the timeline. Whoever asks, nothing is applied."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from runbooks.engine.environment import CUSTOM, FOLDER, Environment, names, prefixes, resolve, state_folder
from runbooks.pagerduty.account import Account
from runbooks.pagerduty.client import Client
from runbooks.pagerduty.incident import Alarm, Incident
from runbooks.pagerduty.reporter import Reporter, account_of
from runbooks.pagerduty.triage import NoRunbook, Triage, Triaged, read
from runbooks.pagerduty.webhook.delivery import Delivery
from sandbox.errors import ArrakisError, Denied, Unreachable
from sandbox.text import clean

__all__ = ["Responder", "deliver", "named"]

_TIMEOUT = 10.0  # seconds for each diagnosis


class Responder:
    """Somebody who looks when called, from a terminal or over the network."""

    def __init__(
        self,
        named: str,
        *,
        timeout: float,
        tell: Callable[[str], None],
        variables: Mapping[str, str] = os.environ,
    ) -> None:
        """Take the environment's name, or "" for the alarm's own, and the seconds that each diagnosis may take."""
        self._named, self._tell, self._variables = named, tell, variables
        self._triage = Triage(named, prefixes(FOLDER), resolve=self._environment, timeout=timeout, tell=tell)

    def check(self) -> None:
        """Raise ArrakisError where incidents could not be read, or the environment that is named is none."""
        self._client().close()
        if self._named:
            self._environment(self._named)

    def incident(self, asked: str) -> tuple[Incident, Triaged]:
        """Return an incident, by id or number, and its diagnoses. Raises ArrakisError where the incident cannot be read."""
        try:
            incident = read(self._client(), asked)
        except Unreachable as error:
            error.hint = error.hint or "`triage --alarm NAME`, or the runbook by its name, needs no PagerDuty"
            raise
        return incident, self._triage.run(incident.alarms)

    def alarm(self, alarm: Alarm) -> Triaged:
        """Return an alarm's diagnosis."""
        return self._triage.run([alarm])

    def report(self, incident: str, triaged: Triaged) -> int:
        """Put the diagnoses on an incident's timeline; return how many notes wait on this disk because they could not be sent."""
        reporters = {}
        for found in triaged.diagnoses:
            reporter = self._reporter(incident, found.environment.name)
            reporter.diagnosed(found)
            reporters[found.environment.name] = reporter
        return sum(reporter.send() for reporter in reporters.values())

    def answer(self, delivery: Delivery) -> None:
        """Answer what came over the network. Raises ArrakisError where it is worth another try."""
        client = self._client()
        if delivery.kind == "incident":
            incident = read(client, delivery.subject)
            alarms, called = incident.alarms, [incident.id] if incident.status != "resolved" else []
        else:
            account, region, name = delivery.subject.split("/", 2)
            alarms = (Alarm(name=name, account=account, region=region),)
            called = [each.id for each in self._open_about(client, alarms[0])]
            if not called:
                raise Unreachable(f"no open incident is about {name}", hint="it may be opened in a moment")
        if called:
            self._answer(called, self._triage.run(alarms), pressed=delivery.key.startswith("action:"))

    def _answer(self, incidents: Sequence[str], triaged: Triaged, *, pressed: bool) -> None:
        """Tell the incidents. Of alarms that are no business of ours they hear only where somebody pressed the button."""
        left = 0
        told = [each for each in triaged.unmatched if pressed or not isinstance(each.error, NoRunbook)]
        for each in triaged.unmatched:
            self._tell(f"nothing was run for {clean(each.alarm.name)}: {clean(each.reason)}")
        for incident in incidents:
            left += self.report(incident, triaged)
            if told:
                reporter = self._reporter(incident, self._named or CUSTOM)
                reporter.left([(each.alarm.name, each.reason) for each in told])
                left += reporter.send()
        if left:
            raise Unreachable("not all of it is on the timeline yet", hint="`pagerduty-flush` sends it, too")
        for each in told:
            if isinstance(each.error, (Unreachable, Denied)):
                raise each.error

    def _open_about(self, client: Client, alarm: Alarm) -> list[Incident]:
        """Return the open incidents about this alarm, and not about its namesake in another account or region."""
        found = [read(client, str(each["id"])) for each in client.open_with(alarm.name)]
        return [each for each in found if any(_same(one, alarm) for one in each.alarms)]

    def _reporter(self, incident: str, name: str) -> Reporter:
        return Reporter(incident, name, tell=self._tell, variables=self._variables)

    def _environment(self, name: str) -> Environment:
        asked = None if name == CUSTOM else name
        return resolve(asked, self._variables, FOLDER, state_folder(self._variables))

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
            return account_of(self._named, self._variables)
        named = (account_of(each, self._variables) for each in names(FOLDER))
        return next(filter(None, named), None)


def _same(one: Alarm, other: Alarm) -> bool:
    """Whether they are one alarm, as far as both say where they are."""
    return (
        one.name == other.name
        and (one.account or other.account) == other.account
        and (one.region or other.region) == other.region
    )


def named(option: str, variables: Mapping[str, str]) -> str:
    """Return the environment that is named, by --env or ARRAKIS_ENV, or described by variables; "" for the alarm's own."""
    described = CUSTOM if variables.get("DATABASE_URL") else ""
    return option or variables.get("ARRAKIS_ENV") or described


def deliver(delivery: Delivery) -> None:
    """Answer what came over the network where nobody is at a terminal, as in a Lambda. Raises as `Responder.answer`."""
    tell = partial(print, file=sys.stderr, flush=True)
    Responder(named("", os.environ), timeout=_TIMEOUT, tell=tell).answer(delivery)
