"""deploy/rights/ is made of the pages, whole, and in each server's words."""

import json
import re
from functools import reduce
from operator import or_

import pytest

from diagnostics.privileges import OWNER
from runbooks.catalogue import RUNBOOKS
from runbooks.engine.page import Rights
from runbooks.engine.permission import ANCHORING, ASKING
from runbooks.reports import granting, handbook

MADE = granting.made(RUNBOOKS.values())
READS = reduce(or_, (each.page.reads for each in RUNBOOKS.values()), ASKING)
BOTH = reduce(or_, (each.page.writes for each in RUNBOOKS.values()), READS | ANCHORING)
MOST = 6144  # characters of a managed policy, white space not counted


def test_the_files_are_as_they_would_be_made_now() -> None:
    assert handbook.differing(MADE, granting.FOLDER) == []


@pytest.mark.parametrize(
    ("folder", "kind", "rights"),
    [
        ("", "read", READS),
        ("", "apply", BOTH),
        *((f"{name}/", "read", each.page.reads | ASKING) for name, each in RUNBOOKS.items()),
        *(
            (f"{name}/", "apply", each.page.reads | each.page.writes | ASKING | ANCHORING)
            for name, each in RUNBOOKS.items()
        ),
    ],
)
def test_each_file_gives_what_the_pages_name_and_nothing_else(folder: str, kind: str, rights: Rights) -> None:
    said = MADE[f"{folder}postgres-{kind}.sql"]
    given = {
        each.replace(' :"DBNAME"', "") for each in re.findall(r'^GRANT (.+) TO :"role";$', said, re.MULTILINE)
    }
    owned = {f"{OWNER}{each}" for each in re.findall(rf"^--   {OWNER}(.+?)    ", said, re.MULTILINE)}
    assert given | owned == rights.postgres
    assert set(MADE[f"{folder}redis-{kind}.acl"].split()[3:]) == rights.redis
    subjects = re.findall(r'^  "(.+)"$', MADE[f"{folder}nats-{kind}.conf"], re.MULTILINE)
    assert set(subjects) == rights.nats
    policy = MADE[f"{folder}iam-{kind}.json"]
    statements = json.loads(policy)["Statement"]
    assert sorted(action for each in statements for action in each["Action"]) == sorted(rights.aws)
    assert len(re.sub(r"\s", "", policy)) <= MOST


def test_what_changes_something_is_allowed_upon_the_stack_s_own_alone() -> None:
    policy = json.loads(MADE["iam-apply.json"])
    anywhere = {
        action for each in policy["Statement"] if each["Resource"] == ["*"] for action in each["Action"]
    }
    changing = {each for each in anywhere if not re.search(r":(Describe|List|Get|Simulate)", each)}
    assert changing == {"application-autoscaling:RegisterScalableTarget"}  # which AWS does not narrow by name
    [passing] = [each for each in policy["Statement"] if "iam:PassRole" in each["Action"]]
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}


def test_a_subject_or_name_with_a_quote_cannot_leave_its_place() -> None:
    text = granting.granting(Rights(nats=frozenset({'a" ] } x: { y: [ "'})))["nats"]
    assert r'"a\" ] } x: { y: [ \""' in text
