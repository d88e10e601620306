"""purge-quarantine: delete for good what has been in quarantine for over 72 hours.

Trigger    no alarm: something has been in quarantine for over 72 hours, and nobody missed it.
Symptoms   schemas `quarantine_…` and keys `quarantine:…` still take up disk and memory.
Looks at   schemas and keys in quarantine; their names say since when.
May change it drops those schemas and deletes those keys, for good. What is younger than 72 hours it leaves alone.
Undo       none: `drop N` has to be typed. Before, `invoke undo --run ID` of the run that put it there gives it back.
"""

from dataclasses import replace
from datetime import datetime

from diagnostics.stack import Stack
from runbooks import quarantined, rights
from runbooks.engine.model import Action, Finding, Resource, Runbook, Severity
from runbooks.engine.page import Look, Page, Threshold
from runbooks.engine.systems import Readers
from runbooks.findings import unknown
from runbooks.quarantined import GRACE, SEE_KEYS, SEE_SCHEMAS, Quarantine, parked_keys, parked_schemas
from runbooks.remedies import DeleteKeys, DropSchema, remedies, taking
from sandbox.facts import Known, Unknown, insist
from sandbox.text import counted, lasting, moment

__all__ = ["RUNBOOK", "diagnose", "existing", "gather", "propose"]


def gather(readers: Readers, *, now: datetime, deadline: float, stack: Stack) -> Quarantine:
    """Read schemas and keys side by side, within `deadline` seconds. Raises what the database answers instead of rows."""
    seen = quarantined.gather(readers, now=now, deadline=deadline)
    insist(seen.database)
    return seen


def diagnose(seen: Quarantine) -> list[Finding]:
    """Say what is in quarantine, since when, and what is unknown. Pure."""
    findings: list[Finding] = []
    for name, fact, source in (("database", seen.database, SEE_SCHEMAS), ("keys", seen.keys, SEE_KEYS)):
        if isinstance(fact, Unknown):
            findings.append(unknown(name, fact, source=source))
    for schema, original, since in parked_schemas(seen):
        findings.append(_finding(seen, Resource(kind="schema", id=schema.name), original, since))
    for family, keys, since in parked_keys(seen):
        resource = Resource(kind="keys", id=family.token)
        findings.append(_finding(seen, resource, f"{counted(keys, 'key')} of sandbox:{family.token}", since))
    if not findings:
        findings.append(Finding(check="quarantine", severity=Severity.OK, summary="nothing is in quarantine"))
    return findings


def propose(seen: Quarantine) -> tuple[list[Action], list[Finding]]:
    """Return an action for each that is over its grace period. What is younger is a finding of `diagnose`. Pure."""
    actions = [*quarantined.purge_schemas(seen), *quarantined.purge_keys(seen)]
    return [replace(action, id=f"a{number}") for number, action in enumerate(actions, 1)], []


def existing(seen: Quarantine) -> int | None:
    """How many resources exist, in quarantine and out of it; None when unknown."""
    if not isinstance(seen.database, Known) or not isinstance(seen.keys, Known):
        return None
    database, survey = seen.database.value, seen.keys.value
    return database.live + len(database.schemas) + len(survey.families) + len(survey.parked)


def _finding(seen: Quarantine, resource: Resource, what: str, since: datetime) -> Finding:
    over = seen.now - since > GRACE
    hours = (seen.now - since).total_seconds() / 3600
    summary = f"{what} in quarantine for {hours:.1f} h" + (
        "" if over else f", kept until {moment(since + GRACE)}"
    )
    severity = Severity.WARNING if over else Severity.OK
    source = SEE_SCHEMAS if resource.kind == "schema" else SEE_KEYS
    return Finding(check="quarantine", severity=severity, summary=summary, resource=resource, source=source)


RUNBOOK = Runbook(
    name="purge-quarantine",
    title="What is in quarantine",
    gather=gather,
    diagnose=diagnose,
    propose=propose,
    existing=existing,
    remedies=remedies,
    page=Page(
        text=__doc__,
        reads=rights.SANDBOXES | rights.KEYS,
        writes=taking(DropSchema, DeleteKeys),
        examples=(
            (
                "purge-quarantine --env production",
                "say what is in quarantine, and since when; changes nothing",
            ),
            (
                "purge-quarantine --env production --apply",
                "delete what is old enough, once confirmed: no undo",
            ),
        ),
        looks=(
            Look(what="schemas in quarantine", command=SEE_SCHEMAS),
            Look(what="keys in quarantine", command=SEE_KEYS),
        ),
        thresholds=(
            Threshold(
                name="in quarantine for",
                value=lasting(GRACE),
                meaning="what has been there for longer is deleted; what is younger is left alone",
            ),
        ),
    ),
)
