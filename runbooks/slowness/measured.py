"""How the database does its part of the status command: plans, indexes, statistics, and who waits for whom. Pure."""

from diagnostics import explain, waiting
from diagnostics.explain import Plan
from diagnostics.indexes import EXPECTED, SEE_INDEXES, SEE_TABLES, Expected, Index, Table, stands_for
from diagnostics.sessions import SEE_WAITING
from runbooks.engine.model import Finding, Resource, Severity
from runbooks.findings import unknown
from runbooks.slowness.evidence import (
    PATIENCE,
    Evidence,
    Waiting,
    barriers,
    being_made,
    lacking,
    misleading,
)
from runbooks.slowness.hindrances import DRAWN, statistics
from sandbox.errors import Busy
from sandbox.facts import Known, Unknown
from sandbox.text import counted, moment

__all__ = ["SLOW_STATEMENT", "database_findings"]

SLOW_STATEMENT = 500.0
"""Milliseconds from which a statement's plan is worth a warning for itself."""

_SHOWN = 5


def database_findings(evidence: Evidence) -> list[Finding]:
    """Return how each part of it is: what is not a cause, but worth a look, is a warning."""
    return [
        *_plans(evidence),
        *_indexes(evidence),
        *_statistics(evidence),
        *_waiting(evidence),
    ]


def _plans(evidence: Evidence) -> list[Finding]:
    """What PostgreSQL did for each of the command's statements; the slowest and the faulty ones as trees."""
    if isinstance(evidence.plans, Unknown):
        return [_unread("plans", evidence.plans, evidence, source=explain.SEE_PLAN.format(statement="…"))]
    plans = evidence.plans.value
    slowest = max(plans, key=lambda plan: plan.milliseconds, default=None)
    return [_plan(plan, slowest=plan is slowest) for plan in plans]


def _plan(plan: Plan, *, slowest: bool) -> Finding:
    faults = explain.flaws(plan)
    heavy = bool(faults) and plan.milliseconds >= SLOW_STATEMENT
    return Finding(
        check="plan",
        severity=Severity.WARNING if heavy else Severity.OK,
        summary=f"{plan.statement} takes {plan.milliseconds:.1f} ms"
        + ("" if faults else ": nothing is wrong with it"),
        evidence={
            "milliseconds": plan.milliseconds,
            "details": [fault.words for fault in faults[:_SHOWN]],
            "drawn": explain.drawn(plan, width=DRAWN) if slowest or heavy else [],
        },
        source=explain.SEE_PLAN.format(statement=plan.statement),
    )


def _unread(check: str, fact: Unknown, evidence: Evidence, *, source: str) -> Finding:
    """Say that something could not be read: behind a lock that is known that is no wonder, else it is unknown."""
    if isinstance(fact.error, Busy) and barriers(evidence):
        summary = f"{check}: not to be read while the control tables are locked"
        return Finding(check=check, severity=Severity.WARNING, summary=summary, source=source)
    return unknown(check, fact, source=source)


def _indexes(evidence: Evidence) -> list[Finding]:
    if isinstance(evidence.indexes, Unknown):
        return [_unread("indexes", evidence.indexes, evidence, source=SEE_INDEXES)]
    found = evidence.indexes.value
    told = [_lacks(expected, found, evidence) for expected, fault in lacking(evidence) if not fault]
    made = {each.index for each in evidence.building.value} if isinstance(evidence.building, Known) else set()
    kept = {
        stands.name: expected for expected in EXPECTED.values() if (stands := stands_for(expected, found))
    }
    for index in found:
        expected = kept.get(index.name)
        if expected and index.usable and not index.does(expected):
            told.append(_index(index, f"is defined otherwise than the migration does: {index.definition}"))
        elif not expected and not index.usable and index.name not in made:
            told.append(_index(index, "is invalid, and none of the migration's: DROP INDEX CONCURRENTLY it"))
        if index.bloated:
            size = f"{index.bytes / 2**20:.0f} MB, about {(index.needed or 0) / 2**20:.0f} MB would do"
            told.append(_index(index, f"is bloated: {size} (an estimate): REINDEX INDEX CONCURRENTLY it"))
    unused = [index.name for index in found if not index.scans]
    since = next((moment(index.since) for index in found if index.since), "the statistics began")
    summary = f"{len(EXPECTED) - len(lacking(evidence))} of the migration's {len(EXPECTED)} indexes are there and valid"
    details = [f"unused since {since}: {', '.join(unused)}"] if unused else []
    whole = Finding(
        check="indexes",
        severity=Severity.OK,
        summary=summary,
        evidence={"details": details},
        source=SEE_INDEXES,
    )
    return [*told, whole]


def _lacks(wanted: Expected, found: tuple[Index, ...], evidence: Evidence) -> Finding:
    name, progress = wanted.name, being_made(wanted, evidence)
    invalid = any(index.name == name for index in found)
    what = "is invalid: statements cannot use it" if invalid else "is missing"
    if progress:
        what = f"is not ready yet: session {progress.pid} makes it ({progress.told})"
    return Finding(
        check="index",
        severity=Severity.WARNING,
        summary=f"index {name} {what}; the status command does not feel it yet",
        resource=Resource(kind="index", id=name),
        source=SEE_INDEXES,
    )


def _index(index: Index, what: str) -> Finding:
    return Finding(
        check="index",
        severity=Severity.WARNING,
        summary=f"index {index.name} {what}",
        resource=Resource(kind="index", id=index.name),
        source=SEE_INDEXES,
    )


def _statistics(evidence: Evidence) -> list[Finding]:
    if isinstance(evidence.tables, Unknown):
        return [unknown("statistics", evidence.tables, source=SEE_TABLES)]
    felt = [table.name for table, fault in misleading(evidence) if fault]
    return [_table(table) for table in evidence.tables.value if table.name not in felt]


def _table(table: Table) -> Finding:
    off = "; its autovacuum is off" if table.autovacuum_off else ""
    return Finding(
        check="statistics",
        severity=Severity.WARNING if table.stale or table.autovacuum_off else Severity.OK,
        summary=statistics(table) + (": stale" if table.stale else "") + off,
        resource=Resource(kind="table", id=table.name),
        evidence={
            "believed": table.believed,
            "live": table.live,
            "dead": table.dead,
            "modified": table.modified,
        },
        source=SEE_TABLES,
    )


def _waiting(evidence: Evidence) -> list[Finding]:
    """Who waits for whom, apart from what bars the control tables, which is a cause."""
    if isinstance(evidence.waiting, Unknown):
        return [unknown("waiting", evidence.waiting, source=SEE_WAITING)]
    seen = evidence.waiting.value
    told = {barrier.tree.pid for barrier in barriers(evidence)}
    found = [_tree(tree, seen) for tree in seen.trees if tree.pid not in told]
    hidden = sum(each.state == "?" for each in seen.sessions)
    unseen = f"; what {hidden} of them do is hidden from this role: GRANT pg_read_all_stats" if hidden else ""
    waits = sum(bool(each.blocked_by) for each in seen.sessions)
    summary = f"{counted(len(seen.sessions), 'session')}, {waits} of them wait for a lock{unseen}"
    severity = Severity.UNKNOWN if hidden and waits else Severity.OK
    return [*found, Finding(check="waiting", severity=severity, summary=summary, source=SEE_WAITING)]


def _tree(tree: waiting.Tree, seen: Waiting) -> Finding:
    """A tree that has stood for longer than work takes is worth a look; it does not keep the status command."""
    waits = [each.statement_since for each in seen.sessions if each.blocked_by and each.statement_since]
    long = any(seen.now - since >= PATIENCE for since in waits)
    return Finding(
        check="waiting",
        severity=Severity.WARNING if long else Severity.OK,
        summary=f"{counted(tree.behind, 'session waits', 'sessions wait')} for session {tree.pid}; readers of the control tables do not",
        resource=Resource(kind="session", id=str(tree.pid)),
        evidence={"drawn": waiting.drawn(tree, seen.now, width=DRAWN)},
        source=SEE_WAITING,
    )
