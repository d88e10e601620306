"""RB-SB-006: the status command is slow.

Trigger    no alarm: somebody says that `gaib sandbox status` takes more than five seconds.
Symptoms   developers wait for the status of a sandbox, or are told that parts of it cannot be told.
Looks at   the command's own steps, timed; the plans of its statements, really run (read only); the control tables' indexes and
           statistics; who waits for whom; Redis: how long PINGs take, its slow commands, memory and clients; how long
           connecting takes; what CloudWatch says of CPU, CPU credits and latency.
May change it makes the migration's indexes that are missing or invalid (CREATE INDEX CONCURRENTLY), analyzes tables whose
           statistics are stale, cancels or ends the session at the root of those that bar readers from the control tables.
Undo       `invoke undo --run ID` drops an index that was made. New statistics lose nothing. What a session had not committed
           when it was ended or cancelled is lost: `end N` or `cancel N` has to be typed.
"""

import shlex
from dataclasses import replace

from diagnostics import waiting
from diagnostics.indexes import EXPECTED, SEE_INDEXES, SEE_PROGRESS, TABLES, Expected, stands_for
from diagnostics.latency import SEE_STATUS, Step, Timed
from diagnostics.sessions import SEE_WAITING, Session
from runbooks import rights
from runbooks.engine.model import Action, Finding, Runbook, Severity
from runbooks.engine.page import Page, Threshold
from runbooks.findings import left_alone, unknown
from runbooks.remedies import AnalyzeTable, CancelQuery, CreateIndex, EndSession, remedies, taking
from runbooks.remedies.indexes import analyze_table, create_index
from runbooks.remedies.sessions import IDLE_LIMIT, Why, cancel_query, end_session
from runbooks.slowness import page
from runbooks.slowness.answering import server_findings
from runbooks.slowness.evidence import Barrier, Evidence, barriers, gather, lacking, misleading
from runbooks.slowness.hindrances import causes, holder
from runbooks.slowness.measured import database_findings
from sandbox.facts import Known, Unknown
from sandbox.text import moment

__all__ = ["RUNBOOK", "diagnose", "existing", "gather", "outlook", "propose"]

SLOW = 5.0
"""Seconds from which a status command is an incident."""

SLOW_STEPS = {"look-up": 1.0, "routes": 1.0, "keys": 2.0, "events": 2.0}
"""Seconds that a step of it may take."""


def diagnose(evidence: Evidence) -> list[Finding]:
    """Say what keeps the status command waiting, how long each part takes, and what is unknown. Pure."""
    return [
        *causes(evidence),
        _timed(evidence),
        *database_findings(evidence),
        *server_findings(evidence),
    ]


def propose(evidence: Evidence) -> tuple[list[Action], list[Finding]]:
    """Return what would mend it, and what was left alone with the reason. Pure."""
    if isinstance(evidence.waiting, Unknown):
        return [], [_left("who holds the control tables is not known", source=SEE_WAITING)] if _wanting(
            evidence
        ) else []
    actions: list[Action] = []
    left: list[Finding] = []
    barred = barriers(evidence)
    for barrier in barred:
        found = _against(barrier, evidence)
        if isinstance(found, Action):
            actions.append(found)
        else:
            left.append(_left(found, source=SEE_WAITING))
    if barred:
        left.append(
            _left("indexes and statistics are for the next run: the tables are locked", source=SEE_WAITING)
        )
    else:
        made, told = _mended(evidence)
        actions, left = actions + made, left + told
    return [replace(action, id=f"a{number}") for number, action in enumerate(actions, 1)], left


def existing(evidence: Evidence) -> int | None:
    """Return how much there is that could be acted on: the control tables, their indexes, and the sessions."""
    if not isinstance(evidence.waiting, Known):
        return None
    return len(TABLES) + len(EXPECTED) + len(evidence.waiting.value.sessions)


def outlook(evidence: Evidence) -> list[Finding]:
    """Say, after a run, how long the status command takes by now, and what still keeps it waiting. Pure."""
    return [*causes(evidence), _timed(evidence)]


def _wanting(evidence: Evidence) -> bool:
    return bool(lacking(evidence) or misleading(evidence))


def _left(why: str, *, source: str) -> Finding:
    return left_alone("left alone", why, source=source)


def _against(barrier: Barrier, evidence: Evidence) -> Action | str:
    """What is done about the root, or why nothing is."""
    session, who = barrier.tree.session, holder(barrier, evidence)
    if session is None:
        prepared = barrier.tree.pid == waiting.PREPARED
        what = (
            "COMMIT or ROLLBACK PREPARED what pg_prepared_xacts names"
            if prepared
            else "it is no client's session"
        )
        return f"{who}: {what}"
    if session.ours:
        return f"{who} {session.spared}"
    if session.spared:
        return f"{who} {session.spared}; whoever may ends it: SELECT pg_terminate_backend({session.pid})"
    why = _why(session, evidence)
    if why is None:
        return f"{who} nobody else waits for it: look whose it is, or end it by hand"
    reason = f"{session.who}: it bars readers from {', '.join(barrier.tables)}"
    if session.idle_in_transaction:
        return end_session(session, reason=reason, why=why)
    if session.state == "active":
        return _against_work(session, reason=reason, evidence=evidence)
    return f"{who} it is neither at work nor idle in a transaction"


def _against_work(session: Session, *, reason: str, evidence: Evidence) -> Action:
    """Cancel what it runs; one whose very statement was cancelled before, in vain, is ended."""
    if isinstance(evidence.unheeded, Unknown):
        unsure = f"{reason}; whether it was cancelled before cannot be told: {evidence.unheeded.reason}"
        return cancel_query(session, reason=unsure, why=Why.BLOCKING)
    if found := next((each for each in evidence.unheeded.value if each.is_of(session)), None):
        told = f"{reason}; run {found.run} cancelled its statement at {moment(found.told_at)}, and it runs on"
        return end_session(session, reason=told, why=Why.UNHEEDED)
    return cancel_query(
        session, reason=f"{reason}; if that does not help, run this again to end it", why=Why.BLOCKING
    )


def _why(session: Session, evidence: Evidence) -> Why | None:
    """By which rule a session may be signalled: others than this toolkit wait for it, or it has been idle for long."""
    assert isinstance(evidence.waiting, Known)  # or there were no session
    seen = evidence.waiting.value
    if any(session.pid in each.blocked_by and not each.ours for each in seen.sessions):
        return Why.BLOCKING
    return Why.IDLE if session.idle_for(seen.now) > IDLE_LIMIT else None


def _mended(evidence: Evidence) -> tuple[list[Action], list[Finding]]:
    actions: list[Action] = []
    left: list[Finding] = []
    found = evidence.indexes.value if isinstance(evidence.indexes, Known) else ()
    for expected, fault in lacking(evidence):
        index = stands_for(expected, found)
        if busy := _being_made(expected, evidence):
            left.append(_left(busy, source=SEE_PROGRESS))
        elif expected.primary:
            left.append(
                _left(f"{expected.name}, a primary key: foreign keys went with it", source=SEE_INDEXES)
            )
        elif index and (index.constraint or not index.does(expected)):
            mend = f"REINDEX INDEX CONCURRENTLY public.{index.name}"
            left.append(_left(f"{index.name} is invalid, and not to be dropped: {mend}", source=SEE_INDEXES))
        else:
            reason = fault.words if fault else "the migration makes it"
            actions.append(create_index(expected, leftover=index is not None, reason=reason))
    for table, fault in misleading(evidence):
        actions.append(analyze_table(table, reason=fault.words if fault else "its statistics are stale"))
    return actions, left


def _being_made(expected: Expected, evidence: Evidence) -> str | None:
    """Say whether an index is being made on the same table: what looks left behind may be that, and two wait for each other."""
    if isinstance(evidence.building, Unknown):
        return f"cannot tell whether {expected.name} is being made just now: {evidence.building.reason}"
    for each in evidence.building.value:
        if each.table == expected.table:
            which = each.index or "an index"
            what = "it" if each.index == expected.name else f"{which} on its table"
            return (
                f"{expected.name}: session {each.pid} makes {what} at this moment ({each.told}): wait for it"
            )
    return None


def _timed(evidence: Evidence) -> Finding:
    """How long the command takes, and each of its steps with its share."""
    source = SEE_STATUS.format(name="NAME")
    if isinstance(evidence.timed, Unknown):
        return unknown("status command", evidence.timed, source=source)
    timed = evidence.timed.value
    slow = [step for step in timed.steps if _took(step, timed) >= SLOW_STEPS.get(step.name, SLOW)]
    unanswered = [step for step in timed.steps if step.trouble]
    severity = Severity.OK
    if timed.seconds >= SLOW:
        severity = Severity.CRITICAL
    elif slow or unanswered or timed.locked:
        severity = Severity.WARNING if causes(evidence) or not unanswered else Severity.UNKNOWN
    told = f"{timed.what} takes {timed.seconds:.2f} s"
    if slow:
        told += f", most of it the {max(slow, key=lambda step: _took(step, timed)).name}"
    return Finding(
        check="status command",
        severity=severity,
        summary=f"{told}; over {SLOW:g} s is an incident",
        evidence={
            "seconds": timed.seconds,
            "steps": {step.name: step.seconds for step in timed.steps},
            "details": [*(_step(step, timed.seconds) for step in timed.steps), *_side_by_side(timed)],
        },
        source=SEE_STATUS.format(name=shlex.quote(timed.sandbox or "NAME")),
    )


def _side_by_side(timed: Timed) -> list[str]:
    """Say why the steps take more than the whole, where they do."""
    together = sum(step.seconds or 0.0 for step in timed.steps)
    return ["all but the look-up are asked side by side"] if together > timed.seconds else []


def _took(step: Step, timed: Timed) -> float:
    """The seconds of a step; one that gave no answer has taken all that there were at the most."""
    return timed.seconds if step.seconds is None else step.seconds


def _step(step: Step, whole: float) -> str:
    if step.seconds is None:
        return f"{step.name}: {step.trouble}"
    share = f" ({step.seconds / whole:.0%})" if whole else ""
    return f"{step.name}: {step.seconds * 1000:.0f} ms{share}: {step.trouble or step.said}"


RUNBOOK = Runbook(
    name="rb-sb-006",
    title="The status command is slow",
    gather=gather,
    diagnose=diagnose,
    propose=propose,
    existing=existing,
    remedies=remedies,
    outlook=outlook,
    timed=True,
    page=Page(
        text=__doc__,
        reads=rights.SANDBOXES
        | rights.MAPPINGS
        | rights.SESSIONS
        | rights.JOURNAL
        | rights.REDIS
        | rights.KEYS
        | rights.KEY_SERVER
        | rights.WORKERS
        | rights.INSTANCE
        | rights.CACHE,
        writes=taking(CreateIndex, AnalyzeTable, EndSession, CancelQuery),
        examples=(
            ("rb-sb-006 --env production", "say what keeps the status command waiting; changes nothing"),
            ("rb-sb-006 --env production --sandbox my-sandbox", "time the status of this very sandbox"),
            ("rb-sb-006 --env production --apply", "propose what mends it, and apply it once confirmed"),
        ),
        looks=page.LOOKS,
        thresholds=(
            Threshold(name="the command", value=f"{SLOW:g} s", meaning="from this on it is an incident"),
            *(
                Threshold(name=f"its step: {step}", value=f"{seconds:g} s", meaning="from this on it is slow")
                for step, seconds in SLOW_STEPS.items()
            ),
            *page.THRESHOLDS,
        ),
    ),
)
