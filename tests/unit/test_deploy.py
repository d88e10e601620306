"""What is deployed: the Terraform, the policies it renders, the image's Dockerfile and its pins. Nothing is started here
but `--list` in a folder that holds what the image holds."""

import ast
import json
import operator
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from importlib.metadata import packages_distributions
from pathlib import Path
from shutil import copy, copytree, ignore_patterns
from typing import Any

import botocore.session
import pytest
from botocore.client import BaseClient
from hcl2 import SerializationOptions, loads

from runbooks import jobs
from runbooks.engine.environment import Environment
from runbooks.engine.errors import Exit
from runbooks.remedies.task import _OWN
from sandbox import metrics
from sandbox.cleanup import Report
from sandbox.facts import Known
from tasks import namespace

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
JOBS = ("cleanup", "orphan-detection", "publish-metrics")
PLAIN = SerializationOptions(with_comments=False, explicit_blocks=False, strip_string_quotes=True)

REGION = "arn:aws:{}:eu-central-1:123456789012:"
CLUSTER = REGION.format("ecs") + "cluster/arrakis"
FAMILY = REGION.format("ecs") + "task-definition/"
RULE = REGION.format("events") + "rule/"
LOGS = REGION.format("logs") + "log-group:/ecs/"
SECRET = REGION.format("secretsmanager") + "secret:arrakis-production/"
REPOSITORY = REGION.format("ecr") + "repository/arrakis-runbooks"
KEY = REGION.format("kms") + "key/1"
ROLE = "arn:aws:iam::123456789012:role/"
EXECUTION = ROLE + "arrakis-sandbox-jobs-execution"

# What the templates are given, by the very words of the Terraform: other words are a KeyError, and want a look here.
GIVEN: dict[str, Any] = {
    "local.account_id": "123456789012",
    "local.partition": "aws",
    "var.region": "eu-central-1",
    "data.aws_ecs_cluster.this.arn": CLUSTER,
    "data.aws_ecr_repository.this.arn": REPOSITORY,
    "values(var.secret_arns)": [f"{SECRET}{name}-AbCdEf" for name in ("database", "nats", "redis")],
    "var.secrets_kms_key_arns": [KEY],
    '[for group in aws_cloudwatch_log_group.job : "${group.arn}:*"]': [
        f"{LOGS}arrakis-sandbox-{job}:*" for job in JOBS
    ],
    "concat([aws_iam_role.execution.arn], [for role in aws_iam_role.task : role.arn])": [
        EXECUTION,
        *(f"{ROLE}arrakis-sandbox-{job}-task" for job in JOBS),
    ],
    "[for name in values(local.rule_names) : "
    '"arn:${local.partition}:events:${var.region}:${local.account_id}:rule/${name}"]': [
        f"{RULE}arrakis-sandbox-{job}" for job in JOBS
    ],
    "[for family in values(local.families) : "
    '"arn:${local.partition}:ecs:${var.region}:${local.account_id}:task-definition/${family}:*"]': [
        f"{FAMILY}arrakis-sandbox-{job}:*" for job in JOBS
    ],
}


# ---------------------------------------------------------------- reading the Terraform


def _parsed(text: str) -> dict[str, Any]:
    return loads(text, serialization_options=PLAIN)


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            assert name not in into, f"{name} is there twice"
            into[name] = value


def _terraform() -> dict[str, Any]:
    """Return the whole stack as one tree, e.g. ["resource"]["aws_iam_role"]["task"]."""
    tree: dict[str, Any] = {}
    for file in sorted((DEPLOY / "terraform").glob("*.tf")):
        for kind, blocks in _parsed(file.read_text()).items():
            for block in blocks:
                _merge(tree.setdefault(kind, {}), block)
    return tree


STACK = _terraform()
LOCALS: dict[str, Any] = STACK["locals"]
VARIABLES: dict[str, Any] = STACK["variable"]
RESOURCES: dict[str, Any] = STACK["resource"]


def _container() -> dict[str, Any]:
    definitions = RESOURCES["aws_ecs_task_definition"]["job"]["container_definitions"]
    inner = re.fullmatch(r"\$\{jsonencode\((.*)\)\}", definitions, re.S)
    assert inner
    (container,) = _parsed(f"them = {inner[1]}\n")["them"]
    assert isinstance(container, dict)
    return container


def _expressions(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _expressions(value)


def _calls() -> dict[str, dict[str, str]]:
    """Return what each policy file is given: variable → expression."""
    calls: dict[str, dict[str, str]] = {}
    for text in (*_expressions(RESOURCES), *_expressions(LOCALS)):
        for file, given in re.findall(r'templatefile\("\$\{local\.policies\}/([^"]+)", (\{.*\})\)', text):
            assert file not in calls, f"{file} is rendered twice"
            calls[file] = _parsed(f"them = {given}\n")["them"]
    return calls


CALLS = _calls()


def _template(file: str) -> str:
    return (DEPLOY / "policies" / file).read_text()


def _policy(file: str) -> dict[str, Any]:
    """Return a policy as Terraform renders it, for a stack whose names are the default ones."""

    def put(match: re.Match[str]) -> str:
        as_json, name = match[1], match[1] or match[2]
        words = CALLS[file][name]
        value = GIVEN[words[2:-1]] if words.startswith("${") else words
        assert isinstance(value, str) is not bool(as_json), (
            f"{file}: {name} needs jsonencode, or has it needlessly"
        )
        return json.dumps(value) if as_json else str(value)

    rendered = re.sub(r"\$\{(?:jsonencode\((\w+)\)|(\w+))\}", put, _template(file))
    policy = json.loads(rendered)
    assert isinstance(policy, dict)
    return policy


def _several(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


TESTS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": operator.eq,
    "ArnEquals": fnmatchcase,  # with wildcards, as ArnLike: IAM knows no difference
    "ArnLike": fnmatchcase,
}


def _holds(test: str, found: str | None, wanted: str | list[str]) -> bool:
    return found is not None and any(TESTS[test](found, value) for value in _several(wanted))


def _allows(policy: Mapping[str, Any], action: str, resource: str, context: Mapping[str, str]) -> bool:
    """Whether IAM would allow it. No policy here denies, and in IAM every condition of a statement has to hold."""
    return any(
        action in _several(statement["Action"])
        and any(fnmatchcase(resource, pattern) for pattern in _several(statement.get("Resource", resource)))
        and all(
            _holds(test, context.get(key), wanted)
            for test, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
        for statement in policy["Statement"]
    )


# ---------------------------------------------------------------- jobs


@pytest.mark.parametrize(
    ("job", "schedule", "metrics"),
    [
        ("cleanup", "rate(15 minutes)", False),
        ("orphan-detection", "rate(1 day)", True),
        ("publish-metrics", "rate(5 minutes)", True),
    ],
)
def test_a_job_runs_its_task_on_its_schedule(job: str, schedule: str, metrics: bool) -> None:
    settings = LOCALS["jobs"][job]
    assert (settings["task"], settings["schedule"], settings["publishes_metrics"]) == (job, schedule, metrics)


def test_there_are_these_jobs_and_each_is_made_into_everything() -> None:
    assert tuple(LOCALS["jobs"]) == JOBS
    for kind in (
        "aws_cloudwatch_event_rule",
        "aws_cloudwatch_event_target",
        "aws_cloudwatch_log_group",
        "aws_ecs_task_definition",
    ):
        assert RESOURCES[kind]["job"]["for_each"] == "${local.jobs}", kind
    assert RESOURCES["aws_iam_role"]["task"]["for_each"] == "${local.jobs}"


@pytest.mark.parametrize("job", JOBS)
def test_the_task_that_a_job_runs_exists(job: str) -> None:
    assert job in namespace.task_names


def test_the_cleanup_takes_the_option_that_it_is_given() -> None:
    assert LOCALS["jobs"]["cleanup"]["arguments"] == '${var.cleanup_orphaned ? ["--orphaned"] : []}'
    assert VARIABLES["cleanup_orphaned"]["default"] is False
    assert "orphaned" in {
        name for argument in namespace["cleanup"].get_arguments() for name in argument.names
    }


def test_the_rule_family_and_log_group_of_the_deployed_cleanup_are_the_default_names() -> None:
    name = re.search(r'"([^"]+)"', LOCALS["names"])
    assert name
    default = VARIABLES["name_prefix"]["default"]
    assert (
        name[1].replace("${var.name_prefix}", default).replace("${job}", "cleanup")
        == "arrakis-sandbox-cleanup"
    )
    for names, variable, otherwise in (
        ("rule_names", "rule_names", "name"),
        ("families", "families", "name"),
        ("log_groups", "log_groups", '"/ecs/${name}"'),
    ):
        assert LOCALS[names] == (
            f"${{{{for job, name in local.names : job => lookup(var.{variable}, job, {otherwise})}}}}"
        )
        assert VARIABLES[variable]["default"] == {}
    assert VARIABLES["cluster_name"]["default"] == "arrakis"
    assert RESOURCES["aws_cloudwatch_event_rule"]["job"]["name"] == "${local.rule_names[each.key]}"
    assert RESOURCES["aws_ecs_task_definition"]["job"]["family"] == "${local.families[each.key]}"
    assert RESOURCES["aws_cloudwatch_log_group"]["job"]["name"] == "${local.log_groups[each.key]}"


def test_a_rule_fires_unless_it_is_said_otherwise() -> None:
    rule = RESOURCES["aws_cloudwatch_event_rule"]["job"]
    assert rule["schedule_expression"] == "${each.value.schedule}"
    assert rule["state"] == '${lookup(var.enabled, each.key, true) ? "ENABLED" : "DISABLED"}'


def test_a_target_starts_its_task_once_in_private_with_the_roles_of_this_stack() -> None:
    target = RESOURCES["aws_cloudwatch_event_target"]["job"]
    (task,) = target["ecs_target"]
    (network,) = task["network_configuration"]
    assert target["role_arn"] == "${aws_iam_role.events.arn}"
    assert target["arn"] == "${data.aws_ecs_cluster.this.arn}"
    assert task["task_definition_arn"] == "${aws_ecs_task_definition.job[each.key].arn}"
    assert (task["task_count"], task["launch_type"]) == (1, "FARGATE")
    assert network["assign_public_ip"] is False
    assert not {"tags", "propagate_tags"} & set(task), "tags need ecs:TagResource, which the role has not"


def test_a_late_start_is_given_up_before_the_next_is_due() -> None:
    seconds = {"minutes": 60, "day": 86400}
    for job, settings in LOCALS["jobs"].items():
        every = re.fullmatch(r"rate\((\d+) (\w+)\)", settings["schedule"])
        assert every
        assert 60 <= settings["start_within"] < int(every[1]) * seconds[every[2]], job


def test_the_container_is_locked_down() -> None:
    container = _container()
    assert container["command"] == "${concat([each.value.task], each.value.arguments)}"
    assert container["image"] == "${data.aws_ecr_repository.this.repository_url}@${var.image_digest}"
    assert container["readonlyRootFilesystem"] is True
    assert container["linuxParameters"] == {"capabilities": {"drop": ["ALL"]}, "initProcessEnabled": True}
    assert container["memory"] == "${var.memory}"
    assert 0 < container["stopTimeout"] <= 120  # Fargate's limit
    assert "privileged" not in container


def test_addresses_come_from_secrets_and_nothing_secret_from_the_environment() -> None:
    container = _container()
    assert {secret["name"]: secret["valueFrom"] for secret in container["secrets"]} == {
        "DATABASE_URL": "${var.secret_arns.database}:url::",
        "REDIS_URL": "${var.secret_arns.redis}:url::",
        "NATS_URL": "${var.secret_arns.nats}:url::",
    }
    named = re.search(r"merge\(var\.extra_environment, (\{.*?\})\)", container["environment"])
    assert named
    assert set(_parsed(f"them = {named[1]}\n")["them"]) == {
        "ARRAKIS_ENV",
        "AWS_DEFAULT_REGION",
        "AWS_EC2_METADATA_DISABLED",
        "RUNBOOKS_STATE_DIR",
    }


def test_logs_go_to_the_jobs_own_group_and_outlive_it() -> None:
    logging = _container()["logConfiguration"]
    assert logging["logDriver"] == "awslogs"
    assert logging["options"]["awslogs-group"] == "${aws_cloudwatch_log_group.job[each.key].name}"
    assert RESOURCES["aws_cloudwatch_log_group"]["job"]["skip_destroy"] is True


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_is_described_typed_and_used(name: str) -> None:
    variable = VARIABLES[name]
    assert variable["description"]
    assert variable["type"]
    code = "".join(
        file.read_text() for file in (DEPLOY / "terraform").glob("*.tf") if file.stem != "variables"
    )
    assert re.search(rf"\bvar\.{name}\b", code)


# ---------------------------------------------------------------- policies


def test_every_policy_file_is_used_and_every_used_one_is_there() -> None:
    assert set(CALLS) == {file.name for file in (DEPLOY / "policies").iterdir()}


@pytest.mark.parametrize("file", CALLS)
def test_a_template_is_given_what_it_asks_for_and_no_more(file: str) -> None:
    asked = set(re.findall(r"\$\{(?:jsonencode\()?(\w+)\)?\}", _template(file)))
    assert asked == set(CALLS[file])
    assert _template(file).count("${") == len(re.findall(r"\$\{(?:jsonencode\(\w+\)|\w+)\}", _template(file)))


@pytest.mark.parametrize("file", CALLS)
def test_a_policy_names_what_it_allows(file: str) -> None:
    policy = _policy(file)
    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        assert not {"NotAction", "NotResource", "NotPrincipal"} & set(statement)
        assert not any("*" in action or "?" in action for action in _several(statement["Action"]))
        if file.startswith("trust-"):
            assert "*" not in json.dumps(statement["Principal"])
            assert statement["Condition"]["StringEquals"]["aws:SourceAccount"] == "123456789012"
            continue
        if statement["Resource"] == "*":  # the two calls for which AWS knows nothing narrower
            assert statement["Action"] in ("ecr:GetAuthorizationToken", "cloudwatch:PutMetricData")
            continue
        for resource in _several(statement["Resource"]):  # a revision, or a stream, of what is named
            assert "*" not in resource.removesuffix(":*")
            assert not resource.endswith(":*") or resource.startswith((FAMILY, LOGS))


@pytest.mark.parametrize("file", CALLS)
def test_the_actions_are_operations_that_aws_has(file: str) -> None:
    session = botocore.session.get_session()
    for statement in _policy(file)["Statement"]:
        for action in _several(statement["Action"]):
            service, operation = action.split(":")
            if action != "iam:PassRole":  # a permission that is no call
                assert operation in session.get_service_model(service).operation_names


def test_the_jobs_roles_have_this_policy_and_no_other() -> None:
    policies = RESOURCES["aws_iam_role_policy"]
    given = policies["put_metric_data"]["for_each"]
    assert given == "${{for job, settings in local.jobs : job => settings if settings.publishes_metrics}}"
    assert [name for name, policy in policies.items() if "aws_iam_role.task" in policy["role"]] == [
        "put_metric_data"
    ]
    assert policies["put_metric_data"]["role"] == "${aws_iam_role.task[each.key].id}"
    assert {kind for kind in RESOURCES if kind.startswith("aws_iam")} == {
        "aws_iam_role",
        "aws_iam_role_policy",
    }


@pytest.mark.parametrize("job", JOBS)
def test_a_jobs_role_allows_exactly_the_calls_that_the_job_makes(
    job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The jobs themselves run here, on a world that is read already; what they ask of AWS is recorded, not sent."""
    calls: list[tuple[str, dict[str, str]]] = []

    def record(client: Any, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        calls.append(
            (
                f"{client.meta.service_model.service_name}:{operation}",
                {"cloudwatch:namespace": params["Namespace"]},
            )
        )
        return {}

    monkeypatch.setattr(BaseClient, "_make_api_call", record)
    monkeypatch.setattr(metrics, "measure", lambda *_, **__: {"ActiveSandboxCount": Known(value=3)})
    monkeypatch.setattr(metrics, "orphans", lambda *_: [])
    monkeypatch.setattr(jobs, "Job", _NothingIsDue)
    monkeypatch.setattr(jobs, "_clock_of", lambda _: None)
    monkeypatch.setattr("runbooks.jobs.given_back", lambda *_, **__: ())
    monkeypatch.setattr("runbooks.engine.stops.raised", lambda _: None)
    monkeypatch.setattr("runbooks.engine.stops.marked", lambda _: frozenset())
    monkeypatch.setattr("signal.signal", lambda *_: None)
    target = Environment(
        name="production",
        database_url="postgresql://nowhere.invalid/x",
        redis_url="redis://nowhere.invalid",
        nats_url="nats://nowhere.invalid",
        region="eu-central-1",
    )
    runs = {
        "cleanup": lambda: jobs.cleanup(lambda: target, named="production", orphaned=False, timeout=1),
        "orphan-detection": lambda: jobs.orphan_detection(lambda: target, timeout=1),
        "publish-metrics": lambda: jobs.publish_metrics(lambda: target, timeout=1),
    }
    assert runs[job]() == Exit.HEALTHY
    policy = (
        _policy("task-put-metric-data.json")
        if LOCALS["jobs"][job]["publishes_metrics"]
        else {"Statement": []}
    )
    assert all(_allows(policy, action, "*", context) for action, context in calls)
    granted = {action for statement in policy["Statement"] for action in _several(statement["Action"])}
    assert granted == {action for action, _ in calls}


class _NothingIsDue:
    """In the clean-up's place: the real one is given PostgreSQL and Redis, and no AWS at all."""

    redis_answers = True

    def __init__(self, *_: object, **__: object) -> None:
        self.report = Report()

    def run(self, *, spared: object, kept: object) -> Report:
        assert spared == ()
        return self.report


def test_the_roles_are_handed_to_what_they_are_for() -> None:
    definition = RESOURCES["aws_ecs_task_definition"]["job"]
    assert definition["task_role_arn"] == "${aws_iam_role.task[each.key].arn}"
    assert definition["execution_role_arn"] == "${aws_iam_role.execution.arn}"
    assert f'"{_OWN}"' in definition["container_definitions"]  # by which the job is known for this toolkit's
    roles = RESOURCES["aws_iam_role"]
    assert (
        roles["task"]["assume_role_policy"]
        == roles["execution"]["assume_role_policy"]
        == "${local.trust_ecs_tasks}"
    )
    assert "trust-ecs-tasks.json" in LOCALS["trust_ecs_tasks"]
    assert "trust-events.json" in roles["events"]["assume_role_policy"]
    policies = RESOURCES["aws_iam_role_policy"]
    for policy, role, file in (
        ("execution", "execution", "execution-role.json"),
        ("execution_kms", "execution", "execution-role-kms.json"),
        ("events", "events", "events-role.json"),
    ):
        assert policies[policy]["role"] == f"${{aws_iam_role.{role}.id}}"
        assert f'/{file}"' in policies[policy]["policy"]


CLEANUP = FAMILY + "arrakis-sandbox-cleanup:12"
IN_CLUSTER = {"ecs:cluster": CLUSTER}
TO_ECS = {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
OURS = {"cloudwatch:namespace": "Arrakis/Sandbox"}
HERE = {"aws:SourceAccount": "123456789012"}
STREAM = LOGS + "arrakis-sandbox-cleanup:log-stream:runbooks/runbooks/1"
VIA = {"kms:ViaService": "secretsmanager.eu-central-1.amazonaws.com"}

ALLOWED = [
    ("events-role.json", "ecs:RunTask", CLEANUP, IN_CLUSTER),
    ("events-role.json", "ecs:RunTask", FAMILY + "arrakis-sandbox-publish-metrics:1", IN_CLUSTER),
    ("events-role.json", "iam:PassRole", EXECUTION, TO_ECS),
    ("events-role.json", "iam:PassRole", ROLE + "arrakis-sandbox-cleanup-task", TO_ECS),
    ("execution-role.json", "ecr:GetAuthorizationToken", "*", {}),
    ("execution-role.json", "ecr:BatchGetImage", REPOSITORY, {}),
    ("execution-role.json", "logs:CreateLogStream", STREAM, {}),
    ("execution-role.json", "logs:PutLogEvents", STREAM, {}),
    ("execution-role.json", "secretsmanager:GetSecretValue", SECRET + "nats-AbCdEf", {}),
    ("execution-role-kms.json", "kms:Decrypt", KEY, VIA),
    ("task-put-metric-data.json", "cloudwatch:PutMetricData", "*", OURS),
    (
        "trust-ecs-tasks.json",
        "sts:AssumeRole",
        "",
        HERE | {"aws:SourceArn": REGION.format("ecs") + "task/arrakis/1"},
    ),
    ("trust-events.json", "sts:AssumeRole", "", HERE | {"aws:SourceArn": RULE + "arrakis-sandbox-cleanup"}),
]
REFUSED = [
    ("events-role.json", "ecs:RunTask", CLEANUP, {"ecs:cluster": CLUSTER + "-other"}),
    ("events-role.json", "ecs:RunTask", CLEANUP, {}),
    ("events-role.json", "ecs:RunTask", FAMILY + "arrakis-worker:1", IN_CLUSTER),
    ("events-role.json", "ecs:RunTask", FAMILY + "arrakis-sandbox-cleanup-other:1", IN_CLUSTER),
    ("events-role.json", "ecs:StopTask", CLEANUP, IN_CLUSTER),
    ("events-role.json", "iam:PassRole", ROLE + "administrator", TO_ECS),
    ("events-role.json", "iam:PassRole", EXECUTION, {"iam:PassedToService": "lambda.amazonaws.com"}),
    ("events-role.json", "iam:PassRole", EXECUTION, {}),
    ("execution-role.json", "ecr:BatchGetImage", REPOSITORY + "-other", {}),
    ("execution-role.json", "ecr:PutImage", REPOSITORY, {}),
    ("execution-role.json", "logs:CreateLogGroup", STREAM, {}),
    ("execution-role.json", "logs:PutLogEvents", LOGS + "arrakis-worker:log-stream:1", {}),
    ("execution-role.json", "secretsmanager:GetSecretValue", SECRET + "discord-AbCdEf", {}),
    ("execution-role-kms.json", "kms:Decrypt", KEY, {}),
    ("execution-role-kms.json", "kms:Decrypt", KEY + "2", VIA),
    ("task-put-metric-data.json", "cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "AWS/RDS"}),
    ("task-put-metric-data.json", "cloudwatch:PutMetricData", "*", {}),
    ("task-put-metric-data.json", "cloudwatch:GetMetricData", "*", OURS),
    (
        "trust-ecs-tasks.json",
        "sts:AssumeRole",
        "",
        {"aws:SourceAccount": "999999999999", "aws:SourceArn": REGION.format("ecs") + "task/arrakis/1"},
    ),
    ("trust-ecs-tasks.json", "sts:AssumeRole", "", HERE),
    (
        "trust-ecs-tasks.json",
        "sts:AssumeRole",
        "",
        HERE | {"aws:SourceArn": "arn:aws:ecs:eu-central-1:9:task/x"},
    ),
    ("trust-events.json", "sts:AssumeRole", "", HERE | {"aws:SourceArn": RULE + "another"}),
]


@pytest.mark.parametrize(
    ("file", "action", "resource", "context", "expected"),
    [(*case, True) for case in ALLOWED] + [(*case, False) for case in REFUSED],
)
def test_what_a_policy_allows_and_refuses(
    file: str, action: str, resource: str, context: dict[str, str], expected: bool
) -> None:
    assert _allows(_policy(file), action, resource, context) is expected


# ---------------------------------------------------------------- the image


def _instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(word, " ".join(rest.split())) for word, rest in lines]


DOCKERFILE = _instructions()


def _all(word: str) -> list[str]:
    return [rest for name, rest in DOCKERFILE if name == word]


COPIED = [source for rest in _all("COPY") for source in rest.split()[:-1]]


def _ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out: the last line that matches it, or a folder it is in, decides."""
    parts = path.split("/")
    prefixes = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if not line or line.startswith("#"):
            continue
        anywhere = pattern.removeprefix("**/")
        if any(
            fnmatchcase(prefix.rsplit("/", 1)[-1], anywhere)
            if anywhere != pattern
            else "/" not in prefix and fnmatchcase(prefix, pattern)
            for prefix in prefixes
        ):
            ignored = not line.startswith("!")
    return ignored


def _pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / name).read_text(), re.M))


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_base_is_a_small_python_that_the_pins_know_and_names_no_registry() -> None:
    assert _all("FROM") == ["${PYTHON_IMAGE}"]
    assert _all("ARG") == ["PYTHON_IMAGE=python:3.13-slim"]
    assert not re.search(r"index-url|https?://", (DEPLOY / "Dockerfile").read_text())


def test_the_user_the_state_folder_and_the_volume_are_those_of_the_task_definition() -> None:
    container, words = _container(), [name for name, _ in DOCKERFILE]
    assert _all("USER") == [container["user"]] == ["10001:10001"]
    assert words.index("USER") > max(at for at, word in enumerate(words) if word in ("RUN", "COPY"))
    folder = LOCALS["state_dir"]
    assert [json.loads(volume) for volume in _all("VOLUME")] == [[folder]]
    assert words.index("VOLUME") > words.index("RUN")
    assert f"install -d -o 10001 -g 10001 -m 0700 {folder}" in _all("RUN")[-1]
    assert f"RUNBOOKS_STATE_DIR={folder}" in _all("ENV")[0].split()
    (mount,) = container["mountPoints"]
    assert mount == {"sourceVolume": "state", "containerPath": "${local.state_dir}", "readOnly": False}
    assert RESOURCES["aws_ecs_task_definition"]["job"]["volume"] == [{"name": "state"}]


def test_no_shell_stands_between_a_signal_and_python() -> None:
    (workdir,) = _all("WORKDIR")
    (entry,) = _all("ENTRYPOINT")
    assert json.loads(entry) == ["python", "-m", "runbooks", "--search-root", workdir]
    assert [json.loads(command) for command in _all("CMD")] == [["--list"]]


def test_only_pinned_packages_are_installed() -> None:
    (install,) = [run for run in _all("RUN") if "pip" in run]
    assert "--require-hashes" in install.split()
    assert install.endswith(" -r requirements.run.lock")


def test_nothing_secret_is_built_in() -> None:
    assert not _all("ADD")
    settings = " ".join(_all("ENV") + _all("ARG"))
    assert not re.search(r"SECRET|PASSWORD|TOKEN|_KEY|_URL", settings, re.I)


@pytest.mark.parametrize("source", COPIED)
def test_what_is_copied_exists_and_is_let_in(source: str) -> None:
    assert (ROOT / source).exists()
    assert not _ignored(source)
    assert not (ROOT / source).is_dir() or not _ignored(f"{source}/folder/file.py")


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".git/config",
        ".lab/state/journal.jsonl",
        ".venv/bin/python",
        "deploy/terraform/terraform.tfvars",
        "environments/.env",
        "lab/aws.py",
        "pyproject.toml",
        "requirements.lock",
        "runbooks/__pycache__/x.pyc",
        "tests/unit/test_deploy.py",
    ],
)
def test_what_the_image_does_not_need_is_kept_out(path: str) -> None:
    assert _ignored(path)


def _modules() -> list[Path]:
    files = [ROOT / source for source in COPIED if source.endswith(".py")]
    return files + [file for source in COPIED for file in (ROOT / source).rglob("*.py")]


def test_whatever_is_imported_is_copied_or_pinned() -> None:
    """Also inside functions. The lab is for practice: only its own tasks import it, and they are not for this image."""
    rooms = {Path(source).stem for source in COPIED}
    pinned, distributions = set(map(_plain, _pins("requirements.run.lock"))), packages_distributions()
    missing = set()
    for file in _modules():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for top in (name.split(".")[0] for name in names):
                practice = top == "lab" and file.name == "tasks.py"
                packages = {_plain(name) for name in distributions.get(top, ())}
                if not (practice or top in rooms or top in sys.stdlib_module_names or packages & pinned):
                    missing.add(f"{file.relative_to(ROOT)}: {top}")
    assert not missing


def test_the_entry_point_works_with_what_is_copied_alone(tmp_path: Path) -> None:
    for source in COPIED:
        if (ROOT / source).is_dir():
            copytree(ROOT / source, tmp_path / source, ignore=ignore_patterns("__pycache__"))
        else:
            copy(ROOT / source, tmp_path)
    (entry,) = _all("ENTRYPOINT")
    (workdir,) = _all("WORKDIR")
    program = [str(tmp_path) if word == workdir else word for word in json.loads(entry)[1:]]
    listed = subprocess.run(
        [sys.executable, *program, "--list"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert listed.returncode == 0, listed.stderr
    assert set(namespace.task_names) <= set(re.findall(r"^  (\S+)", listed.stdout, re.M))


# ---------------------------------------------------------------- the pins, the page


def test_the_images_pins_are_the_tested_ones() -> None:
    assert _pins("requirements.run.lock").items() <= _pins("requirements.lock").items()


def test_the_images_pins_are_what_a_run_needs_and_nothing_for_practice_or_tests() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(requirements: list[str]) -> set[str]:
        return {_plain(re.split(r"[^\w.-]", requirement)[0]) for requirement in requirements}

    needed = names(project["dependencies"])
    extras = [name for extra in project["optional-dependencies"].values() for name in names(extra)]
    pinned = set(map(_plain, _pins("requirements.run.lock")))
    assert needed <= pinned
    assert not pinned & (set(extras) - needed)


def _example(number: int) -> dict[str, Any]:
    blocks = re.findall(r"^ *```hcl\n(.*?)^ *```", (DEPLOY / "README.md").read_text(), re.M | re.S)
    return _parsed(blocks[number])


def test_the_pages_example_names_what_has_no_default() -> None:
    example = _example(0)
    assert set(example) == {name for name, variable in VARIABLES.items() if "default" not in variable}
    assert set(example["secret_arns"]) == {"database", "redis", "nats"}


def test_the_page_takes_over_what_there_is() -> None:
    for block in _example(1)["import"]:
        kind, name = re.fullmatch(r'\$\{(\w+)\.(\w+)\["cleanup"\]\}', block["to"]).groups()  # type: ignore[union-attr]
        assert "for_each" in RESOURCES[kind][name]
        assert "arrakis-sandbox-cleanup" in block["id"]
