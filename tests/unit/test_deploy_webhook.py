"""What the webhook is deployed as: the Terraform, and what its role may do."""

import ast
import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name
from hcl2 import SerializationOptions, loads

from runbooks.pagerduty.webhook import claims, function

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "webhook"
PLAIN = SerializationOptions(with_comments=False, explicit_blocks=False, strip_string_quotes=True)

HERE = "arn:aws:{}:eu-central-1:123456789012:"
QUEUE = HERE.format("sqs") + "arrakis-webhook"
GIVEN: dict[str, Any] = {
    "dead_letters_arn": QUEUE + "-dead-letters",
    "function_arn": HERE.format("lambda") + "function:arrakis-webhook",
    "key_arns": [HERE.format("kms") + "key/1"],
    "log_group_arns": [HERE.format("logs") + "log-group:/ecs/arrakis-worker:*"],
    "log_stream_arn": HERE.format("logs") + "log-group:/aws/lambda/arrakis-webhook:*",
    "queue_arn": QUEUE,
    "region": "eu-central-1",
    "secret_arns": [HERE.format("secretsmanager") + "secret:arrakis-production/webhook-AbCdEf"],
    "table_arn": HERE.format("dynamodb") + "table/arrakis-webhook",
}
READING = ("Describe", "Filter", "Get", "List")


def _merged(into: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merged(into[name], value)
        else:
            assert name not in into, f"{name} is there twice"
            into[name] = value


def _terraform() -> dict[str, Any]:
    """Return the whole stack as one tree."""
    tree: dict[str, Any] = {}
    for file in sorted(DEPLOY.glob("*.tf")):
        for kind, blocks in loads(file.read_text(), serialization_options=PLAIN).items():
            for block in blocks:
                _merged(tree.setdefault(kind, {}), block)
    return tree


STACK = _terraform()
RESOURCES: dict[str, Any] = STACK["resource"]
VARIABLES: dict[str, Any] = STACK["variable"]
LAMBDA = RESOURCES["aws_lambda_function"]["this"]
POLICIES = sorted(file.name for file in (DEPLOY / "policies").iterdir())


def _policy(file: str) -> list[dict[str, Any]]:
    def put(match: re.Match[str]) -> str:
        value = GIVEN[match[1] or match[2]]
        assert isinstance(value, str) is not bool(match[1]), f"{file}: {match[0]}"
        return json.dumps(value) if match[1] else value

    text = (DEPLOY / "policies" / file).read_text()
    statements = json.loads(re.sub(r"\$\{(?:jsonencode\((\w+)\)|(\w+))\}", put, text))["Statement"]
    assert isinstance(statements, list)
    return statements


def _actions(file: str, effect: str = "Allow") -> list[str]:
    found: list[str] = []
    for statement in _policy(file):
        if statement["Effect"] == effect:
            action = statement["Action"]
            found += [action] if isinstance(action, str) else action
    return found


# ---------------------------------------------------------------- the function


def test_the_handler_is_what_the_code_has() -> None:
    module, name = LAMBDA["handler"].rsplit(".", 1)
    assert callable(getattr(import_module(module), name))
    assert (LAMBDA["handler"], LAMBDA["runtime"]) == ("runbooks.pagerduty.lambda_handler", "python3.13")


def test_the_function_is_given_every_variable_that_it_reads_and_no_secret() -> None:
    (environment,) = LAMBDA["environment"]
    text = environment["variables"]
    given = set(re.findall(r"\b([A-Z][A-Z_]+) *=", text))
    code = (ROOT / "runbooks/pagerduty/webhook/settings.py").read_text() + Path(function.__file__).read_text()
    read = set(re.findall(r'"(WEBHOOK_[A-Z_]+)"', code))
    assert read - given == {"WEBHOOK_PAGERDUTY_SECRETS", "WEBHOOK_ACTION_SECRETS", "WEBHOOK_EVENT_SECRETS"}
    assert given - read == {"ARRAKIS_ENV", "RUNBOOKS_STATE_DIR"}
    assert "WEBHOOK_SECRET = var.webhook_secret_arn" in " ".join(text.split())


def test_a_message_stays_away_for_longer_than_a_triage_can_take() -> None:
    longest = STACK["locals"]["longest"]
    assert LAMBDA["timeout"] == "${local.longest}"
    assert 60 <= longest <= 900
    assert RESOURCES["aws_sqs_queue"]["this"]["visibility_timeout_seconds"] in (
        "${6 * local.longest}",
        "6 * local.longest",
    )


def test_what_fails_comes_again_alone_and_ends_among_the_dead_letters() -> None:
    mapping = RESOURCES["aws_lambda_event_source_mapping"]["this"]
    assert (mapping["batch_size"], mapping["function_response_types"]) == (1, ["ReportBatchItemFailures"])
    redrive = RESOURCES["aws_sqs_queue"]["this"]["redrive_policy"]
    assert "aws_sqs_queue.dead_letters.arn" in redrive
    assert int(re.search(r"maxReceiveCount\W+(\d+)", redrive)[1]) > len(function._PAUSES)  # type: ignore[index]
    (config,) = RESOURCES["aws_lambda_function_event_invoke_config"]["this"]["destination_config"]
    assert config["on_failure"][0]["destination"] == "${aws_sqs_queue.dead_letters.arn}"


def test_the_table_forgets_by_the_attribute_that_the_code_writes() -> None:
    table = RESOURCES["aws_dynamodb_table"]["this"]
    assert table["hash_key"] == "key"
    assert table["attribute"] == [{"name": "key", "type": "S"}]
    assert table["ttl"] == [{"attribute_name": "expires", "enabled": True}]


def test_what_waits_is_encrypted_and_kept_as_long_as_the_table_remembers() -> None:
    queue = RESOURCES["aws_sqs_queue"]
    assert all(each["sqs_managed_sse_enabled"] is True for each in queue.values())
    assert queue["this"]["message_retention_seconds"] == claims._REMEMBERED.total_seconds()


def test_anybody_may_use_the_url_and_nobody_the_function() -> None:
    """A direct invocation could bring a notification that no signature is asked of."""
    permissions = RESOURCES["aws_lambda_permission"]
    public = {name: each for name, each in permissions.items() if each["principal"] == "*"}
    assert set(public) == {"url", "invoke_by_url"}
    assert public["url"]["action"] == "lambda:InvokeFunctionUrl"
    assert public["url"]["function_url_auth_type"] == "NONE"
    assert public["invoke_by_url"]["invoked_via_function_url"] is True
    assert permissions["topic"]["principal"] == "sns.amazonaws.com"
    assert permissions["topic"]["source_arn"] == "${each.key}"
    assert permissions["topic"]["for_each"] == "${var.topics}"
    assert permissions["rule"]["principal"] == "events.amazonaws.com"
    assert permissions["rule"]["source_arn"] == "${aws_cloudwatch_event_rule.alarm[0].arn}"
    assert set(permissions) == {"url", "invoke_by_url", "topic", "rule"}


def test_a_flood_is_bounded_and_leaves_room_for_triages() -> None:
    assert LAMBDA["reserved_concurrent_executions"] == "${var.concurrency}"
    assert VARIABLES["concurrency"]["default"] >= 4
    (scaling,) = RESOURCES["aws_lambda_event_source_mapping"]["this"]["scaling_config"]
    assert scaling["maximum_concurrency"] == 2


def test_it_is_in_the_network() -> None:
    (network,) = LAMBDA["vpc_config"]
    assert network == {"subnet_ids": "${var.subnet_ids}", "security_group_ids": "${var.security_group_ids}"}


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_is_described_typed_and_used(name: str) -> None:
    variable = VARIABLES[name]
    assert variable["description"]
    assert variable["type"]
    code = "".join(file.read_text() for file in DEPLOY.glob("*.tf") if file.stem != "variables")
    assert re.search(rf"\bvar\.{name}\b", code)


def test_the_pages_example_names_what_has_no_default() -> None:
    page = (ROOT / "deploy" / "README.md").read_text().split("# The webhook on Lambda", 1)[1]
    (block,) = re.findall(r"^ *```hcl\n(.*?)^ *```", page, re.M | re.S)
    example = loads(block, serialization_options=PLAIN)
    needed = {name for name, variable in VARIABLES.items() if "default" not in variable}
    assert needed <= set(example) <= set(VARIABLES)


# ---------------------------------------------------------------- what its role may do


def test_every_policy_is_the_functions_and_there_is_no_other() -> None:
    used = RESOURCES["aws_iam_role_policy"]
    files = [re.search(r'policies\}/([^"]+)"', each["policy"])[1] for each in used.values()]  # type: ignore[index]
    assert sorted([*files, "trust-lambda.json"]) == POLICIES
    assert all(each["role"] == "${aws_iam_role.this.id}" for each in used.values())
    assert "trust-lambda.json" in RESOURCES["aws_iam_role"]["this"]["assume_role_policy"]
    assert LAMBDA["role"] == "${aws_iam_role.this.arn}"
    assert {kind for kind in RESOURCES if kind.startswith("aws_iam")} == {
        "aws_iam_role",
        "aws_iam_role_policy",
    }


@pytest.mark.parametrize("file", sorted(set(POLICIES) - {"trust-lambda.json"}))
def test_a_template_is_given_what_it_asks_for_and_no_more(file: str) -> None:
    text = (DEPLOY / "policies" / file).read_text()
    asked = set(re.findall(r"\$\{(?:jsonencode\()?(\w+)\)?\}", text))
    code = (DEPLOY / "iam.tf").read_text()
    (given,) = re.findall(rf"policies\}}/{re.escape(file)}\", \{{(.*?)\n?  ?\}}\)", code, re.S)
    assert set(re.findall(r"^    (\w+) *=", given, re.M)) == asked
    assert text.count("${") == len(re.findall(r"\$\{(?:jsonencode\(\w+\)|\w+)\}", text))


@pytest.mark.parametrize("file", POLICIES)
def test_the_actions_are_operations_that_aws_has(file: str) -> None:
    session = botocore.session.get_session()
    for action in (*_actions(file), *_actions(file, "Deny")):
        service, operation = action.split(":")
        assert "*" not in operation
        assert operation in session.get_service_model(service).operation_names


def test_of_production_it_may_only_read() -> None:
    for action in _actions("diagnose.json"):
        assert action.split(":")[1].startswith(READING), action
    assert _actions("secrets.json") == ["secretsmanager:GetSecretValue"]
    assert _actions("secrets-kms.json") == ["kms:Decrypt"]


@pytest.mark.parametrize("file", ["own.json", "secrets.json", "secrets-kms.json"])
def test_what_it_may_do_more_is_on_its_own_things_alone(file: str) -> None:
    for statement in _policy(file):
        resources = statement["Resource"]
        for resource in [resources] if isinstance(resources, str) else resources:
            assert resource.startswith("arn:")
            assert "*" not in resource.removesuffix(":*")


def test_the_network_interfaces_are_for_lambda_and_not_for_the_code() -> None:
    changing = {each for each in _actions("network.json") if not each.split(":")[1].startswith(READING)}
    assert set(_actions("network.json", "Deny")) == changing
    (denied,) = [each for each in _policy("network.json") if each["Effect"] == "Deny"]
    assert denied["Condition"] == {"ArnEquals": {"lambda:SourceFunctionArn": GIVEN["function_arn"]}}
    assert denied["Resource"] == "*"


def _operations(file: Path) -> Iterator[str]:
    """Yield every operation of AWS that is named as an argument."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            for argument in node.args:
                if isinstance(argument, ast.Constant) and re.fullmatch(
                    r"(describe|filter|get|list)_[a-z_]+", str(argument.value)
                ):
                    yield str(argument.value)


def test_a_diagnosis_may_read_exactly_what_it_asks_for() -> None:
    asked = {name for file in (ROOT / "diagnostics").glob("*.py") for name in _operations(file)}
    allowed = {xform_name(action.split(":")[1]) for action in _actions("diagnose.json")}
    assert allowed == asked - {"get_caller_identity"}  # which needs no permission


def test_the_queue_and_the_table_allow_exactly_the_calls_that_are_made() -> None:
    folder = ROOT / "runbooks" / "pagerduty" / "webhook"
    code = (folder / "claims.py").read_text() + (folder / "function.py").read_text()
    called = set(re.findall(r'"((?:put|get|delete)_item|send_message|change_message_visibility)"', code))
    by_lambda = {"delete_message", "get_queue_attributes", "receive_message"}
    granted = {
        xform_name(each.split(":")[1]) for each in _actions("own.json") if not each.startswith("logs:")
    }
    assert granted == called | by_lambda
