"""How a rule or a service stands to the stop that was planned for it, and what a person would run instead of us. Pure."""

from collections.abc import Mapping
from shlex import quote
from typing import Any

from diagnostics.compute import Service
from diagnostics.scaling import Scaling, parameters, target
from runbooks.engine.model import Action, State
from runbooks.engine.work import UNDO
from runbooks.remedies.tags import KEYS, ServiceBefore

__all__ = [
    "DISABLE",
    "DISABLED",
    "ENABLED",
    "STOP",
    "UNTOLD",
    "before_of",
    "by_hand",
    "counted",
    "going_back",
    "is_as_before",
    "rule_stands",
    "service_stands",
]

DISABLE, STOP = "disable rule", "stop service"
"""The verbs."""
UNTOLD = "untold"
"""Of autoscaling that nobody could tell of when its service was stopped: it was left as it was, and is."""
ENABLED, DISABLED = "ENABLED", "DISABLED"
"""EventBridge's words; it has a third one, for rules that see CloudTrail's management events too."""


def going_back(action: Action) -> bool:
    """Whether an action is the undoing of one of these verbs."""
    return action.verb.startswith(UNDO)


def before_of(action: Action) -> ServiceBefore:
    """Return how the service was when its action was made; of untold autoscaling nothing is to be restored."""
    scaling: Mapping[str, Any] | str | None = action.before["scaling"]
    limits = Scaling(**scaling) if isinstance(scaling, Mapping) else None
    return ServiceBefore(desired=action.before["desired"], scaling=limits)


def rule_stands(action: Action, now: str | None, *, back: bool) -> tuple[State, str]:
    """How a rule in this state stands, and why; one that was disabled before, too, is done with whichever way we go."""
    before = action.before["state"]
    if now is None:
        return State.CHANGED, "there is no such rule any more"
    if now == before and (back or now != DISABLED):
        return State.BEFORE, f"it is {now}, as before"
    if now == DISABLED and (before == ENABLED or not back):
        return State.AFTER, "it is disabled"
    if now == DISABLED:
        return State.CHANGED, f"enabling it would not make it {before} again; by hand: {_joined(action)}"
    return State.CHANGED, f"somebody else changed it: it is {now}, and was {before} before the stop"


def service_stands(action: Action, service: Service, now: Scaling | None, *, back: bool) -> tuple[State, str]:
    """How a service stands that autoscaling may do this to, and why; one that stood still before, too, as with the rule."""
    before, told = before_of(action), f"{counted(service)}, autoscaling: {now or 'none'}"
    restored = is_as_before(before, service, now)
    halted = before.scaling and before.scaling.halted
    if now == halted and not service.desired and not (back and restored):
        return (State.PARTLY if service.running or service.pending else State.AFTER), told
    if restored:
        return State.BEFORE, told
    if _halfway(before, service.desired, now, back=back):
        return State.PARTLY, told
    why = f"somebody else changed it: {told}"
    why += f"; before the stop {before.desired} should run, autoscaling: {before.scaling or 'none'}"
    return State.CHANGED, f"{why}; by hand: {_joined(action)}" if back else why


def is_as_before(before: ServiceBefore, service: Service, now: Scaling | None) -> bool:
    """Whether all is as before. Within its limits autoscaling may have moved the desired count since: that is its work."""
    if now != before.scaling or service.desired == before.desired:
        return now == before.scaling
    moves = now is not None and len(now.suspended) < 3
    return bool(moves and now and now.holds(before.desired) and now.holds(service.desired))


def counted(service: Service) -> str:
    """Say how many tasks run, and how many should."""
    pending = f", {service.pending} more are starting" if service.pending else ""
    return f"{service.running} tasks run, {service.desired} should{pending}"


def by_hand(action: Action) -> tuple[str, ...]:
    """Return the commands that a person would run to do what the action does, in their order."""
    before, back = action.before, going_back(action)
    if action.resource.kind == "service":
        commands, of = _for_service(action, back=back), "ecs"
    else:
        commands, of = _for_rule(before["name"], before["state"], back=back), "events"
    if back:
        commands.append(f"aws {of} untag-resource --resource-arn {before['arn']} --tag-keys {' '.join(KEYS)}")
    return tuple(commands)


def _joined(action: Action) -> str:
    return "; ".join(by_hand(action))


def _halfway(before: ServiceBefore, desired: int, now: Scaling | None, *, back: bool) -> bool:
    """Whether it is where we are between our own steps, one way or the other."""
    if before.scaling is None or now not in (before.scaling, before.scaling.halted):
        return False
    if now == before.scaling.halted:
        return not back or desired == before.desired
    # A stop that may not suspend autoscaling leaves none desired; and limits that are registered move what is outside of them.
    return not desired or (back and desired == before.scaling.clamped(before.desired))


def _for_rule(name: str, state: str, *, back: bool) -> list[str]:
    if not back:
        return [f"aws events disable-rule --name {quote(name)}"]
    if state == ENABLED:
        return [f"aws events enable-rule --name {quote(name)}"]
    if state == DISABLED:
        return []
    # A put-rule with less than all of it would forget the rest.
    return [
        f"aws events describe-rule --name {quote(name)} (then put-rule with all of it, and --state {state})"
    ]


def _for_service(action: Action, *, back: bool) -> list[str]:
    """On the way down autoscaling is first, on the way up the desired count."""
    before, was = action.before, before_of(action)
    service = (
        f"aws ecs update-service --cluster {quote(before['cluster'])} --service {quote(before['service'])}"
    )
    counts = f"{service} --desired-count {was.desired if back else 0}"
    if was.scaling is None:
        return [counts]
    named = target(cluster=before["cluster"], service=before["service"])
    registers = f"aws application-autoscaling register-scalable-target {_options(named)}"
    if not back:
        wanted = parameters(was.scaling.halted)
        del wanted["MaxCapacity"]
        return [f"{registers} {_options(wanted)}", counts]
    steps = [counts, f"{registers} {_options(parameters(was.scaling))}"]
    return steps if was.scaling.holds(was.desired) else [*steps, counts]


def _options(named: Mapping[str, Any]) -> str:
    """Write a call's parameters as the aws command has them."""
    told = []
    for name, value in named.items():
        option = "".join(f"-{char.lower()}" if char.isupper() else char for char in name)
        if isinstance(value, Mapping):
            value = ",".join(f"{key}={str(held).lower()}" for key, held in value.items())
        told.append(f"-{option} {quote(str(value))}")
    return " ".join(told)
