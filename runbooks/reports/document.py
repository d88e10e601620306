"""The one JSON document that --json prints, for every outcome, errors included. docs/schemas/outcome.json describes it."""

from typing import Any

from runbooks.engine.apply import Outcome
from runbooks.engine.errors import Exit, LeaseHeld, Refused
from runbooks.engine.operate import Diagnosis
from runbooks.engine.plan import as_json
from sandbox.errors import ArrakisError, Unreachable

__all__ = ["applied", "diagnosed", "exit_of", "failed"]

_WORDS = {
    Exit.HEALTHY: "healthy",
    Exit.ERROR: "error",
    Exit.PROPOSED: "proposed",
    Exit.UNKNOWN: "unknown",
    Exit.REFUSED: "refused",
    Exit.PARTLY: "partly applied",
    Exit.HELD: "held",
}


def diagnosed(found: Diagnosis) -> dict[str, Any]:
    """Return the document of a diagnosis."""
    plan = as_json(found.plan) if found.plan else None
    return {
        "runbook": found.runbook.name,
        "environment": found.environment.name,
        "outcome": _WORDS[found.exit],
        "exit": int(found.exit),
        "findings": [as_json(finding) for finding in found.findings],
        "plan": plan,
        "run": None,
        "error": None,
    }


def applied(outcome: Outcome) -> dict[str, Any]:
    """Return the document of a run."""
    word = "applied" if outcome.exit is Exit.HEALTHY else _WORDS[outcome.exit]
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
    plan = as_json(outcome.plan)
    return {
        "runbook": outcome.plan.runbook,
        "environment": outcome.plan.environment.name,
        "outcome": word,
        "exit": int(outcome.exit),
        "findings": plan["findings"],
        "plan": plan,
        "run": {
            "id": outcome.run,
            "results": results,
            "outlook": [as_json(finding) for finding in outcome.outlook],
        },
        "error": None,
    }


def failed(error: ArrakisError, *, runbook: str | None, environment: str | None) -> dict[str, Any]:
    """Return the document of an error."""
    code = exit_of(error)
    return {
        "runbook": runbook,
        "environment": environment,
        "outcome": _WORDS[code],
        "exit": int(code),
        "findings": [],
        "plan": None,
        "run": None,
        "error": {"message": str(error), "hint": error.hint},
    }


def exit_of(error: ArrakisError) -> Exit:
    """Return the exit code of an error."""
    if isinstance(error, LeaseHeld):
        return Exit.HELD
    if isinstance(error, Unreachable):
        return Exit.UNKNOWN
    return Exit.REFUSED if isinstance(error, Refused) else Exit.ERROR
