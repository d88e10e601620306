"""AWS as it is reached from here: the credentials and how long they last, the account, the endpoints, what may be done."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from diagnostics.compute import read_definition
from diagnostics.policies import (
    PASSING,
    Question,
    passing,
    place_of,
    principal,
    questions,
    simulate,
    simulations,
)
from diagnostics.privileges import Held
from runbooks.doctor.checks import (
    Clock,
    Needs,
    Subject,
    Takes,
    clock,
    reached,
    rights,
    unreached,
    untold,
    well,
    wrong,
)
from runbooks.engine.environment import CUSTOM, Environment
from runbooks.engine.model import Finding, Severity
from runbooks.findings import span
from sandbox.errors import Denied, Missing, Throttled
from sandbox.facts import Fact, Known, Unknown, gather
from sandbox.ports import AwsReader

if TYPE_CHECKING:
    from sandbox.adapters.credentials import Credentials

__all__ = ["AWS", "Cloud", "findings", "read_cloud"]

AWS = "AWS"

_SHARE = 0.9  # of the time, so that what was told is told though one endpoint hangs
_SOON = timedelta(hours=1)
_CONDITIONAL = "a policy's condition asks for what only the call itself tells"
_TROUBLE = 500  # HTTP's status of a server that is in trouble itself, and those above
_WHO = "aws sts get-caller-identity"
_RENEW = "aws sso login  # or however this account's keys are given out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """Whose the credentials are, within how many seconds that was told, the clock; which rights are held, which endpoints are silent.

    `why` says why some rights cannot be told.
    """

    account: str
    arn: str
    seconds: float
    clock: Clock | None
    held: Held
    silent: Mapping[str, str]
    why: str


@dataclass(slots=True, kw_only=True)
class _Answers:
    """What AWS said of each right, which services gave no answer, and why nothing can be told of some."""

    held: dict[str, bool | None] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)
    why: str = ""

    def looked(self, action: str, fact: Fact[None]) -> None:
        """Take down how a call went. Whatever AWS complains of but the right to ask, it has let us ask."""
        if isinstance(fact, Known):
            self.held[action] = True
        elif isinstance(fact.error, Denied):
            self.held[action] = False
        elif _complains(fact):
            self.held[action] = True
        else:
            self.silent.setdefault(action.partition(":")[0], fact.reason)

    def simulated(self, actions: Collection[str], fact: Fact[Held]) -> None:
        """Take down what a policy says of actions."""
        found = fact.value if isinstance(fact, Known) else {}
        self.held |= {action: found.get(action) for action in actions}
        if isinstance(fact, Unknown):
            self.why = self.why or fact.reason
        elif unsure := sorted(action for action in actions if found.get(action) is None):
            self.why = self.why or f"{', '.join(unsure)} ({_CONDITIONAL})"


def read_cloud(subject: Subject, region: str, needs: Needs) -> Cloud:
    """Ask who one is, then all endpoints side by side. Raises Unreachable or Denied without the first."""
    from sandbox.adapters.aws import Aws

    aws, end = Aws(region=region, timeout=subject.deadline), time.monotonic() + subject.deadline * _SHARE
    before = subject.now()
    told = aws.read("sts", "get_caller_identity")
    after, account, arn = subject.now(), str(told["Account"]), str(told["Arn"])
    place = place_of(arn, region)
    stack, answers = subject.environment.stack, _Answers()
    looks, policies = questions(stack, place, now=after), dict(simulations(stack, place, needs.more))
    probes: dict[str, Callable[[], Any]] = {name: _asking(aws, calls) for name, calls in looks.items()}
    for target, actions in policies.items():
        probes[target] = partial(simulate, aws, arn, target, actions)
    if PASSING in needs.more:
        policies[PASSING] = [PASSING]
        probes[PASSING] = partial(_handing_on, aws, arn, stack.cleanup_family)
    for name, fact in gather(probes, deadline=max(0.1, end - time.monotonic())).items():
        if name in policies:
            answers.simulated(policies[name], fact)
        else:
            answers.looked(name, fact)
    return Cloud(
        account=account,
        arn=arn,
        seconds=(after - before).total_seconds(),
        clock=_clock(told, before, after),
        held=answers.held,
        silent=answers.silent,
        why=answers.why,
    )


def findings(
    environment: Environment | None,
    region: str | None,
    credentials: "Fact[Credentials]",
    fact: Fact[Cloud] | None,
    needs: Needs,
    *,
    now: datetime,
) -> Iterator[Finding]:
    """Say whether it can be looked at and changed with these credentials. `fact` is None where nobody knows what to ask. Pure."""
    logged_in = _credentials(credentials, now)
    yield logged_in
    if region is None and environment:  # without one, nothing could have named it
        fix = "export AWS_REGION=…  # or name the environment, whose file has one"
        yield wrong(AWS, "region", "no region is named", fix=fix, takes=Takes.LOOKING)
    if fact is None or logged_in.severity is Severity.CRITICAL:  # else the rest says the same again
        return
    if isinstance(fact, Unknown):
        yield unreached(AWS, fact, fix=_WHO)
        return
    seen = fact.value
    yield reached(AWS, f"{region} answers", seen.seconds)
    if environment:
        yield _account(seen, environment)
    yield from _told(seen, needs)


def _told(seen: Cloud, needs: Needs) -> Iterator[Finding]:
    """What AWS says of its clock, which services do not answer, and what may be done."""
    if seen.clock:
        yield clock(AWS, seen.clock)
    for service, reason in seen.silent.items():  # each has an endpoint of its own
        fix = f"aws {service} help  # is there a route, or a VPC endpoint, to {service}?"
        yield wrong(AWS, f"reach of {service}", reason, fix=fix, takes=Takes.LOOKING)
    fix_of = {action: f"allow {action} in the policy of {principal(seen.arn)}" for action in seen.held}
    hint = "allow iam:SimulatePrincipalPolicy on one's own role, or see once that a small change goes through"
    yield from rights(AWS, needs, seen.held, fix=fix_of, why=seen.why, hint=hint)


def _credentials(fact: "Fact[Credentials]", now: datetime) -> Finding:
    """Where they come from, and how long they last."""
    if isinstance(fact, Unknown):
        return wrong(AWS, "credentials", fact.reason, fix=fact.hint or _RENEW, takes=Takes.LOOKING)
    seen = fact.value
    told = f"credentials of {seen.source}"
    if seen.expires is None:
        if not seen.temporary:
            return well(AWS, "credentials", f"{told}: they do not expire by themselves")
        hint = "export AWS_CREDENTIAL_EXPIRATION too: aws configure export-credentials --format env"
        return untold(AWS, "credentials", Unknown(f"when the {told} end", hint))
    left = seen.expires - now
    at = f"{seen.expires.astimezone():%H:%M %z}"
    evidence: dict[str, Any] = {"seconds_left": int(left.total_seconds())}
    if left <= timedelta(0):
        ended = f"the {told} have expired, at {at}"
        return wrong(AWS, "credentials", ended, fix=_RENEW, takes=Takes.LOOKING, **evidence)
    told = f"{told} last {span(left)} more, until {at}"
    if left < _SOON:
        return wrong(AWS, "credentials", told, fix=_RENEW, **evidence)
    return well(AWS, "credentials", told, **evidence)


def _account(seen: Cloud, environment: Environment) -> Finding:
    who = f"account {seen.account}, as {seen.arn.partition('/')[2] or seen.arn}"
    if environment.account is None:
        if environment.name in (CUSTOM, "lab"):  # which no file describes
            return well(AWS, "account", who)
        fix = f'write account = "{seen.account}" into the environment\'s file, if it is the right one'
        told = f"{who}; {environment.name} does not say which account is its own"
        return wrong(AWS, "account", told, fix=fix)
    if environment.account == seen.account:
        return well(AWS, "account", f"{who}: that of {environment.name}")
    told = f"{who}; but {environment.name} is account {environment.account}"
    return wrong(AWS, "account", told, fix="export AWS_PROFILE=…  # of that account", takes=Takes.LOOKING)


def _handing_on(aws: AwsReader, arn: str, family: str) -> Held:
    """Whether each role of the clean-up's task may be handed on."""
    definition = read_definition(aws, family)
    rights = {role: passing(role) for role in (definition.handed({}) if definition else ())}
    held = [simulate(aws, arn, role, [right])[right] for role, right in rights.items()]
    return {PASSING: False if False in held else None if None in held else True}


def _asking(aws: AwsReader, asked: list[Question]) -> Callable[[], Any]:
    def ask() -> None:
        for each in asked:
            try:
                aws.read(each.service, each.operation, **each.params)
            except Missing:  # it may be asked for
                continue

    return ask


def _complains(fact: Unknown) -> bool:
    """Whether AWS answered that something about a call is wrong, and not that it is in trouble itself."""
    answer = getattr(fact.error.__cause__, "response", {}) if fact.error else {}
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", _TROUBLE)
    return bool(status < _TROUBLE) and not isinstance(fact.error, Throttled)


def _clock(told: Mapping[str, Any], before: datetime, after: datetime) -> Clock | None:
    said = told.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return Clock.of(parsedate_to_datetime(said), before=before, after=after, step=1.0) if said else None
