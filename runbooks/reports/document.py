"""The one JSON document that --json prints, for every outcome, errors included. docs/schemas/outcome.json describes it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from runbooks.engine.apply import Outcome
from runbooks.engine.environment import Environment
from runbooks.engine.errors import Exit, LeaseHeld, Refused
from runbooks.engine.journal import JournalEntry
from runbooks.engine.operate import Diagnosis
from runbooks.engine.plan import as_json
from runbooks.reports.commands import applying, resuming, reverting
from runbooks.reports.terminal import achieved, verdict
from runbooks.reports.timeline import Note, timeline
from sandbox.errors import ArrakisError, Unreachable

__all__ = ["WORDS", "applied", "diagnosed", "exit_of", "failed"]

WORDS = {
    Exit.HEALTHY: "healthy",
    Exit.ERROR: "error",
    Exit.PROPOSED: "proposed",
    Exit.UNKNOWN: "unknown",
    Exit.REFUSED: "refused",
    Exit.PARTLY: "partly applied",
    Exit.HELD: "held",
}
"""How each exit code is told in a document."""


def diagnosed(found: Diagnosis, *, notes: Sequence[Note] = (), incident: str = "") -> dict[str, Any]:
    """Return the document of a diagnosis: `notes` is what people said meanwhile.

    The command that applies it tells the `incident` too, if one is named.
    """
    findings = [as_json(finding) for finding in found.findings]
    return {
        "runbook": found.runbook.name,
        "title": found.runbook.title,
        **_circumstances(found.environment, found.at, found.by),
        "outcome": WORDS[found.exit],
        "exit": int(found.exit),
        "verdict": verdict(found),
        "findings": findings,
        "plan": as_json(found.plan) if found.plan else None,
        "run": None,
        "error": None,
        "next": _next(apply=applying(found, incident=incident)),
        "timeline": timeline(findings, notes=notes),
    }


def applied(
    outcome: Outcome,
    *,
    environment: Environment,
    title: str,
    at: datetime,
    by: str,
    records: Sequence[JournalEntry] = (),
    notes: Sequence[Note] = (),
    incident: str = "",
) -> dict[str, Any]:
    """Return the document of a run: `title` is its runbook's, `records` its journal; the rest is as for a diagnosis."""
    plan = as_json(outcome.plan)
    return {
        "runbook": outcome.plan.runbook,
        "title": title,
        **_circumstances(environment, at, by),
        "outcome": "applied" if outcome.exit is Exit.HEALTHY else WORDS[outcome.exit],
        "exit": int(outcome.exit),
        "verdict": achieved(outcome),
        "findings": plan["findings"],
        "plan": plan,
        "run": _run(outcome),
        "error": None,
        "next": _next(
            resume=resuming(outcome, environment, incident=incident),
            undo=reverting(outcome, environment, incident=incident),
        ),
        "timeline": timeline(plan["findings"], records=records, plan=outcome.plan, notes=notes),
    }


def failed(
    error: ArrakisError, *, runbook: str | None, environment: str | None, at: datetime | None = None
) -> dict[str, Any]:
    """Return the document of an error: `at` is when it was met."""
    code = exit_of(error)
    return {
        "runbook": runbook,
        "title": None,
        "environment": environment,
        "lab": environment == "lab",
        "at": at.astimezone(UTC).isoformat() if at else None,
        "by": None,
        "outcome": WORDS[code],
        "exit": int(code),
        "verdict": None,
        "findings": [],
        "plan": None,
        "run": None,
        "error": {"message": str(error), "hint": error.hint},
        "next": _next(),
        "timeline": [],
    }


def exit_of(error: ArrakisError) -> Exit:
    """Return the exit code of an error."""
    if isinstance(error, LeaseHeld):
        return Exit.HELD
    if isinstance(error, Unreachable):
        return Exit.UNKNOWN
    return Exit.REFUSED if isinstance(error, Refused) else Exit.ERROR


def _circumstances(environment: Environment, at: datetime, by: str) -> dict[str, Any]:
    moment = at.astimezone(UTC).isoformat()
    return {"environment": environment.name, "lab": environment.lab, "at": moment, "by": by}


def _next(
    *, apply: str | None = None, resume: str | None = None, undo: str | None = None
) -> dict[str, str | None]:
    return {"apply": apply, "resume": resume, "undo": undo}


def _run(outcome: Outcome) -> dict[str, Any]:
    results = [
        {
            "action": result.action.id,
            "resource": as_json(result.action)["resource"],
            "phase": result.phase.value if result.phase else None,
            "settled": result.settled,
            "reason": result.reason,
        }
        for result in outcome.results
    ]
    return {
        "id": outcome.run,
        "results": results,
        "outlook": [as_json(finding) for finding in outcome.outlook],
    }
