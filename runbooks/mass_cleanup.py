"""Mass clean-up.

Trigger    far more sandboxes, remains and orphans than the scheduled job takes away; an emergency stop whose sandboxes are not
           to come back.
Symptoms   the count, disk and memory stay high though the job runs; what rb-sb-001 or rb-sb-003 proposes is over their limit.
Looks at   every row that is over, every schema, every key family in one pass; who uses what no sandbox owns; what
           elsewhere rests on a schema that would go.
May change it takes sandboxes that are over away for good: routes, keys, schemas, mappings (typed: `drop N`); so it does with
           keys that a destroyed one is known to have left because Redis was away. What else destroyed ones left, and what no
           sandbox owns, goes into quarantine. Never what is live, in use, or cannot be told; nothing while Redis does not
           say what keys there are.
How        by several workers, each with many targets at a time: one look at each server for all of them, one pass over Redis. It slows
           down, and waits, while production feels it. Ctrl-C finishes the step that each has in hand (a `cleanup-worker` its
           lot); `invoke resume --run ID` goes on.
Undo       `invoke undo --run ID` gives back what went into quarantine. What was taken away is gone.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from math import ceil
from typing import Any

from diagnostics.postgres import see_dependents
from diagnostics.streams import SEE_LISTENERS
from runbooks import looks, rights
from runbooks.engine.model import Action, Finding, Pace, Runbook, Severity
from runbooks.engine.page import Look, Page, Threshold
from runbooks.engine.permission import HANDING_OVER
from runbooks.engine.throttle import SHARE
from runbooks.findings import span, unknown
from runbooks.mass.candidates import (
    AT_WORK,
    EXPIRED,
    GROUPS,
    STUCK,
    Candidate,
    Choice,
    candidates,
    choose,
    group_of,
)
from runbooks.mass.evidence import Evidence, existing, gather
from runbooks.orphaned.evidence import SEE_KEYS, SEE_SCHEMAS, sources
from runbooks.remedies import CleanUp, QuarantineKeys, QuarantineSchema, remedies, taking
from sandbox.facts import Fact, Known, Unknown
from sandbox.text import lasting, size
from sandbox.usage import RECENT

__all__ = ["RUNBOOK", "diagnose", "outlook", "propose"]

WORKERS = 4
LOT = 10  # targets that a worker takes at a time
AMPLE = 125  # instead, where nobody else is at work
FAILURES = 20  # that do not stop the rest

_A_SECOND = 1.5  # targets, beside production, at the full share of time that the throttle gives
_SCANNED_A_SECOND = 1_000_000.0  # keys that a pass over Redis goes through
_PASSES = {"clean up sandbox": 1, "quarantine schema": 1, "quarantine keys": 4}  # for each lot
_SEE = 'psql "$DATABASE_URL" -c "SELECT status, count(*) FROM public.sandboxes GROUP BY status"'


def diagnose(evidence: Evidence) -> list[Finding]:
    """Say how much there is of each group, and what cannot be told. Pure."""
    return _diagnosed(evidence, candidates(evidence)[0])


def outlook(evidence: Evidence) -> list[Finding]:
    """Say what there is after a run, and what is not to be taken away just now: what it left half done, too. Pure."""
    found, left = candidates(evidence)
    return [*_diagnosed(evidence, found), *left]


def _diagnosed(evidence: Evidence, found: Sequence[Candidate]) -> list[Finding]:
    facts: dict[str, Fact[Any]] = {"sandboxes": evidence.due, "orphans": evidence.orphans}
    if isinstance(evidence.orphans, Known):
        facts |= dict(sources(evidence.orphans.value))
    silent = {name: fact for name, fact in facts.items() if isinstance(fact, Unknown)}
    findings = [unknown(name, fact) for name, fact in silent.items()]
    return findings + [_group(evidence, group, found, silent) for group in GROUPS if group not in silent]


def propose(evidence: Evidence, *, choice: Choice | None = None) -> tuple[list[Action], list[Finding]]:
    """Return an action for each that was chosen, the oldest of a group first, and a finding for what is left. Pure."""
    found, left = candidates(evidence)
    chosen, rest = choose(found, choice or Choice(), now=evidence.now)
    # Neighbours of one verb are taken together.
    ordered = sorted(chosen, key=lambda each: (GROUPS.index(each.group), each.action.verb))
    actions = [replace(each.action, id=f"a{number}") for number, each in enumerate(ordered, 1)]
    if actions:
        rest.append(_estimate(evidence, chosen))
    return actions, [*left, *rest]


def _group(evidence: Evidence, group: str, found: Sequence[Candidate], silent: Collection[str]) -> Finding:
    mine = [each for each in found if each.group == group]
    if not mine:
        if hidden := _hidden(evidence, group, silent):
            return unknown(group, Unknown(f"{hidden} unknown"), source=_SEE)
        return Finding(check=group, severity=Severity.OK, summary=f"{group}: none", source=_SEE)
    owners = Counter(each.owner for each in mine if each.owner)
    oldest = min((each.since for each in mine if each.since), default=None)
    told = [f"{group}: {len(mine):,}"]
    if owners:
        most, count = owners.most_common(1)[0]
        told.append(f"of {len(owners)} owners, {count:,} of them {most}'s")
    told.append(_amount(mine))
    if oldest:
        told.append(f"the oldest over for {span(evidence.now - oldest)}")
    return Finding(check=group, severity=Severity.WARNING, summary=", ".join(told), source=_SEE)


def _hidden(evidence: Evidence, group: str, silent: Collection[str]) -> str:
    """Return what is not known, where that keeps us from telling whether some of a group could go; it was told why."""
    due = evidence.due
    if group not in (EXPIRED, STUCK) or isinstance(due, Unknown):
        return next(iter(silent), "")
    concerned = evidence.untold and any(group_of(each.row) == group for each in due.value.over)
    return "keys" if concerned else ""


def _amount(some: Sequence[Candidate]) -> str:
    return f"{size(sum(each.bytes for each in some))} of schemas, {sum(each.keys for each in some):,} keys"


def _estimate(evidence: Evidence, chosen: Sequence[Candidate]) -> Finding:
    verbs = Counter(each.action.verb for each in chosen)
    scanned = evidence.scanned.value if isinstance(evidence.scanned, Known) else sum(e.keys for e in chosen)
    passes = sum(ceil(count / LOT) * _PASSES[verb] for verb, count in verbs.items())
    seconds = len(chosen) / _A_SECOND + passes * scanned / _SCANNED_A_SECOND
    took = f"about {span(timedelta(seconds=seconds))}" if seconds > 90 else "a minute or two"
    return Finding(
        check="estimate",
        severity=Severity.OK,
        summary=f"{len(chosen):,} targets, {_amount(chosen)}: {took} by {WORKERS} workers beside production's own work, far less where there is none",
    )


RUNBOOK = Runbook(
    name="mass-cleanup",
    title="Mass clean-up",
    gather=gather,
    diagnose=diagnose,
    propose=propose,
    existing=existing,
    remedies=remedies,
    outlook=outlook,
    pace=Pace(workers=WORKERS, lot=LOT, ample=AMPLE, failures=FAILURES, throttled=True),
    page=Page(
        text=__doc__,
        reads=rights.SANDBOXES
        | rights.AUDIT_LOG
        | rights.SESSIONS
        | rights.KEYS
        | rights.KEY_USE
        | rights.LISTENERS,
        writes=taking(CleanUp, QuarantineSchema, QuarantineKeys) | HANDING_OVER,
        examples=(
            ("mass-cleanup --env production", "say how much there is, and plan all of it; changes nothing"),
            (
                "mass-cleanup --env production --only expired,stuck --older-than 2d --limit 200 --max-targets 200 --apply",
                "take away the 200 oldest of a part, once confirmed",
            ),
            (
                "mass-cleanup --env production --apply --distributed --max-targets 5000",
                "let `cleanup-worker` on other hosts help",
            ),
            ("mass-cleanup --env production --watch", "follow the latest distributed run"),
        ),
        looks=(
            Look(what="how many there are of each status", command=_SEE),
            Look(what="the schemas", command=SEE_SCHEMAS),
            Look(what="the keys of one family", command=SEE_KEYS.format(token="ID")),
            Look(what="what elsewhere rests on a schema that would go", command=see_dependents("SCHEMA")),
            looks.SESSIONS,
            Look(what="who listens to a sandbox's events", command=SEE_LISTENERS),
        ),
        thresholds=(
            Threshold(name="workers", value=str(WORKERS), meaning="so many are at work at once, on one host"),
            Threshold(
                name="a lot",
                value=f"{LOT} targets, {AMPLE} where nobody else is at work",
                meaning="what a worker takes at a time, with one look for all of it; workers that are ready share a pass over Redis",
            ),
            Threshold(name="failures", value=str(FAILURES), meaning="when more targets have failed it stops"),
            Threshold(
                name="pace",
                value=f"{SHARE:.0%} of the time",
                meaning="at full pace the workers are at work together",
            ),
            Threshold(
                name="begun within",
                value=lasting(AT_WORK),
                meaning="whoever began to take a sandbox away may still be at it: left alone",
            ),
            Threshold(
                name="used within", value=lasting(RECENT), meaning="what somebody touched since is left alone"
            ),
        ),
    ),
)
