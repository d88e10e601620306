"""purge-quarantine: delete for good what has been in quarantine for over 72 hours.

Looks at   schemas and keys in quarantine; their names say since when.
May change it drops those schemas and deletes those keys. `drop N` has to be typed; this cannot be undone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from diagnostics.stack import Stack
from runbooks.engine.model import Action, Finding, Resource, Reversibility, Runbook, Severity
from runbooks.engine.systems import Readers
from runbooks.findings import unknown
from runbooks.remedies import remedies
from sandbox import keyspace, registry, schemas
from sandbox.facts import Fact, Known, Unknown, insist
from sandbox.facts import gather as gather_facts
from sandbox.keyspace import Parked, Survey
from sandbox.model import Schema
from sandbox.naming import read_quarantined_schema, read_stamp, token_of_schema

__all__ = ["RUNBOOK", "Facts", "diagnose", "existing", "gather", "propose"]

GRACE = timedelta(hours=72)


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """The schemas, and how many sandboxes are not destroyed."""

    schemas: tuple[Schema, ...]
    live: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was seen."""

    now: datetime
    database: Fact[Database]
    keys: Fact[Survey]


def gather(readers: Readers, *, now: datetime, deadline: float, stack: Stack) -> Facts:
    """Read schemas and keys side by side, within `deadline` seconds."""

    def database() -> Database:
        with readers.sql.snapshot() as snapshot:
            live = sum(row.live for row in registry.roster(snapshot).rows)
            return Database(schemas=tuple(schemas.census(snapshot)), live=live)

    probes = {"database": database, "keys": lambda: keyspace.survey(readers.keys)}
    seen = gather_facts(probes, deadline=deadline)
    insist(seen["database"])
    return Facts(now=now, **seen)


def diagnose(facts: Facts) -> list[Finding]:
    """Say what is in quarantine, since when, and what is unknown. Pure."""
    findings: list[Finding] = []
    for name, fact in (("database", facts.database), ("keys", facts.keys)):
        if isinstance(fact, Unknown):
            findings.append(unknown(name, fact))
    for schema, original, since in _schemas(facts):
        findings.append(_finding(facts, Resource(kind="schema", id=schema.name), original, since))
    for family, keys, since in _families(facts):
        resource = Resource(kind="keys", id=family.token)
        findings.append(_finding(facts, resource, f"{keys} keys of sandbox:{family.token}", since))
    if not findings:
        findings.append(Finding(check="quarantine", severity=Severity.OK, summary="nothing is in quarantine"))
    return findings


def propose(facts: Facts) -> tuple[list[Action], list[Finding]]:
    """Return an action for each that is over its grace period. What is younger is a finding of `diagnose`. Pure."""
    actions: list[Action] = []
    for schema, original, since in _schemas(facts):
        if facts.now - since > GRACE:
            before = {"name": schema.name, "token": token_of_schema(original), "writes": schema.writes}
            actions.append(
                _action(len(actions), "drop schema", Resource(kind="schema", id=schema.name), before, since)
            )
    for family, keys, since in _families(facts):
        if facts.now - since > GRACE:
            before = {"token": family.token, "stamp": family.stamp, "keys": keys}
            resource = Resource(kind="keys", id=f"quarantine:{family.stamp}:sandbox:{family.token}")
            actions.append(_action(len(actions), "delete keys", resource, before, since))
    return actions, []


def existing(facts: Facts) -> int | None:
    """How many resources exist, in quarantine and out of it; None when unknown."""
    if not isinstance(facts.database, Known) or not isinstance(facts.keys, Known):
        return None
    database, survey = facts.database.value, facts.keys.value
    return database.live + len(database.schemas) + len(survey.families) + len(survey.parked)


def _schemas(facts: Facts) -> list[tuple[Schema, str, datetime]]:
    if not isinstance(facts.database, Known):
        return []
    read = ((schema, read_quarantined_schema(schema.name)) for schema in facts.database.value.schemas)
    return [(schema, found.original, found.since) for schema, found in read if found]


def _families(facts: Facts) -> list[tuple[Parked, int, datetime]]:
    if not isinstance(facts.keys, Known):
        return []
    parked = sorted(facts.keys.value.parked.items(), key=lambda item: (item[0].stamp, item[0].token))
    return [(family, keys, read_stamp(family.stamp)) for family, keys in parked]


def _finding(facts: Facts, resource: Resource, what: str, since: datetime) -> Finding:
    over = facts.now - since > GRACE
    hours = (facts.now - since).total_seconds() / 3600
    summary = f"{what} in quarantine for {hours:.1f} h" + (
        "" if over else f", kept until {since + GRACE:%m-%d %H:%M} UTC"
    )
    severity = Severity.WARNING if over else Severity.OK
    return Finding(check="quarantine", severity=severity, summary=summary, resource=resource)


def _action(
    number: int, verb: str, resource: Resource, before: Mapping[str, object], since: datetime
) -> Action:
    return Action(
        id=f"a{number + 1}",
        verb=verb,
        resource=resource,
        before=before,
        after={},
        reason=f"in quarantine since {since:%Y-%m-%d %H:%M} UTC",
        reversibility=Reversibility.IRREVERSIBLE,
    )


RUNBOOK = Runbook(
    name="purge-quarantine",
    title="What is in quarantine",
    gather=gather,
    diagnose=diagnose,
    propose=propose,
    existing=existing,
    remedies=remedies,
)
