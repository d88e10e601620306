"""The deployed clean-up task and its schedule: run once and watched, or enabled again."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from diagnostics.compute import (
    Rule,
    Scheduled,
    TaskDefinition,
    TaskRun,
    TaskTarget,
    read_definition,
    read_rule,
    read_tasks,
)
from runbooks.engine.gate import Gate
from runbooks.engine.model import Action, Observation, State
from runbooks.rights import RUNNING, SCHEDULING
from sandbox import cleanup, registry, schemas, teardown
from sandbox.errors import ArrakisError

__all__ = ["HIDDEN", "ORPHANS", "TRANSFORMED", "EnableRule", "RunTask", "as_planned", "danger"]

ORPHANS = "it is told to clean up orphans (CLEANUP_ORPHANED), and takes live sandboxes for such"
HIDDEN = (
    "cannot tell whether it is told to clean up orphans: a file or a secret may say so;"
    " CLEANUP_ORPHANED=false in its definition would settle it"
)
TRANSFORMED = "cannot tell what it is told: its rule makes that of an event (InputPath or InputTransformer)"

_OWN = "runbooks"  # the container of this toolkit's own job, as deploy/terraform calls it: it puts orphans into quarantine
_POLL, _LONGEST_POLL = 0.5, 10.0  # seconds between two looks at a task
_PATIENCE = 15 * 60.0  # seconds that it is watched for: the schedule's interval
_REMEMBERED = timedelta(minutes=55)


def danger(target: TaskTarget, definition: TaskDefinition) -> str | None:
    """Say whether a task is told to clean up orphans, by its containers' definitions or by what overrides them; None if it is not.

    What is written in a file or a secret is not read: it may be told there, where the definition does not say.
    """
    if target.transformed:
        return TRANSFORMED
    told, hidden = dict[str, str](), set[str]()
    for container in (*definition.containers, *(target.overrides.get("containerOverrides") or ())):
        if (name := container.get("name")) == _OWN:
            continue
        for each in _variables(container, "environment"):
            told[name] = str(each.get("value"))
        if container.get("environmentFiles") or _variables(container, "secrets"):
            hidden.add(name)
    if "true" in map(str.lower, told.values()):
        return ORPHANS
    return HIDDEN if hidden - told.keys() else None


def _variables(container: Mapping[str, Any], where: str) -> list[Mapping[str, Any]]:
    return [each for each in container.get(where) or () if each.get("name") == "CLEANUP_ORPHANED"]


def as_planned(target: TaskTarget, definition: TaskDefinition) -> dict[str, Any]:
    """Return how a task is started, as a plan keeps it. Overrides may hold secrets: what tells them from others is kept."""
    overrides = json.dumps(target.overrides, sort_keys=True, default=str)
    return {
        "cluster": target.cluster,
        "task_definition": target.task_definition,
        "network": dict(target.network),
        "overrides": hashlib.sha256(overrides.encode()).hexdigest(),
        "roles": definition.handed(target.overrides),
    }


class EnableRule:
    """Enables a schedule again; undone by disabling it. put_rule would forget all that it is not told."""

    verb = "enable rule"
    rights = SCHEDULING

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look at its state."""
        rule = read_rule(self._gate.read.aws, action.before["name"])
        if rule is None:
            return Observation(state=State.CHANGED, reason="there is no such rule any more")
        if rule.enabled:
            return Observation(state=State.AFTER, reason="it is enabled")
        return Observation(state=State.BEFORE, reason="it is disabled")

    def in_use(self, action: Action) -> str | None:
        """Nobody uses a schedule; but say what the job that it starts would take along."""
        rule = read_rule(self._gate.read.aws, action.before["name"])
        return _hazard(self._gate, _startable(self._gate, rule))

    def apply(self, action: Action) -> None:
        """Enable it."""
        with self._gate.lease():
            self._gate.write.aws.write("events", "enable_rule", Name=action.before["name"])

    def revert(self, action: Action) -> None:
        """Disable it."""
        with self._gate.lease():
            self._gate.write.aws.write("events", "disable_rule", Name=action.before["name"])


class RunTask:
    """Runs the deployed clean-up task once, as its schedule does but with LOG_LEVEL=debug, and watches it to its end.

    The task bears the plan's own token, so that an interrupted run finds it again instead of starting another one. What the
    schedule hands to the task may hold secrets: it is read again when the task is started, and not kept in the plan.
    """

    verb = "run clean-up task"
    rights = RUNNING

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look for the task, and how it ended. ECS forgets one about an hour after its end: then nobody can tell."""
        task = self._task(action)
        if task is None:
            age = datetime.now(UTC) - datetime.fromisoformat(action.before["planned_at"])
            if age > _REMEMBERED:
                why = "cannot tell whether it ran: ECS forgets a task within the hour"
                return Observation(state=State.CHANGED, reason=why)
            return Observation(state=State.BEFORE, reason="it was not started")
        evidence = {"task": task.id}
        if not task.ended:
            return Observation(
                state=State.PARTLY, reason=f"task {task.id} is {task.status}", evidence=evidence
            )
        # The deployed job ends with 0 even if every sandbox failed: what is left tells.
        stayed = self._stayed(action)
        total = len(action.before["sandboxes"])
        told = (
            f"task {task.id} {task.failure or 'ended'}; {total - len(stayed)} of {total} sandboxes are gone"
        )
        told += f", still there: {', '.join(stayed)}" if stayed else ""
        return Observation(
            state=State.CHANGED if stayed else State.AFTER,
            reason=told,
            evidence={**evidence, "stayed": stayed},
        )

    def in_use(self, action: Action) -> str | None:
        """Say whether another one is running just now, or what its CASCADE would take along."""
        others = [
            task
            for task in self._tasks(action)
            if not task.ended and task.started_by != action.before["token"]
        ]
        if others:
            return f"task {others[0].id} is {others[0].status} already"
        if self._task(action):  # it was started: what remains is to watch it
            return None
        return _hazard(self._gate, [self._scheduled(action)])

    def apply(self, action: Action) -> None:
        """Start it, unless it was started, and wait for its end."""
        if self._task(action) is None:
            with self._gate.lease():
                self._start(action)

        def look() -> tuple[bool, str]:
            task = self._task(action)
            return bool(task and task.ended), task.status if task else "starting"

        late = self._gate.watch(action, look, pause=_POLL, longest=_LONGEST_POLL, patience=_PATIENCE)
        if late is not None:
            raise ArrakisError(f"the task has not ended within {_PATIENCE / 60:.0f} minutes: {late}")

    def revert(self, action: Action) -> None:
        """Impossible."""
        raise ArrakisError("what the task took away is gone for good")

    def _stayed(self, action: Action) -> list[str]:
        """The names of those planned that are not destroyed."""
        ids: Mapping[str, str] = action.before["sandboxes"]
        with self._gate.read.sql.snapshot() as snapshot:
            rows = {str(row.id): row for row in registry.claimants(snapshot, tokens=list(ids)).rows}
        return [name for id, name in ids.items() if id in rows and rows[id].live]

    def _start(self, action: Action) -> None:
        before, (target, definition) = action.before, self._scheduled(action)
        if reason := danger(target, definition):
            raise ArrakisError(reason)
        how = {
            "launchType": target.launch_type,
            "capacityProviderStrategy": list(target.capacity),
            "networkConfiguration": dict(target.network),
        }
        answer = self._gate.write.aws.write(
            "ecs",
            "run_task",
            cluster=before["cluster"],
            taskDefinition=definition.arn,  # what was looked at, though there were a newer one by now
            count=1,
            startedBy=before["token"],
            clientToken=before["token"],
            overrides=_verbose(target, definition),
            **{key: value for key, value in {**target.more, **how}.items() if value},
        )
        if not answer.get("tasks"):
            reasons = ", ".join(str(each.get("reason")) for each in answer.get("failures", ()))
            raise ArrakisError(f"ECS did not start the task: {reasons or 'no reason given'}")

    def _scheduled(self, action: Action) -> Scheduled:
        """How the schedule starts the task now. Raises ArrakisError where that is not what was planned."""
        rule = read_rule(self._gate.read.aws, action.before["rule"])
        for target, definition in _startable(self._gate, rule):
            now = as_planned(target, definition)
            if all(action.before.get(name) == value for name, value in now.items()):
                return target, definition
        raise ArrakisError(
            f"{action.before['rule']} does not start this task any more", hint="run the runbook again"
        )

    def _task(self, action: Action) -> TaskRun | None:
        mine = [task for task in self._tasks(action) if task.started_by == action.before["token"]]
        return mine[0] if mine else None

    def _tasks(self, action: Action) -> tuple[TaskRun, ...]:
        return read_tasks(
            self._gate.read.aws, cluster=action.before["cluster"], family=action.before["family"]
        )


def _verbose(target: TaskTarget, definition: TaskDefinition) -> Mapping[str, object]:
    """The schedule's own overrides, and LOG_LEVEL=debug for each container."""
    own = {each["name"]: each for each in target.overrides.get("containerOverrides") or ()}
    names = [each["name"] for each in definition.containers]
    return {
        **target.overrides,
        "containerOverrides": [_debugged(own.get(name, {"name": name})) for name in names],
    }


def _debugged(override: Mapping[str, Any]) -> dict[str, Any]:
    others = [each for each in override.get("environment") or () if each["name"] != "LOG_LEVEL"]
    return {**override, "environment": [*others, {"name": "LOG_LEVEL", "value": "debug"}]}


def _startable(gate: Gate, rule: Rule | None) -> Iterator[Scheduled]:
    """Yield what a schedule can start, as it is just now."""
    for target in rule.targets if rule else ():
        if definition := read_definition(gate.read.aws, target.definition):
            yield target, definition


def _hazard(gate: Gate, scheduled: Iterable[Scheduled]) -> str | None:
    """What the job would take along of others': by its CASCADE, or as an orphan; None if nothing."""
    for each in scheduled:
        if reason := danger(*each):
            return reason
    with gate.read.sql.snapshot() as snapshot:
        due = cleanup.due_at(snapshot, registry.now(snapshot))
        names = [name for row in due for name in teardown.belongings(snapshot, row).schemas]
        outside = schemas.blockers(snapshot, names)
    return f"its CASCADE would take along {outside[0].kind} {outside[0].name}" if outside else None
