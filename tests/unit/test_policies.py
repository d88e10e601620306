"""What AWS is asked about a policy, and how its answer is read."""

from collections.abc import Mapping
from typing import Any

import pytest
from botocore.session import get_session
from botocore.validate import ParamValidator

from diagnostics.policies import PASSING, Place, passing, simulate, simulations
from diagnostics.stack import Stack

PLACE = Place(partition="aws", region="eu-central-1", account="123456789012")
USER, ROLE = "arn:aws:iam::123456789012:user/chani", "arn:aws:iam::123456789012:role/cleanup"
DENIED, EXPLICITLY = "implicitDeny", "explicitDeny"
MISSING = {"MissingContextValues": ["aws:MultiFactorAuthPresent"]}


class Account:
    """An AWS that answers as it is told to."""

    def __init__(self, *results: Mapping[str, Any]) -> None:
        self.results, self.asked = results, dict[str, Any]()

    def read(self, service: str, operation: str, /, **params: Any) -> Mapping[str, Any]:
        assert (service, operation) == ("iam", "simulate_principal_policy")
        self.asked = params
        return {"EvaluationResults": self.results}


def result(action: str, decision: str, **more: Any) -> Mapping[str, Any]:
    return {"EvalActionName": action, "EvalDecision": decision, **more}


@pytest.mark.parametrize(
    ("decision", "more", "held"),
    [
        ("allowed", {}, True),
        ("allowed", MISSING, True),
        (DENIED, {}, False),
        (EXPLICITLY, {}, False),
        (DENIED, MISSING, None),
        (EXPLICITLY, {"ResourceSpecificResults": [{}, MISSING]}, None),
        (DENIED, {"MissingContextValues": [], "ResourceSpecificResults": [{"MissingContextValues": []}]}, False),
    ],
)  # fmt: skip
def test_a_refusal_for_want_of_what_only_the_call_knows_is_none(
    decision: str, more: Mapping[str, Any], held: bool | None
) -> None:
    account = Account(result("ecs:RunTask", decision, **more), result("rds:ModifyDBInstance", "allowed"))
    found = simulate(account, USER, "*", ["ecs:RunTask", "rds:ModifyDBInstance", "events:EnableRule"])
    assert found == {"ecs:RunTask": held, "rds:ModifyDBInstance": True, "events:EnableRule": None}


def test_a_role_is_asked_about_with_whom_it_is_handed_to() -> None:
    account = Account(result(PASSING, DENIED))
    assert simulate(account, USER, ROLE, [passing(ROLE)]) == {passing(ROLE): False}
    assert account.asked == {
        "PolicySourceArn": USER,
        "ActionNames": ["iam:PassRole"],
        "ResourceArns": [ROLE],
        "ContextEntries": [
            {
                "ContextKeyName": "iam:PassedToService",
                "ContextKeyType": "string",
                "ContextKeyValues": ["ecs-tasks.amazonaws.com"],
            }
        ],
    }
    model = get_session().get_service_model("iam").operation_model("SimulatePrincipalPolicy")
    report = ParamValidator().validate(account.asked, model.input_shape)
    assert not report.has_errors(), report.generate_report()


def test_nothing_is_said_about_a_call_that_hands_nothing_on() -> None:
    account = Account(result("ecs:RunTask", "allowed"))
    simulate(account, USER, "*", ["ecs:RunTask"])
    assert "ContextEntries" not in account.asked


def test_each_role_is_asked_about_by_itself_and_one_without_a_name_not_at_all() -> None:
    other = ROLE + "-2"
    rights = [passing(ROLE), passing(other), PASSING, "s3:PutObject", "rds:ModifyDBInstance"]
    assert simulations(Stack(), PLACE, rights) == {
        ROLE: [passing(ROLE)],
        other: [passing(other)],
        "arn:aws:rds:eu-central-1:123456789012:db:*": ["rds:ModifyDBInstance"],
    }
