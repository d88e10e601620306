"""PostgreSQL as it is reached from here: version, clock, control tables, what this role may do; and a pooler before it."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from diagnostics.privileges import OWNER, in_postgres
from diagnostics.reach import SEE_POSTGRES
from runbooks.doctor.checks import (
    Clock,
    Needs,
    Subject,
    Takes,
    clock,
    reached,
    rights,
    unreached,
    version,
    well,
    wrong,
)
from runbooks.engine.model import Finding
from sandbox.errors import Denied
from sandbox.facts import Fact, Known, Unknown

__all__ = ["POSTGRES", "Database", "findings", "read_database", "read_pooler"]

POSTGRES = "PostgreSQL"

_CONTROL = ("public.sandboxes", "public.sandbox_guild_mapping", "public.sandbox_audit_log")
_OURS = (
    "runbooks.lease",
    "runbooks.journal",
    "runbooks.used_plans",
    "runbooks.stops",
    "runbooks.stopped_sandboxes",
)
_TAG = "arrakis-runbooks:doctor"
_CREATING = "CREATE ON DATABASE"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Server:
    number: int
    version: str
    at: datetime
    role: str
    read_only: bool
    missing: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """What answers at `host`, within how many seconds, as whom one is there, which tables are missing, which rights are held."""

    host: str
    seconds: float
    version: str
    clock: Clock
    role: str
    read_only: bool
    missing: tuple[str, ...]
    held: Mapping[str, bool]


def read_database(subject: Subject, needs: Needs) -> Database:
    """Ask in one transaction. Raises Unreachable, Denied, or ArrakisError for a malformed address."""
    from sandbox.adapters.postgres import Postgres

    sql = Postgres(subject.environment.database_url, tag=_TAG, timeout=subject.deadline)
    began = time.monotonic()
    with sql.snapshot() as snapshot:
        before = subject.now()
        seen = snapshot.rows("read/doctor/server", _Server, tables=[*_CONTROL, *_OURS])[0]
        after, seconds = subject.now(), time.monotonic() - began
        found = in_postgres(snapshot, [*needs.words, _CREATING])
    return Database(
        host=sql.host,
        seconds=seconds,
        version=seen.version.split()[0],
        clock=Clock.of(seen.at, before=before, after=after),
        role=seen.role,
        read_only=seen.read_only,
        missing=tuple(seen.missing),
        held={each.word: each.held for each in found if each.held is not None},
    )


def read_pooler(subject: Subject) -> str | None:
    """Return the name and version of the PgBouncer at the database's address; None where none is there."""
    from sandbox.adapters.pgbouncer import PgBouncer

    try:
        shown = PgBouncer(subject.environment.database_url, timeout=subject.deadline).show("VERSION")
    except Denied:
        return "PgBouncer"
    return str(next(iter(shown[0][0].values()))) if shown and shown[0] else None


def findings(fact: Fact[Database], pooler: Fact[str | None], needs: Needs) -> Iterator[Finding]:
    """Say whether it can be looked at and changed from here. Pure."""
    if isinstance(fact, Unknown):
        yield unreached(POSTGRES, fact, fix=SEE_POSTGRES)
        return
    seen = fact.value
    behind = f" through {pooler.value}" if isinstance(pooler, Known) and pooler.value else ""
    yield reached(POSTGRES, f"{seen.host} answers {seen.role}{behind}", seen.seconds)
    yield version(POSTGRES, POSTGRES, seen.version, least=(15,), most=(18,))
    yield clock(POSTGRES, seen.clock)
    yield _tables(seen)
    if seen.read_only:
        told = "it takes no writes: a replica, or set to be read only"
        yield wrong(POSTGRES, "writes", told, fix="name the primary in DATABASE_URL", takes=Takes.CHANGING)
    fix = {word: f"GRANT {word} TO {seen.role};" for word in seen.held if not word.startswith(OWNER)}
    yield from rights(POSTGRES, needs, seen.held, fix=fix)


def _tables(seen: Database) -> Finding:
    """Whether the tables are there: those of the sandboxes, and the toolkit's own, which the first run makes if it may."""
    if lost := [name for name in seen.missing if name in _CONTROL]:
        told = f"there is no {', no '.join(lost)}: is {seen.host} the right database?"
        fix = 'psql "$DATABASE_URL" -f sql/migrations/0001_control_tables.sql  # if it is'
        return wrong(POSTGRES, "tables", told, fix=fix, takes=Takes.LOOKING)
    if seen.missing and not seen.held.get(_CREATING):
        told = (
            f"the schema runbooks lacks {len(seen.missing)} of its tables, and {seen.role} may not make them"
        )
        fix = (
            'psql "$DATABASE_URL" -f sql/migrations/0002_runbooks.sql -f sql/migrations/0003_emergencies.sql'
            "  # as its owner"
        )
        return wrong(POSTGRES, "tables", told, fix=fix, takes=Takes.CHANGING)
    made = "; the first run makes the schema runbooks" if seen.missing else ", and the schema runbooks is"
    return well(POSTGRES, "tables", f"the control tables are there{made}")
