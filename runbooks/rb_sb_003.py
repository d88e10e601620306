"""RB-SB-003: orphaned sandbox resources.

Trigger    alarm sandbox-orphaned-resources: OrphanedResourceCount over 5 for four quarters of an hour.
Symptoms   schemas and keys that no sandbox owns pile up; disk and memory grow.
Looks at   the alarm and its metric; every sandbox row and schema, read in one snapshot; every key family, in one
           pass; who uses an orphan: sessions, locks, keys touched in the last 15 minutes, subscribers.
May change it renames an orphaned schema into quarantine, and parks an orphaned family's keys. With --drop it deletes
           them for good instead, after `drop N` was typed. It never touches a sandbox that is not destroyed, nor a
           name that it cannot read as an id.
Undo       `invoke undo --run ID` gives names and TTLs back. `invoke purge-quarantine` deletes after 72 hours.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from diagnostics.alarms import Alarm, read_alarm
from diagnostics.stack import Stack
from runbooks.engine.model import Action, Finding, Resource, Reversibility, Runbook, Severity
from runbooks.engine.systems import Readers
from runbooks.findings import alarm_finding, left_alone, unknown
from runbooks.remedies import remedies
from sandbox import keyspace, registry, schemas
from sandbox.errors import ArrakisError
from sandbox.facts import Fact, Known, Unknown, insist
from sandbox.facts import gather as gather_facts
from sandbox.keyspace import FamilyUse, Survey
from sandbox.model import Schema, Status
from sandbox.naming import quarantined_schema, stamp_of, token_of_schema
from sandbox.orphans import Placement, Roster, Standing
from sandbox.ports import Subscription
from sandbox.usage import RECENT, Usage

__all__ = ["ALARM", "RUNBOOK", "Facts", "Orphans", "diagnose", "existing", "gather", "propose"]

ALARM = "sandbox-orphaned-resources"
STUCK_AFTER = timedelta(hours=1)
METRIC_WINDOW = timedelta(hours=6)
_BUSY = (Status.PENDING, Status.CREATING, Status.DESTROYING)

_SEE_SCHEMAS = "psql -c \"SELECT nspname FROM pg_namespace WHERE starts_with(nspname, 'sandbox_')\""
_SEE_ROWS = 'psql -c "SELECT id, name, status, schema_name FROM public.sandboxes"'
_SEE_KEYS = "redis-cli --scan --pattern 'sandbox:{token}*' --count 1000"
_CLEARED = "no orphan is left, so it clears when its metric is next published"


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """Rows and schemas of one moment."""

    roster: Roster
    schemas: tuple[Schema, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """How the orphaned schemas are used: sessions, and the newest moment in their rows."""

    sessions: tuple[schemas.SchemaUser, ...]
    activity: dict[str, datetime | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was seen. `uses` and `families` concern orphans only."""

    now: datetime
    alarm: Fact[Alarm | None]
    database: Fact[Database]
    keys: Fact[Survey]
    listeners: Fact[list[Subscription]]
    uses: Fact[Use]
    families: Fact[dict[str, FamilyUse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphans:
    """Every name placed: pure arithmetic over what was seen."""

    schemas: tuple[tuple[Schema, Placement], ...]
    families: tuple[tuple[int, Placement], ...]

    @classmethod
    def of(cls, facts: Facts) -> "Orphans":
        """Place what is known; what is unknown is empty, and is a finding of its own."""
        match facts.database:
            case Known(Database() as database):
                roster = database.roster
                placed = [(s, roster.place_schema(s.name)) for s in database.schemas if _ours(s.name)]
                survey = facts.keys.value.families if isinstance(facts.keys, Known) else {}
                keys = [(count, roster.place_family(token)) for token, count in sorted(survey.items())]
                return cls(schemas=tuple(placed), families=tuple(keys))
        return cls(schemas=(), families=())


def gather(readers: Readers, *, now: datetime, deadline: float, stack: Stack) -> Facts:
    """Read everything side by side; then, of the orphans only, who uses them. Bounded by `deadline` seconds."""

    def database() -> Database:
        with readers.sql.snapshot() as snapshot:
            return Database(roster=registry.roster(snapshot), schemas=tuple(schemas.census(snapshot)))

    seen = gather_facts(
        {
            "alarm": lambda: read_alarm(
                readers.aws, suffix=ALARM, prefix=stack.alarm_prefix, now=now, window=METRIC_WINDOW
            ),
            "database": database,
            "keys": lambda: keyspace.survey(readers.keys),
            "listeners": readers.streams.subscriptions,
        },
        deadline=deadline * 0.6,
    )
    insist(seen["database"])
    waiting = Unknown("it rests on what is unknown")
    first = Facts(now=now, uses=waiting, families=waiting, **seen)
    return Facts(now=now, **seen, **_uses(readers, Orphans.of(first), deadline=deadline * 0.4))


def diagnose(facts: Facts) -> list[Finding]:
    """Say what is wrong, what is unknown, and what is well. Pure."""
    orphans = Orphans.of(facts)
    confirmed = bool(_orphaned(orphans.schemas) or _orphaned(orphans.families)) or not _complete(facts)
    findings = [alarm_finding(facts.alarm, suffix=ALARM, confirmed=confirmed, cleared=_CLEARED)]
    findings += [unknown(name, fact) for name, fact in _sources(facts) if isinstance(fact, Unknown)]
    findings += [_schema_finding(schema, where, facts) for schema, where in _orphaned(orphans.schemas)]
    findings += [_family_finding(keys, where, facts) for keys, where in _orphaned(orphans.families)]
    findings += _leftovers(orphans)
    findings += _unclassifiable(orphans)
    findings += _stuck(facts, orphans)
    if not any(finding.check.startswith("orphan") for finding in findings) and _complete(facts):
        live = (
            sum(row.live for row in facts.database.value.roster.rows)
            if isinstance(facts.database, Known)
            else 0
        )
        summary = f"no orphans: every schema and key family that names an id belongs to one of {live} live sandboxes"
        findings.append(Finding(check="orphans", severity=Severity.OK, summary=summary, source=_SEE_SCHEMAS))
    return findings


def propose(facts: Facts, *, drop: bool = False) -> tuple[list[Action], list[Finding]]:
    """Return an action for each orphan that nobody uses, and a finding for each that is left alone. Pure."""
    orphans = Orphans.of(facts)
    left: list[Finding] = []
    actions: list[Action] = []
    for schema, where in _orphaned(orphans.schemas):
        reason = _why_not(facts, token_of_schema(schema.name) or "", schema.name)
        _add(
            actions,
            left,
            Resource(kind="schema", id=schema.name),
            reason,
            _schema_action(schema, where, facts, drop),
        )
    for keys, where in _orphaned(orphans.families):
        reason = _why_not(facts, where.name, f"sandbox_{where.name}")
        _add(
            actions,
            left,
            Resource(kind="keys", id=where.name),
            reason,
            _keys_action(keys, where, facts, drop),
        )
    return actions, left


def existing(facts: Facts) -> int | None:
    """How many sandbox resources exist (rows not destroyed, schemas, key families); None when unknown."""
    if not isinstance(facts.database, Known) or not isinstance(facts.keys, Known):
        return None
    live = sum(row.live for row in facts.database.value.roster.rows)
    named = sum(_ours(schema.name) for schema in facts.database.value.schemas)
    return live + named + len(facts.keys.value.families)


def _uses(readers: Readers, orphans: Orphans, *, deadline: float) -> dict[str, Any]:
    names = [schema.name for schema, _ in _orphaned(orphans.schemas)]
    tokens = [token_of_schema(name) or "" for name in names] + [
        w.name for _, w in _orphaned(orphans.families)
    ]

    def uses() -> Use:
        if not tokens:
            return Use(sessions=(), activity={})
        with readers.sql.snapshot() as snapshot:
            watched = sorted({*names, *(f"sandbox_{token}" for token in tokens)})
            sessions = schemas.users(snapshot, watched, tag=readers.tag, recent=RECENT)
            activity: dict[str, datetime | None] = {}
            with suppress(ArrakisError):  # nothing rests on it, so a locked table costs no more than the date
                activity.update(schemas.last_activity(snapshot, names))
            return Use(sessions=tuple(sessions), activity=activity)

    def families() -> dict[str, FamilyUse]:
        return dict(keyspace.usage(readers.keys, tokens, sizes=True)) if tokens else {}

    return gather_facts({"uses": uses, "families": families}, deadline=deadline)


def _why_not(facts: Facts, token: str, schema: str) -> str | None:
    """Why an orphan must be left alone, or None. What an answer rests on and is unknown is a reason."""
    for name, fact in _sources(facts):
        if isinstance(fact, Unknown) and name != "alarm":
            return f"cannot tell whether it is in use: {name} unknown ({fact.reason})"
    assert isinstance(facts.uses, Known)  # each is known, or the loop above would have returned
    assert isinstance(facts.families, Known)
    assert isinstance(facts.listeners, Known)
    usage = Usage(
        sessions=facts.uses.value.sessions,
        families=facts.families.value,
        subscriptions=facts.listeners.value,
    )
    user = usage.of(token, schema)
    return f"in use: {user}" if user else None


def _add(
    actions: list[Action],
    left: list[Finding],
    resource: Resource,
    reason: str | None,
    make: Callable[[str], Action],
) -> None:
    if reason is None:
        actions.append(make(f"a{len(actions) + 1}"))
        return
    left.append(left_alone(f"{resource.kind} {resource.id} is left alone", reason, resource=resource))


def _schema_action(schema: Schema, where: Placement, facts: Facts, drop: bool) -> Callable[[str], Action]:
    before = {
        "name": schema.name,
        "bytes": schema.bytes,
        "rows": schema.rows_estimate,
        "writes": schema.writes,
    }
    after = {} if drop else {"name": quarantined_schema(schema.name, facts.now)}
    return lambda action_id: Action(
        id=action_id,
        verb="drop schema" if drop else "quarantine schema",
        resource=Resource(kind="schema", id=schema.name),
        before=before,
        after=after,
        reason=where.reason,
        reversibility=Reversibility.IRREVERSIBLE if drop else Reversibility.REVERSIBLE,
    )


def _keys_action(keys: int, where: Placement, facts: Facts, drop: bool) -> Callable[[str], Action]:
    return lambda action_id: Action(
        id=action_id,
        verb="delete keys" if drop else "quarantine keys",
        resource=Resource(kind="keys", id=where.name),
        before={"token": where.name, "keys": keys},
        after={} if drop else {"stamp": stamp_of(facts.now)},
        reason=where.reason,
        reversibility=Reversibility.IRREVERSIBLE if drop else Reversibility.REVERSIBLE,
    )


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
        source=_SEE_SCHEMAS,
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
        source=_SEE_KEYS.format(token=where.name),
    )


def _leftovers(orphans: Orphans) -> list[Finding]:
    """Rows that say destroyed while a schema or keys remain."""
    remains: dict[str, list[str]] = {}
    for kind, placed in (("schema", orphans.schemas), ("keys", orphans.families)):
        for _, where in _orphaned(placed):
            for row in where.sandboxes:
                remains.setdefault(row.name, []).append(f"{kind} {where.name}")
    return [
        Finding(
            check="destroyed with remains",
            severity=Severity.WARNING,
            resource=Resource(kind="sandbox", id=name),
            summary=f"sandbox {name} is destroyed, but {' and '.join(what)} still exist",
            source=_SEE_ROWS,
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
            summary = f"sandbox {row.name} is stuck in {row.status} since {since:%Y-%m-%d %H:%M} UTC"
            found.append(
                Finding(
                    check="stuck",
                    severity=Severity.WARNING,
                    resource=Resource(kind="sandbox", id=row.name),
                    summary=summary,
                    evidence={"holds": held, "owner": row.owner},
                    source=_SEE_ROWS,
                )
            )
    return found


def _orphaned(placed: Iterable[tuple[Any, Placement]]) -> list[tuple[Any, Placement]]:
    return [(what, where) for what, where in placed if where.standing is Standing.ORPHAN]


def _ours(name: str) -> bool:
    return not name.startswith(("quarantine_", "pending_"))


def _was(where: Placement) -> str | None:
    return (
        ", ".join(f"{row.name} of {row.owner}, destroyed {row.destroyed_at}" for row in where.sandboxes)
        or None
    )


def _sources(facts: Facts) -> list[tuple[str, Fact[Any]]]:
    names = ("database", "keys", "listeners", "uses", "families")
    return [(name, getattr(facts, name)) for name in names]


def _complete(facts: Facts) -> bool:
    return all(isinstance(fact, Known) for _, fact in _sources(facts))


RUNBOOK = Runbook(
    name="rb-sb-003",
    title="Orphaned sandbox resources",
    gather=gather,
    diagnose=diagnose,
    propose=propose,
    existing=existing,
    remedies=remedies,
)
