"""RB-SB-002: clean-ups fail.

Trigger    alarm sandbox-cleanup-failures: CleanupFailures over 0 within a quarter of an hour.
Symptoms   sandboxes that are over stay, stuck in `destroying` or `expired`; their schemas and keys take up room.
Looks at   the alarm; which sandboxes failed, at which step and why: the job's log, the audit table, what is left of each;
           objects elsewhere that rest on a schema; sessions and locks in the way; whether the servers answer, here and
           by AWS, and let the task in; the schedule, how the task's last runs ended, the worker service beside it.
May change it tries each of those sandboxes again, one by one with every step told, or by the deployed task with
           LOG_LEVEL=debug (--via ecs); it enables the schedule where it is disabled. An object outside of a sandbox's own
           schema is dropped only if it is named: --drop-object reporting.overview. No session is ended.
Undo       the schedule is disabled again by `invoke undo --run ID`. What is taken away or dropped cannot be given back:
           `drop N` has to be typed. The definition of a dropped object is in the plan and the journal.
"""

from collections.abc import Sequence
from datetime import datetime

from diagnostics.grouping import MOST_NAMES
from diagnostics.postgres import SEE_EVENTS
from diagnostics.stack import Stack
from runbooks import looks, rights
from runbooks.engine.model import Action, Finding, Resource, Runbook, Severity
from runbooks.engine.page import Look, Page, Threshold
from runbooks.engine.systems import Readers
from runbooks.findings import alarm_finding, span
from runbooks.overdue import cleaning, page
from runbooks.overdue import evidence as overdue
from runbooks.overdue.cleaning import existing
from runbooks.overdue.evidence import Behind, Database, Evidence
from runbooks.overdue.verdicts import confirmed_causes, job_findings, log_findings, server_findings
from runbooks.remedies import CleanUp, DropBlocker, EnableRule, RunTask, remedies, taking
from sandbox.facts import Known
from sandbox.metrics import ALARMS
from sandbox.model import Status
from sandbox.text import moment

__all__ = ["ALARM", "RUNBOOK", "diagnose", "gather", "propose"]

ALARM = "sandbox-cleanup-failures"
_CLEARED = "no sandbox is left that should be gone, so it clears with the next run of the job"


def gather(readers: Readers, *, now: datetime, deadline: float, stack: Stack) -> Evidence:
    """Read everything side by side, within `deadline` seconds."""
    return overdue.gather(readers, now=now, deadline=deadline, stack=stack, alarm=ALARM)


def diagnose(evidence: Evidence) -> list[Finding]:
    """Say which clean-ups failed, at which step, why, and what is unknown. Pure."""
    causes = confirmed_causes(evidence)
    failing = bool(causes or evidence.behind) or not _last_run_went_well(evidence)
    found = [*causes, alarm_finding(evidence.alarm, suffix=ALARM, confirmed=failing, cleared=_CLEARED)]
    if isinstance(evidence.database, Known):
        database = evidence.database.value
        found += [_failed(each, database, evidence) for each in evidence.behind]
        if not evidence.behind:
            waiting = (
                f"; {evidence.fresh} have just ended and are the job's next run's" if evidence.fresh else ""
            )
            summary = f"no sandbox is left that should be gone{waiting}"
            found.append(Finding(check="failed", severity=Severity.OK, summary=summary))
    return found + job_findings(evidence) + log_findings(evidence) + server_findings(evidence)


def _last_run_went_well(evidence: Evidence) -> bool:
    """Whether the database tells that nothing is left, and the job's last run had no failure; unknown is no."""
    last = evidence.reported[-1:]
    return isinstance(evidence.database, Known) and bool(last) and not last[0].failed


def propose(
    evidence: Evidence, *, via: str = "library", objects: Sequence[str] = ()
) -> tuple[list[Action], list[Finding]]:
    """Return the retries, and before them the drops of the objects that were named. Pure."""
    return cleaning.propose(evidence, runbook="rb-sb-002", via=via, objects=objects)


def _failed(each: Behind, database: Database, evidence: Evidence) -> Finding:
    """One sandbox that should be gone: since when, at which step it stopped, and what the log and the audit say."""
    row = each.row
    logged = _logged(each, evidence)
    step, why = _step(each, evidence)
    details = [f"the log says: {said}" for said in logged]
    if each.last:
        details.append(f"audit: {each.last.event} by {each.last.actor}, {moment(each.last.at)}")
    return Finding(
        check="failed",
        severity=Severity.WARNING,
        resource=Resource(kind="sandbox", id=row.name),
        summary=f"sandbox {row.name} of {row.owner} is {row.status}, over for {span(database.now - each.since)}; "
        f"{step}: {why}",
        evidence={"step": step, "schemas": list(each.schemas), "details": details},
        source=SEE_EVENTS.format(id=row.id),
    )


def _step(each: Behind, evidence: Evidence) -> tuple[str, str]:
    """Return the step that it stopped at, and why, as far as what is seen now tells."""
    if blockers := evidence.blocking(each):
        return "drop schema", f"{blockers[0].kind} {blockers[0].name} rests on it"
    if holders := evidence.holding(each):
        return "drop schema", f"session {holders[0].pid} of {holders[0].user} {holders[0].how}"
    if each.row.status is Status.DESTROYED:
        return "delete keys", "Redis did not answer when it was destroyed"
    steps = [step for group in evidence.logged(each) for step in group.steps]
    if steps:
        return steps[0], "as the log says"
    if each.row.status is Status.DESTROYING:
        return "begun, and not ended", "nothing revisits it but the clean-up of this toolkit"
    if not _all_known(evidence):
        return "step not known", "not all of the log, the locks and the dependents could be read"
    return "not begun", "no error of the log names it"


def _all_known(evidence: Evidence) -> bool:
    """Whether the log was read whole, with all the names in it, and so was what could be in the way."""
    if not isinstance(evidence.errors, Known) or not evidence.errors.value.complete:
        return False
    counted = all(len(group.sandboxes) < MOST_NAMES for group in evidence.groups)
    return counted and isinstance(evidence.blockers, Known) and isinstance(evidence.holders, Known)


def _logged(each: Behind, evidence: Evidence) -> list[str]:
    """What the log says of its kind of error: a sample may be another sandbox's."""
    return [group.fingerprint for group in evidence.logged(each)[:2]]


RUNBOOK = Runbook(
    name="rb-sb-002",
    title="Clean-ups fail",
    alarm=ALARM,
    gather=gather,
    diagnose=diagnose,
    propose=propose,
    existing=existing,
    remedies=remedies,
    page=Page(
        text=__doc__,
        reads=rights.OVERDUE,
        writes=taking(CleanUp, DropBlocker, EnableRule, RunTask),
        examples=(
            (
                "rb-sb-002 --env production",
                "say which fail, where and why, and propose to try again; changes nothing",
            ),
            (
                "rb-sb-002 --env production --drop-object reporting.overview",
                "also drop this object, which keeps a schema from going",
            ),
            (
                "rb-sb-002 --env production --via ecs --apply",
                "try again by the deployed task, watched to its end",
            ),
        ),
        looks=(
            looks.alarm(ALARM),
            Look(what="what happened to a sandbox last", command=SEE_EVENTS.format(id="ID")),
            *page.LOOKS,
        ),
        thresholds=(
            Threshold(
                name="failures",
                value=str(ALARMS[ALARM].threshold),
                meaning="the alarm rings when more are counted",
            ),
            *page.THRESHOLDS,
        ),
    ),
)
