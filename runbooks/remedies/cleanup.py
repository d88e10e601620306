"""Cleaning up what is over: sandbox by sandbox or by the deployed task; and clearing what keeps it from going."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from diagnostics.compute import TaskRun, TaskTarget, read_rule, read_tasks
from diagnostics.postgres import in_the_way
from runbooks.engine.model import Action, Observation, State
from runbooks.remedies.gate import Gate
from sandbox import cleanup, lifecycle, registry, schemas, teardown
from sandbox.errors import ArrakisError, Unreachable
from sandbox.model import Sandbox, Status
from sandbox.ports import SqlSnapshot, SqlTransaction
from sandbox.text import clean

__all__ = ["CleanUp", "DropBlocker", "EnableRule", "RunTask"]

_POLL, _LONGEST_POLL = 0.5, 10.0  # seconds between two looks at a task
_PATIENCE = 15 * 60.0  # seconds that it is watched for: the schedule's interval
_REMEMBERED = timedelta(minutes=55)


class CleanUp:
    """Takes a sandbox that is over away, as the scheduled job does: routes, keys, schemas, mappings. For good."""

    verb = "clean up sandbox"

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look whether it is still over, and what is left of it."""
        with self._gate.read.sql.snapshot() as snapshot:
            row = _row(snapshot, UUID(action.before["id"]))
            if row is None:
                return Observation(state=State.CHANGED, reason="its row is gone")
            left = teardown.belongings(snapshot, row).schemas
            keyed = any(each.id == row.id for each in registry.unfinished(snapshot))
            over = _is_over(snapshot, row)
        if more := set(left) - set(action.before["schemas"]):
            return Observation(state=State.CHANGED, reason=f"it has {', '.join(sorted(more))} as well now")
        if over or (keyed and action.before["status"] == Status.DESTROYED):
            return Observation(state=State.BEFORE, reason=f"it is {row.status}, and over")
        if row.live:
            ends = f" until {row.expires_at:%Y-%m-%d %H:%M} UTC" if row.expires_at else ""
            return Observation(state=State.CHANGED, reason=f"it is {row.status}{ends}")
        if left or keyed:
            what = ", ".join(left) or "keys"
            return Observation(state=State.PARTLY, reason=f"it is destroyed, but {what} are left")
        return Observation(state=State.AFTER, reason="nothing of it is left")

    def in_use(self, action: Action) -> str | None:
        """Say what elsewhere would go with its schemas, or who holds them."""
        with self._gate.read.sql.snapshot() as snapshot:
            row = _row(snapshot, UUID(action.before["id"]))
            names = teardown.belongings(snapshot, row).schemas if row else []
            if denied := schemas.not_ours(snapshot, names):
                return f"this role may not drop {', '.join(denied)}"
            outside = schemas.blockers(snapshot, names)
            holders = in_the_way(
                snapshot, names, sandboxes=[UUID(action.before["id"])], tag=self._gate.read.tag
            )
        if outside:
            return f"{outside[0].kind} {outside[0].name} rests on {outside[0].schema}"
        return f"session {holders[0].pid} of {holders[0].user} {holders[0].how}" if holders else None

    def apply(self, action: Action) -> None:
        """Take it away, if it is still over when its row is held; each step is told."""
        gate = self._gate

        def insist(transaction: SqlTransaction, row: Sandbox) -> None:
            gate.fence(transaction)
            if row.live and not _is_over(transaction, row):
                raise ArrakisError(f"{row.name} is not over any more: it is {row.status}")
            if set(teardown.belongings(transaction, row).schemas) - set(action.before["schemas"]):
                raise ArrakisError(f"{row.name} has another schema than planned")

        def tell(step: str, seen: Mapping[str, object]) -> None:
            told = " ".join(f"{name}={clean(value)}" for name, value in seen.items())
            gate.tell(f"  {clean(action.resource.id)}: {step} {told}")

        gone = lifecycle.clean_up(
            gate.write.sql,
            gate.write.keys,
            UUID(action.before["id"]),
            actor=gate.write.actor,
            now=registry.time_of(gate.read.sql),
            insist=insist,
            tell=tell,
        )
        if gone.unsettled:
            raise Unreachable(f"its keys are left: {gone.unsettled}", hint="the clean-up job deletes them")

    def revert(self, action: Action) -> None:
        """Impossible."""
        raise ArrakisError(f"{action.resource.id} was taken away for good", hint="create another one")


class DropBlocker:
    """Drops one object outside of a sandbox's schema that rests on it, and was named; never with CASCADE."""

    verb = "drop object"

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look whether it still rests on the schema, and would be dropped by the same statement."""
        schema, name = action.before["schema"], action.before["name"]
        with self._gate.read.sql.snapshot() as snapshot:
            found = [each for each in schemas.blockers(snapshot, [schema]) if each.name == name]
        if not found:
            return Observation(state=State.AFTER, reason=f"no {name} rests on {schema}")
        if any(getattr(found[0], what) != action.before[what] for what in ("statement", "definition")):
            return Observation(state=State.CHANGED, reason=f"{name} is another {found[0].kind} now")
        return Observation(state=State.BEFORE, reason=f"it rests on {schema}")

    def in_use(self, action: Action) -> str | None:
        """Nobody is asked: it was named, and a lock that somebody holds is waited for two seconds only."""
        return None

    def apply(self, action: Action) -> None:
        """Drop it."""
        gate, before = self._gate, action.before
        schemas.drop_blocker(
            gate.write.sql,
            before["schema"],
            before["name"],
            fence=gate.fence,
            definition=before["definition"],
        )

    def revert(self, action: Action) -> None:
        """Impossible: what it rested on may be gone; its definition is in the plan and the journal."""
        raise ArrakisError(f"{action.before['name']} was dropped", hint="its definition is in the plan")


class EnableRule:
    """Enables a schedule again; undone by disabling it. put_rule would forget all that it is not told."""

    verb = "enable rule"

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
        return _taken_along(self._gate)

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
        return _taken_along(self._gate)

    def apply(self, action: Action) -> None:
        """Start it, unless it was started, and wait for its end."""
        if self._task(action) is None:
            with self._gate.lease():
                self._start(action)
        told, pause, end = "", _POLL, time.monotonic() + _PATIENCE
        while True:
            try:
                task = self._task(action)
            except Unreachable as error:  # it goes on without us
                status = f"cannot tell: {error}"
            else:
                status = task.status if task else "starting"
                if task and task.ended:
                    return
            if time.monotonic() > end:
                raise ArrakisError(f"the task has not ended within {_PATIENCE / 60:.0f} minutes: {status}")
            if status != told:
                self._gate.tell(f"  {action.resource.id}: {status}")
            told = status
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL)

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
        before, target = action.before, self._target(action)
        how = {
            "launchType": target.launch_type,
            "capacityProviderStrategy": list(target.capacity),
            "networkConfiguration": dict(target.network),
        }
        answer = self._gate.write.aws.write(
            "ecs",
            "run_task",
            cluster=before["cluster"],
            taskDefinition=before["task_definition"],
            count=1,
            startedBy=before["token"],
            clientToken=before["token"],
            overrides=self._verbose(target),
            **{key: value for key, value in {**target.more, **how}.items() if value},
        )
        if not answer.get("tasks"):
            reasons = ", ".join(str(each.get("reason")) for each in answer.get("failures", ()))
            raise ArrakisError(f"ECS did not start the task: {reasons or 'no reason given'}")

    def _target(self, action: Action) -> TaskTarget:
        """How the schedule starts the task now. Raises ArrakisError where that is not what was planned."""
        rule = read_rule(self._gate.read.aws, action.before["rule"])
        planned = (action.before["cluster"], action.before["task_definition"], action.before["network"])
        for target in rule.targets if rule else ():
            if (target.cluster, target.task_definition, dict(target.network)) == planned:
                return target
        raise ArrakisError(
            f"{action.before['rule']} does not start this task any more", hint="run the runbook again"
        )

    def _verbose(self, target: TaskTarget) -> Mapping[str, object]:
        """The schedule's own overrides, and LOG_LEVEL=debug for each container."""
        found = self._gate.read.aws.read(
            "ecs", "describe_task_definition", taskDefinition=target.task_definition
        )
        own = {each["name"]: each for each in target.overrides.get("containerOverrides", ())}
        names = [each["name"] for each in found["taskDefinition"]["containerDefinitions"]]
        return {
            **target.overrides,
            "containerOverrides": [_debugged(own.get(name, {"name": name})) for name in names],
        }

    def _task(self, action: Action) -> TaskRun | None:
        mine = [task for task in self._tasks(action) if task.started_by == action.before["token"]]
        return mine[0] if mine else None

    def _tasks(self, action: Action) -> tuple[TaskRun, ...]:
        return read_tasks(
            self._gate.read.aws, cluster=action.before["cluster"], family=action.before["family"]
        )


def _debugged(override: Mapping[str, Any]) -> dict[str, Any]:
    others = [each for each in override.get("environment", ()) if each["name"] != "LOG_LEVEL"]
    return {**override, "environment": [*others, {"name": "LOG_LEVEL", "value": "debug"}]}


def _taken_along(gate: Gate) -> str | None:
    """What the CASCADE of the deployed job would take along of anybody else's; None if nothing is due that something rests on."""
    with gate.read.sql.snapshot() as snapshot:
        due = cleanup.due_at(snapshot, registry.now(snapshot))
        names = [name for row in due for name in teardown.belongings(snapshot, row).schemas]
        outside = schemas.blockers(snapshot, names)
    return f"its CASCADE would take along {outside[0].kind} {outside[0].name}" if outside else None


def _is_over(snapshot: SqlSnapshot, row: Sandbox) -> bool:
    """Whether a sandbox may be taken away: nothing brings back one that is being destroyed, whoever began it."""
    return row.status is Status.DESTROYING or bool(
        cleanup.due_at(snapshot, registry.now(snapshot), id=row.id)
    )


def _row(snapshot: SqlSnapshot, id: UUID) -> Sandbox | None:
    rows = registry.claimants(snapshot, tokens=[str(id)]).rows
    return next((row for row in rows if row.id == id), None)
