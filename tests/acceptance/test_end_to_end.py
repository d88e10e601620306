"""RB-SB-003 from the alarm to quarantine and back, as an engineer does it. What is applied is undone by each test."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from tests.acceptance.dump import age, dump
from tests.acceptance.engineer import Engineer


def targets(plan: dict[str, Any]) -> tuple[set[str], set[str]]:
    """The schemas and the key families of a plan."""
    pairs = [(action["resource"]["kind"], action["resource"]["id"]) for action in plan["actions"]]
    return {each for kind, each in pairs if kind == "schema"}, {
        each for kind, each in pairs if kind == "keys"
    }


def refused(engineer: Engineer, *args: str) -> str:
    """Call what must be refused, see that nothing changed, and return what was said."""
    before = dump(engineer.lab)
    answer = engineer.call(*args)
    assert answer.code == 4, answer.said
    assert dump(engineer.lab) == before
    assert "Traceback" not in answer.said
    return answer.said


def test_it_says_what_is_wrong_why_and_how_to_mend_it(engineer: Engineer) -> None:
    before = dump(engineer.lab)
    answer = engineer.cold("rb-sb-003")
    assert answer.code == 2, answer.said
    assert "sandbox-orphaned-resources is ALARM: threshold 5" in answer.out
    assert answer.out.count(" is an orphan: no sandbox row has this id") == 7
    assert len(re.findall(r" is an orphan: its sandbox \S+ is destroyed", answer.out)) == 3
    assert "10 actions, all can be undone" in answer.out
    assert re.search(r"invoke apply --plan rb-sb-003-\S+", answer.out)
    assert dump(engineer.lab) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("doctor",), "this machine"),
        (("journal-verify",), "JOURNAL  custom: whole"),
        (("purge-quarantine",), "PURGE-QUARANTINE  What is in quarantine"),
        (("docs", "--check"), "all pages are as they should be"),
    ],
)
def test_what_only_looks_says_what_it_sees_and_changes_nothing(
    engineer: Engineer, words: tuple[str, ...], says: str
) -> None:
    before = dump(engineer.lab)
    answer = engineer.call(*words)
    assert (answer.code, answer.err) == (0, ""), answer.said
    assert says in answer.out
    assert dump(engineer.lab) == before


def test_json_is_one_document_with_the_plan(engineer: Engineer) -> None:
    answer = engineer.call("rb-sb-003", "--json")
    assert answer.code == 2, answer.said
    document = answer.document
    assert {"runbook", "environment", "outcome", "findings", "plan"} <= set(document)
    assert (document["runbook"], document["environment"], document["outcome"]) == (
        "rb-sb-003",
        "custom",
        "proposed",
    )
    schemas, families = targets(document["plan"])
    assert (len(schemas), len(families)) == (7, 3)
    assert {finding["severity"] for finding in document["findings"]} <= {"ok", "warning", "critical"}


def test_exactly_the_orphans_go_and_undo_gives_all_back(engineer: Engineer) -> None:
    before = dump(engineer.lab)
    plan = engineer.plan()
    schemas, families = targets(plan)
    assert (len(schemas), len(families)) == (7, 3)

    applied = engineer.cold("apply", "--plan", plan["id"], "--yes", "--json")
    assert applied.code == 0, applied.said
    document = applied.document
    assert document["outcome"] == "applied"
    assert {result["phase"] for result in document["run"]["results"]} == {"done"}
    after = dump(engineer.lab)
    assert set(before.schemas) - set(after.schemas) == schemas
    assert before.tokens() - after.tokens() == families
    live = (set(before.schemas) - schemas, before.tokens() - families)
    assert after.only(*live).schemas == before.only(*live).schemas
    kept = {name: value for name, value in after.only(*live).keys.items() if name in before.keys}
    assert kept == before.only(*live).keys
    new = set(after.schemas) - set(before.schemas)
    assert len(new) == 7
    assert all(name.startswith("quarantine_") for name in new)
    assert len(after.keys) == len(before.keys)

    again = engineer.call("rb-sb-003")
    second = engineer.call("apply", "--plan", plan["id"], "--yes")
    assert dump(engineer.lab) == after
    undone = engineer.cold("undo", "--run", document["run"]["id"], "--yes")
    assert undone.code == 0, undone.said
    assert dump(engineer.lab) == before
    age(engineer.lab, families)
    assert second.code == 4, second.said
    assert "used already" in second.err
    assert again.code == 0, again.said
    assert "Nothing is proposed." in again.out


@pytest.mark.soak
def test_undone_orphans_are_found_and_go_again(engineer: Engineer) -> None:
    before = dump(engineer.lab)
    document = engineer.apply(engineer.plan()["id"])
    engineer.give_back(document)
    assert [len(each) for each in targets(engineer.plan())] == [7, 3]
    assert dump(engineer.lab) == before


def test_an_edited_plan_is_refused(engineer: Engineer) -> None:
    plan = engineer.plan()
    path = engineer.state / "custom" / "plans" / f"{plan['id']}.json"
    made = json.loads(path.read_text())
    made["actions"][0]["before"]["name"] = "sandboxes"
    path.write_text(json.dumps(made))
    assert "was edited since it was made" in refused(engineer, "apply", "--plan", plan["id"], "--yes")


@pytest.mark.soak
def test_a_plan_for_another_database_is_refused(engineer: Engineer) -> None:
    plan = engineer.plan()
    url = engineer.lab.env["DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE elsewhere")
    other = urlunsplit(urlsplit(url)._replace(path="/elsewhere"))
    said = refused(engineer.but(DATABASE_URL=other), "apply", "--plan", plan["id"], "--yes")
    assert "the plan was made for database" in said


@pytest.mark.soak
def test_a_plan_for_another_region_is_refused(engineer: Engineer) -> None:
    plan = engineer.plan()
    elsewhere = engineer.but(AWS_DEFAULT_REGION="us-east-1")
    said = refused(elsewhere, "apply", "--plan", plan["id"], "--yes")
    assert "the plan was made for region eu-central-1, this is us-east-1" in said


@pytest.mark.soak
def test_a_plan_from_another_host_is_unknown_here(engineer: Engineer, newcomer: Engineer) -> None:
    plan = engineer.plan()
    answer = newcomer.call("apply", "--plan", plan["id"], "--yes")
    assert answer.code == 1
    assert "there is no plan" in answer.err
    copied = newcomer.state / "custom" / "plans"
    copied.mkdir(parents=True)
    name = f"{plan['id']}.json"
    (copied / name).write_bytes((engineer.state / "custom" / "plans" / name).read_bytes())
    assert "was not made here" in refused(newcomer, "apply", "--plan", plan["id"], "--yes")


def test_nobody_to_ask_is_a_no(engineer: Engineer) -> None:
    plan = engineer.plan()
    assert "there is no terminal to ask on" in refused(engineer, "apply", "--plan", plan["id"])


def test_a_no_typed_at_the_terminal_is_a_no(engineer: Engineer) -> None:
    plan = engineer.plan()
    answer = engineer.call("apply", "--plan", plan["id"], typing="n")
    assert answer.code == 4, answer.said
    assert "Apply? [y/N]" in answer.err


@pytest.mark.soak
def test_fewer_targets_than_planned_is_refused(engineer: Engineer) -> None:
    plan = engineer.plan()
    said = refused(engineer, "apply", "--plan", plan["id"], "--yes", "--max-targets", "3")
    assert "10 targets" in said
    assert "at most 3" in said


@pytest.mark.soak
def test_dropping_for_good_wants_a_terminal(engineer: Engineer) -> None:
    assert "it cannot be undone" in refused(engineer, "rb-sb-003", "--drop", "--apply", "--yes")
    assert "it cannot be undone" in refused(
        engineer, "apply", "--plan", engineer.plan("--drop")["id"], "--yes"
    )


def test_the_state_on_disk_is_its_owners_only(engineer: Engineer) -> None:
    plan = engineer.plan()
    files = [engineer.state / "custom" / "journal.jsonl", plan_file(engineer, plan["id"])]
    assert [file.stat().st_mode & 0o077 for file in files] == [0, 0]


def plan_file(engineer: Engineer, plan_id: str) -> Path:
    return engineer.state / "custom" / "plans" / f"{plan_id}.json"


@pytest.mark.soak
def test_what_is_dropped_after_its_count_was_typed_is_gone(engineer: Engineer) -> None:
    """The last one, as nothing gives it back."""
    before = dump(engineer.lab)
    plan = engineer.plan("--drop")
    wrong = engineer.call("apply", "--plan", plan["id"], typing="drop 9")
    assert wrong.code == 4, wrong.said
    assert dump(engineer.lab) == before

    answer = engineer.call("apply", "--plan", plan["id"], "--json", typing="drop 10")
    assert answer.code == 0, answer.said
    schemas, families = targets(plan)
    left = dump(engineer.lab)
    assert left == before.only(set(before.schemas) - schemas, before.tokens() - families)
    undone = engineer.call("undo", "--run", answer.document["run"]["id"], "--yes")
    assert undone.code == 1
    assert "did nothing that can be undone" in undone.err
