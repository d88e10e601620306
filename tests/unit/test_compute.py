"""What ECS and EventBridge answer, read: how a task failed, when a service is stable, what a rule starts."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import botocore.session  # type: ignore[import-untyped, unused-ignore]
import pytest
from botocore.validate import ParamValidator  # type: ignore[import-untyped, unused-ignore]
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.compute import Service, TaskDefinition, TaskRun, TaskTarget, read_definition
from sandbox.errors import ArrakisError

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ARN = "arn:aws:ecs:eu-central-1:123456789012:"
FAMILY = "arrakis-sandbox-cleanup"


def task(containers: list[dict[str, Any]], **changes: Any) -> TaskRun:
    """A task as describe_tasks has it, stopped."""
    fields = {
        "taskArn": f"{ARN}task/arrakis/0f9de17a6465404e8b1b2356dc13c2f8",
        "taskDefinitionArn": f"{ARN}task-definition/{FAMILY}:7",
        "clusterArn": f"{ARN}cluster/arrakis",
        "lastStatus": "STOPPED",
        "desiredStatus": "STOPPED",
        "startedBy": f"events-rule/{FAMILY}",
        "createdAt": NOW - timedelta(minutes=3),
        "startedAt": NOW - timedelta(minutes=2),
        "stoppedAt": NOW,
        "stopCode": "EssentialContainerExited",
        "stoppedReason": "Essential container in task exited",
        "containers": containers,
    }
    return TaskRun.of({**fields, **changes})


def container(name: str = "cleanup", **more: Any) -> dict[str, Any]:
    return {"name": name, "lastStatus": "STOPPED", **more}


NO_IMAGE = "CannotPullContainerError: pull image manifest has been retried 1 time(s): not found"
OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"


@pytest.mark.parametrize(
    ("run", "failure"),
    [
        (task([container(exitCode=0)]), ""),
        (task([container("init", exitCode=0), container(exitCode=0)]), ""),
        (
            task([container(exitCode=1)]),
            "cleanup exited with 1 (EssentialContainerExited: Essential container in task exited)",
        ),
        (
            task([container(exitCode=137, reason=OUT_OF_MEMORY)]),
            f"cleanup exited with 137 (EssentialContainerExited: Essential container in task exited; {OUT_OF_MEMORY})",
        ),
        (
            task([container(reason=NO_IMAGE)], stopCode="TaskFailedToStart", stoppedReason=NO_IMAGE),
            f"stopped before cleanup had an exit code (TaskFailedToStart: {NO_IMAGE})",
        ),
        (
            task([container("init", exitCode=2), container()]),
            "init exited with 2, stopped before cleanup had an exit code"
            " (EssentialContainerExited: Essential container in task exited)",
        ),
        (
            task(
                [],
                stopCode="TaskFailedToStart",
                stoppedReason="Unexpected EC2 error: InsufficientFreeAddresses",
            ),
            "stopped before a container had an exit code"
            " (TaskFailedToStart: Unexpected EC2 error: InsufficientFreeAddresses)",
        ),
        (
            task([container(exitCode=0), container("logs", exitCode=143)], stopCode="UserInitiated"),
            "logs exited with 143 (UserInitiated: Essential container in task exited)",
        ),
        (
            task([container(exitCode=1), container("logs", exitCode=143)]),
            "cleanup exited with 1, logs exited with 143"
            " (EssentialContainerExited: Essential container in task exited)",
        ),
        (
            task([container("init", exitCode=0), container(exitCode=137, reason=OUT_OF_MEMORY)]),
            f"cleanup exited with 137 (EssentialContainerExited: Essential container in task exited; {OUT_OF_MEMORY})",
        ),
        (
            task([container(exitCode=0), container("logs")]),
            "stopped before logs had an exit code"
            " (EssentialContainerExited: Essential container in task exited)",
        ),
        (
            task([container(exitCode=143)], stopCode="UserInitiated", stoppedReason="Task stopped by user"),
            "cleanup exited with 143 (UserInitiated: Task stopped by user)",
        ),
        (task([container()], lastStatus="RUNNING", stopCode="", stoppedReason=""), ""),
        (task([container(exitCode=1)], lastStatus="DEPROVISIONING"), ""),
    ],
)
def test_how_a_task_failed(run: TaskRun, failure: str) -> None:
    assert run.failure == failure
    assert run.failed is bool(failure)
    assert run.ended is (run.status == "STOPPED")


@given(st.lists(st.sampled_from([None, 0, 0, 137, 143]) | st.integers(0, 255), max_size=4))
def test_only_a_task_whose_containers_all_exit_with_0_has_not_failed(
    codes: list[int | None],
) -> None:
    containers = [
        container(f"c{number}") | ({} if code is None else {"exitCode": code})
        for number, code in enumerate(codes)
    ]
    run = task(containers)
    assert run.failed is not (bool(codes) and all(code == 0 for code in codes))
    assert [code for _, code in run.exits] == codes


def test_what_a_task_is() -> None:
    run = task([container(exitCode=0)])
    assert (run.id, run.definition, run.started_by) == (
        "0f9de17a6465404e8b1b2356dc13c2f8",
        f"{FAMILY}:7",
        f"events-rule/{FAMILY}",
    )
    never_started = TaskRun.of({"taskArn": "a/b", "taskDefinitionArn": "c/d:1", "lastStatus": "PROVISIONING"})
    assert never_started.started_at is never_started.stopped_at is never_started.created_at is None
    assert not never_started.failed


def deployment(status: str = "PRIMARY", **changes: Any) -> dict[str, Any]:
    counts = {"desiredCount": 2, "runningCount": 2, "pendingCount": 0, "failedTasks": 0}
    definition = f"{ARN}task-definition/arrakis-worker:31"
    return {"id": f"ecs-svc/{status}", "status": status, "taskDefinition": definition, **counts, **changes}


def service(**changes: Any) -> Service:
    """A service as describe_services has it."""
    fields = {
        "serviceName": "arrakis-worker",
        "status": "ACTIVE",
        "desiredCount": 2,
        "runningCount": 2,
        "pendingCount": 0,
        "taskDefinition": f"{ARN}task-definition/arrakis-worker:31",
        "deployments": [deployment(rolloutState="COMPLETED")],
        "networkConfiguration": {
            "awsvpcConfiguration": {"subnets": ["subnet-1"], "securityGroups": ["sg-worker"]}
        },
        "events": [],
    }
    return Service.of({**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "stable"),
    [
        ({}, True),
        ({"desiredCount": 0, "runningCount": 0}, True),
        ({"runningCount": 1}, False),
        ({"runningCount": 3}, False),
        ({"pendingCount": 1}, False),
        ({"deployments": [deployment(), deployment("ACTIVE", runningCount=1)]}, False),
        ({"deployments": []}, False),
        ({"status": "DRAINING"}, False),
        ({"status": "INACTIVE", "desiredCount": 0, "runningCount": 0, "deployments": []}, False),
    ],
)
def test_when_a_service_is_stable(changes: dict[str, Any], stable: bool) -> None:
    assert service(**changes).stable is stable


def test_a_service_has_its_last_ten_events_newest_first_its_groups_and_its_deployments() -> None:
    events = [
        {"id": str(n), "createdAt": NOW - timedelta(minutes=n), "message": f"event {n}"} for n in range(100)
    ]
    failing = deployment("ACTIVE", failedTasks=4, rolloutState="FAILED", runningCount=0, pendingCount=1)
    seen = service(events=events[::-1], deployments=[deployment(), failing])
    assert [message for _, message in seen.events] == [f"event {number}" for number in range(10)]
    assert seen.events[0][0] == NOW
    assert seen.security_groups == ("sg-worker",)
    assert (seen.definition, seen.family) == ("arrakis-worker:31", "arrakis-worker")
    assert seen.primary == seen.deployments[0]
    assert service(deployments=[failing]).primary is None
    wrong = seen.deployments[1]
    assert (wrong.status, wrong.rollout, wrong.failed, wrong.running, wrong.pending, wrong.desired) == (
        "ACTIVE",
        "FAILED",
        4,
        0,
        1,
        2,
    )


def test_a_service_on_the_hosts_network_has_no_groups_of_its_own() -> None:
    assert service(networkConfiguration={}).security_groups == ()


def test_a_rules_target_is_spelled_as_run_task_takes_it() -> None:
    target = TaskTarget.of(
        {
            "Id": "cleanup",
            "Arn": f"{ARN}cluster/arrakis",
            "Input": '{"containerOverrides": [{"name": "cleanup", "command": ["cleanup", "--orphaned"]}]}',
            "EcsParameters": {
                "TaskDefinitionArn": f"{ARN}task-definition/{FAMILY}",
                "TaskCount": 2,
                "CapacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT", "weight": 1, "base": 0}],
                "NetworkConfiguration": {
                    "awsvpcConfiguration": {
                        "Subnets": ["subnet-1", "subnet-2"],
                        "SecurityGroups": ["sg-jobs"],
                        "AssignPublicIp": "DISABLED",
                    }
                },
            },
        }
    )
    assert target.network == {
        "awsvpcConfiguration": {
            "subnets": ["subnet-1", "subnet-2"],
            "securityGroups": ["sg-jobs"],
            "assignPublicIp": "DISABLED",
        }
    }
    assert target.security_groups == ("sg-jobs",)
    assert target.overrides == {
        "containerOverrides": [{"name": "cleanup", "command": ["cleanup", "--orphaned"]}]
    }
    assert target.capacity == [{"capacityProvider": "FARGATE_SPOT", "weight": 1, "base": 0}]
    assert (target.launch_type, target.count) == (None, 2)


def test_a_target_that_says_little_starts_one_task() -> None:
    definition = f"{ARN}task-definition/{FAMILY}:7"
    target = TaskTarget.of({"Id": "1", "Arn": "cluster", "EcsParameters": {"TaskDefinitionArn": definition}})
    assert (target.count, target.network, target.overrides, target.security_groups) == (1, {}, {}, ())
    assert (target.cluster, target.task_definition) == ("cluster", definition)


@pytest.mark.parametrize(
    ("said", "overridden", "roles"),
    [
        ({}, {}, []),
        ({"executionRoleArn": "arn:aws-cn:iam::2:role/pull"}, {}, ["arn:aws-cn:iam::2:role/pull"]),
        (
            {"taskRoleArn": "team/task", "executionRoleArn": ""},
            {},
            ["arn:aws:iam::123456789012:role/team/task"],
        ),
        (
            {"taskRoleArn": "arn:aws:iam::2:role/z", "executionRoleArn": "arn:aws:iam::2:role/pull"},
            {"taskRoleArn": "arn:aws:iam::2:role/a"},
            ["arn:aws:iam::2:role/a", "arn:aws:iam::2:role/pull"],
        ),
        ({}, {"taskRoleArn": "own", "executionRoleArn": None}, ["arn:aws:iam::123456789012:role/own"]),
        (
            {"taskRoleArn": "arn:aws:iam::2:role/same", "executionRoleArn": "arn:aws:iam::2:role/same"},
            {"containerOverrides": []},
            ["arn:aws:iam::2:role/same"],
        ),
    ],
)
def test_a_task_is_handed_its_definitions_roles_but_for_those_that_are_overridden(
    said: dict[str, Any], overridden: dict[str, Any], roles: list[str]
) -> None:
    definition = TaskDefinition.of(
        {
            "taskDefinitionArn": f"{ARN}task-definition/{FAMILY}:7",
            "containerDefinitions": [{"name": "cleanup"}],
            **said,
        }
    )
    parameters = {"TaskDefinitionArn": f"{ARN}task-definition/{FAMILY}"}
    target = TaskTarget.of(
        {"Id": "1", "Arn": "cluster", "Input": json.dumps(overridden), "EcsParameters": parameters}
    )
    assert definition.handed(target.overrides) == roles
    assert definition.containers == [{"name": "cleanup"}]


@pytest.mark.parametrize(
    ("status", "active"),
    [
        ({}, True),
        ({"status": "ACTIVE"}, True),
        ({"status": "INACTIVE"}, False),
        ({"status": "DELETE_IN_PROGRESS"}, False),
    ],
)
def test_of_a_definition_that_was_taken_back_nothing_is_started(status: dict[str, str], active: bool) -> None:
    raw = {"taskDefinitionArn": f"{ARN}task-definition/{FAMILY}:7", "containerDefinitions": [], **status}
    account: Any = SimpleNamespace(read=lambda *_, **__: {"taskDefinition": raw})
    assert (read_definition(account, FAMILY) is not None) is active


@pytest.mark.parametrize(
    "told",
    [
        "[]",
        '"x"',
        "{",
        "null",
        '{"containerOverrides": 1}',
        '{"containerOverrides": "x"}',
        '{"containerOverrides": [1]}',
    ],
)
def test_what_ecs_takes_for_no_overrides_is_told_as_such(told: str) -> None:
    raw = {"Id": "1", "Arn": "cluster", "Input": told, "EcsParameters": {"TaskDefinitionArn": FAMILY}}
    with pytest.raises(ArrakisError, match="none of the overrides that ECS takes"):
        TaskTarget.of(raw)


@pytest.mark.parametrize("told", ["{}", '{"containerOverrides": null}', '{"containerOverrides": []}'])
def test_whoever_overrides_nothing_is_understood(told: str) -> None:
    raw = {"Id": "1", "Arn": "cluster", "Input": told, "EcsParameters": {"TaskDefinitionArn": FAMILY}}
    assert not any(TaskTarget.of(raw).overrides.values())


@pytest.mark.parametrize(
    ("said", "transformed"),
    [
        ({}, False),
        ({"InputPath": "$"}, False),
        ({"InputPath": "$.detail"}, True),
        ({"InputTransformer": {"InputTemplate": "{}"}}, True),
    ],
)
def test_what_is_made_of_an_event_is_transformed(said: dict[str, Any], transformed: bool) -> None:
    raw = {"Id": "1", "Arn": "cluster", "EcsParameters": {"TaskDefinitionArn": FAMILY}, **said}
    assert TaskTarget.of(raw).transformed is transformed


AWS = botocore.session.get_session()
MORE = {
    "PlatformVersion": "1.4.0",
    "Group": "sandbox-jobs",
    "Tags": [{"Key": "team", "Value": "sandboxes"}],
    "PropagateTags": "TASK_DEFINITION",
    "EnableECSManagedTags": True,
    "EnableExecuteCommand": True,
    "PlacementConstraints": [{"type": "memberOf", "expression": "attribute:zone == a"}],
    "PlacementStrategy": [{"type": "spread", "field": "host"}],
    "ReferenceId": "cleanup",
}


def test_whatever_else_a_rule_says_of_its_task_is_said_as_run_task_takes_it() -> None:
    own = {"TaskDefinitionArn", "TaskCount", "LaunchType", "NetworkConfiguration", "CapacityProviderStrategy"}
    assert own | set(MORE) == set(AWS.get_service_model("events").shape_for("EcsParameters").members)
    target = TaskTarget.of({"Arn": "cluster", "EcsParameters": {"TaskDefinitionArn": FAMILY, **MORE}})
    assert (target.more["platformVersion"], target.more["enableECSManagedTags"]) == ("1.4.0", True)
    assert target.more["tags"] == [{"key": "team", "value": "sandboxes"}]
    assert len(target.more) == len(MORE)
    run_task = AWS.get_service_model("ecs").operation_model("RunTask").input_shape
    report = ParamValidator().validate({"taskDefinition": FAMILY, **target.more}, run_task)
    assert not report.has_errors(), report.generate_report()
    assert set(target.more) <= set(run_task.members)


def test_what_a_rule_leaves_open_is_left_open() -> None:
    said = {"TaskDefinitionArn": FAMILY, "EnableECSManagedTags": False, "Tags": [], "Group": None}
    assert TaskTarget.of({"Arn": "cluster", "EcsParameters": said}).more == {}


@pytest.mark.parametrize(
    "definition",
    [FAMILY, f"{FAMILY}:7", f"{ARN}task-definition/{FAMILY}", f"{ARN}task-definition/{FAMILY}:7"],
)
def test_the_family_of_a_task(definition: str) -> None:
    target = TaskTarget.of({"Arn": "cluster", "EcsParameters": {"TaskDefinitionArn": definition}})
    assert target.family == FAMILY
