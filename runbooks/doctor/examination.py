"""The examination: first the machine, the environment and the credentials, then all systems side by side."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from runbooks.catalogue import RUNBOOKS
from runbooks.doctor import cache, cloud, database, machine, messaging, paging
from runbooks.doctor.checks import Needs, Subject, Takes, untold, well, wrong
from runbooks.doctor.machine import MACHINE, Machine
from runbooks.engine.environment import Environment
from runbooks.engine.model import Finding
from sandbox.facts import Fact, Known, Unknown
from sandbox.facts import gather as gather_facts

__all__ = ["Evidence", "diagnose", "examine", "gather"]

_FIRST = 0.4  # of the time, for what the rest stands on
_POOLER = "PgBouncer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was seen. `systems` has the facts of each by its name; none where no environment names them."""

    now: datetime
    machine: Fact[Machine]
    environment: Fact[Environment]
    credentials: Fact[Any]
    region: str | None
    systems: Mapping[str, Any]


def _now() -> datetime:
    return datetime.now(UTC)


def examine(
    named: Callable[[], Environment], *, timeout: float, now: Callable[[], datetime] = _now
) -> tuple[Finding, ...]:
    """Return what is well, wrong, and not to be told of this machine and its way to the systems, within `timeout` seconds.

    `named` returns the environment that is asked about, or raises ArrakisError where there is none: then the machine alone is
    examined. `now` is this machine's clock. Nothing is changed anywhere.
    """
    return tuple(diagnose(gather(named, timeout=timeout, now=now)))


def gather(
    named: Callable[[], Environment], *, timeout: float, now: Callable[[], datetime] = _now
) -> Evidence:
    """Look at everything, within `timeout` seconds."""
    from sandbox.adapters.credentials import read_credentials

    probes: dict[str, Callable[[], Any]] = {
        "machine": lambda: machine.read_machine(os.environ),
        "environment": named,
        "credentials": read_credentials,
    }
    first = gather_facts(probes, deadline=timeout * _FIRST)
    environment: Fact[Environment] = first["environment"]
    region, systems = _region(environment), dict[str, Any]()
    if isinstance(environment, Known):
        left = timeout * (1 - _FIRST)
        systems = _asked(Subject(environment=environment.value, region=region, deadline=left, now=now))
    return Evidence(now=now(), region=region, systems=systems, **first)


def diagnose(evidence: Evidence) -> list[Finding]:
    """Say of each system what is well, wrong, and not to be told; this machine first. Pure."""
    found = list(_machine(evidence))
    environment = evidence.environment.value if isinstance(evidence.environment, Known) else None
    seen, about = evidence.systems, (environment, evidence.region, evidence.credentials)
    found += cloud.findings(*about, seen.get(cloud.AWS), _needs("aws"), now=evidence.now)
    if environment is None:
        return found
    found += database.findings(seen[database.POSTGRES], seen[_POOLER], _needs("postgres"))
    found += cache.findings(seen[cache.REDIS], _needs("redis"))
    found += messaging.findings(seen[messaging.NATS], _needs("nats"))
    found += paging.findings(seen[paging.PAGERDUTY])
    return found


def _machine(evidence: Evidence) -> Iterator[Finding]:
    if isinstance(evidence.machine, Unknown):
        yield untold(MACHINE, "machine", evidence.machine)
    else:
        yield from machine.findings(evidence.machine.value)
    named = evidence.environment
    if isinstance(named, Known):
        yield well(MACHINE, "environment", f"{named.value.name} is named, and complete")
    else:
        yield wrong(MACHINE, "environment", named.reason, fix=named.hint, takes=Takes.LOOKING)


def _region(environment: Fact[Environment]) -> str | None:
    """The region that AWS is asked in; without an environment that of the variables."""
    if isinstance(environment, Known) and environment.value.region:
        return environment.value.region
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


def _asked(subject: Subject) -> dict[str, Any]:
    """Ask each system who and what it is, and what we may do there; all side by side."""
    probes: dict[str, Callable[[], Any]] = {
        database.POSTGRES: lambda: database.read_database(subject, _needs("postgres")),
        _POOLER: lambda: database.read_pooler(subject),
        cache.REDIS: lambda: cache.read_cache(subject, _needs("redis")),
        messaging.NATS: lambda: messaging.read_messaging(subject, _needs("nats")),
        paging.PAGERDUTY: lambda: paging.read_paging(subject, os.environ),
    }
    if region := subject.region:
        probes[cloud.AWS] = lambda: cloud.read_cloud(subject, region, _needs("aws"))
    return gather_facts(probes, deadline=subject.deadline)


def _needs(system: str) -> Needs:
    """Return the rights that the procedures' pages name for a system, each with the procedures."""
    reads: dict[str, list[str]] = {}
    writes: dict[str, list[str]] = {}
    for name, runbook in RUNBOOKS.items():
        for wanted, named in ((reads, runbook.page.reads), (writes, runbook.page.writes)):
            for word in sorted(getattr(named, system)):
                wanted.setdefault(word, []).append(name)
    return Needs(reads=reads, writes=writes)
