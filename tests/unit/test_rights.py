"""The rights that pages name are written in each system's own words."""

import json
import re
from functools import reduce
from operator import or_
from pathlib import Path

import botocore.session
import pytest

from runbooks import rights
from runbooks.catalogue import RUNBOOKS
from runbooks.engine.page import Rights
from sql import load

READS = reduce(or_, (each.page.reads for each in RUNBOOKS.values()))
WRITES = reduce(or_, (each.page.writes for each in RUNBOOKS.values()))
ALL = READS | WRITES
POLICY = Path(__file__).parents[2] / "deploy" / "webhook" / "policies" / "diagnose.json"
MIGRATIONS = ("0001_control_tables", "0002_runbooks", "0003_emergencies")


@pytest.mark.parametrize("name", sorted(RUNBOOKS))
def test_every_page_names_what_a_look_and_what_a_change_needs(name: str) -> None:
    page = RUNBOOKS[name].page
    assert page.reads.postgres
    assert page.writes.postgres - page.reads.postgres


def test_every_bundle_is_used() -> None:
    bundles = [getattr(rights, name) for name in rights.__all__]
    joined = [each.page.reads for each in RUNBOOKS.values()] + [
        each.page.writes for each in RUNBOOKS.values()
    ]
    for each in bundles:
        assert isinstance(each, Rights)
        assert any(each | whole == whole for whole in joined), each


def test_words_of_postgresql_are_grants_of_what_the_migrations_make() -> None:
    made = " ".join(load(f"migrations/{name}") for name in MIGRATIONS)
    tables = set(re.findall(r"CREATE TABLE IF NOT EXISTS (\S+)", made))
    for word in ALL.postgres:
        if found := re.fullmatch(r"(?:SELECT|INSERT|UPDATE|DELETE) ON (\S+)|owner of (public\.\S+)", word):
            assert (found[1] or found[2]) in tables, word
        else:
            assert re.fullmatch(
                r"(USAGE|CREATE) ON SCHEMA (public|runbooks)|CREATE ON DATABASE|pg_[a-z_]+"
                r"|owner of (the database|(sandbox|quarantine)_\*)",
                word,
            ), word


def test_looking_needs_no_word_that_could_change_anything() -> None:
    for word in READS.postgres:
        assert re.match(r"SELECT ON |USAGE ON |pg_monitor$|pg_read_all_stats$", word), word
    assert not any(word.startswith("~") for word in READS.redis)
    for word in READS.nats:
        assert re.search(r"\.(INFO|LIST|MSG\.GET|CONNZ)(\.|$)", word), word
    for word in READS.aws:
        assert re.match(r"[a-z0-9-]+:(Describe|List|Get|Filter)", word), word


def test_actions_of_aws_are_operations_that_it_has() -> None:
    session = botocore.session.get_session()
    others = {"iam:PassRole", "s3:ListBucket"}  # which are no operations
    for action in ALL.aws - others:
        service, operation = action.split(":")
        assert operation in session.get_service_model(service).operation_names, action


def test_what_the_webhook_may_is_what_the_pages_name() -> None:
    statements = json.loads(re.sub(r"\$\{.*?\}", "[]", POLICY.read_text()))["Statement"]
    actions = [each["Action"] for each in statements]
    allowed = {one for each in actions for one in ([each] if isinstance(each, str) else each)}
    assert allowed == READS.aws - {"s3:ListBucket"}  # it diagnoses alarms, and makes no archives
