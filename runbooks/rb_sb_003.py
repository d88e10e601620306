"""RB-SB-003: orphaned sandbox resources.

Trigger    alarm sandbox-orphaned-resources: OrphanedResourceCount over 5 for four quarters of an hour.
Symptoms   schemas and keys that no sandbox owns pile up; disk and memory grow.
Looks at   the alarm and its metric; every sandbox row and schema, read in one snapshot; every key family, in one
           pass; who uses an orphan: sessions, locks, keys touched in the last 15 minutes, subscribers.
May change it renames an orphaned schema into quarantine, and parks an orphaned family's keys. With --drop it deletes
           them for good instead, after `drop N` was typed. It never touches a sandbox that is not destroyed, nor a
           name that it cannot read as an id.
Undo       `invoke undo --run ID` gives names and TTLs back, until `invoke purge-quarantine` deletes what has been in quarantine for
           72 hours. What --drop deleted is gone.
"""

from diagnostics.streams import SEE_LISTENERS
from runbooks import looks, rights
from runbooks.engine.model import Finding, Resource, Runbook, Severity
from runbooks.engine.page import Look, Page, Threshold
from runbooks.findings import alarm_finding, unknown
from runbooks.orphaned.evidence import (
    ALARM,
    SEE_KEYS,
    SEE_ROWS,
    SEE_SCHEMAS,
    Facts,
    Orphans,
    complete,
    existing,
    gather,
    orphaned,
    sources,
)
from runbooks.orphaned.proposals import propose
from runbooks.quarantined import GRACE
from runbooks.remedies import DeleteKeys, DropSchema, QuarantineKeys, QuarantineSchema, remedies, taking
from sandbox.cleanup import STUCK_AFTER
from sandbox.facts import Known, Unknown
from sandbox.metrics import ALARMS
from sandbox.model import Sandbox, Schema, Status
from sandbox.orphans import Placement, Standing
from sandbox.text import lasting, moment
from sandbox.usage import RECENT

__all__ = ["RUNBOOK", "diagnose"]

_BUSY = (Status.PENDING, Status.CREATING, Status.DESTROYING)

_CLEARED = "no orphan is left, so it clears when its metric is next published"


def diagnose(facts: Facts) -> list[Finding]:
    """Say what is wrong, what is unknown, and what is well. Pure."""
    orphans = Orphans.of(facts)
    confirmed = bool(orphaned(orphans.schemas) or orphaned(orphans.families)) or not complete(facts)
    findings = [alarm_finding(facts.alarm, suffix=ALARM, confirmed=confirmed, cleared=_CLEARED)]
    findings += [unknown(name, fact) for name, fact in sources(facts) if isinstance(fact, Unknown)]
    findings += [_schema_finding(schema, where, facts) for schema, where in orphaned(orphans.schemas)]
    findings += [_family_finding(keys, where, facts) for keys, where in orphaned(orphans.families)]
    findings += _leftovers(orphans)
    findings += _unclassifiable(orphans)
    findings += _stuck(facts, orphans)
    if not any(finding.check.startswith("orphan") for finding in findings) and complete(facts):
        live = (
            sum(row.live for row in facts.database.value.roster.rows)
            if isinstance(facts.database, Known)
            else 0
        )
        summary = f"no orphans: every schema and key family that names an id belongs to one of {live} live sandboxes"
        findings.append(Finding(check="orphans", severity=Severity.OK, summary=summary, source=SEE_SCHEMAS))
    return findings


def _schema_finding(schema: Schema, where: Placement, facts: Facts) -> Finding:
    activity = facts.uses.value.activity.get(schema.name) if isinstance(facts.uses, Known) else None
    return Finding(
        check="orphaned schema",
        severity=Severity.WARNING,
        resource=Resource(kind="schema", id=schema.name),
        summary=f"schema {schema.name} is an orphan: {where.reason}",
        evidence={
            "bytes": schema.bytes,
            "rows": schema.rows_estimate,
            "tables": schema.tables,
            "owner": schema.owner,
            "last_activity": activity,
            "was": _was(where),
        },
        source=SEE_SCHEMAS,
    )


def _family_finding(keys: int, where: Placement, facts: Facts) -> Finding:
    use = facts.families.value.get(where.name) if isinstance(facts.families, Known) else None
    return Finding(
        check="orphaned keys",
        severity=Severity.WARNING,
        resource=Resource(kind="keys", id=where.name),
        summary=f"key family sandbox:{where.name}:* is an orphan: {where.reason}",
        evidence={
            "keys": keys,
            "bytes": use.bytes if use else None,
            "idle_seconds": use.idle_seconds if use else None,
            "was": _was(where),
        },
        source=SEE_KEYS.format(token=where.name),
    )


def _leftovers(orphans: Orphans) -> list[Finding]:
    """Rows that say destroyed while a schema or keys remain."""
    remains: dict[str, list[str]] = {}
    for kind, placed in (("schema", orphans.schemas), ("keys", orphans.families)):
        for _, where in orphaned(placed):
            for row in where.sandboxes:
                remains.setdefault(row.name, []).append(f"{kind} {where.name}")
    return [
        Finding(
            check="destroyed with remains",
            severity=Severity.WARNING,
            resource=Resource(kind="sandbox", id=name),
            summary=f"sandbox {name} is destroyed, but {' and '.join(what)} still exist",
            source=SEE_ROWS,
        )
        for name, what in sorted(remains.items())
    ]


def _unclassifiable(orphans: Orphans) -> list[Finding]:
    found: list[Finding] = []
    for kind, placed in (("schema", orphans.schemas), ("keys", orphans.families)):
        for _, where in placed:
            if where.standing is Standing.UNCLASSIFIABLE:
                summary = f"{kind} {where.name} is left alone: {where.reason}"
                resource = Resource(kind=kind, id=where.name)
                found.append(
                    Finding(check="unclassifiable", severity=Severity.OK, summary=summary, resource=resource)
                )
    return found


def _stuck(facts: Facts, orphans: Orphans) -> list[Finding]:
    """Sandboxes that have been pending, creating or destroying for over an hour, with what they hold."""
    if not isinstance(facts.database, Known):
        return []
    found: list[Finding] = []
    for row in facts.database.value.roster.rows:
        since = row.last_activity_at or row.created_at
        if row.status in _BUSY and facts.now - since > STUCK_AFTER:
            held = [
                where.name for _, where in (*orphans.schemas, *orphans.families) if row in where.sandboxes
            ]
            summary = f"sandbox {row.name} is stuck in {row.status} since {moment(since)}"
            found.append(
                Finding(
                    check="stuck",
                    severity=Severity.WARNING,
                    resource=Resource(kind="sandbox", id=row.name),
                    summary=summary,
                    evidence={"holds": held, "owner": row.owner},
                    source=SEE_ROWS,
                )
            )
    return found


def _was(where: Placement) -> str | None:
    return ", ".join(_gone(row) for row in where.sandboxes) or None


def _gone(row: Sandbox) -> str:
    when = f" {moment(row.destroyed_at)}" if row.destroyed_at else ""
    return f"{row.name} of {row.owner}, destroyed{when}"


RUNBOOK = Runbook(
    name="rb-sb-003",
    title="Orphaned sandbox resources",
    alarm=ALARM,
    gather=gather,
    diagnose=diagnose,
    propose=propose,
    existing=existing,
    remedies=remedies,
    page=Page(
        text=__doc__,
        reads=rights.SANDBOXES
        | rights.SESSIONS
        | rights.KEYS
        | rights.KEY_USE
        | rights.KEY_SIZES
        | rights.LISTENERS
        | rights.ALARM,
        writes=taking(QuarantineSchema, QuarantineKeys, DropSchema, DeleteKeys),
        examples=(
            (
                "rb-sb-003 --env production",
                "name what no sandbox owns, and propose quarantine for it; changes nothing",
            ),
            ("rb-sb-003 --env production --apply", "the same, and put it into quarantine once confirmed"),
            ("rb-sb-003 --env production --apply --drop", "delete it for good instead: no undo"),
        ),
        looks=(
            looks.alarm(ALARM),
            Look(what="the sandboxes' rows", command=SEE_ROWS),
            Look(what="their schemas, and those of nobody", command=SEE_SCHEMAS),
            Look(what="the keys of one family", command=SEE_KEYS.format(token="ID")),
            looks.SESSIONS,
            Look(what="who listens to a sandbox's events", command=SEE_LISTENERS),
        ),
        thresholds=(
            Threshold(
                name="orphans",
                value=str(ALARMS[ALARM].threshold),
                meaning="the alarm rings when there are more; the runbook names every one",
            ),
            Threshold(
                name="used within",
                value=lasting(RECENT),
                meaning="what somebody touched since is in use, and left alone",
            ),
            Threshold(
                name="stuck after",
                value=lasting(STUCK_AFTER),
                meaning="a sandbox that is pending, creating or destroying for longer is named, and not touched",
            ),
            Threshold(
                name="in quarantine for",
                value=lasting(GRACE),
                meaning="for so long at least; then `purge-quarantine` may delete it",
            ),
        ),
    ),
)
