"""purge-quarantine: delete for good what has been in quarantine for over 72 hours.

Looks at   schemas and keys in quarantine; their names say since when.
May change it drops those schemas and deletes those keys. `drop N` has to be typed; this cannot be undone.
"""

from dataclasses import replace
from datetime import datetime

from diagnostics.stack import Stack
from runbooks import quarantined
from runbooks.engine.model import Action, Finding, Resource, Runbook, Severity
from runbooks.engine.page import Page
from runbooks.engine.systems import Readers
from runbooks.findings import unknown
from runbooks.quarantined import GRACE, Quarantine, parked_keys, parked_schemas
from runbooks.remedies import remedies
from sandbox.facts import Known, Unknown, insist
from sandbox.text import counted

__all__ = ["RUNBOOK", "diagnose", "existing", "gather", "propose"]


def gather(readers: Readers, *, now: datetime, deadline: float, stack: Stack) -> Quarantine:
    """Read schemas and keys side by side, within `deadline` seconds. Raises what the database answers instead of rows."""
    seen = quarantined.gather(readers, now=now, deadline=deadline)
    insist(seen.database)
    return seen


def diagnose(seen: Quarantine) -> list[Finding]:
    """Say what is in quarantine, since when, and what is unknown. Pure."""
    findings: list[Finding] = []
    for name, fact in (("database", seen.database), ("keys", seen.keys)):
        if isinstance(fact, Unknown):
            findings.append(unknown(name, fact))
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
        "" if over else f", kept until {since + GRACE:%m-%d %H:%M} UTC"
    )
    severity = Severity.WARNING if over else Severity.OK
    return Finding(check="quarantine", severity=severity, summary=summary, resource=resource)


RUNBOOK = Runbook(
    name="purge-quarantine",
    title="What is in quarantine",
    gather=gather,
    diagnose=diagnose,
    propose=propose,
    existing=existing,
    remedies=remedies,
    page=Page(text=__doc__),
)
