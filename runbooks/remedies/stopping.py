"""What an emergency stops in AWS, and starts again just as it was: a rule, and a service that autoscaling may watch.

They work while PostgreSQL is the patient: nothing here asks it for anything, the lease included. How things were before is in the
action, and in two tags on the rule or the service for whoever has no journal.
"""

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime

from diagnostics.compute import Rule, Service, read_service
from diagnostics.scaling import Scaling, parameters, read_scaling, target
from runbooks.engine.gate import Gate
from runbooks.engine.model import Action, Observation, Resource, Reversibility, State
from runbooks.remedies.halted import (
    DISABLE,
    DISABLED,
    ENABLED,
    STOP,
    UNTOLD,
    before_of,
    counted,
    going_back,
    is_as_before,
    rule_stands,
    service_stands,
)
from runbooks.remedies.tagging import Tagging
from runbooks.remedies.tags import Kept, RuleBefore, Stop
from runbooks.rights import HALTING
from sandbox.errors import ArrakisError, Missing

__all__ = ["PATIENCE", "DisableRule", "StopService", "disabling", "stopping"]

PATIENCE = 5 * 60.0
"""Seconds that a service is watched for, on its way down or up."""

_POLL, _LONGEST_POLL = 0.25, 5.0  # seconds between two looks at a service


def disabling(rule: Rule, stop: Stop) -> Action:
    """Return the action that disables a rule; its id is the caller's to give.

    To resume by the tags alone, give the rule with the `state` that they tell, and their stop.
    """
    told = f"emergency stop {stop.id}: its schedule starts nothing"
    if rule.state not in (ENABLED, DISABLED):
        told += f". Resuming cannot make it {rule.state} again: only put-rule can"
    return Action(
        id="",
        verb=DisableRule.verb,
        resource=Resource(kind="rule", id=rule.name),
        before={"name": rule.name, "arn": rule.arn, "state": rule.state, **_told_of(stop)},
        after={"state": DISABLED},
        reason=told,
        reversibility=Reversibility.REVERSIBLE,
    )


def stopping(service: Service, scaling: Scaling | str | None, stop: Stop, *, cluster: str) -> Action:
    """Return the action that stops a cluster's service, of which `scaling` is what autoscaling may do to it; its id is the caller's.

    UNTOLD where nobody can tell: then the service is stopped all the same, and autoscaling left as it is. To resume by the tags alone, give the service with the `desired` count that they tell, their scaling and their stop.
    """
    before = {
        "cluster": cluster,
        "service": service.name,
        "arn": service.arn,
        "desired": service.desired,
        "scaling": asdict(scaling) if isinstance(scaling, Scaling) else scaling,
    }
    return Action(
        id="",
        verb=StopService.verb,
        resource=Resource(kind="service", id=service.name),
        before={**before, **_told_of(stop)},
        after={"desired": 0},
        reason=f"emergency stop {stop.id}: none of its tasks runs, and autoscaling starts none",
        reversibility=Reversibility.REVERSIBLE,
    )


class DisableRule:
    """Disables a rule; undone by enabling it. put_rule would forget all that it is not told."""

    verb = DISABLE
    rights = HALTING

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate, self._tagging = gate, Tagging(gate)

    def observe(self, action: Action) -> Observation:
        """Look at its state, and where that is as before, at its tags."""
        now = self._state(action)
        state, told = rule_stands(action, now, back=going_back(action))
        state, told = _by_tags(self._tagging, action, state, told)
        return Observation(state=state, reason=told, evidence={"state": now})

    def in_use(self, action: Action) -> str | None:
        """Nobody uses a schedule; what it started runs on."""
        return None

    def apply(self, action: Action) -> None:
        """Keep its state as tags, and disable it."""
        now = self._planned(action, back=False)
        kept = Kept(stop=_stop_of(action), before=RuleBefore(state=action.before["state"]))
        self._tagging.keep(action, kept, in_force=now == DISABLED)
        if now != DISABLED:
            self._gate.write.aws.write("events", "disable_rule", Name=action.before["name"])

    def revert(self, action: Action) -> None:
        """Enable it, if it was enabled; take the tags away."""
        now = self._planned(action, back=True)
        if now != action.before["state"]:
            self._gate.write.aws.write("events", "enable_rule", Name=action.before["name"])
        self._tagging.forget(action)

    def _planned(self, action: Action, *, back: bool) -> str | None:
        """Return its state. Raises ArrakisError where somebody else changed it."""
        now = self._state(action)
        state, told = rule_stands(action, now, back=back)
        if state is State.CHANGED:
            raise ArrakisError(told)
        return now

    def _state(self, action: Action) -> str | None:
        """Its state, None if it is gone; what it starts is of no concern here, and need not be readable."""
        try:
            found = self._gate.read.aws.read("events", "describe_rule", Name=action.before["name"])
        except Missing:
            return None
        return str(found["State"])


class StopService:
    """Stops a service so that autoscaling does not start it again, and watches until nothing runs; undone in the other order.

    Each registration of autoscaling's limits pulls the desired count into them: so the lower limit goes down, with all
    suspended, before the desired count does. On the way back the desired count is first.
    """

    verb = STOP
    rights = HALTING

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate, self._tagging = gate, Tagging(gate)

    def observe(self, action: Action) -> Observation:
        """Look how many tasks run and should, what autoscaling may do, and where all is as before, at the tags."""
        try:
            service, now = self._look(action)
        except Missing as error:
            return Observation(state=State.CHANGED, reason=str(error))
        state, told = service_stands(action, service, now, back=going_back(action))
        state, told = _by_tags(self._tagging, action, state, told)
        evidence = {"desired": service.desired, "running": service.running, "scaling": now and asdict(now)}
        return Observation(state=state, reason=told, evidence=evidence)

    def in_use(self, action: Action) -> str | None:
        """Whoever uses it has to bear it."""
        return None

    def apply(self, action: Action) -> None:
        """Keep how it was as tags, suspend autoscaling, let no task run, and wait until none does.

        Where autoscaling cannot be told or suspended, no task runs all the same; that is raised at the end.
        """
        service, now = self._planned(action, back=False)
        suspended = now is None or now == now.halted
        kept = Kept(stop=_stop_of(action), before=before_of(action))
        in_force = not service.desired or (suspended and now is not None)
        self._tagging.keep(action, kept, in_force=in_force)
        trouble = None if now is None or suspended else self._suspend(action, now)
        if service.desired:
            self._set_desired(action, 0)
        self._watch_down(action)
        if action.before["scaling"] == UNTOLD:
            raise ArrakisError(
                "no task runs, but what autoscaling may do could not be told, and it can start some",
                hint="`emergency-stop --only router` again suspends it, once that can be told",
            )
        if trouble:
            raise ArrakisError(
                f"no task runs, but autoscaling is not suspended and can start some: {trouble}",
                hint=trouble.hint,
            ) from trouble

    def revert(self, action: Action) -> None:
        """Let as many tasks run as before, give autoscaling what it had, wait until they run, and take the tags away."""
        service, now = self._planned(action, back=True)
        before = before_of(action)
        if not is_as_before(before, service, now):
            self._set_desired(action, before.desired)
            if before.scaling and now != before.scaling:
                self._register(action, **parameters(before.scaling))
                if not before.scaling.holds(before.desired):
                    self._tell(
                        action, f"its limits moved its desired count, which is set to {before.desired} again"
                    )
                    self._set_desired(action, before.desired)
        self._watch_up(action)
        self._tagging.forget(action)

    def _planned(self, action: Action, *, back: bool) -> tuple[Service, Scaling | None]:
        """Return how it is. Raises ArrakisError where somebody else changed it."""
        service, now = self._look(action)
        state, told = service_stands(action, service, now, back=back)
        if state is State.CHANGED:
            raise ArrakisError(told)
        return service, now

    def _suspend(self, action: Action, now: Scaling) -> ArrakisError | None:
        """Suspend autoscaling with its lower limit at 0; the upper one is left alone. Return what went wrong."""
        wanted = parameters(now.halted)
        del wanted["MaxCapacity"]
        try:
            self._register(action, **wanted)
        except ArrakisError as error:
            self._tell(action, f"autoscaling is not suspended: {error}")
            return error
        return None

    def _register(self, action: Action, **wanted: object) -> None:
        named = target(cluster=action.before["cluster"], service=action.before["service"])
        self._gate.write.aws.write("application-autoscaling", "register_scalable_target", **named, **wanted)

    def _set_desired(self, action: Action, count: int) -> None:
        named = {name: action.before[name] for name in ("cluster", "service")}
        self._gate.write.aws.write("ecs", "update_service", **named, desiredCount=count)

    def _watch_down(self, action: Action) -> None:
        """Wait until no task runs or should. What lets one run again meanwhile is overruled once: ECS may also answer late."""
        seen = overruled = False

        def look() -> tuple[bool, str]:
            nonlocal seen, overruled
            service = self._service(action)
            if service.desired and overruled and seen:
                raise ArrakisError(
                    f"something starts it again: its desired count is {service.desired}, after it was set to 0 twice",
                    hint="its events say what; suspend that, then stop it again",
                )
            if service.desired and not overruled:
                self._set_desired(action, 0)
                self._tell(
                    action, f"its desired count was {service.desired} again, and is set to 0 once more"
                )
                overruled, seen = True, False
            seen = seen or not service.desired
            return not service.desired and not service.running and not service.pending, counted(service)

        self._watch(action, look, "it is not stopped")

    def _watch_up(self, action: Action) -> None:
        """Wait until as many tasks run as should. That none should may be an answer that lags, unless it can be so."""
        before = before_of(action)
        may_be_none = not before.desired or (before.scaling is not None and before.scaling.holds(0))

        def look() -> tuple[bool, str]:
            service = self._service(action)
            settled = service.running == service.desired and not service.pending
            return settled and (service.desired > 0 or may_be_none), counted(service)

        self._watch(action, look, "not as many of its tasks run as should")

    def _watch(self, action: Action, look: Callable[[], tuple[bool, str]], what: str) -> None:
        late = self._gate.watch(action, look, pause=_POLL, longest=_LONGEST_POLL, patience=PATIENCE)
        if late is not None:
            raise ArrakisError(
                f"{what} within {PATIENCE / 60:.0f} minutes: {late}",
                hint="its events say why; to go on waiting, do the same again",
            )

    def _look(self, action: Action) -> tuple[Service, Scaling | None]:
        named = {name: action.before[name] for name in ("cluster", "service")}
        if action.before["scaling"] == UNTOLD:
            return self._service(action), None
        return self._service(action), read_scaling(self._gate.read.aws, **named)

    def _service(self, action: Action) -> Service:
        before = action.before
        service = read_service(self._gate.read.aws, cluster=before["cluster"], name=before["service"])
        if service is None or service.status != "ACTIVE":
            raise Missing("there is no such active service any more")
        return service

    def _tell(self, action: Action, what: str) -> None:
        self._gate.tell(f"  {action.resource.id}: {what}")


def _by_tags(tagging: Tagging, action: Action, state: State, told: str) -> tuple[State, str]:
    """How something stands, by its tags too: they may not be gone yet, or be those of a later stop, which is not taken back here."""
    if state is State.BEFORE:
        return tagging.cleared(action, told)
    if state is not State.CHANGED and going_back(action) and (overtaken := tagging.overtaken(action)):
        return State.CHANGED, overtaken
    return state, told


def _told_of(stop: Stop) -> dict[str, str]:
    return {"stop": stop.id, "by": stop.by, "at": stop.at.isoformat()}


def _stop_of(action: Action) -> Stop:
    before = action.before
    return Stop(id=before["stop"], by=before["by"], at=datetime.fromisoformat(before["at"]))
