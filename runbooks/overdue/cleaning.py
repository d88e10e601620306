"""What is proposed for sandboxes that are over: to take them away, and first what keeps them from going. Pure.

One at a time by this toolkit, or all at once by the deployed task. What rests on a schema from elsewhere goes only if it
was named; a session that is in the way is named with the statement that ends it, and never ended here.
"""

import shlex
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from diagnostics.compute import Scheduled, TaskDefinition, TaskTarget
from runbooks.engine.model import Action, Finding, Resource, Reversibility
from runbooks.findings import left_alone, span
from runbooks.overdue.evidence import Behind, Evidence
from runbooks.remedies.task import as_planned, danger
from sandbox.errors import ArrakisError
from sandbox.facts import Known, Unknown
from sandbox.schemas import Blocker
from sandbox.text import counted, near

__all__ = ["cleaning", "clearing", "existing", "propose"]


def propose(
    evidence: Evidence, *, runbook: str, via: str = "library", objects: Sequence[str] = ()
) -> tuple[list[Action], list[Finding]]:
    """Return the actions, and a finding for the sandboxes that are left alone.

    `via` is `library` or `ecs`; `objects` are those outside of a sandbox's schema that may be dropped, by name. One is dropped
    only if its sandbox can go then. Raises ArrakisError for an object that is in nobody's way.
    """
    _insist_on_blockers(evidence, objects)
    going: list[Behind] = []
    staying: dict[str, list[Behind]] = defaultdict(list)
    for each in evidence.behind:
        reason = _why_not(evidence, each, objects)
        (staying[reason] if reason else going).append(each)
    left = [_left_alone(alike, reason) for reason, alike in staying.items()]
    drops = [blocker for each in going for blocker in evidence.blocking(each)]
    actions = [_dropping(blocker) for blocker in drops]
    hazard = _hazard(evidence, cleared={blocker.name for blocker in drops})
    if via == "library":
        now = evidence.database.value.now if isinstance(evidence.database, Known) else evidence.now
        actions += [cleaning(each, now=now) for each in going]
    elif going:
        task = _task(evidence, hazard, staying=[each for alike in staying.values() for each in alike])
        if isinstance(task, Finding):
            left.append(task)
        else:
            actions.append(_running(evidence, *task, token=f"{runbook}-{evidence.now:%Y%m%d%H%M%S%f}"))
    if enabling := _enabling(evidence):
        actions += [] if hazard else enabling
        left += [left_alone("the schedule stays disabled", hazard)] if hazard else []
    return [replace(action, id=f"a{number}") for number, action in enumerate(actions, 1)], left


def existing(evidence: Evidence) -> int | None:
    """How many sandboxes there are that are not destroyed, or destroyed with keys left; None when unknown."""
    if not isinstance(evidence.database, Known):
        return None
    left = {each.row.id for each in evidence.over if not each.row.live}
    return sum(row.live for row in evidence.database.value.rows) + len(left)


def _insist_on_blockers(evidence: Evidence, objects: Sequence[str]) -> None:
    """Raise ArrakisError for an object that was named and is in nobody's way, or that nobody can tell of."""
    if not objects:
        return
    for name in ("database", "blockers"):
        if isinstance(fact := getattr(evidence, name), Unknown):
            raise ArrakisError(f"cannot tell what rests on the schemas: {fact.reason}", hint=fact.hint)
    found = {blocker.name: blocker for each in evidence.behind for blocker in evidence.blocking(each)}
    for name in objects:
        if name not in found:
            meant = near(name, found) or ", ".join(found)
            hint = f"did you mean {meant}?" if meant else "nothing is in the way"
            raise ArrakisError(f"no object {name!r} rests on a schema that should go", hint=hint)
        if not found[name].statement:
            raise ArrakisError(f"no statement drops {found[name].described} safely", hint="clear it by hand")


def _why_not(evidence: Evidence, each: Behind, objects: Sequence[str]) -> str | None:
    """Why a sandbox is left alone, or None. What an answer rests on and is unknown is a reason."""
    for what in ("blockers", "holders", "redis"):
        fact = getattr(evidence, what)
        if isinstance(fact, Unknown):
            return f"cannot tell whether all of it could go: {what} unknown ({fact.reason})"
    if denied := [name for name in each.schemas if name in _not_ours(evidence)]:
        return f"this role may not drop {', '.join(denied)}: use its owner's DATABASE_URL"
    resting = [blocker for blocker in evidence.blocking(each) if blocker.name not in objects]
    if resting:
        return "; ".join(map(clearing, resting))
    if holders := evidence.holding(each):
        return "; ".join(
            f"session {held.pid} of {held.user} {held.how}: {held.statement}" for held in holders
        )
    return None


def clearing(blocker: Blocker) -> str:
    """Say what rests on a schema from elsewhere, and how it is cleared."""
    how = "clear it by hand"
    if blocker.statement:
        how = f"{blocker.statement} or rb-sb-002 --drop-object {shlex.quote(blocker.name)}"
    return f"{blocker.kind} {blocker.name} rests on its schema: {how}"


def _hazard(evidence: Evidence, *, cleared: Collection[str]) -> str | None:
    """Why the deployed job must not be let loose now, or None: it asks nobody, and drops with CASCADE whatever is due."""
    for name in ("database", "blockers", "holders"):
        if isinstance(fact := getattr(evidence, name), Unknown):
            return f"cannot tell what it would take along: {name} unknown ({fact.reason})"
    if isinstance(evidence.definitions, Unknown):
        return f"cannot tell what it starts: {evidence.definitions.reason}"
    due = [blocker for each in evidence.over for blocker in evidence.blocking(each)]
    if resting := [blocker for blocker in due if blocker.name not in cleared]:
        return f"its CASCADE would take along {', '.join(f'{each.kind} {each.name}' for each in resting)}"
    return next(filter(None, (danger(*each) for each in evidence.scheduled)), None)


def _not_ours(evidence: Evidence) -> tuple[str, ...]:
    return evidence.database.value.not_ours if isinstance(evidence.database, Known) else ()


def _left_alone(alike: Sequence[Behind], reason: str) -> Finding:
    names = [each.row.name for each in alike]
    told = f"sandbox {names[0]} is" if len(names) == 1 else f"sandboxes {', '.join(names)} are"
    return left_alone(
        f"{told} left alone",
        reason,
        resource=Resource(kind="sandbox", id=names[0]) if len(names) == 1 else None,
        evidence={"sandboxes": names},
    )


def _enabling(evidence: Evidence) -> list[Action]:
    """The schedule, if it is known to be disabled."""
    if not isinstance(evidence.rule, Known) or evidence.rule.value is None or evidence.rule.value.enabled:
        return []
    name = evidence.rule.value.name
    return [
        Action(
            id="",
            verb="enable rule",
            resource=Resource(kind="rule", id=name),
            before={"name": name, "enabled": False},
            after={"enabled": True},
            reason=f"it is disabled; its next run takes away what is due, now {counted(len(evidence.over), 'sandbox', 'sandboxes')}",
            reversibility=Reversibility.REVERSIBLE,
        )
    ]


def _dropping(blocker: Blocker) -> Action:
    return Action(
        id="",
        verb="drop object",
        resource=Resource(kind=blocker.kind, id=blocker.name),
        before={
            "schema": blocker.schema,
            "name": blocker.name,
            "statement": blocker.statement,
            "definition": blocker.definition,
        },
        after={},
        reason=f"it was named, and rests on {blocker.schema}",
        reversibility=Reversibility.IRREVERSIBLE,
    )


def cleaning(each: Behind, *, now: datetime) -> Action:
    """Return the action that takes a sandbox away; its id is the caller's to give."""
    return Action(
        id="",
        verb="clean up sandbox",
        resource=Resource(kind="sandbox", id=each.row.name),
        before={
            "id": str(each.row.id),
            "status": each.row.status.value,
            "owner": each.row.owner,
            "schemas": list(each.schemas),
        },
        after={},
        reason=f"it is {each.row.status}, over for {span(now - each.since)}",
        reversibility=Reversibility.IRREVERSIBLE,
    )


def _task(evidence: Evidence, hazard: str | None, *, staying: Sequence[Behind]) -> Scheduled | Finding:
    """The task that the schedule starts, or why it is not run."""
    stack, what = evidence.stack, "the deployed task is not run"
    if hazard:
        return left_alone(what, hazard)
    if staying:
        names = ", ".join(each.row.name for each in staying)
        return left_alone(what, f"it asks nobody, and would try {names} as well")
    if evidence.gone:
        return left_alone(what, f"{', '.join(evidence.gone)} is no task definition that ECS starts")
    mine = [each for each in evidence.scheduled if each[0].family == stack.cleanup_family]
    if len(mine) != 1:
        return left_alone(
            what, f"{stack.cleanup_rule} has {len(mine)} targets that run {stack.cleanup_family}"
        )
    return mine[0]


def _running(evidence: Evidence, task: TaskTarget, definition: TaskDefinition, *, token: str) -> Action:
    return Action(
        id="",
        verb="run clean-up task",
        resource=Resource(kind="task", id=evidence.stack.cleanup_family),
        before={
            "token": token,
            "planned_at": evidence.now.isoformat(),
            "rule": evidence.stack.cleanup_rule,
            "family": evidence.stack.cleanup_family,
            **as_planned(task, definition),
            "sandboxes": {str(each.row.id): each.row.name for each in evidence.over},
        },
        after={},
        reason="it takes away " + ", ".join(each.row.name for each in evidence.over),
        reversibility=Reversibility.IRREVERSIBLE,
    )
