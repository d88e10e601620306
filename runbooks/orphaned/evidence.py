"""Schemas and keys that no sandbox owns: what is known of them, and who uses them. Nothing here changes anything."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from diagnostics.alarms import Alarm, read_alarm
from diagnostics.stack import Stack
from runbooks.engine.systems import Readers
from sandbox import keyspace, registry, schemas
from sandbox.errors import ArrakisError
from sandbox.facts import Fact, Known, Unknown, insist
from sandbox.facts import gather as gather_facts
from sandbox.keyspace import FamilyUse, Survey
from sandbox.model import Schema
from sandbox.naming import token_of_schema
from sandbox.orphans import Placement, Roster, Standing, find_orphans
from sandbox.ports import Subscription
from sandbox.usage import RECENT

__all__ = [
    "ALARM",
    "SEE_KEYS",
    "SEE_ROWS",
    "SEE_SCHEMAS",
    "Database",
    "Facts",
    "Orphans",
    "Use",
    "complete",
    "existing",
    "gather",
    "orphaned",
    "sources",
]

T = TypeVar("T")

ALARM = "sandbox-orphaned-resources"
METRIC_WINDOW = timedelta(hours=6)

SEE_SCHEMAS = "psql -c \"SELECT nspname FROM pg_namespace WHERE starts_with(nspname, 'sandbox_')\""
SEE_ROWS = 'psql -c "SELECT id, name, status, schema_name FROM public.sandboxes"'
SEE_KEYS = "redis-cli --scan --pattern 'sandbox:{token}*' --count 1000"


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


def gather(readers: Readers, *, now: datetime, deadline: float, stack: Stack, brief: bool = False) -> Facts:
    """Read everything side by side; then, of the orphans only, who uses them. Bounded by `deadline` seconds.

    A `brief` look leaves out what is told and nothing rests on, the alarm and when rows were last written: whoever acts on what
    there is does not need it, and may have no right to it.
    """

    def database() -> Database:
        with readers.sql.snapshot() as snapshot:
            roster, seen = registry.roster(snapshot), schemas.census(snapshot)
            orphans = find_orphans(roster, [schema.name for schema in seen if _ours(schema.name)], ())
            sizes = schemas.sizes(snapshot, [orphan.placement.name for orphan in orphans])
            return Database(
                roster=roster,
                schemas=tuple(replace(schema, bytes=sizes.get(schema.name)) for schema in seen),
            )

    def read() -> Alarm | None:
        if brief:
            raise ArrakisError("the alarm is not asked for here")
        prefix = stack.alarm_prefix
        return read_alarm(readers.aws, suffix=ALARM, prefix=prefix, now=now, window=METRIC_WINDOW)

    probes = {
        "alarm": read,
        "database": database,
        "keys": readers.survey,
        "listeners": readers.streams.subscriptions,
    }
    seen = gather_facts(probes, deadline=deadline * 0.6)
    insist(seen["database"])
    waiting = Unknown("it rests on what is unknown")
    first = Facts(now=now, uses=waiting, families=waiting, **seen)
    uses = _uses(readers, Orphans.of(first), deadline=deadline * 0.4, told=not brief)
    return Facts(now=now, **seen, **uses)


def existing(facts: Facts) -> int | None:
    """How many sandbox resources exist (rows not destroyed, schemas, key families); None when unknown."""
    if not isinstance(facts.database, Known) or not isinstance(facts.keys, Known):
        return None
    live = sum(row.live for row in facts.database.value.roster.rows)
    named = sum(_ours(schema.name) for schema in facts.database.value.schemas)
    return live + named + len(facts.keys.value.families)


def orphaned(placed: Iterable[tuple[T, Placement]]) -> list[tuple[T, Placement]]:
    """Return the orphans among what was placed."""
    return [(what, where) for what, where in placed if where.standing is Standing.ORPHAN]


def sources(facts: Facts) -> list[tuple[str, Fact[Any]]]:
    """Return what was asked, by name."""
    names = ("database", "keys", "listeners", "uses", "families")
    return [(name, getattr(facts, name)) for name in names]


def complete(facts: Facts) -> bool:
    """Whether all that was asked is known."""
    return all(isinstance(fact, Known) for _, fact in sources(facts))


def _uses(readers: Readers, orphans: Orphans, *, deadline: float, told: bool) -> dict[str, Any]:
    names = [schema.name for schema, _ in orphaned(orphans.schemas)]
    tokens = [token_of_schema(name) or "" for name in names] + [w.name for _, w in orphaned(orphans.families)]

    def uses() -> Use:
        if not tokens:
            return Use(sessions=(), activity={})
        with readers.sql.snapshot() as snapshot:
            watched = sorted({*names, *(f"sandbox_{token}" for token in tokens)})
            sessions = schemas.users(snapshot, watched, tag=readers.tag, recent=RECENT)
        activity: dict[str, datetime | None] = {}
        with suppress(ArrakisError):  # nothing rests on it, so a locked table costs no more than the date
            activity.update(schemas.last_activity(readers.sql, names) if told else {})
        return Use(sessions=tuple(sessions), activity=activity)

    def families() -> dict[str, FamilyUse]:
        return dict(keyspace.usage(readers.keys, tokens, sizes=told)) if tokens else {}

    return gather_facts({"uses": uses, "families": families}, deadline=deadline)


def _ours(name: str) -> bool:
    return not name.startswith(("quarantine_", "pending_"))
