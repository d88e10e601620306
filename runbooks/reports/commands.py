"""The commands that a report ends with: what applies a plan, takes up a run, or undoes it."""

from runbooks.engine.apply import Outcome
from runbooks.engine.environment import Environment, command, naming
from runbooks.engine.guards import blast_radius, targets
from runbooks.engine.model import SETTLED, Phase, Reversibility
from runbooks.engine.operate import Diagnosis
from runbooks.engine.work import UNDO, Result

__all__ = ["applying", "resumable", "resuming", "reverting", "undoable"]

_BEGUN = (Phase.DONE, Phase.FAILED, Phase.STARTED)


def applying(found: Diagnosis, *, incident: str = "") -> str | None:
    """Return the command that applies what a diagnosis proposes; None where that is nothing."""
    if found.plan is None:
        return None
    raised = ""
    if not found.runbook.urgent and not blast_radius(found.plan, None).allowed:
        raised = f" --max-targets {targets(found.plan.actions)}"
    return _call(f"apply --plan {found.plan.id}", found.environment, incident) + raised


def resuming(outcome: Outcome, environment: Environment, *, incident: str = "") -> str | None:
    """Return the command that takes up a run; None where nothing failed, and all was reached and finished."""
    if not resumable(outcome):
        return None
    return _call(f"resume --run {outcome.run}", environment, incident)


def reverting(outcome: Outcome, environment: Environment, *, incident: str = "") -> str | None:
    """Return the command that undoes a run; None where there is nothing to undo, or it was an undo itself."""
    if outcome.plan.undoes or not any(undoable(result) for result in outcome.results):
        return None
    return _call(f"undo --run {outcome.run}", environment, incident)


def resumable(outcome: Outcome) -> bool:
    """Whether something failed, was not finished, or not reached."""
    return any(result.phase not in SETTLED for result in outcome.results)


def undoable(result: Result) -> bool:
    """Whether something was done, or begun, that can be undone."""
    action = result.action
    lasting = action.reversibility is not Reversibility.REVERSIBLE or action.verb.startswith(UNDO)
    return not lasting and result.phase in _BEGUN


def _call(called: str, environment: Environment, incident: str) -> str:
    telling = f" --incident {incident}" if incident else ""
    return f"{command(environment)} {called}{naming(environment)}{telling}"
