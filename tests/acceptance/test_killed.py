"""kill -9 in the middle of an apply, then resume: the state an undisturbed run reaches, and nothing done twice."""

from collections import Counter

import pytest

from tests.acceptance.dump import Dump, age, dump
from tests.acceptance.engineer import Engineer
from tests.waiting import eventually

# Records: 1 planned, 2 run-started, then a started and a done for each of 7 schemas and 3 families.
RUN_STARTED, FIRST_SCHEMA_BEGUN, FIRST_SCHEMA_DONE, FIRST_KEYS_BEGUN, LAST_KEYS_BEGUN, LAST_DONE = (
    2,
    3,
    4,
    17,
    21,
    22,
)


@pytest.fixture(scope="module")
def undisturbed(engineer: Engineer) -> Dump:
    """What an apply that nobody kills leaves behind."""
    document = engineer.apply(engineer.plan()["id"])
    left = dump(engineer.lab)
    engineer.give_back(document)
    return left.without_stamps()


@pytest.mark.soak
@pytest.mark.parametrize(
    "records",
    [
        RUN_STARTED,
        FIRST_SCHEMA_BEGUN,
        FIRST_SCHEMA_DONE,
        9,
        FIRST_KEYS_BEGUN,
        LAST_KEYS_BEGUN,
        LAST_DONE,
    ],
)
def test_a_killed_apply_is_taken_up_where_it_stopped(
    newcomer: Engineer, undisturbed: Dump, records: int
) -> None:
    before = dump(newcomer.lab)
    plan = newcomer.plan()
    journal = newcomer.state / "custom" / "journal.jsonl"
    with newcomer.calling("apply", "--plan", plan["id"], "--yes") as (process, _):
        eventually(
            lambda: journal.read_bytes().count(b"\n") >= records or process.poll() is not None, pause=0
        )
        process.kill()
        process.communicate()
    killed = newcomer.journal()
    assert len(killed) >= records
    assert killed[-1]["phase"] != "run-ended", "it ended before it was killed"
    run = killed[1]["run"]

    resumed = newcomer.cold("resume", "--run", run, "--yes", "--json")
    assert resumed.code == 0, resumed.said
    document = resumed.document
    assert dump(newcomer.lab).without_stamps() == undisturbed
    ended = Counter(entry["action"] for entry in newcomer.journal() if entry["phase"] == "done")
    assert ended == {action["id"]: 1 for action in plan["actions"]}
    newcomer.undo(run)
    assert dump(newcomer.lab) == before
    age(
        newcomer.lab,
        [a["resource"]["id"] for a in document["plan"]["actions"] if a["resource"]["kind"] == "keys"],
    )


@pytest.mark.soak
def test_what_was_killed_and_not_resumed_can_be_undone(newcomer: Engineer, undisturbed: Dump) -> None:
    before = dump(newcomer.lab)
    plan = newcomer.plan()
    journal = newcomer.state / "custom" / "journal.jsonl"
    with newcomer.calling("apply", "--plan", plan["id"], "--yes") as (process, _):
        eventually(
            lambda: journal.read_bytes().count(b"\n") >= FIRST_KEYS_BEGUN or process.poll() is not None
        )
        process.kill()
        process.communicate()
    assert dump(newcomer.lab) != before
    newcomer.undo(newcomer.journal()[1]["run"])
    assert dump(newcomer.lab) == before
