"""What is proposed for sandboxes that are over: to take them away, and first what keeps them from going. Pure.

One at a time by this toolkit, or all at once by the deployed task. What rests on a schema from elsewhere goes only if it
was named; a session that is in the way is named with the statement that ends it, and never ended here.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from difflib import get_close_matches

from diagnostics.compute import TaskTarget
from runbooks.engine.model import Action, Finding, Resource, Reversibility, Severity
from runbooks.findings import span
from runbooks.overdue import Behind, Evidence
from sandbox.errors import ArrakisError
from sandbox.facts import Known, Unknown
from sandbox.schemas import Blocker

__all__ = ["existing", "propose"]

Make = Callable[[str], Action]
"""Makes an action of its id."""


def propose(
    evidence: Evidence, *, runbook: str, via: str = "library", objects: Sequence[str] = ()
) -> tuple[list[Action], list[Finding]]:
    """Return the actions, and a finding for each sandbox that is left alone.

    `via` is `library` or `ecs`; `objects` are those outside of a sandbox's schema that may be dropped, by name. Raises
    ArrakisError for an object that is in nobody's way.
    """
    named = _named(evidence, objects)
    made: list[Make] = [*_enabling(evidence), *(_dropping(blocker) for blocker in named)]
    going: list[Behind] = []
    staying: dict[str, list[Behind]] = defaultdict(list)
    for each in evidence.behind:
        reason = _why_not(evidence, each, objects)
        (staying[reason] if reason else going).append(each)
    left = [_left_alone(alike, reason) for reason, alike in staying.items()]
    if via == "ecs" and going:
        task = _task(evidence)
        if isinstance(task, Finding):
            left.append(task)
        else:
            made.append(_running(evidence, task, going, token=f"{runbook}-{evidence.now:%Y%m%d%H%M%S}"))
    elif going:
        made += [_cleaning(evidence, each) for each in going]
    return [make(f"a{number}") for number, make in enumerate(made, 1)], left


def existing(evidence: Evidence) -> int | None:
    """How many sandboxes there are that are not destroyed; None when unknown."""
    if not isinstance(evidence.database, Known):
        return None
    return sum(row.live for row in evidence.database.value.rows)


def _named(evidence: Evidence, objects: Sequence[str]) -> list[Blocker]:
    """The blockers that were named on the command line, in the order in which they can be dropped."""
    if not objects:
        return []
    if isinstance(evidence.blockers, Unknown):
        raise ArrakisError(
            f"cannot tell what rests on the schemas: {evidence.blockers.reason}", hint=evidence.blockers.hint
        )
    found = [blocker for blocker in evidence.blockers.value if blocker.name in objects]
    names = [blocker.name for blocker in evidence.blockers.value]
    for name in objects:
        if name not in names:
            near = get_close_matches(name, names, 1) or names
            hint = f"did you mean {', '.join(near)}?" if near else "nothing is in the way"
            raise ArrakisError(f"no object {name!r} rests on a schema that should go", hint=hint)
    if stuck := [blocker for blocker in found if not blocker.statement]:
        raise ArrakisError(
            f"no statement drops {stuck[0].kind} {stuck[0].name} safely", hint="clear it by hand"
        )
    return found


def _why_not(evidence: Evidence, each: Behind, objects: Sequence[str]) -> str | None:
    """Why a sandbox is left alone, or None. What an answer rests on and is unknown is a reason."""
    for what in ("blockers", "holders", "redis"):
        fact = getattr(evidence, what)
        if isinstance(fact, Unknown):
            return f"cannot tell whether all of it could go: {what} unknown ({fact.reason})"
    resting = [blocker for blocker in evidence.blocking(each) if blocker.name not in objects]
    if resting:
        first = resting[0]
        how = (
            f"{first.statement} or rb-sb-002 --drop-object {first.name}"
            if first.statement
            else "clear it by hand"
        )
        return f"{first.kind} {first.name} rests on its schema: {how}"
    if holders := evidence.holding(each):
        return f"session {holders[0].pid} of {holders[0].user} {holders[0].how}: {holders[0].statement}"
    return None


def _left_alone(alike: Sequence[Behind], reason: str) -> Finding:
    names = [each.row.name for each in alike]
    told = f"sandbox {names[0]} is" if len(names) == 1 else f"sandboxes {', '.join(names)} are"
    return Finding(
        check="left alone",
        severity=Severity.UNKNOWN if reason.startswith("cannot tell") else Severity.WARNING,
        summary=f"{told} left alone: {reason}",
        resource=Resource(kind="sandbox", id=names[0]) if len(names) == 1 else None,
        evidence={"sandboxes": names},
    )


def _enabling(evidence: Evidence) -> list[Make]:
    """The schedule, if it is known to be disabled."""
    if not isinstance(evidence.rule, Known) or evidence.rule.value is None or evidence.rule.value.enabled:
        return []
    name = evidence.rule.value.name
    return [
        lambda action_id: Action(
            id=action_id,
            verb="enable rule",
            resource=Resource(kind="rule", id=name),
            before={"name": name, "enabled": False},
            after={"enabled": True},
            reason="it starts the clean-up, and is disabled",
            reversibility=Reversibility.REVERSIBLE,
        )
    ]


def _dropping(blocker: Blocker) -> Make:
    return lambda action_id: Action(
        id=action_id,
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


def _cleaning(evidence: Evidence, each: Behind) -> Make:
    assert isinstance(evidence.database, Known)  # it told who is behind
    late = span(evidence.database.value.now - each.since)
    return lambda action_id: Action(
        id=action_id,
        verb="clean up sandbox",
        resource=Resource(kind="sandbox", id=each.row.name),
        before={
            "id": str(each.row.id),
            "status": each.row.status.value,
            "owner": each.row.owner,
            "schemas": list(each.schemas),
        },
        after={},
        reason=f"it is {each.row.status}, over since {late}",
        reversibility=Reversibility.IRREVERSIBLE,
    )


def _task(evidence: Evidence) -> TaskTarget | Finding:
    """The task that the schedule starts, or why it cannot be run."""
    rule = evidence.rule
    if isinstance(rule, Known) and rule.value and rule.value.targets:
        return rule.value.targets[0]
    reason = rule.reason if isinstance(rule, Unknown) else f"{evidence.stack.cleanup_rule} starts no ECS task"
    return Finding(
        check="left alone",
        severity=Severity.UNKNOWN if isinstance(rule, Unknown) else Severity.WARNING,
        summary=f"the deployed task is not run: nobody can tell how it is started: {reason}",
    )


def _running(evidence: Evidence, task: TaskTarget, going: Sequence[Behind], *, token: str) -> Make:
    return lambda action_id: Action(
        id=action_id,
        verb="run clean-up task",
        resource=Resource(kind="task", id=evidence.stack.cleanup_family),
        before={
            "token": token,
            "family": evidence.stack.cleanup_family,
            "cluster": task.cluster,
            "task_definition": task.task_definition,
            "launch_type": task.launch_type,
            "capacity": list(task.capacity),
            "network": dict(task.network),
            "overrides": dict(task.overrides),
            "sandboxes": [each.row.name for each in going],
        },
        after={},
        reason=f"it takes away the {len(going)} sandboxes that are over, and whatever else is due by then",
        reversibility=Reversibility.IRREVERSIBLE,
    )
