"""A result as a note on an incident's timeline: plain text that reads well on a phone, the answer first, the command last."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime

from runbooks.engine.apply import Outcome
from runbooks.engine.environment import CUSTOM, Environment
from runbooks.engine.errors import Exit
from runbooks.engine.guards import blast_radius, targets
from runbooks.engine.model import Finding, Plan, Severity
from runbooks.engine.operate import Diagnosis
from runbooks.reports.clock import universal, utc
from runbooks.reports.commands import resumable, undoable
from runbooks.reports.terminal import ORDER, undoing, verdict
from sandbox.errors import ArrakisError
from sandbox.text import clean, counted

__all__ = ["applied", "diagnosis", "failed", "healthy", "unmatched"]

_ALIKE, _LINES, _SOURCES, _UNDONE = 3, 30, 3, 10  # of each so many; the terminal and --report have them all
_LINE = 400  # characters: several lines of a phone


def diagnosis(found: Diagnosis, *, incident: str, said: str, at: datetime, actor: str) -> str:
    """Return a diagnosis: what is wrong, the evidence in brief, what is proposed, and the command that applies it anywhere.

    That command looks again and asks first: the plan itself is on the host where it was made. `said` are the options that the
    diagnosis was made with, so that nothing else is proposed.
    """
    where = found.environment
    lines = [f"{found.runbook.name.upper()} {found.runbook.title}, {where.name}: {verdict(found)}", ""]
    lines += _findings(found.findings)
    sources = list(dict.fromkeys(each.source for each in found.findings if each.source and _wrong(each)))
    if sources:
        lines += ["", "To see it by hand:", *(f"  {_brief(source)}" for source in sources[:_SOURCES])]
    lines += ["", *_proposed(found, incident, said)]
    return "\n".join([*lines, "", _signature(at, actor)])


def applied(outcome: Outcome, *, incident: str, environment: Environment, at: datetime, actor: str) -> str:
    """Return what became of a run: how much was done, what was not and why, what was measured then, and how to undo it."""
    done, total = sum(each.settled for each in outcome.results), len(outcome.results)
    plan = outcome.plan
    word = f"undid {plan.undoes}" if plan.undoes else "applied"
    verified = ", verified" if outcome.exit is Exit.HEALTHY else ""
    lines = [
        f"{plan.runbook.upper()} in {environment.name}, {word}: {done} of {counted(total, 'action')}{verified}"
    ]
    lines += [f"  {kind}: {count}" for kind, count in _kinds(plan).items()]
    undone = [each for each in outcome.results if not each.settled]
    for each in undone[:_UNDONE]:
        state = each.phase.value if each.phase else "not reached"
        lines.append(f"{state.upper()} {clean(each.action.resource.id)}: {_brief(each.reason)}")
    if len(undone) > _UNDONE:
        lines.append(f"and {len(undone) - _UNDONE} more that were not done")
    lines += [f"LEFT ALONE {_brief(each.summary)}" for each in outcome.left[:_UNDONE]]
    if outcome.outlook:
        lines += ["", "Measured again:", *_findings(outcome.outlook)]
    lines += ["", f"Run {outcome.run}"]
    if resumable(outcome):
        lines.append(f"To go on:  {_call(environment, f'resume --run {outcome.run}', incident)}")
    if any(undoable(each) for each in outcome.results) and not plan.undoes:
        lines.append(f"To undo it:  {_call(environment, f'undo --run {outcome.run}', incident)}")
    return "\n".join([*lines, "", _signature(at, actor)])


def failed(error: ArrakisError, *, task: str, environment: str, at: datetime, actor: str) -> str:
    """Return why a task did not come to a result."""
    lines = [f"{task} in {environment} did not go through: {_brief(str(error))}"]
    if error.hint:
        lines.append(f"Next: {_brief(error.hint)}")
    return "\n".join([*lines, "", _signature(at, actor)])


def unmatched(alarms: Sequence[tuple[str, str]], *, at: datetime, actor: str) -> str:
    """Return for which alarms nothing was run, each with the reason."""
    lines = [f"Nothing was run for {_brief(name)}: {_brief(reason)}" for name, reason in alarms]
    return "\n".join([*lines, "", _signature(at, actor)])


def healthy(environment: str, *, at: datetime, actor: str) -> str:
    """Return why an incident is resolved."""
    told = f"Looked once more at {environment}: everything is healthy, so the incident is resolved."
    return "\n".join([told, "", _signature(at, actor)])


def _proposed(found: Diagnosis, incident: str, said: str) -> list[str]:
    plan = found.plan
    if plan is None:
        return ["Nothing is proposed."]
    lines = [f"Proposed: {counted(len(plan.actions), 'action')}, {undoing(plan)}"]
    lines += [f"  {kind}: {count}" for kind, count in _kinds(plan).items()]
    last = ""  # an emergency's own task applies what it says
    if not found.runbook.urgent:
        limit = blast_radius(plan, None)
        last = " --apply" + ("" if limit.allowed else f" --max-targets {targets(plan.actions)}")
        lines.append(f"Blast radius: {limit.reason}.")
    called = f"{found.runbook.name} {said}".rstrip()
    lines.append("To apply it (looks again, and asks first):")
    return [*lines, f"  {_call(found.environment, called, incident)}{last}"]


def _call(environment: Environment, called: str, incident: str) -> str:
    """Return a command for whoever reads it, on another host: it names the environment, whatever is set here."""
    base, named = ("invoke lab", "") if environment.lab else ("invoke", f" --env {environment.name}")
    return f"{base} {called}{'' if environment.name == CUSTOM else named} --incident {incident}"


def _findings(findings: Sequence[Finding]) -> list[str]:
    """Tell what is wrong or unknown, the worst first, of those that are alike the first ones; where nothing is, what was found well."""
    ordered = sorted(findings, key=lambda each: ORDER.index(each.severity))
    alike: dict[tuple[Severity, str], list[Finding]] = defaultdict(list)
    for each in [each for each in ordered if _wrong(each)] or ordered:
        alike[each.severity, each.check].append(each)
    lines = []
    for (severity, check), several in alike.items():
        lines += [f"{severity.value.upper()} {_brief(each.summary)}" for each in several[:_ALIKE]]
        if len(several) > _ALIKE:
            lines.append(f"  and {len(several) - _ALIKE} more: {clean(check)}")
    return lines[:_LINES] + (["…"] if len(lines) > _LINES else [])


def _wrong(finding: Finding) -> bool:
    return finding.severity is not Severity.OK


def _kinds(plan: Plan) -> Counter[str]:
    return Counter(clean(each.verb) for each in plan.actions)


def _brief(text: str) -> str:
    line = universal(clean(text))
    return line if len(line) <= _LINE else f"{line[: _LINE - 1]}…"


def _signature(at: datetime, actor: str) -> str:
    return f"{utc(at)}, {clean(actor)}"
