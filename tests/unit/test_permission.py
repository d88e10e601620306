"""Of what a plan's verbs take, what has to do with its actions is asked for; what is lacking refuses it."""

from types import SimpleNamespace
from typing import Any

import pytest

from diagnostics.privileges import OWNER
from runbooks import rights
from runbooks.engine import guards
from runbooks.engine.model import Action, Resource, Reversibility
from runbooks.engine.page import Rights
from runbooks.engine.permission import APPLYING, needed
from runbooks.remedies import remedies
from tests.unit.plans import plan

GATE: Any = None  # nothing is done
REMEDIES = remedies(GATE)


def action(verb: str, **before: object) -> Action:
    return Action(
        id="a-1",
        verb=verb,
        resource=Resource(kind="thing", id="thing"),
        before=before,
        after={},
        reason="",
        reversibility=Reversibility.NOTHING,
    )


@pytest.mark.parametrize(
    ("actions", "owned"),
    [
        ([action("vacuum table", name="sandboxes")], {"owner of public.sandboxes"}),
        ([action("create index", name="idx_sandboxes_owner", table="sandbox_audit_log")], {"owner of public.sandbox_audit_log"}),
        ([action("grant right", kind="schema", statement="GRANT USAGE ON SCHEMA public TO arrakis_app")], set()),
        ([action("grant right", kind="database", statement="GRANT CREATE ON DATABASE x TO y")], {"owner of the database"}),
        ([action("grant right", kind="table", statement="GRANT SELECT ON public.sandboxes TO y")], {"owner of public.sandboxes"}),
        ([action("quarantine schema", name="sandbox_1")], {"owner of sandbox_*"}),
        ([action("quarantine keys", token="1")], set()),
        ([action("undo quarantine schema", name="sandbox_1"), action("vacuum table", name="sandboxes")], {"owner of sandbox_*", "owner of public.sandboxes"}),
    ],
)  # fmt: skip
def test_an_owner_s_right_is_needed_for_what_is_named_alone(actions: list[Action], owned: set[str]) -> None:
    found = needed(actions, REMEDIES)
    assert {word for word in found.postgres if word.startswith("owner of ")} == owned
    assert found | APPLYING == found


@pytest.mark.parametrize(
    ("owned", "taken"), [("sandboxes", True), ("app.public.sandboxes", True), ("sandboxes.other", False)]
)
def test_the_last_of_an_owned_ones_names_is_the_one_that_is_named(owned: str, taken: bool) -> None:
    word = f"{OWNER}{owned}"
    remedy: Any = SimpleNamespace(rights=Rights(postgres=frozenset({word})))
    assert (word in needed([action("melt", name="sandboxes")], {"melt": remedy}).postgres) is taken


@pytest.mark.parametrize("roles", [["arn:aws:iam::1:role/a", "arn:aws:iam::1:role/b"], []])
def test_a_role_is_handed_on_by_its_name(roles: list[str]) -> None:
    found = needed([action("run clean-up task", roles=roles)], REMEDIES)
    assert found.aws == {"ecs:RunTask", *(f"iam:PassRole on {role}" for role in roles)}
    assert needed([action("enable rule", roles=roles)], REMEDIES).aws == rights.SCHEDULING.aws


def test_a_plan_of_before_roles_were_kept_says_nothing_of_them() -> None:
    assert needed([action("run clean-up task")], REMEDIES).aws == {"ecs:RunTask"}


def test_a_plan_that_drops_nothing_needs_no_right_to_drop() -> None:
    found = needed([action("quarantine keys", token="1")], REMEDIES)
    assert found == APPLYING | rights.QUARANTINING_KEYS
    assert "+unlink" not in found.redis


def test_every_verb_says_what_it_takes_but_those_that_cannot_know() -> None:
    silent = {
        verb for verb, remedy in REMEDIES.items() if needed([], {verb: remedy}) | remedy.rights == APPLYING
    }
    assert silent == {"drop object", "create probe schema"}


def test_what_is_lacking_refuses_and_is_named() -> None:
    verdict = guards.permitted(
        plan(1), {"PostgreSQL": ("CREATE ON DATABASE", "pg_monitor"), "NATS": ("a.b",)}
    )
    assert not verdict.allowed
    assert "at PostgreSQL: CREATE ON DATABASE, pg_monitor; at NATS: a.b (deploy/rights/" in verdict.reason
    assert guards.permitted(plan(1), {}).allowed
