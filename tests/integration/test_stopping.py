"""A stop and its resuming against moto with the clamp: all is as before to the field, wherever a call failed on the way."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from moto import mock_aws
from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ecs.models import ecs_backends
from moto.events.models import events_backends

from diagnostics.compute import read_rule, read_service
from diagnostics.scaling import Scaling, read_scaling, read_tags
from lab import moto_shims, stack
from lab.names import CLEANUP, CLUSTER, REGION, WORKER
from runbooks.engine.apply import execute, inverse_actions, started
from runbooks.engine.gate import Gate
from runbooks.engine.journal import Journal
from runbooks.engine.model import Action, Phase, Remedy, State
from runbooks.engine.work import Result
from runbooks.remedies.stopping import DisableRule, StopService, disabling, stopping
from runbooks.remedies.tags import BEFORE, STOP, Kept, RuleBefore, ServiceBefore, Stop, decode
from sandbox.adapters.aws import Aws
from sandbox.errors import ArrakisError, Denied, Unreachable
from tests.unit.plans import plan

AT = datetime(2026, 3, 1, 2, 30, tzinfo=UTC)
FIRST, SECOND = (Stop(id=f"stop-{number}", by="chani", at=AT) for number in (1, 2))
WAS = Scaling(minimum=1, maximum=4)
ALL = "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"
Call = tuple[str, Mapping[str, Any]]


class Wire:
    """AWS as the remedies have it; what is asked is noted. `meddle` comes before each call, with its operation."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self.calls: list[Call] = []
        self.meddle: Callable[[str], None] = lambda _: None
        self.fails: tuple[int, Exception, bool] | None = None

    def read(self, service: str, operation: str, /, **params: object) -> Mapping[str, Any]:
        return self._call(self._aws.read, service, operation, params)

    def write(self, service: str, operation: str, /, **params: object) -> Mapping[str, Any]:
        return self._call(self._aws.write, service, operation, params)

    @contextmanager
    def failing(self, number: int, error: Exception, *, after: bool = False) -> Iterator[None]:
        """Let the call of this number, counted from now, fail once: before AWS has it, or `after`, its answer being lost."""
        self.calls.clear()
        self.fails = (number, error, after)
        yield
        self.fails = None

    def changes(self) -> list[str]:
        """What was asked to change."""
        return [name for name, _ in self.calls if not name.startswith(("describe_", "list_"))]

    def _call(self, call: Any, service: str, operation: str, params: Any) -> Mapping[str, Any]:
        self.calls.append((operation, params))
        number = len(self.calls)
        self.meddle(operation)
        due, error, after = self.fails or (0, None, False)
        if error and number == due and not after:
            raise error
        answer: Mapping[str, Any] = call(service, operation, **params)
        if error and number == due:
            raise error
        return answer


class Account:
    """The lab's account; its remedies have AWS in their hands and nothing else."""

    def __init__(self, aws: Aws) -> None:
        self.aws, self.wire, self.told = aws, Wire(aws), list[str]()
        self.service = ecs_backends[DEFAULT_ACCOUNT_ID][REGION].services[f"{CLUSTER}:{WORKER}"]
        self.rule = events_backends[DEFAULT_ACCOUNT_ID][REGION].event_buses["default"].rules[CLEANUP]
        self.targets = applicationautoscaling_backends[DEFAULT_ACCOUNT_ID][REGION].targets
        systems: Any = SimpleNamespace(aws=self.wire)
        gate = Gate(read=systems, write=systems, fence=lambda _: pytest.fail("asks for the lease"),
                    tell=self.told.append)  # fmt: skip
        self.remedies: dict[str, Remedy] = {
            each.verb: each for each in (DisableRule(gate), StopService(gate))
        }

    def set(self, *, desired: int = 1, scaling: Scaling | None = WAS, state: str = "ENABLED") -> None:
        """Be as after its start, or otherwise."""
        if scaling:
            self.register(scaling)
        else:
            self.targets.clear()
        self.service.desired_count = self.service.running_count = desired
        self.rule.state = state
        self.service.tags, self.service.status = [], "ACTIVE"
        events_backends[DEFAULT_ACCOUNT_ID][REGION].tagger.delete_all_tags_for_resource(self.rule.arn)
        self.wire.meddle = lambda _: None
        self.wire.calls.clear()
        self.told.clear()

    @contextmanager
    def refusing(self, *operations: str) -> Iterator[None]:
        """Refuse these to the remedies."""

        def meddle(operation: str) -> None:
            if operation in operations:
                raise Denied("refused")

        self.wire.meddle = meddle
        yield
        self.wire.meddle = lambda _: None

    def register(self, scaling: Scaling) -> None:
        """Do as somebody else would."""
        self.aws.write(
            "application-autoscaling",
            "register_scalable_target",
            ServiceNamespace="ecs",
            ResourceId=f"service/{CLUSTER}/{WORKER}",
            ScalableDimension="ecs:service:DesiredCount",
            MinCapacity=scaling.minimum,
            MaxCapacity=scaling.maximum,
            SuspendedState={
                "DynamicScalingInSuspended": scaling.in_suspended,
                "DynamicScalingOutSuspended": scaling.out_suspended,
                "ScheduledScalingSuspended": scaling.scheduled_suspended,
            },
        )

    def desire(self, count: int) -> None:
        """Do as somebody else would."""
        self.aws.write("ecs", "update_service", cluster=CLUSTER, service=WORKER, desiredCount=count)

    def actions(self, stop: Stop = FIRST) -> list[Action]:
        """Return what stops the rule and the service as they are now."""
        rule, service = read_rule(self.aws, CLEANUP), read_service(self.aws, cluster=CLUSTER, name=WORKER)
        assert rule
        assert service
        scaling = read_scaling(self.aws, cluster=CLUSTER, service=WORKER)
        made = [disabling(rule, stop), stopping(service, scaling, stop, cluster=CLUSTER)]
        return [replace(action, id=f"a{number}") for number, action in enumerate(made, 1)]

    def look(self, action: Action) -> State:
        """Return how a target stands to an action, or to its undoing."""
        return self.remedies[action.verb.removeprefix("undo ")].observe(action).state

    def do(self, action: Action) -> None:
        """Apply an action, or revert what it undoes."""
        remedy = self.remedies[action.verb.removeprefix("undo ")]
        (remedy.revert if action.verb.startswith("undo ") else remedy.apply)(action)

    def truth(self) -> dict[str, Any]:
        """Return every field that AWS tells of the rule, the service and autoscaling, and the tags."""
        rule = self.aws.read("events", "describe_rule", Name=CLEANUP)
        service = self.aws.read(
            "ecs", "describe_services", cluster=CLUSTER, services=[WORKER], include=["TAGS"]
        )
        scaling = self.aws.read(
            "application-autoscaling", "describe_scalable_targets", ServiceNamespace="ecs"
        )
        arns = [rule["Arn"], service["services"][0]["serviceArn"]]
        found = {
            "rule": rule,
            "targets": self.aws.read("events", "list_targets_by_rule", Rule=CLEANUP)["Targets"],
            "service": service["services"][0],
            "scaling": scaling["ScalableTargets"],
            "tags": [read_tags(self.aws, arn) for arn in arns],
        }
        return {name: _bare(value) for name, value in found.items()}

    def kept(self) -> list[Kept | None]:
        """Return what the tags of the rule and of the service say."""
        return [decode(tags) for tags in self.truth()["tags"]]


def _bare(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _bare(each) for key, each in value.items() if key != "ResponseMetadata"}
    return value


def back(action: Action) -> Action:
    return replace(action, verb=f"undo {action.verb}")


@pytest.fixture(scope="module")
def laid_out() -> Iterator[Account]:
    """Return the lab's account in this process."""
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for variable in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
            patch.delenv(variable, raising=False)
        patch.setenv("MOTO_ECS_SERVICE_RUNNING", "1")
        moto_shims.install()
        stack.lay_out({})
        yield Account(Aws(region=REGION))


@pytest.fixture
def account(laid_out: Account, monkeypatch: pytest.MonkeyPatch) -> Account:
    """Return the account as it is after its start, and remedies in a hurry."""
    for name, seconds in {"_POLL": 0.01, "_LONGEST_POLL": 0.01, "PATIENCE": 5}.items():
        monkeypatch.setattr(f"runbooks.remedies.stopping.{name}", seconds)
    laid_out.set()
    return laid_out


# ---- down and back


WORLDS: list[dict[str, Any]] = [
    {},
    {"desired": 3, "scaling": Scaling(minimum=2, maximum=4, out_suspended=True, scheduled_suspended=True)},
    {"desired": 2, "scaling": None},
    {"desired": 2, "scaling": WAS.halted},
    {"desired": 0, "scaling": None},
    {"desired": 0, "scaling": Scaling(minimum=0, maximum=4)},
    {"desired": 0, "scaling": WAS.halted, "state": "DISABLED"},
    {"desired": 0, "scaling": WAS},
    {"desired": 6, "scaling": WAS},
]


def run(account: Account, actions: list[Action], journal: Journal, name: str) -> tuple[Result, ...]:
    """Go through the engine, as any run does."""
    planned = plan(runbook="emergency-stop", actions=actions)
    journal.append(name, Phase.RUN_STARTED, observed=started(planned))
    outcome = execute(planned, name, journal=journal, remedies=account.remedies, check=lambda: None)
    assert outcome.exit == 0
    return outcome.results


@pytest.mark.parametrize("world", WORLDS)
def test_resuming_restores_every_field(account: Account, tmp_path: Path, world: dict[str, Any]) -> None:
    account.set(**world)
    before = account.truth()
    journal = Journal(tmp_path / "journal", actor="chani", clock=lambda: AT)
    actions = account.actions()
    results = run(account, actions, journal, "down")
    moto_shims.scale(1)

    scaling = world.get("scaling", WAS)
    stopped = account.truth()
    assert stopped["rule"]["State"] == "DISABLED"
    assert (stopped["service"]["desiredCount"], stopped["service"]["runningCount"]) == (0, 0)
    assert read_scaling(account.aws, cluster=CLUSTER, service=WORKER) == (scaling and scaling.halted)
    truth: list[RuleBefore | ServiceBefore] = [
        RuleBefore(state=before["rule"]["State"]),
        ServiceBefore(desired=world.get("desired", 1), scaling=scaling),
    ]
    for result, kept, was in zip(results, account.kept(), truth, strict=True):
        done = Kept(stop=FIRST, before=was) if result.phase is Phase.DONE else None
        assert kept == done
        assert result.settled

    undone = inverse_actions([entry for entry in journal.entries() if entry.run == "down"])
    assert [action.id for action in undone] == [
        r.action.id for r in reversed(results) if r.phase is Phase.DONE
    ]
    run(account, undone, journal, "up")
    assert account.truth() == before
    account.wire.calls.clear()
    run(account, [back(action) for action in actions], journal, "again")
    assert account.wire.changes() == []
    assert account.truth() == before


def test_who_has_nothing_but_the_tags_can_resume_too(account: Account) -> None:
    account.set(desired=3)
    before = account.truth()
    for action in account.actions():
        account.do(action)
    rule, service = read_rule(account.aws, CLEANUP), read_service(account.aws, cluster=CLUSTER, name=WORKER)
    of_rule, of_service = account.kept()
    assert rule
    assert service
    assert of_rule
    assert of_service
    assert isinstance(of_rule.before, RuleBefore)
    assert isinstance(of_service.before, ServiceBefore)
    was = replace(service, desired=of_service.before.desired)
    account.do(back(disabling(replace(rule, state=of_rule.before.state), of_rule.stop)))
    account.do(back(stopping(was, of_service.before.scaling, of_service.stop, cluster=CLUSTER)))
    assert account.truth() == before


def test_autoscaling_is_suspended_first_its_upper_limit_untouched_and_the_desired_count_comes_back_first(
    account: Account,
) -> None:
    action = account.actions()[1]
    account.do(action)
    assert account.wire.changes() == ["tag_resource", "register_scalable_target", "update_service"]
    told = dict(account.wire.calls)["register_scalable_target"]
    assert (told["MinCapacity"], "MaxCapacity" in told) == (0, False)
    account.wire.calls.clear()
    account.do(back(action))
    assert account.wire.changes() == ["update_service", "register_scalable_target", "untag_resource"]


def test_what_autoscaling_does_between_the_plan_and_the_stop_is_no_obstacle(account: Account) -> None:
    action = account.actions()[1]
    moto_shims.scale(2)
    assert account.look(action) is State.BEFORE
    account.do(action)
    assert account.look(action) is State.AFTER
    account.do(back(action))
    assert (account.service.desired_count, account.look(back(action))) == (1, State.BEFORE)
    moto_shims.scale(2)
    assert account.look(back(action)) is State.BEFORE


def test_autoscaling_acts_within_its_limits_unless_it_is_suspended(account: Account) -> None:
    def acts(by: int) -> int:
        moto_shims.scale(by)
        return int(account.service.desired_count)

    assert [acts(1), acts(9), acts(-2)] == [2, 4, 2]
    account.register(replace(WAS, in_suspended=True))
    assert [acts(-1), acts(1)] == [2, 3]
    account.register(replace(WAS, out_suspended=True))
    assert [acts(1), acts(-9)] == [3, 1]
    account.register(replace(WAS, minimum=2, maximum=3, out_suspended=True))
    assert account.service.desired_count == 2


# ---- wherever a call fails


def how(account: Account, which: int) -> State:
    """How it really stands, by moto's own memory."""
    tagged = account.kept()[which] is not None
    if which == 0:
        return State.AFTER if account.rule.state == "DISABLED" else State.PARTLY if tagged else State.BEFORE
    [target] = [each for targets in account.targets.values() for each in targets.values()]
    state: Any = target.suspended_state
    now = (
        account.service.desired_count,
        account.service.running_count,
        target.min_capacity,
        {*state.values()},
    )
    if now == (0, 0, 0, {True}):
        return State.AFTER
    return State.BEFORE if now == (1, 1, 1, {False}) and not tagged else State.PARTLY


LOOKS = {"describe_services", "describe_scalable_targets", "list_tags_for_resource"}
STEPS = {
    "disable rule": {"describe_rule", "list_tags_for_resource", "tag_resource", "disable_rule"},
    "undo disable rule": {"describe_rule", "enable_rule", "list_tags_for_resource", "untag_resource"},
    "stop service": {*LOOKS, "tag_resource", "register_scalable_target", "update_service"},
    "undo stop service": {*LOOKS, "update_service", "register_scalable_target", "untag_resource"},
}


@pytest.mark.parametrize(
    ("error", "after"),
    [(Denied("refused"), False), (Unreachable("no answer"), True)],
    ids=["denied", "answer lost"],
)
@pytest.mark.parametrize("verb", STEPS)
def test_each_call_fails_once_and_the_next_time_it_is_finished(
    account: Account, verb: str, error: ArrakisError, after: bool
) -> None:
    which = int(verb.endswith("service"))
    action = account.actions()[which]
    step = replace(action, verb=verb)
    end = State.AFTER if step == action else State.BEFORE
    failed = set[str]()
    for number in count(1):
        account.set()
        if step != action:
            account.do(action)
            account.told.clear()
        with account.wire.failing(number, error, after=after):
            raised = fails(account, step)
        if number > len(account.wire.calls):
            break
        failed.add(account.wire.calls[number - 1][0])
        assert account.look(step) is how(account, which)
        assert raised or account.told
        account.do(step)
        assert account.look(step) is how(account, which) is end
        assert (account.kept()[which] is None) == (end is State.BEFORE)
    assert failed == STEPS[verb]


def fails(account: Account, action: Action) -> bool:
    try:
        account.do(action)
    except ArrakisError:
        return True
    return False


@pytest.mark.parametrize(
    ("verb", "operation", "code", "state", "says"),
    [
        ("stop service", "TagResource", "InvalidParameterException", State.AFTER, None),
        ("stop service", "ListTagsForResource", "AccessDeniedException", State.AFTER, None),
        ("stop service", "RegisterScalableTarget", "AccessDeniedException", State.PARTLY,
         "no task runs, but autoscaling is not suspended and can start some: AWS refused"),
        ("stop service", "UpdateService", "ThrottlingException", State.PARTLY, "come more slowly"),
        ("stop service", "DescribeScalableTargets", "ConcurrentUpdateException", State.BEFORE, "ConcurrentUpdate"),
        ("undo stop service", "RegisterScalableTarget", "AccessDeniedException", State.PARTLY, "AWS refused"),
        ("undo stop service", "UntagResource", "AccessDeniedException", State.PARTLY, "AWS refused"),
        ("undo stop service", "ListTagsForResource", "AccessDeniedException", State.PARTLY, None),
        ("disable rule", "DisableRule", "ManagedRuleException", State.PARTLY, "ManagedRuleException"),
        ("undo disable rule", "EnableRule", "AccessDeniedException", State.AFTER, "AWS refused"),
    ],
)  # fmt: skip
def test_what_aws_refuses_is_said_and_the_rest_is_done(
    account: Account, verb: str, operation: str, code: str, state: State, says: str | None
) -> None:
    which = int(verb.endswith("service"))
    action = account.actions()[which]
    step = replace(action, verb=verb)
    if step != action:
        account.do(action)
    moto_shims.refuse(operation, code, times=2 if "Throttl" in code else 1)
    if says:
        with pytest.raises(ArrakisError, match=says):
            account.do(step)
    else:
        account.do(step)
        assert any(code in line for line in account.told)
    assert account.look(step) is how(account, which) is state
    account.do(step)
    assert account.look(step) is (State.AFTER if step == action else State.BEFORE)


def test_tags_that_cannot_be_read_keep_nothing_from_being_done(account: Account) -> None:
    action = account.actions()[1]
    with account.refusing("tag_resource", "untag_resource", "list_tags_for_resource"):
        account.do(action)
        assert account.look(action) is State.AFTER
        account.do(back(action))
        seen = account.remedies[action.verb].observe(back(action))
    assert seen.state is State.BEFORE
    assert "whether its tags are gone cannot be told: refused" in seen.reason
    assert account.kept() == [None, None]


# ---- one stop after another


def test_the_tags_of_a_stop_that_is_in_force_hold_how_it_truly_was(account: Account) -> None:
    before = account.truth()
    first = account.actions()[1]
    with account.refusing("update_service"):  # autoscaling is suspended, the tasks are not stopped
        assert fails(account, first)
    second = account.actions(SECOND)[1]
    assert account.look(second) is State.BEFORE
    account.do(second)
    kept = Kept(stop=FIRST, before=ServiceBefore(desired=1, scaling=WAS))
    assert account.kept()[1] == kept
    assert (
        account.told[-1] == "  arrakis-worker: the tags of stop stop-1 stay: they hold how it was before that"
    )
    account.do(back(second))
    assert account.kept()[1] == kept
    account.do(back(first))
    assert account.truth() == before


@pytest.mark.parametrize("which", [0, 1])
def test_the_tags_of_a_stop_that_is_over_are_replaced(account: Account, which: int) -> None:
    first = account.actions()[which]
    account.do(first)
    with account.refusing("untag_resource"):
        assert fails(account, back(first))
    account.do(account.actions(SECOND)[which])
    kept = account.kept()[which]
    assert kept
    assert kept.stop == SECOND


@pytest.mark.parametrize("which", [0, 1])
def test_tags_that_others_wrote_under_our_names_stay(account: Account, which: int) -> None:
    action = account.actions()[which]
    tags = {STOP: "by hand", BEFORE: "as it was", "team": "sandboxes"}
    if which:
        account.aws.write("ecs", "tag_resource", resourceArn=action.before["arn"],
                          tags=[{"key": key, "value": value} for key, value in tags.items()])  # fmt: skip
    else:
        account.aws.write("events", "tag_resource", ResourceARN=action.before["arn"],
                          Tags=[{"Key": key, "Value": value} for key, value in tags.items()])  # fmt: skip
    account.do(action)
    assert account.look(action) is State.AFTER
    account.do(back(action))
    assert account.look(back(action)) is State.BEFORE
    assert "are not such as this toolkit writes" in account.told[0]
    assert account.truth()["tags"][which] == tags


# ---- what others do


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda account: account.desire(3), "3 tasks run, 3 should"),
        (lambda account: account.register(replace(WAS.halted, maximum=6)), "autoscaling: 0 to 6 tasks"),
        (
            lambda account: account.register(replace(WAS.halted, in_suspended=False)),
            "suspended: out, scheduled",
        ),
        (lambda account: account.targets.clear(), "autoscaling: none"),
        (lambda account: setattr(account.service, "status", "INACTIVE"), "no such active service any more"),
    ],
    ids=["desired", "limits", "suspension", "target", "deleted"],
)
def test_a_service_that_somebody_changed_is_left_alone(
    account: Account, change: Callable[[Account], None], says: str
) -> None:
    account.set(desired=2)
    action = account.actions()[1]
    account.do(action)
    change(account)
    now = account.truth()
    account.wire.calls.clear()
    seen = account.remedies[action.verb].observe(back(action))
    assert (seen.state, says in seen.reason) == (State.CHANGED, True)
    with pytest.raises(ArrakisError, match=says):
        account.do(back(action))
    assert account.wire.changes() == []
    assert account.truth() == now


def test_a_service_that_somebody_let_run_within_its_limits_again_is_resumed_but_for_its_tags(
    account: Account,
) -> None:
    account.set(desired=2)
    action = account.actions()[1]
    account.do(action)
    account.register(WAS)
    assert account.service.desired_count == 1
    assert account.look(back(action)) is State.PARTLY
    account.do(back(action))
    assert (account.look(back(action)), account.service.desired_count) == (State.BEFORE, 1)


def test_a_rule_whose_state_enabling_cannot_give_back_is_left_disabled(account: Account) -> None:
    account.set(state=ALL)
    action = account.actions()[0]
    account.do(action)
    assert account.look(action) is State.AFTER
    account.wire.calls.clear()
    seen = account.remedies[action.verb].observe(back(action))
    assert seen.state is State.CHANGED
    with pytest.raises(
        ArrakisError, match=f"would not make it {ALL} again; by hand: aws events describe-rule"
    ):
        account.do(back(action))
    assert account.wire.changes() == []
    account.rule.state = ALL  # as that person did
    account.do(back(action))
    assert (account.look(back(action)), account.kept()[0]) == (State.BEFORE, None)


def test_a_rule_that_is_gone_is_not_made_again(account: Account) -> None:
    action = account.actions()[0]
    gone = replace(action, before={**action.before, "name": "another"})
    seen = account.remedies[action.verb].observe(gone)
    assert (seen.state, seen.reason) == (State.CHANGED, "there is no such rule any more")
    with pytest.raises(ArrakisError, match="no such rule"):
        account.do(gone)


# ---- watched until nothing runs, or all do


def on_looks(account: Account, *steps: Callable[[], None]) -> None:
    """Let something happen before each look at the service but the first, which comes before anything is done."""
    left = iter([lambda: None, *steps])

    def meddle(operation: str) -> None:
        if operation == "describe_services":
            next(left, lambda: None)()

    account.wire.meddle = meddle


def test_what_starts_it_again_is_overruled_once_and_told(account: Account) -> None:
    action = account.actions()[1]
    on_looks(account, lambda: account.desire(2))
    account.do(action)
    assert account.told == [
        "  arrakis-worker: its desired count was 2 again, and is set to 0 once more",
        "  arrakis-worker: 2 tasks run, 2 should",
    ]
    assert account.look(action) is State.AFTER


def test_what_starts_it_again_and_again_is_an_error(account: Account) -> None:
    action = account.actions()[1]
    linger = lambda: setattr(account.service, "running_count", 1)  # noqa: E731
    on_looks(account, lambda: account.desire(2), linger, lambda: account.desire(3))
    with pytest.raises(ArrakisError, match="something starts it again: its desired count is 3") as told:
        account.do(action)
    assert "its events say what" in told.value.hint
    assert account.look(action) is State.PARTLY


def test_an_answer_that_lags_is_waited_for(account: Account) -> None:
    action = account.actions()[1]
    lag = lambda: setattr(account.service, "desired_count", 1)  # noqa: E731
    on_looks(account, lag, lag, lag, lambda: setattr(account.service, "desired_count", 0))
    account.do(action)
    assert len(account.told) == 2
    assert account.look(action) is State.AFTER


def test_tasks_that_are_starting_are_waited_for(account: Account) -> None:
    action = account.actions()[1]

    def pending(count: int) -> Callable[[], None]:
        return lambda: setattr(account.service, "pending_count", count)

    on_looks(account, pending(1), pending(0))
    account.do(action)
    assert account.told == ["  arrakis-worker: 0 tasks run, 0 should, 1 more are starting"]
    on_looks(account, pending(1), pending(0))
    account.do(back(action))
    assert account.told[1:] == ["  arrakis-worker: 1 tasks run, 1 should, 1 more are starting"]


def test_an_answer_that_lags_on_the_way_back_is_not_taken_for_the_end(account: Account) -> None:
    action = account.actions()[1]
    account.do(action)
    on_looks(account, lambda: account.desire(0), lambda: account.desire(1))
    account.do(back(action))
    assert account.told == ["  arrakis-worker: 0 tasks run, 0 should"]
    assert account.look(back(action)) is State.BEFORE


@pytest.mark.parametrize(
    ("verb", "says"),
    [
        ("stop service", "it is not stopped within 0 minutes: 1 tasks run, 0 should"),
        (
            "undo stop service",
            "not as many of its tasks run as should within 0 minutes: 0 tasks run, 1 should",
        ),
    ],
)
def test_patience_has_an_end_and_the_next_time_goes_on_waiting(
    account: Account, monkeypatch: pytest.MonkeyPatch, verb: str, says: str
) -> None:
    monkeypatch.setattr("runbooks.remedies.stopping.PATIENCE", 0.05)
    action = account.actions()[1]
    step = replace(action, verb=verb)
    if step != action:
        account.do(action)
    stuck = lambda: setattr(account.service, "running_count", int(step == action))  # noqa: E731
    on_looks(account, *[stuck] * 1000)
    with pytest.raises(ArrakisError, match=says):
        account.do(step)
    assert account.look(step) is State.PARTLY
    account.service.running_count = int(step != action)
    account.wire.meddle = lambda _: None
    account.wire.calls.clear()
    account.do(step)
    assert [name for name in account.wire.changes() if name != "untag_resource"] == []
    assert account.look(step) is (State.AFTER if step == action else State.BEFORE)
