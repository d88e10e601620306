"""A worker's journal on its way to PostgreSQL: which endings have arrived there, and what becomes of what could not be copied."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runbooks.engine.copies import Arrivals, Copies
from runbooks.engine.journal import Journal
from runbooks.engine.model import Phase
from sandbox.errors import ArrakisError, Busy, Unreachable
from tests.unit.plans import action

ONE, TWO, THREE = action(1), action(2), action(3)


class Database:
    """Where records are copied to. Satisfies SqlWriter and SqlTransaction as far as a mirror goes."""

    host = "db"

    def __init__(self) -> None:
        self.held = dict[int, str]()
        self.trouble: Exception | None = None

    @contextmanager
    def snapshot(self) -> Iterator["Database"]:
        if self.trouble:
            raise self.trouble
        yield self

    transaction = snapshot

    def rows(self, statement: str, kind: Any, **params: Any) -> list[Any]:
        return [SimpleNamespace(seq=seq) for seq in self.held]

    def execute(self, statement: str, *, records: str) -> int:
        self.held |= {each["seq"]: f"{each['run']} {each['phase']}" for each in json.loads(records)}
        return 0

    @property
    def copied(self) -> list[str]:
        return [self.held[seq] for seq in sorted(self.held)]


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    monkeypatch.setattr("os.fsync", lambda _: None)
    return Journal(
        tmp_path / "journal.jsonl", actor="ada", clock=lambda: datetime(2026, 3, 1, 12, tzinfo=UTC)
    )


@pytest.fixture
def database() -> Database:
    return Database()


def mirrored(database: Any, journal: Journal) -> Copies:
    return Copies(database, journal, "r1")


def end(journal: Journal, *names: str, phase: Phase = Phase.DONE, **observed: Any) -> None:
    for name in names:
        journal.append("r1", phase, action=name, observed=observed)


# What is copied


def test_what_is_written_is_copied_and_so_is_what_earlier_runs_could_not_copy(
    database: Database, journal: Journal
) -> None:
    journal.append("r0", Phase.RUN_ENDED)
    copies = mirrored(database, journal)
    assert database.copied == ["r0 run-ended"]
    end(journal, "a1")
    assert database.copied == ["r0 run-ended", "r1 done"]
    assert copies.missed is None


def test_what_could_not_be_copied_is_copied_later_and_only_of_this_run(
    database: Database, journal: Journal
) -> None:
    copies = mirrored(database, journal)
    database.trouble = Unreachable("no answer")
    journal.append("r0", Phase.RUN_ENDED)
    end(journal, "a1")
    assert str(copies.missed) == "no answer"
    database.trouble = Busy("a lock")
    with pytest.raises(Busy):
        copies.catch_up()
    assert str(copies.missed) == "a lock"
    database.trouble = None
    copies.catch_up()
    assert (database.copied, copies.missed) == (["r1 done"], None)


def test_where_nothing_was_missed_nothing_is_copied_again(database: Database, journal: Journal) -> None:
    copies = mirrored(database, journal)
    database.trouble = Unreachable("no answer")
    copies.catch_up()
    assert copies.missed is None


def test_a_fault_of_ours_is_not_taken_for_a_server_that_does_not_answer(
    database: Database, journal: Journal
) -> None:
    copies = mirrored(database, journal)
    database.trouble = RuntimeError("bang")
    with pytest.raises(RuntimeError):
        end(journal, "a1")
    assert copies.missed is None


# What has arrived


@pytest.mark.parametrize("phase", Phase)
def test_an_ending_has_arrived_when_it_is_copied(database: Database, journal: Journal, phase: Phase) -> None:
    with mirrored(database, journal).awaiting([ONE, TWO]) as arrivals:
        end(journal, "a1", "a3", phase=phase)
    ended = {"a1"} if phase in (Phase.DONE, Phase.SKIPPED, Phase.FAILED) else set()
    assert arrivals == Arrivals(ended=ended)


def test_an_ending_that_is_not_copied_has_not_arrived(database: Database, journal: Journal) -> None:
    with mirrored(database, journal).awaiting([ONE, TWO]) as arrivals:
        end(journal, "a1")
        database.trouble = ArrakisError("no answer")
        end(journal, "a2")
    assert arrivals == Arrivals(ended={"a1"})


@pytest.mark.parametrize("trouble", [None, Unreachable("no answer")])
def test_what_came_to_no_end_as_a_server_did_not_answer_is_told_apart(
    database: Database, journal: Journal, trouble: Exception | None
) -> None:
    with mirrored(database, journal).awaiting([ONE, TWO]) as arrivals:
        database.trouble = trouble
        end(journal, "a1", phase=Phase.FAILED, unreachable=True)
        end(journal, "a2", phase=Phase.STARTED, unreachable=True)
    assert arrivals == Arrivals(unreachable={"a1"})


def test_each_is_told_of_what_it_waits_for_alone(database: Database, journal: Journal) -> None:
    copies = mirrored(database, journal)
    with copies.awaiting([ONE, TWO]) as first, copies.awaiting([THREE]) as second:
        end(journal, "a1", "a3")
    assert (first, second) == (Arrivals(ended={"a1"}), Arrivals(ended={"a3"}))


def test_who_waits_no_longer_is_told_no_more(database: Database, journal: Journal) -> None:
    copies = mirrored(database, journal)
    with pytest.raises(RuntimeError), copies.awaiting([ONE]) as arrivals:
        raise RuntimeError("bang")
    end(journal, "a1")
    assert arrivals == Arrivals()


def test_an_action_that_was_handed_out_again_meanwhile_arrives_for_both(
    database: Database, journal: Journal
) -> None:
    """The queue did not hear us, and gave another of this process what one is still at."""
    copies = mirrored(database, journal)
    first, second = copies.awaiting([ONE, TWO]), copies.awaiting([ONE])
    at_it, again = first.__enter__(), second.__enter__()
    end(journal, "a1")
    first.__exit__(None, None, None)
    assert (at_it, again) == (Arrivals(ended={"a1"}), Arrivals(ended={"a1"}))
    end(journal, "a1", phase=Phase.FAILED, unreachable=True)
    second.__exit__(None, None, None)
    assert (at_it, again) == (Arrivals(ended={"a1"}), Arrivals(ended={"a1"}, unreachable={"a1"}))
