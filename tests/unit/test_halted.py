"""How what an emergency stops is said to stand, on the way down and back: nothing of others' is taken for ours."""

from dataclasses import replace
from typing import Any

import pytest

from diagnostics.compute import Rule
from diagnostics.scaling import Scaling
from runbooks.engine.model import Action, State
from runbooks.remedies.halted import by_hand, rule_stands, service_stands
from runbooks.remedies.stopping import disabling, stopping
from runbooks.remedies.tags import Stop
from tests.unit.evidence import NOW, service

STOP = Stop(id="stop-1", by="chani", at=NOW)
ON, OFF, ALL = "ENABLED", "DISABLED", "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"
WAS = Scaling(minimum=1, maximum=4)
HELD = WAS.halted
BEFORE, AFTER, PARTLY, CHANGED = State.BEFORE, State.AFTER, State.PARTLY, State.CHANGED


def rule_action(state: str = ON) -> Action:
    """Return what disables a rule in this state."""
    rule = Rule(name="nightly", enabled=True, schedule="", targets=(), arn="arn:aws:events:x:1:rule/nightly")
    return disabling(replace(rule, state=state), STOP)


def service_action(desired: int = 2, scaling: Scaling | None = WAS) -> Action:
    """Return what stops a service of so many tasks."""
    arn = "arn:aws:ecs:x:1:service/arrakis/arrakis-worker"
    return stopping(service(desired=desired, arn=arn), scaling, STOP, cluster="arrakis")


def back(action: Action) -> Action:
    """Return its undoing, as the engine makes it."""
    return replace(action, verb=f"undo {action.verb}")


@pytest.mark.parametrize(
    ("was", "now", "down", "up"),
    [
        (ON, ON, BEFORE, BEFORE),
        (ON, OFF, AFTER, AFTER),
        (ON, ALL, CHANGED, CHANGED),
        (ON, None, CHANGED, CHANGED),
        (OFF, OFF, AFTER, BEFORE),
        (OFF, ON, CHANGED, CHANGED),
        (ALL, ALL, BEFORE, BEFORE),
        (ALL, OFF, AFTER, CHANGED),
        (ALL, ON, CHANGED, CHANGED),
    ],
)
def test_a_rule(was: str, now: str | None, down: State, up: State) -> None:
    planned = rule_action(was)
    assert rule_stands(planned, now, back=False)[0] is down
    assert rule_stands(back(planned), now, back=True)[0] is up


@pytest.mark.parametrize(
    ("action", "desired", "running", "now", "down", "up"),
    [
        # between as before and stopped, in the order that it is done in
        (service_action(), 2, 2, WAS, BEFORE, BEFORE),
        (service_action(), 2, 2, HELD, PARTLY, PARTLY),
        (service_action(), 0, 2, HELD, PARTLY, PARTLY),
        (service_action(), 0, 0, HELD, AFTER, AFTER),
        (service_action(), 2, 0, HELD, PARTLY, PARTLY),
        (service_action(), 2, 0, WAS, BEFORE, BEFORE),
        # where autoscaling could not be suspended
        (service_action(), 0, 0, WAS, PARTLY, PARTLY),
        # autoscaling's own work
        (service_action(), 4, 4, WAS, BEFORE, BEFORE),
        (service_action(), 1, 2, WAS, BEFORE, BEFORE),
        # somebody else's; a stop that is under way goes on
        (service_action(), 5, 5, WAS, CHANGED, CHANGED),
        (service_action(), 3, 3, HELD, PARTLY, CHANGED),
        (service_action(), 0, 0, replace(HELD, maximum=6), CHANGED, CHANGED),
        (service_action(), 2, 2, replace(WAS, maximum=6), CHANGED, CHANGED),
        (service_action(), 0, 0, replace(HELD, out_suspended=False), CHANGED, CHANGED),
        (service_action(), 0, 0, None, CHANGED, CHANGED),
        # where autoscaling was suspended already it does not move anything
        (service_action(2, HELD), 3, 3, HELD, PARTLY, CHANGED),
        (service_action(2, HELD), 2, 2, HELD, BEFORE, BEFORE),
        (service_action(2, HELD), 0, 0, HELD, AFTER, AFTER),
        # without autoscaling
        (service_action(2, None), 2, 2, None, BEFORE, BEFORE),
        (service_action(2, None), 0, 1, None, PARTLY, PARTLY),
        (service_action(2, None), 0, 0, None, AFTER, AFTER),
        (service_action(2, None), 3, 3, None, CHANGED, CHANGED),
        (service_action(2, None), 0, 0, HELD, CHANGED, CHANGED),
        # what stood still before, too
        (service_action(0, None), 0, 0, None, AFTER, BEFORE),
        (service_action(0, HELD), 0, 0, HELD, AFTER, BEFORE),
        (service_action(0), 0, 0, WAS, BEFORE, BEFORE),
        (service_action(0), 0, 0, HELD, AFTER, AFTER),
        (service_action(0), 1, 0, WAS, CHANGED, PARTLY),
        (service_action(0), 2, 2, WAS, CHANGED, CHANGED),
        # above its limits: registering them pulls it down
        (service_action(6), 6, 6, WAS, BEFORE, BEFORE),
        (service_action(6), 4, 4, HELD, PARTLY, CHANGED),
        (service_action(6), 6, 0, HELD, PARTLY, PARTLY),
        (service_action(6), 4, 4, WAS, CHANGED, PARTLY),
    ],
)
def test_a_service(
    action: Action, desired: int, running: int, now: Scaling | None, down: State, up: State
) -> None:
    found = service(desired=desired, running=running)
    assert service_stands(action, found, now, back=False)[0] is down
    assert service_stands(back(action), found, now, back=True)[0] is up


def test_tasks_that_are_starting_are_not_stopped() -> None:
    found = service(desired=0, running=0, pending=1)
    told = (
        "0 tasks run, 0 should, 1 more are starting, autoscaling: 0 to 4 tasks, suspended: in, out, scheduled"
    )
    assert service_stands(service_action(), found, HELD, back=False) == (PARTLY, told)


UPDATE = "aws ecs update-service --cluster arrakis --service arrakis-worker --desired-count"
REGISTER = (
    "aws application-autoscaling register-scalable-target --service-namespace ecs"
    " --resource-id service/arrakis/arrakis-worker --scalable-dimension ecs:service:DesiredCount"
)
SUSPENDED = "DynamicScalingInSuspended={0},DynamicScalingOutSuspended={0},ScheduledScalingSuspended={0}"
DOWN = f"{REGISTER} --min-capacity 0 --suspended-state {SUSPENDED.format('true')}"
UP = f"{REGISTER} --min-capacity 1 --max-capacity 4 --suspended-state {SUSPENDED.format('false')}"
KEYS = "--tag-keys arrakis-runbooks:stop arrakis-runbooks:before"
UNTAG = f"aws ecs untag-resource --resource-arn arn:aws:ecs:x:1:service/arrakis/arrakis-worker {KEYS}"
UNTAG_RULE = f"aws events untag-resource --resource-arn arn:aws:events:x:1:rule/nightly {KEYS}"


@pytest.mark.parametrize(
    ("action", "commands"),
    [
        (service_action(), [DOWN, f"{UPDATE} 0"]),
        (service_action(2, None), [f"{UPDATE} 0"]),
        (back(service_action()), [f"{UPDATE} 2", UP, UNTAG]),
        (back(service_action(0)), [f"{UPDATE} 0", UP, f"{UPDATE} 0", UNTAG]),
        (back(service_action(2, None)), [f"{UPDATE} 2", UNTAG]),
        (rule_action(), ["aws events disable-rule --name nightly"]),
        (back(rule_action()), ["aws events enable-rule --name nightly", UNTAG_RULE]),
        (back(rule_action(OFF)), [UNTAG_RULE]),
        (
            back(rule_action(ALL)),
            [
                f"aws events describe-rule --name nightly (then put-rule with all of it, and --state {ALL})",
                UNTAG_RULE,
            ],
        ),
    ],
)
def test_what_a_person_would_run(action: Action, commands: list[str]) -> None:
    assert list(by_hand(action)) == commands


def test_what_somebody_else_changed_is_said_with_how_to_put_it_right() -> None:
    found: Any = service(desired=3, running=3)
    _, why = service_stands(back(service_action()), found, HELD, back=True)
    assert why == (
        "somebody else changed it: 3 tasks run, 3 should, autoscaling: 0 to 4 tasks, suspended: in, out, scheduled;"
        " before the stop 2 should run, autoscaling: 1 to 4 tasks, suspended: nothing;"
        f" by hand: {UPDATE} 2; {UP}; {UNTAG}"
    )


def test_a_stop_says_beforehand_what_it_cannot_give_back() -> None:
    assert f"Resuming cannot make it {ALL} again" in rule_action(ALL).reason
    assert "cannot" not in rule_action(ON).reason
