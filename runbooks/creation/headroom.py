"""How much room there is to create schemas in: connections, pools, storage, the table of locks, the catalog. Pure."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from diagnostics import storage
from diagnostics.pooler import SEE_POOLS, Pool
from diagnostics.postgres import SEE_CONNECTIONS, SEE_SESSIONS
from diagnostics.servers import SEE_INSTANCE
from diagnostics.sessions import SEE_SESSION
from runbooks.creation.evidence import Facts
from runbooks.engine.model import Finding, Severity
from runbooks.findings import instance_finding, span, unknown
from runbooks.probing import Answer, by_lock_table, part
from sandbox.facts import Fact, Known, Unknown
from sandbox.text import counted, moment

__all__ = ["MANY_RELATIONS", "MUCH_WAL", "SOON", "room_findings"]

MANY_RELATIONS = 100_000
"""Relations in the catalog: with more of them backups, VACUUM and a restart grow slow."""

MUCH_WAL = 2**30
"""Bytes of write-ahead log that a slot which nobody reads holds back: more of them are a warning."""

SOON = timedelta(days=7)
"""Storage that runs out within this is a warning."""

_SHOWN = 5
_LONG = timedelta(days=365)
_GIB, _MIB = 2**30, 2**20
_GAIN = 0.01  # of the storage: who gains as much between two points has enlarged it, or taken something away
_LOCKS_A_DROP = 75


def room_findings(facts: Facts) -> list[Finding]:
    """Return how much of everything there is left, who has it, and when it runs out."""
    return [
        *_connections(facts),
        *_idle(facts),
        _pooler(facts),
        instance_finding(facts.instance),
        *_trend(facts),
        _each("sizes", facts.sizes, storage.SEE_SIZES, lambda seen: _sizes(seen, facts)),
        _each("dead rows", facts.dead, storage.SEE_DEAD, _dead),
        _each("WAL", facts.wal, storage.SEE_WAL, _wal),
        _each("replication slots", facts.slots, storage.SEE_SLOTS, _slots),
        _each("vacuum", facts.holders, storage.SEE_HOLDERS, _holders),
        *_catalog(facts),
    ]


def _each(
    check: str, fact: Fact[Any], source: str, told: Callable[[Any], tuple[Severity, str, list[str]]]
) -> Finding:
    """Say what is told of a fact: how bad it is, in one line, and in detail."""
    if isinstance(fact, Unknown):
        return unknown(check, fact, source=source)
    severity, summary, details = told(fact.value)
    return Finding(
        check=check, severity=severity, summary=summary, evidence={"details": details}, source=source
    )


def _connections(facts: Facts) -> list[Finding]:
    if isinstance(facts.database, Unknown):
        return [unknown("database", facts.database, source=SEE_CONNECTIONS)]
    seen = facts.database.value.connections
    details = [group.told for group in seen.groups[:_SHOWN]]
    details += [f"and {len(seen.groups) - _SHOWN} more kinds"] if len(seen.groups) > _SHOWN else []
    details += [
        f"{each.kind} {each.name}: {each.used} of {each.most} that it may have" for each in seen.quotas
    ]
    hidden = sum(each.state == "?" and not each.superuser for each in facts.database.value.sessions)
    if hidden:
        details.append(f"whether {hidden} of them are idle is hidden from this role: GRANT pg_read_all_stats")
    unsure = Severity.UNKNOWN if hidden else Severity.OK
    return [
        Finding(
            check="connections",
            severity=Severity.WARNING if facts.short_of_connections else unsure,
            summary=f"{seen.used} of {seen.limit} connections are used, {seen.reserved} are kept for superusers",
            evidence={"details": details, "used": seen.used, "limit": seen.limit},
            source=SEE_CONNECTIONS,
        )
    ]


def _idle(facts: Facts) -> list[Finding]:
    """Those that are idle in a transaction beyond the limit: in the way, or only told."""
    if not isinstance(facts.database, Known) or not facts.idle:
        return []
    now = facts.database.value.now
    details = [
        f"{each.pid} {each.user} ({each.application or 'no name'}) on {each.database}: "
        f"{span(each.idle_for(now))}, {facts.why_held(each) or 'nobody is kept from anything'}; it ran: {each.query}"
        for each in facts.idle[:_SHOWN]
    ]
    details += [f"and {len(facts.idle) - _SHOWN} more"] if len(facts.idle) > _SHOWN else []
    in_the_way = any(facts.why_held(each) for each in facts.idle)
    return [
        Finding(
            check="idle in transaction",
            severity=Severity.WARNING if in_the_way else Severity.OK,
            summary=f"{counted(len(facts.idle), 'session is', 'sessions are')} idle in a transaction for more than 10 minutes",
            evidence={"details": details, "pids": [each.pid for each in facts.idle]},
            source=SEE_SESSION.format(pid=facts.idle[0].pid),
        )
    ]


def _pooler(facts: Facts) -> Finding:
    if isinstance(facts.pooler, Unknown):
        return unknown("PgBouncer", facts.pooler, source=SEE_POOLS)
    seen = facts.pooler.value
    if seen is None:
        summary = "no pooler at this address: PostgreSQL is used directly"
        return Finding(check="PgBouncer", severity=Severity.OK, summary=summary, source=SEE_POOLS)
    clients = f"{seen.clients if seen.clients is not None else '?'} of {seen.most_clients or '?'} clients"
    waiting = sum(pool.waiting for pool in seen.pools)
    return Finding(
        check="PgBouncer",
        severity=Severity.WARNING if seen.full or facts.exhausted_pools else Severity.OK,
        summary=f"PgBouncer: {clients}, {waiting} wait for a connection, {counted(len(seen.pools), 'pool')}",
        evidence={"details": [_pool(pool) for pool in seen.pools[:_SHOWN]]},
        source=SEE_POOLS,
    )


def _pool(pool: Pool) -> str:
    waiting = (
        f", {pool.waiting} wait, the first for {pool.longest_wait.total_seconds():.1f} s"
        if pool.waiting
        else ""
    )
    size = f" of {pool.size}" if pool.size else ""
    return (
        f"{pool.user} on {pool.database} ({pool.mode}): {counted(pool.clients, 'client')}{waiting}; "
        f"{pool.busy} busy and {pool.idle} idle{size} connections"
    )


def _trend(facts: Facts) -> list[Finding]:
    """When the storage runs out, if it goes on as it did."""
    if not isinstance(facts.instance, Known) or len(facts.instance.value.free) < 2:
        return []
    seen = facts.instance.value
    window, end = (
        seen.free[-1][0] - seen.free[0][0],
        storage.runs_out(seen.free, gain=seen.storage_gib * _GIB * _GAIN),
    )
    told = f"storage over the last {span(window)}: {seen.free[0][1] / _GIB:.1f} to {seen.free[-1][1] / _GIB:.1f} GiB left"
    severity = Severity.OK
    if end is None or end - facts.now > _LONG:
        told += "; at this pace it does not run out"
    elif end <= facts.now:
        told += "; it has run out"
        severity = Severity.WARNING
    else:
        told += f"; at this pace it runs out on {end:%Y-%m-%d}, in {span(end - facts.now)}"
        severity = Severity.WARNING if end - facts.now < SOON else Severity.OK
    if seen.most_gib and seen.most_gib > seen.storage_gib:
        told += f"; RDS enlarges it by itself up to {seen.most_gib} GiB"
    source = SEE_INSTANCE.format(identifier=seen.identifier)
    evidence = {"points": [[moment, value / _GIB] for moment, value in seen.free]}
    return [Finding(check="storage trend", severity=severity, summary=told, evidence=evidence, source=source)]


def _sizes(seen: tuple[storage.Size, ...], facts: Facts) -> tuple[Severity, str, list[str]]:
    if not seen:
        return Severity.OK, "no sandbox's schema takes any room", []
    most = seen[0]
    severity = Severity.WARNING if facts.short_of_storage else Severity.OK
    details = [f"{size.name}: {size.bytes / _MIB:.1f} MiB" for size in seen]
    return severity, f"the largest schema is {most.name}, with {most.bytes / _MIB:.1f} MiB", details


def _dead(seen: tuple[storage.DeadRows, ...]) -> tuple[Severity, str, list[str]]:
    if not seen:
        return Severity.OK, "no sandbox's table has dead rows", []
    details = [
        f"{each.name}: {each.dead} dead, {each.live} live, "
        + (f"vacuumed {moment(each.vacuumed_at)}" if each.vacuumed_at else "never vacuumed")
        for each in seen
    ]
    return Severity.OK, f"most dead rows: {seen[0].dead} in {seen[0].name}", details


def _wal(seen: storage.Wal) -> tuple[Severity, str, list[str]]:
    return Severity.OK, f"write-ahead log: {seen.bytes / _MIB:.0f} MiB in {seen.files} files", []


def _slots(seen: tuple[storage.Slot, ...]) -> tuple[Severity, str, list[str]]:
    if not seen:
        return Severity.OK, "no replication slots hold back the write-ahead log", []
    idle = [slot for slot in seen if not slot.active and (slot.retained or 0) > MUCH_WAL]
    details = [
        f"{slot.name} ({slot.kind}, {'active' if slot.active else 'nobody reads it'}): "
        f"{(slot.retained or 0) / _MIB:.0f} MiB held back {slot.status}".rstrip()
        for slot in seen[:_SHOWN]
    ]
    if not idle:
        return Severity.OK, f"{len(seen)} replication slots, none left behind by its reader", details
    what = f"replication slot {idle[0].name} holds back {(idle[0].retained or 0) / _GIB:.1f} GiB, and nobody reads it"
    return Severity.WARNING, what, details


def _holders(seen: tuple[storage.Holder, ...]) -> tuple[Severity, str, list[str]]:
    if not seen:
        return Severity.OK, "nothing keeps VACUUM from removing dead rows", []
    details = [
        f"{each.kind} {each.name}: {each.age} transactions"
        + (f", since {moment(each.since)}" if each.since else "")
        for each in seen
    ]
    what = f"VACUUM removes nothing newer than {seen[0].age} transactions: {seen[0].kind} {seen[0].name} holds it back"
    return Severity.WARNING, what, details


def _catalog(facts: Facts) -> list[Finding]:
    """How full the table of locks is, and how many schemas there are, with what that means for a drop."""
    if isinstance(facts.database, Unknown):
        return []
    seen = facts.database.value
    answer, held = by_lock_table(part(facts.database, lambda database: database.locks))
    drops = seen.locks.room // _LOCKS_A_DROP
    catalog = seen.catalog
    many = catalog.relations > MANY_RELATIONS
    return [
        Finding(
            check="lock table",
            severity=Severity.WARNING if answer is Answer.CONFIRMED else Severity.OK,
            summary=f"{held}; dropping a schema takes about {_LOCKS_A_DROP}, so there is room for {drops} at once",
            source=SEE_SESSIONS,
        ),
        Finding(
            check="catalog",
            severity=Severity.WARNING if many else Severity.OK,
            summary=(
                f"{catalog.schemas} sandboxes' schemas with {catalog.in_sandboxes} of {catalog.relations} relations; "
                f"their list takes {catalog.bytes / _MIB:.1f} MiB"
                + ("; backups, VACUUM and a restart grow slow with so many" if many else "")
            ),
            source=storage.SEE_CATALOG,
        ),
    ]
