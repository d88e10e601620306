"""database-maintenance: the control tables' monthly upkeep.

Trigger    no alarm: once a month.
Symptoms   the audit log grows, and dead rows pile up where autovacuum does not come: look-ups and backups grow slow.
Looks at   the control tables' sizes, dead rows, last VACUUM, autovacuum and ANALYZE; who is at work on them; what keeps dead rows
           from being removed; the audit rows older than 90 days (`--keep`), all counted; the place for an archive (`--archive`).
May change it deletes those audit rows, a few at a time, slower while production feels it; then it runs VACUUM (ANALYZE) on each of
           the three tables. Rows that something still rests on stay: the newest of a sandbox that is not destroyed, and those
           that say that a destroyed one's keys were left.
Archive    with `--archive DIR` or `--archive s3://bucket/prefix` all of them are written there at first (gzip, a line of JSON a row)
           and read back; only what is in it then is deleted. S3 asks for s3:ListBucket, s3:GetObject and s3:PutObject.
Undo       `invoke undo --run ID` puts the rows back from the archive, but for those whose sandbox's row is gone. Without an archive
           they are lost: `trim N` has to be typed. VACUUM loses nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from diagnostics import storage, upkeep
from diagnostics.indexes import TABLES
from diagnostics.stack import Stack
from diagnostics.storage import Holder
from diagnostics.upkeep import AUDIT_LOG, Kept, Log, Upkeep, Worker
from runbooks import rights
from runbooks.engine.errors import Refused
from runbooks.engine.model import Action, Finding, Pace, Resource, Runbook, Severity
from runbooks.engine.page import Look, Page, Threshold
from runbooks.engine.systems import Readers
from runbooks.findings import left_alone, span, unknown
from runbooks.remedies import TrimAuditLog, VacuumTable, remedies, taking
from runbooks.remedies.maintenance import vacuum_table
from runbooks.remedies.trimming import Archive, trim_audit_log
from sandbox import depots, registry
from sandbox.facts import Fact, Known, Unknown, insist
from sandbox.facts import gather as gather_facts
from sandbox.model import Status
from sandbox.ports import SqlSnapshot
from sandbox.text import lasting, moment

__all__ = ["RUNBOOK", "Facts", "diagnose", "existing", "gather", "outlook", "propose"]

T = TypeVar("T")

KEEP = timedelta(days=90)
"""How long audit rows are kept, unless another time is asked for."""

LEAST = timedelta(days=7)
"""How long they are kept at the least: for as long as a sandbox may live."""

MANY_DEAD, DEAD_SHARE = 1_000, 0.2
"""How many dead rows, and which share of a table's, are more than autovacuum leaves."""

_NAME = "database-maintenance"
_SHOWN = 5
_JUST = timedelta(hours=1)
_UNSEEN = "nobody is seen any more who needs them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """The control tables that there are, by name; how many relations the database has, and which one it is."""

    tables: Mapping[str, Upkeep]
    relations: int
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was seen. `address` is where an archive was asked for, None: nowhere; `depot` is known if it can be put there."""

    now: datetime
    environment: str
    keep: timedelta
    address: str | None
    database: Fact[Database]
    log: Fact[Log]
    workers: Fact[tuple[Worker, ...]]
    holders: Fact[tuple[Holder, ...]]
    depot: Fact[None]


def gather(
    readers: Readers,
    *,
    now: datetime,
    deadline: float,
    stack: Stack,
    environment: str = "custom",
    keep: timedelta = KEEP,
    archive: str = "",
) -> Facts:
    """Read all of it side by side, within `deadline` seconds. How old rows are is told by the database's clock.

    Raises Refused where rows were to be kept for less than a week, ArrakisError for a place that is none, or not ours.
    """
    if keep < LEAST:
        why = f"audit rows are kept for {LEAST.days} days at the least, for as long as a sandbox may live"
        raise Refused(why, hint=f"say --keep {LEAST.days}d or more")
    depot = depots.reading(archive, readers.aws) if archive else None
    probes = _probes(readers, keep) | {"depot": depot.check if depot else lambda: None}
    seen = gather_facts(probes, deadline=deadline)
    insist(seen["depot"])
    address = depot.address if depot else None
    return Facts(now=now, environment=environment, keep=keep, address=address, **seen)


def diagnose(facts: Facts) -> list[Finding]:
    """Say what is old, what of it stays, how the tables are, and what is unknown. Pure."""
    findings = [*_old(facts), *_tables(facts)]
    if isinstance(facts.workers, Unknown):
        findings.append(unknown("workers", facts.workers, source=upkeep.SEE_WORKERS))
    return findings


def propose(facts: Facts) -> tuple[list[Action], list[Finding]]:
    """Return what is to be done, the trim at first, and what was left alone with the reason. Pure."""
    proposed = [_trim(facts), *(_vacuum(name, facts) for name in TABLES)]
    actions = [each for each in proposed if isinstance(each, Action)]
    left = [each for each in proposed if isinstance(each, Finding)]
    return [replace(action, id=f"a{number}") for number, action in enumerate(actions, 1)], left


def existing(facts: Facts) -> int | None:
    """Return how many tables and indexes the database has: what a VACUUM that names none would go through."""
    return facts.database.value.relations if isinstance(facts.database, Known) else None


def outlook(facts: Facts) -> list[Finding]:
    """Say, after a run, how the tables are by now, and what keeps dead rows from being removed. Pure."""
    tables = facts.database.value.tables.values() if isinstance(facts.database, Known) else ()
    just = [each for each in tables if each.vacuumed_at and facts.now - each.vacuumed_at < _JUST]
    stuck = (_stuck(table, facts) for table in just if table.dead >= MANY_DEAD)
    return [*_tables(facts), *stuck]


def _probes(readers: Readers, keep: timedelta) -> dict[str, Callable[[], Any]]:
    def ask(read: Callable[[SqlSnapshot], T]) -> Callable[[], T]:
        def probe() -> T:
            with readers.sql.snapshot() as snapshot:
                return read(snapshot)

        return probe

    return {
        "database": ask(_database),
        "log": lambda: upkeep.read_log(readers.sql, _cutoff(readers, keep)),
        "workers": ask(upkeep.read_workers),
        "holders": ask(partial(storage.read_holders, age=1)),
    }


def _database(snapshot: SqlSnapshot) -> Database:
    return Database(
        tables=upkeep.read_upkeep(snapshot),
        relations=storage.read_catalog(snapshot).relations,
        fingerprint=registry.identity(snapshot).fingerprint,
    )


def _cutoff(readers: Readers, keep: timedelta) -> datetime:
    return registry.time_of(readers.sql).replace(microsecond=0) - keep


def _old(facts: Facts) -> list[Finding]:
    """How many audit rows are old, and which of them have to stay."""
    if isinstance(facts.log, Unknown):
        return [unknown("audit log", facts.log, source=upkeep.SEE_LOG.format(cutoff="…"))]
    log = facts.log.value
    since = f", the oldest of {moment(log.oldest)}" if log.oldest and log.rows else ""
    findings = [
        Finding(
            check="audit log",
            severity=Severity.WARNING if log.rows else Severity.OK,
            summary=f"{log.rows:,} audit rows are older than {span(facts.keep)} ({moment(log.cutoff)}){since}",
            resource=Resource(kind="audit rows", id=AUDIT_LOG),
            source=upkeep.SEE_LOG.format(cutoff=log.cutoff.isoformat()),
        )
    ]
    if log.kept:
        findings.append(
            Finding(
                check="kept",
                severity=Severity.OK,
                summary=f"old audit rows that stay, as something still rests on them: {len(log.kept):,}",
                evidence={
                    "kept": [str(each.id) for each in log.kept],
                    "details": [_kept(each) for each in log.kept[:_SHOWN]],
                },
            )
        )
    return findings


def _kept(kept: Kept) -> str:
    if kept.status is Status.DESTROYED:
        return f"{kept.sandbox}: it says that keys were left, which the clean-up has still to delete"
    return f"{kept.sandbox}: its last one, and the sandbox is {kept.status}"


def _tables(facts: Facts) -> list[Finding]:
    if isinstance(facts.database, Unknown):
        return [unknown("tables", facts.database, source=upkeep.SEE_UPKEEP)]
    tables = facts.database.value.tables
    return [_table(tables[name]) for name in TABLES if name in tables]


def _table(table: Upkeep) -> Finding:
    wrong = _wrong(table)
    vacuumed = f"last VACUUM: {_when(table.vacuumed_at)}, autovacuum: {_when(table.autovacuumed_at)}"
    return Finding(
        check="table",
        severity=Severity.WARNING if wrong else Severity.OK,
        summary=f"{table.name}: {table.dead:,} dead rows; {vacuumed}, ANALYZE: {_when(table.analyzed_at)}",
        resource=Resource(kind="table", id=table.name),
        evidence={"rows": table.live, "dead": table.dead, "bytes": table.bytes, "details": wrong},
        source=upkeep.SEE_UPKEEP,
    )


def _wrong(table: Upkeep) -> list[str]:
    """What is wrong with a table's upkeep, each with the command that mends it."""
    vacuum = f"VACUUM (ANALYZE) public.{table.name}"
    many = table.dead >= MANY_DEAD and table.dead >= (table.live + table.dead) * DEAD_SHARE
    told = []
    if table.off_everywhere:
        told.append(
            "autovacuum is off for the whole server: ALTER SYSTEM SET autovacuum = on, or its parameter group"
        )
    if table.off_here:
        told.append(f"its autovacuum is off: ALTER TABLE public.{table.name} RESET (autovacuum_enabled)")
    if many and table.last_vacuumed_at is None:
        told.append(f"it was never vacuumed: {vacuum}")
    elif many:
        told.append(f"{table.dead / (table.live + table.dead):.0%} of its rows are dead: {vacuum}")
    return told


def _when(at: datetime | None) -> str:
    return moment(at) if at else "never"


def _stuck(table: Upkeep, facts: Facts) -> Finding:
    """Dead rows that VACUUM left, and whose horizon was older than it: they may still be seen from there."""
    if isinstance(facts.holders, Unknown):
        details = [f"cannot tell who needs them: {facts.holders.reason}"]
    else:
        details = [_holder(each) for each in facts.holders.value if _holds(each, table)] or [_UNSEEN]
    return Finding(
        check="stuck",
        severity=Severity.WARNING,
        summary=f"{table.name}: {table.dead:,} dead rows stay until nobody may see them any more; then vacuum it again",
        resource=Resource(kind="table", id=table.name),
        evidence={"details": details},
        source=storage.SEE_HOLDERS,
    )


def _holds(holder: Holder, table: Upkeep) -> bool:
    """Whether it was there before the table was vacuumed, and holds back more than the system catalogs."""
    before = holder.since is None or table.vacuumed_at is None or holder.since <= table.vacuumed_at
    return before and "catalogs only" not in holder.kind


def _holder(holder: Holder) -> str:
    since = f", since {moment(holder.since, exact=True)}" if holder.since else ""
    return f"{holder.kind} {holder.name}{since}, {holder.age:,} transactions old"


def _trim(facts: Facts) -> Action | Finding | None:
    """The trim, or why there is none; None where nothing is old, or that is not known."""
    if isinstance(facts.log, Unknown) or not facts.log.value.rows:
        return None
    log = facts.log.value
    if isinstance(facts.database, Unknown) or AUDIT_LOG not in facts.database.value.tables:
        return _left(AUDIT_LOG, "cannot tell whether it may be trimmed")
    table = facts.database.value.tables[AUDIT_LOG]
    if barred := _barred(table, facts):
        return _left(AUDIT_LOG, barred)
    kept_in = None
    if facts.address:
        kept_in = Archive.of(
            log,
            address=facts.address,
            environment=facts.environment,
            database=facts.database.value.fingerprint,
            plan=f"{_NAME}-{facts.now:%Y%m%d-%H%M%S}",
        )
    where = f"into {kept_in.address} at first" if kept_in else "not archived: --archive keeps them"
    share = min(1.0, log.rows / table.live) if table.live else 1.0
    reason = f"older than {span(facts.keep)}; {where}"
    return trim_audit_log(log, size=int(table.bytes * share), kept_in=kept_in, reason=reason)


def _barred(table: Upkeep, facts: Facts) -> str:
    """Why the audit log is not to be trimmed; empty if it may be."""
    if table.lacks:
        rights = ", ".join(table.lacks)
        return f"it is not trimmed: this role lacks {rights}; {table.owner} may GRANT it"
    if isinstance(facts.depot, Unknown):
        return f"cannot tell whether an archive can be put there: {facts.depot.reason}"
    if facts.address and tuple(table.columns) != upkeep.COLUMNS:
        strange = ", ".join(sorted(set(table.columns) ^ set(upkeep.COLUMNS))) or "their order"
        return f"it is not trimmed: no archive is known of its columns ({strange})"
    return ""


def _vacuum(name: str, facts: Facts) -> Action | Finding | None:
    """The VACUUM of a table, or why there is none; None where nothing is known of it, which is said already."""
    if isinstance(facts.database, Unknown):
        return None
    table = facts.database.value.tables.get(name)
    if table is None:
        return _left(name, "there is no such table in the schema public")
    if not table.may_vacuum:
        return _left(name, f"this role may not vacuum it: {table.owner} may, or a role with MAINTAIN")
    if isinstance(facts.workers, Unknown):
        return _left(name, "cannot tell who is at work on it")
    if worker := next((each for each in facts.workers.value if each.table == name), None):
        return _left(name, f"somebody is at work on it: {worker.told}", source=upkeep.SEE_WORKERS)
    return vacuum_table(table, reason=f"{table.dead:,} dead rows; its statistics are gathered anew, too")


def _left(name: str, why: str, *, source: str = "") -> Finding:
    return left_alone(name, why, resource=Resource(kind="table", id=name), source=source)


RUNBOOK = Runbook(
    name=_NAME,
    title="The control tables' upkeep",
    gather=gather,
    diagnose=diagnose,
    propose=propose,
    existing=existing,
    remedies=remedies,
    outlook=outlook,
    pace=Pace(throttled=True),
    page=Page(
        text=__doc__,
        reads=rights.SANDBOXES | rights.AUDIT_LOG | rights.SESSIONS | rights.ARCHIVE,
        writes=taking(TrimAuditLog, VacuumTable) | rights.ARCHIVING,
        schedule="once a month",
        examples=(
            (f"{_NAME} --env production", "say what is old, and how the tables are; changes nothing"),
            (
                f"{_NAME} --env production --archive s3://my-bucket/audit --apply",
                "archive old audit rows, delete them, and vacuum, once confirmed",
            ),
            (f"{_NAME} --env production --keep 26w", "keep audit rows for half a year"),
        ),
        looks=(
            Look(what="how many audit rows are old", command=upkeep.SEE_LOG.format(cutoff="CUTOFF")),
            Look(what="sizes, dead rows, and when they were removed", command=upkeep.SEE_UPKEEP),
            Look(what="who is at work on the tables", command=upkeep.SEE_WORKERS),
            Look(what="who keeps dead rows from being removed", command=storage.SEE_HOLDERS),
        ),
        thresholds=(
            Threshold(
                name="kept for",
                value=lasting(KEEP),
                meaning="older audit rows are trimmed; --keep changes it",
            ),
            Threshold(
                name="kept at the least for", value=lasting(LEAST), meaning="--keep takes nothing shorter"
            ),
            Threshold(
                name="dead rows",
                value=f"{MANY_DEAD:,}, and {DEAD_SHARE:.0%} of the table",
                meaning="from this on there are more than autovacuum leaves",
            ),
        ),
    ),
)
