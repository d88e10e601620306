"""The AWS probes against moto, mended; what it cannot say (refusals, pages, stop codes) is said in its place."""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from types import SimpleNamespace
from typing import Any

import boto3  # type: ignore[import-untyped, unused-ignore]
import botocore.session
import pytest
from botocore import handlers  # type: ignore[import-untyped, unused-ignore]
from botocore.exceptions import (  # type: ignore[import-untyped, unused-ignore]
    SSOTokenLoadError,
    UnauthorizedSSOTokenError,
)
from moto import mock_aws

from diagnostics.alarms import Alarm, Change, read_alarm
from diagnostics.compute import Rule, Service, TaskRun, read_definition, read_rule, read_service, read_tasks
from diagnostics.servers import Access, read_access, read_cache, read_instance
from lab import moto_shims
from sandbox.adapters.aws import Aws
from sandbox.errors import ArrakisError, Denied, Missing, Throttled, Unreachable

REGION = "eu-central-1"
NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
SPAN: dict[str, Any] = {"now": NOW, "window": HOUR}
NAME = "arrakis-test-sandbox-count-high"
ARN = f"arn:aws:ecs:{REGION}:123456789012:"


class Injected:
    """Answers said in moto's place, in order, and what was asked. An answer is a page, an error's code or an exception."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._answers: dict[str, deque[Any]] = defaultdict(deque)

    def say(self, operation: str, *answers: Any) -> None:
        """Prepare the next answers of an operation, such as DescribeAlarms; after them moto answers again."""
        self._answers[operation] += answers

    def note(self, *, model: Any, params: dict[str, Any], **_: Any) -> None:
        """Remember a call."""
        self.asked.append((model.name, dict(params)))

    def answer(self, *, model: Any, **_: Any) -> tuple[Any, dict[str, Any]] | None:
        """Answer a call, or leave it to moto."""
        if not self._answers[model.name]:
            return None
        answer = self._answers[model.name].popleft()
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):
            error = {"Error": {"Code": answer, "Message": "said the service"}, "ResponseMetadata": {}}
            return SimpleNamespace(status_code=400), error
        return SimpleNamespace(status_code=200), {**answer, "ResponseMetadata": {}}

    def reset(self) -> None:
        """Forget everything."""
        self.asked.clear()
        self._answers.clear()


@pytest.fixture(scope="module")
def before_moto() -> Iterator[Injected]:
    """Put what is injected into every client that is made; a client takes longer to make than all its calls."""
    said = Injected()
    ours = [("before-parameter-build", said.note), ("before-call", said.answer)]
    moto_shims.install()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handlers, "BUILTIN_HANDLERS", [*handlers.BUILTIN_HANDLERS, *ours])
        yield said
        client.cache_clear()


@pytest.fixture(autouse=True)
def injected(before_moto: Injected, monkeypatch: pytest.MonkeyPatch) -> Iterator[Injected]:
    """Put a new account of moto's in AWS' place, and nothing before it yet."""
    for variable in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(variable, raising=False)
    before_moto.reset()
    with mock_aws():
        yield before_moto


@pytest.fixture(scope="module")
def aws(before_moto: Injected) -> Aws:
    return Aws(region=REGION)


@cache
def client(service: str) -> Any:
    return boto3.session.Session(region_name=REGION).client(service)


# ---- what AWS refuses


@pytest.mark.parametrize(
    ("answer", "kind", "says", "hint"),
    [
        ("AccessDeniedException", Denied, "refused ecs:list_clusters: AccessDeniedException", "policy"),
        ("AccessDenied", Denied, "refused ecs:list_clusters", "policy"),
        ("UnauthorizedOperation", Denied, "refused ecs:list_clusters", "policy"),
        ("ExpiredToken", Denied, "the login has expired (ExpiredToken)", "aws sso login"),
        ("ExpiredTokenException", Denied, "the login has expired", "aws sso login"),
        ("RequestExpired", Denied, "the login has expired", "aws sso login"),
        (UnauthorizedSSOTokenError(), Denied, "the login has expired", "aws sso login"),
        (SSOTokenLoadError(error_msg="none"), Denied, "the login has expired", "aws sso login"),
        ("UnrecognizedClientException", Denied, "the access key is not valid", "AWS_PROFILE"),
        ("InvalidClientTokenId", Denied, "the access key is not valid", "AWS_PROFILE"),
        ("InvalidAccessKeyId", Denied, "the access key is not valid", "AWS_PROFILE"),
        ("AuthFailure", Denied, "the access key is not valid", "AWS_PROFILE"),
        ("ThrottlingException", Throttled, "come more slowly (ThrottlingException)", "try again"),
        ("Throttling", Throttled, "come more slowly", "try again"),
        ("TooManyRequestsException", Throttled, "come more slowly", "try again"),
        ("RequestLimitExceeded", Throttled, "come more slowly", "try again"),
        ("RequestThrottled", Throttled, "come more slowly", "try again"),
        ("RequestThrottledException", Throttled, "come more slowly", "try again"),
        ("ProvisionedThroughputExceededException", Throttled, "come more slowly", "try again"),
        ("ResourceNotFoundException", Missing, "ecs:list_clusters: said the service", ""),
        ("ClusterNotFoundException", Missing, "said the service", ""),
        ("ServiceNotFoundException", Missing, "said the service", ""),
        ("DBInstanceNotFound", Missing, "said the service", ""),
        ("InternalFailure", Unreachable, "InternalFailure said the service", ""),
    ],
)
def test_a_refusal_says_why_and_what_to_do(
    aws: Aws, injected: Injected, answer: Any, kind: type[ArrakisError], says: str, hint: str
) -> None:
    injected.say("ListClusters", answer)
    with pytest.raises(kind) as told:
        aws.read("ecs", "list_clusters")
    assert type(told.value) is kind
    assert says in str(told.value)
    assert hint in told.value.hint


def test_probes_that_start_at_once_share_clients_which_are_made_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aws = Aws(region=REGION)
    at_work, made = threading.Semaphore(1), []
    real = botocore.session.Session.create_client

    def make(self: Any, service: str, **more: Any) -> Any:
        assert at_work.acquire(blocking=False), "two clients are made at once"
        time.sleep(0)  # let the others come
        made.append(service)
        try:
            return real(self, service, **more)
        finally:
            at_work.release()

    monkeypatch.setattr(botocore.session.Session, "create_client", make)
    asked = [("ecs", "list_clusters"), ("events", "list_rules"), ("rds", "describe_db_instances")] * 3
    with ThreadPoolExecutor(len(asked)) as pool:
        list(pool.map(lambda question: aws.read(*question), asked))
    assert sorted(made) == ["ecs", "events", "rds"]


def test_moments_are_utc_whatever_this_machine_says(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as here:
        here.setenv("TZ", "America/New_York")
        time.tzset()
        try:
            make_service()
            service = aws.read("ecs", "describe_services", cluster="arrakis", services=["arrakis-worker"])
        finally:
            here.undo()
            time.tzset()
    made = service["services"][0]["deployments"][0]["createdAt"]
    assert made.tzinfo is UTC
    assert abs(made - datetime.now(UTC)) < timedelta(minutes=1)


# ---- alarms


def put_alarm(name: str = NAME, **changes: Any) -> Any:
    cloudwatch = client("cloudwatch")
    about: dict[str, Any] = {
        "Namespace": "Arrakis/Sandbox",
        "MetricName": "ActiveSandboxCount",
        "Dimensions": [{"Name": "Environment", "Value": "test"}],
        "Statistic": "Maximum",
        "Period": 300,
    }
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        EvaluationPeriods=2,
        Threshold=100.0,
        ComparisonOperator="GreaterThanThreshold",
        **(changes or about),
    )
    return cloudwatch


def put_point(namespace: str, metric: str, value: float, at: datetime, **dimension: str) -> None:
    dimensions = [{"Name": name, "Value": text} for name, text in dimension.items()]
    data = {"MetricName": metric, "Dimensions": dimensions, "Timestamp": at, "Value": value}
    client("cloudwatch").put_metric_data(Namespace=namespace, MetricData=[data])


def read(aws: Aws) -> Alarm:
    found = read_alarm(aws, suffix="sandbox-count-high", prefix="arrakis-test-", **SPAN)
    assert found
    return found


def test_an_alarm_with_its_metric_and_its_changes(aws: Aws) -> None:
    cloudwatch = put_alarm()
    for state in ("ALARM", "OK"):
        cloudwatch.set_alarm_state(AlarmName=NAME, StateValue=state, StateReason=f"now {state}")
    for minutes, value in ((10, 104.0), (20, 99.0), (70, 1.0)):
        put_point(
            "Arrakis/Sandbox",
            "ActiveSandboxCount",
            value,
            NOW - timedelta(minutes=minutes),
            Environment="test",
        )
    alarm = read(aws)
    assert (alarm.name, alarm.state, alarm.reason) == (NAME, "OK", "now OK")
    assert (alarm.metric, alarm.threshold, alarm.period, alarm.evaluations) == (
        "ActiveSandboxCount",
        100,
        300,
        2,
    )
    assert [value for _, value in alarm.points] == [99.0, 104.0]
    assert not alarm.blind
    assert alarm.changes
    assert [(change.old, change.new) for change in alarm.changes] == [("ALARM", "OK"), ("OK", "ALARM")]
    assert alarm.changes[0].at >= alarm.changes[1].at >= NOW


def test_an_alarm_whose_metric_nobody_publishes_is_blind(aws: Aws) -> None:
    put_alarm()
    put_point("Arrakis/Sandbox", "ActiveSandboxCount", 7, NOW, Environment="another")
    assert read(aws).blind
    assert read_alarm(aws, suffix="sandbox-count-high", prefix="arrakis-production-", **SPAN) is None


def test_which_alarm_is_not_guessed(aws: Aws) -> None:
    for environment in ("staging", "production"):
        put_alarm(f"arrakis-{environment}-sandbox-count-high")
    put_alarm("arrakis-staging-cleanup-failures")
    for prefix in ("", "arrakis-"):
        with pytest.raises(ArrakisError, match="cannot tell which alarm is meant") as several:
            read_alarm(aws, suffix="sandbox-count-high", prefix=prefix, **SPAN)
        named = "arrakis-production-sandbox-count-high, arrakis-staging-sandbox-count-high"
        assert str(several.value).endswith(f": {named}")
        assert "`alarm_prefix` under [stack]" in several.value.hint
    alarm = read_alarm(aws, suffix="sandbox-count-high", prefix="arrakis-staging-", **SPAN)
    assert alarm
    assert alarm.name == "arrakis-staging-sandbox-count-high"


def test_an_alarm_that_is_called_just_as_its_prefix_says_is_meant(aws: Aws) -> None:
    names = ("sandbox-count-high", "arrakis-sandbox-count-high", "arrakis-staging-sandbox-count-high")
    for name in names:
        put_alarm(name)
    alarm = read_alarm(aws, suffix="sandbox-count-high", prefix="arrakis-", **SPAN)
    assert alarm
    assert alarm.name == "arrakis-sandbox-count-high"
    with pytest.raises(ArrakisError, match="cannot tell which alarm is meant"):
        read_alarm(aws, suffix="sandbox-count-high", prefix="", **SPAN)


def test_an_alarm_on_an_expression_is_not_called_blind(aws: Aws) -> None:
    stat = {"Metric": {"Namespace": "Arrakis/Sandbox", "MetricName": "x"}, "Period": 60, "Stat": "Sum"}
    put_alarm(
        Metrics=[
            {"Id": "x", "MetricStat": stat, "ReturnData": False},
            {"Id": "twice", "Expression": "x * 2", "ReturnData": True},
        ]
    )
    client("cloudwatch").set_alarm_state(AlarmName=NAME, StateValue="ALARM", StateReason="x")
    with pytest.raises(ArrakisError, match=f"alarm {NAME} says ALARM, but watches an expression") as told:
        read(aws)
    assert NAME in told.value.hint


def test_an_alarm_on_a_percentile_is_read_as_that(aws: Aws, injected: Injected) -> None:
    put_alarm(Namespace="Arrakis/Sandbox", MetricName="Latency", ExtendedStatistic="p99", Period=60)
    point = {"Timestamps": [NOW], "Values": [812.0], "StatusCode": "Complete"}
    injected.say("GetMetricData", {"MetricDataResults": [point]})
    assert read(aws).points == ((NOW, 812.0),)
    [asked] = [params for name, params in injected.asked if name == "GetMetricData"]
    assert [query["MetricStat"]["Stat"] for query in asked["MetricDataQueries"]] == ["p99"]


@pytest.mark.parametrize("code", ["AccessDeniedException", "ThrottlingException"])
def test_without_its_history_an_alarm_is_still_known(aws: Aws, injected: Injected, code: str) -> None:
    put_alarm()
    injected.say("DescribeAlarmHistory", code)
    assert read(aws).changes is None


def test_what_cannot_be_read_is_raised(aws: Aws, injected: Injected) -> None:
    put_alarm()
    injected.say("DescribeAlarms", "ThrottlingException")
    with pytest.raises(Throttled):
        read(aws)
    injected.say("GetMetricData", "AccessDenied")
    with pytest.raises(Denied):
        read(aws)


def test_a_metric_that_failed_is_not_a_metric_without_data(aws: Aws, injected: Injected) -> None:
    put_alarm()
    failed = {"Id": "m1", "StatusCode": "InternalError", "Timestamps": [], "Values": []}
    injected.say("GetMetricData", {"MetricDataResults": [failed]})
    with pytest.raises(Unreachable, match="ActiveSandboxCount: InternalError"):
        read(aws)


def test_all_pages_of_a_metric_are_read(aws: Aws, injected: Injected) -> None:
    put_alarm()
    late, early = (
        {"Timestamps": [NOW - HOUR * n], "Values": [float(n)], "StatusCode": "Complete"} for n in (1, 2)
    )
    injected.say(
        "GetMetricData",
        {"MetricDataResults": [late | {"StatusCode": "PartialData"}], "NextToken": "more"},
        {"MetricDataResults": [early]},
    )
    assert read(aws).points == ((NOW - HOUR * 2, 2.0), (NOW - HOUR, 1.0))


def history(number: int) -> dict[str, Any]:
    data = '{"oldState": {"stateValue": "OK"}, "newState": {"stateValue": "INSUFFICIENT_DATA"}}'
    item = {"AlarmName": NAME, "Timestamp": NOW - timedelta(minutes=number), "HistoryData": data}
    return {"AlarmHistoryItems": [item], "NextToken": "more"}


def test_the_history_of_an_alarm_that_flaps_is_cut(aws: Aws, injected: Injected) -> None:
    put_alarm()
    injected.say("DescribeAlarmHistory", *map(history, range(9)))
    changes = read(aws).changes
    assert changes == tuple(
        Change(at=NOW - timedelta(minutes=number), old="OK", new="INSUFFICIENT_DATA") for number in range(3)
    )
    asked = [params for name, params in injected.asked if name == "DescribeAlarmHistory"]
    assert asked[0]["StartDate"] == NOW - timedelta(days=1)


def test_a_history_that_cannot_be_understood_is_unknown(aws: Aws, injected: Injected) -> None:
    put_alarm()
    [item] = history(0)["AlarmHistoryItems"]
    injected.say("DescribeAlarmHistory", {"AlarmHistoryItems": [item | {"HistoryData": "{}"}]})
    assert read(aws).changes is None


# ---- EventBridge and ECS


def make_task_definition() -> dict[str, Any]:
    """Register the clean-up's task in a cluster; return where it runs."""
    ecs, ec2 = client("ecs"), client("ec2")
    ecs.create_cluster(clusterName="arrakis")
    ecs.register_task_definition(
        family="arrakis-sandbox-cleanup",
        containerDefinitions=[{"name": "cleanup", "image": "cleanup", "memory": 128}],
        requiresCompatibilities=["FARGATE"],
        networkMode="awsvpc",
        cpu="256",
        memory="512",
    )
    return {
        "Subnets": [ec2.describe_subnets()["Subnets"][0]["SubnetId"]],
        "SecurityGroups": [ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]],
        "AssignPublicIp": "DISABLED",
    }


def test_a_definition_is_the_newest_of_its_family_or_the_named_one_while_ecs_starts_it(
    aws: Aws, injected: Injected
) -> None:
    make_task_definition()
    family, first = "arrakis-sandbox-cleanup", f"{ARN}task-definition/arrakis-sandbox-cleanup:1"
    client("ecs").deregister_task_definition(taskDefinition=first)
    make_task_definition()
    told = {name: read_definition(aws, name) for name in (family, f"{family}:1", f"{family}:9")}
    assert {name: found and found.arn for name, found in told.items()} == {
        family: first[:-1] + "2",
        f"{family}:1": None,  # described all the same, but INACTIVE
        f"{family}:9": None,
    }
    assert (
        client("ecs").describe_task_definition(taskDefinition=first)["taskDefinition"]["status"] == "INACTIVE"
    )
    injected.say("DescribeTaskDefinition", "ServerException", "AccessDeniedException")
    with pytest.raises(Unreachable):
        read_definition(aws, family)
    with pytest.raises(Denied):
        read_definition(aws, family)


def make_service() -> dict[str, Any]:
    network = make_task_definition()
    client("ecs").create_service(
        cluster="arrakis",
        serviceName="arrakis-worker",
        taskDefinition="arrakis-sandbox-cleanup",
        desiredCount=2,
        launchType="FARGATE",
        networkConfiguration={
            "awsvpcConfiguration": {
                "subnets": network["Subnets"],
                "securityGroups": network["SecurityGroups"],
            }
        },
    )
    return network


def put_rule() -> Any:
    """A rule that starts the clean-up, and tells a function of it."""
    events, network = client("events"), make_task_definition()
    events.put_rule(Name="cleanup", ScheduleExpression="rate(15 minutes)")
    task = {
        "TaskDefinitionArn": f"{ARN}task-definition/arrakis-sandbox-cleanup:1",
        "TaskCount": 1,
        "LaunchType": "FARGATE",
        "PlatformVersion": "1.4.0",
        "Group": "sandbox-jobs",
        "NetworkConfiguration": {"awsvpcConfiguration": network},
    }
    targets = [
        {"Id": "other", "Arn": f"arn:aws:lambda:{REGION}:123456789012:function:told"},
        {
            "Id": "task",
            "Arn": f"{ARN}cluster/arrakis",
            "RoleArn": "arn:aws:iam::1:role/x",
            "EcsParameters": task,
        },
    ]
    events.put_targets(Rule="cleanup", Targets=targets)
    return events


def rule_of(aws: Aws) -> Rule:
    rule = read_rule(aws, "cleanup")
    assert rule
    return rule


def test_a_rule_and_the_task_it_starts(aws: Aws) -> None:
    events = put_rule()
    rule = rule_of(aws)
    assert (rule.name, rule.enabled, rule.schedule) == ("cleanup", True, "rate(15 minutes)")
    [target] = rule.targets
    assert target.security_groups
    started = aws.write(
        "ecs",
        "run_task",
        cluster=target.cluster,
        taskDefinition=target.task_definition,
        launchType=target.launch_type,
        networkConfiguration=target.network,
        count=target.count,
        overrides=target.overrides,
        **target.more,
    )
    assert [task["group"] for task in started["tasks"]] == ["sandbox-jobs"]
    assert len(started["tasks"]) == 1
    events.disable_rule(Name="cleanup")
    assert not rule_of(aws).enabled


def test_there_is_no_such_rule(aws: Aws) -> None:
    assert read_rule(aws, "cleanup") is None


def test_a_rules_targets_are_read_to_the_last_page(aws: Aws, injected: Injected) -> None:
    put_rule()
    task = {"Arn": "cluster", "EcsParameters": {"TaskDefinitionArn": "family"}}
    first = {"Targets": [task], "NextToken": "more"}
    injected.say(
        "ListTargetsByRule", first, {"Targets": [], "NextToken": "yet more"}, {"Targets": [task, task]}
    )
    assert len(rule_of(aws).targets) == 3
    tokens = [params.get("NextToken") for name, params in injected.asked if name == "ListTargetsByRule"]
    assert tokens == [None, "more", "yet more"]


def test_a_run_is_followed_to_its_end(aws: Aws) -> None:
    put_rule()
    [target] = rule_of(aws).targets
    [task] = client("ecs").run_task(
        cluster="arrakis",
        taskDefinition="arrakis-sandbox-cleanup",
        launchType="FARGATE",
        startedBy="an operator",
        networkConfiguration=target.network,
    )["tasks"]
    seen: list[TaskRun] = []
    while not seen or not seen[-1].ended:
        seen += read_tasks(aws, cluster="arrakis", family="arrakis-sandbox-cleanup")
        assert len(seen) < 10
    assert len(seen) > 1
    assert {run.id for run in seen} == {task["taskArn"].rpartition("/")[2]}
    assert (seen[-1].started_by, seen[-1].exits, seen[-1].failed) == ("an operator", (("cleanup", 0),), False)
    assert read_tasks(aws, cluster="arrakis", family="another") == ()


def test_every_run_is_read_once_newest_first(aws: Aws, injected: Injected) -> None:
    arns = [f"{ARN}task/arrakis/{number}" for number in range(150)]
    injected.say(
        "ListTasks",
        {"taskArns": arns[:1], "nextToken": "more"},
        {"taskArns": [], "nextToken": "yet more"},  # a page may be empty
        {"taskArns": arns[1:2]},
        {"taskArns": arns[1:101], "nextToken": "more"},
        {"taskArns": arns[101:]},
    )
    tasks = [
        {
            "taskArn": arn,
            "taskDefinitionArn": "family:1",
            "lastStatus": "STOPPED",
            "createdAt": NOW - timedelta(minutes=number * 7 % 150),
        }
        for number, arn in enumerate(arns)
    ]
    gone = [{"arn": arns[-1], "reason": "MISSING"}]
    injected.say("DescribeTasks", {"tasks": tasks[:100]}, {"tasks": tasks[100:-1], "failures": gone})
    runs = read_tasks(aws, cluster="arrakis", family="f")
    assert {run.id for run in runs} == {str(number) for number in range(149)}
    assert runs[0].created_at == NOW
    moments = [run.created_at for run in runs if run.created_at]
    assert moments == sorted(moments, reverse=True)
    asked = [params for name, params in injected.asked if name == "DescribeTasks"]
    assert [len(params["tasks"]) for params in asked] == [100, 50]
    listed = [params["desiredStatus"] for name, params in injected.asked if name == "ListTasks"]
    assert listed == ["RUNNING"] * 3 + ["STOPPED"] * 2


def worker(aws: Aws) -> Service:
    service = read_service(aws, cluster="arrakis", name="arrakis-worker")
    assert service
    return service


def test_a_service_that_lacks_a_task_and_one_that_has_them_all(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_ECS_SERVICE_RUNNING", "1")
    network = make_service()
    service = worker(aws)
    assert not service.stable
    assert (service.status, service.desired, service.running, service.pending) == ("ACTIVE", 2, 1, 1)
    assert service.security_groups == tuple(network["SecurityGroups"])
    assert service.definition == "arrakis-sandbox-cleanup:1"
    assert [(each.status, each.rollout) for each in service.deployments] == [("PRIMARY", "IN_PROGRESS")]
    client("ecs").update_service(cluster="arrakis", service="arrakis-worker", desiredCount=3)
    assert worker(aws).stable  # moto starts them in no time


def test_there_is_no_such_service_and_no_such_cluster(aws: Aws, injected: Injected) -> None:
    for read in (read_service, lambda aws, cluster, name: read_tasks(aws, cluster=cluster, family=name)):
        with pytest.raises(Missing):
            read(aws, cluster="arrakis", name="arrakis-worker")
    make_task_definition()
    assert read_service(aws, cluster="arrakis", name="arrakis-worker") is None
    injected.say("DescribeServices", {"services": [], "failures": [{"reason": "ACCESS_DENIED"}]})
    with pytest.raises(ArrakisError, match="arrakis-worker: ACCESS_DENIED"):
        read_service(aws, cluster="arrakis", name="arrakis-worker")


# ---- servers


def make_instance(name: str, engine: str = "postgres") -> None:
    client("rds").create_db_instance(
        DBInstanceIdentifier=name,
        Engine=engine,
        DBInstanceClass="db.t3.micro",
        AllocatedStorage=20,
        MasterUsername="arrakis",
        MasterUserPassword="not-a-secret",
    )


def test_the_only_postgresql_instance_is_found(aws: Aws) -> None:
    make_instance("arrakis-test")
    make_instance("shop", engine="mysql")
    for minutes, left in ((14, 9e9), (2, 2e9)):
        at = NOW - timedelta(minutes=minutes)
        put_point("AWS/RDS", "FreeStorageSpace", left, at, DBInstanceIdentifier="arrakis-test")
    at = NOW - timedelta(minutes=20)  # too old to be called what is
    put_point("AWS/RDS", "DatabaseConnections", 70, at, DBInstanceIdentifier="arrakis-test")
    put_point("AWS/RDS", "DatabaseConnections", 0, NOW, DBInstanceIdentifier="shop")
    seen = read_instance(aws, identifier=None, **SPAN)
    assert (seen.identifier, seen.status, seen.engine) == ("arrakis-test", "available", "postgres")
    assert (seen.port, seen.storage_gib, seen.storage_left, seen.connections) == (5432, 20, 2e9, None)
    assert len(seen.security_groups) == 1
    assert seen.events
    assert "DB instance created" in [message for _, message in seen.events]
    assert seen.events[0][0] >= seen.events[-1][0]
    assert read_instance(aws, identifier="shop", **SPAN).connections == 0


def test_which_instance_is_not_guessed(aws: Aws) -> None:
    with pytest.raises(Missing, match="no such RDS instance") as none:
        read_instance(aws, identifier=None, **SPAN)
    assert "database_instance" in none.value.hint
    make_instance("blue")
    make_instance("green")
    with pytest.raises(ArrakisError, match="cannot tell which RDS instance is meant: blue, green") as several:
        read_instance(aws, identifier=None, **SPAN)
    assert "database_instance" in several.value.hint
    assert read_instance(aws, identifier="green", **SPAN).identifier == "green"
    with pytest.raises(Missing, match="red"):
        read_instance(aws, identifier="red", **SPAN)


def test_an_instance_is_known_without_what_may_not_be_read(aws: Aws, injected: Injected) -> None:
    make_instance("arrakis-test")
    injected.say("GetMetricData", "AccessDenied", "Throttling")
    injected.say("DescribeEvents", "AccessDenied")
    seen = read_instance(aws, identifier=None, **SPAN)
    assert (seen.storage_left, seen.connections, seen.events) == (None, None, None)
    injected.say("DescribeDBInstances", "ExpiredToken")
    with pytest.raises(Denied, match="expired"):
        read_instance(aws, identifier=None, **SPAN)


def test_events_are_the_servers_own_of_all_pages(aws: Aws, injected: Injected) -> None:
    make_instance("arrakis-test")
    says = ("The DB instance has run out of storage.", "of another one", "DB instance restarted")
    pages: list[dict[str, Any]] = [
        {"Events": [{"SourceIdentifier": name, "Message": text, "Date": NOW - timedelta(minutes=9 - number)}]}
        for number, (name, text) in enumerate(zip(("arrakis-test", "b", "arrakis-test"), says, strict=True))
    ]
    injected.say("DescribeEvents", pages[0] | {"Marker": "1"}, pages[1] | {"Marker": "2"}, pages[2])
    events = read_instance(aws, identifier=None, **SPAN).events
    assert events == ((NOW - timedelta(minutes=7), says[2]), (NOW - timedelta(minutes=9), says[0]))
    asked = [params for name, params in injected.asked if name == "DescribeEvents"]
    assert asked[0]["Duration"] == 60


def make_group(name: str) -> None:
    client("elasticache").create_replication_group(
        ReplicationGroupId=name,
        ReplicationGroupDescription=name,
        Engine="redis",
        CacheNodeType="cache.t3.micro",
        ReplicasPerNodeGroup=1,
    )


def make_cluster(name: str, engine: str = "redis") -> None:
    client("elasticache").create_cache_cluster(
        CacheClusterId=name, Engine=engine, CacheNodeType="cache.t3.micro", NumCacheNodes=1
    )


def test_a_replication_group_with_its_fullest_node(aws: Aws, injected: Injected) -> None:
    make_group("arrakis-test")
    make_cluster("sessions", engine="memcached")
    for node, percent in (("arrakis-test-001", 41.5), ("arrakis-test-002", 97.0), ("another", 99.0)):
        put_point("AWS/ElastiCache", "DatabaseMemoryUsagePercentage", percent, NOW, CacheClusterId=node)
    member = {
        "CacheClusterId": "arrakis-test-001",
        "CacheClusterStatus": "available",
        "ReplicationGroupId": "arrakis-test",
        "Engine": "redis",
        "SecurityGroups": [{"SecurityGroupId": "sg-redis", "Status": "active"}],
    }
    injected.say("DescribeCacheClusters", {"CacheClusters": [member]}, {"CacheClusters": [member]})
    failover = {"SourceIdentifier": "arrakis-test-001", "Message": "Failover to replica node", "Date": NOW}
    other = {"SourceIdentifier": "sessions", "Message": "Cache node restarted", "Date": NOW}
    injected.say("DescribeEvents", {"Events": [failover, other]})
    seen = read_cache(aws, identifier=None, **SPAN)
    assert (seen.identifier, seen.status, seen.nodes, seen.port) == ("arrakis-test", "available", 2, 6379)
    assert (seen.memory_used_percent, seen.security_groups) == (97.0, ("sg-redis",))
    assert seen.events == ((NOW, "Failover to replica node"),)
    assert seen.address


def test_a_cluster_in_no_group_is_known_without_what_may_not_be_read(aws: Aws, injected: Injected) -> None:
    make_cluster("arrakis-test")
    at = NOW - timedelta(minutes=20)
    put_point("AWS/ElastiCache", "DatabaseMemoryUsagePercentage", 97, at, CacheClusterId="arrakis-test")
    injected.say("DescribeEvents", "AccessDenied")
    seen = read_cache(aws, identifier=None, **SPAN)
    assert (seen.identifier, seen.status, seen.members) == ("arrakis-test", "available", ("arrakis-test",))
    assert (seen.events, seen.memory_used_percent) == (None, None)


def test_which_cache_is_not_guessed(aws: Aws, injected: Injected) -> None:
    with pytest.raises(Missing, match="no such ElastiCache"):
        read_cache(aws, identifier=None, **SPAN)
    make_group("blue")
    make_cluster("green")
    with pytest.raises(ArrakisError, match=r"cannot tell which .* is meant: blue, green") as several:
        read_cache(aws, identifier=None, **SPAN)
    assert "`cache`" in several.value.hint
    for name in ("blue", "green"):
        injected.say("DescribeEvents", {"Events": []})
        assert read_cache(aws, identifier=name, **SPAN).identifier == name
    with pytest.raises(Missing):
        read_cache(aws, identifier="red", **SPAN)
    injected.say("DescribeReplicationGroups", "Throttling")
    with pytest.raises(Throttled):
        read_cache(aws, identifier=None, **SPAN)


def test_whether_a_task_is_let_in(aws: Aws, injected: Injected) -> None:
    ec2 = client("ec2")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    server, task, ranged = (
        ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]
        for name in ("server", "task", "ranged")
    )
    port = {"IpProtocol": "tcp", "FromPort": 5432, "ToPort": 5432}
    pair = port | {"UserIdGroupPairs": [{"GroupId": task}]}
    ec2.authorize_security_group_ingress(GroupId=server, IpPermissions=[pair])
    address = port | {"IpRanges": [{"CidrIp": "10.0.0.0/16"}]}
    ec2.authorize_security_group_ingress(GroupId=ranged, IpPermissions=[address])

    def access(*groups: str, port: int | None = 5432) -> Access:
        return read_access(aws, server_groups=groups, port=port, task_groups=[task])

    assert access(server) == Access(allowed=True, how=f"{server} lets {task} in at port 5432")
    assert access(server, port=6379).allowed is False
    assert access(ranged).allowed is None
    assert "10.0.0.0/16" in access(ranged).how
    before = len(injected.asked)
    assert access().allowed is access(server, port=None).allowed is None
    assert len(injected.asked) == before  # without a name AWS would answer with every group there is
    with pytest.raises(Missing):
        access("sg-00000000000000000")
