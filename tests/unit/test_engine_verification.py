"""`journal-verify`, its pure part: a short journal, what its mirror and its anchors say of it, and what comes of that."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from diagnostics.stack import Stack
from runbooks.engine import verification as module
from runbooks.engine.anchors import Anchor
from runbooks.engine.copied import entry_as_json, entry_from_json
from runbooks.engine.environment import Environment
from runbooks.engine.errors import Exit
from runbooks.engine.integrity import Kind, Source, of_copy
from runbooks.engine.journal import Journal, JournalEntry, _sealed, place
from runbooks.engine.model import Phase
from runbooks.engine.plan import dumps
from runbooks.engine.verification import Chain, File, Verification, Witness, mirrored, read_file, verification
from sandbox.errors import ArrakisError, Missing, Unreachable

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
Row = module._Row


def kept(path: Path, *, records: int = 4) -> list[JournalEntry]:
    journal = Journal(path, actor="ada", clock=lambda: NOW)
    for number in range(records):
        journal.append("r1", Phase.STARTED, action=f"a{number}")
    return journal.entries()


def rows(*chains: list[JournalEntry]) -> list[Row]:
    """Return the mirror's rows of these records."""
    made = [
        Row(chain=e.chain, seq=e.seq, run=e.run, phase=e.phase, record=entry_as_json(e))
        for chain in chains
        for e in chain
    ]
    return sorted(made, key=lambda row: (row.chain, row.seq))


class Copies:
    """A mirror. Satisfies SqlReader and SqlSnapshot."""

    host = "db"

    def __init__(self, found: Sequence[Row] | Exception) -> None:
        self.found, self.asked = found, list[Mapping[str, object]]()

    @contextmanager
    def snapshot(self) -> Iterator["Copies"]:
        yield self

    def rows(self, statement: str, row: type, /, *, chain: str, seq: int, limit: int) -> list[Row]:
        assert (statement, row) == ("read/runs/copies", Row)
        self.asked.append({"chain": chain, "seq": seq, "limit": limit})
        if isinstance(self.found, Exception):
            raise self.found
        return [each for each in self.found if (each.chain, each.seq) > (chain, seq)][:limit]


class LogGroup:
    """A log group with one stream of anchors, and others by their names. Satisfies AwsReader."""

    def __init__(
        self, anchors: list[Anchor], others: tuple[str, ...] = (), error: Exception | None = None
    ) -> None:
        self.anchors, self.others, self.error = anchors, others, error

    def read(self, service: str, operation: str, /, **params: Any) -> Mapping[str, Any]:
        if self.error:
            raise self.error
        assert params["logGroupName"] == "/j"
        if operation == "describe_log_streams":
            names = [*self.others, *{anchor.chain for anchor in self.anchors}]
            return {
                "logStreams": [
                    {"logStreamName": each}
                    for each in names
                    if each.startswith(params["logStreamNamePrefix"])
                ]
            }
        mine = [anchor for anchor in self.anchors if anchor.chain == params["logStreamName"]]
        events = [{"message": dumps(asdict(anchor))} for anchor in mine]
        return {"events": [] if params.get("nextToken") else events, "nextBackwardToken": "end"}


def anchor(entry: JournalEntry) -> Anchor:
    return Anchor(chain=entry.chain, seq=entry.seq, hash=entry.hash, run=entry.run, at=entry.at)


def verified(
    folder: Path, found: Sequence[Row] | Exception = (), logs: LogGroup | None = None
) -> Verification:
    environment = Environment(
        name="staging",
        database_url="",
        redis_url="",
        nats_url="",
        state=folder,
        stack=Stack(journal_log_group="/j" if logs else None),
    )
    mirror: Any = Copies(found)
    return verification(environment, sql=mirror, aws=logs or LogGroup([], error=AssertionError()), timeout=10)


# The file


def test_a_whole_file_a_torn_end_and_none(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    assert read_file(path) == File(path=path, chain=None, entries=[], torn=0, flaw=None)
    entries = kept(path)
    path.write_bytes(path.read_bytes() + b"{torn")
    assert read_file(path) == File(path=path, chain=entries[0].chain, entries=entries, torn=5, flaw=None)


def test_of_a_changed_file_its_records_up_to_there_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    entries = kept(path)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], *lines[2:]]) + b"{to")
    file = read_file(path)
    assert (file.chain, file.entries, file.torn) == (entries[0].chain, entries[:1], 3)
    assert file.flaw is not None
    assert (file.flaw.kind, file.flaw.record, file.flaw.text) == (Kind.MISSING, 2, "record 2 is missing")
    path.write_bytes(b"\n".join([b"{}", *lines[1:]]))
    file = read_file(path)  # the first line does not say which chain it was: a later one does
    assert (file.chain, file.entries) == (entries[0].chain, [])
    path.write_bytes(b"{}\n")
    assert read_file(path).chain is None


def test_a_file_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ArrakisError, match="the journal cannot be read: Is a directory") as error:
        read_file(tmp_path)
    assert str(tmp_path) in error.value.hint


# The mirror


def test_the_mirror_is_read_by_pages_and_one_chain_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 3)
    one, other = kept(tmp_path / "one", records=4), kept(tmp_path / "other", records=3)
    database = Copies(rows(one, other))
    found = mirrored(database, one[0].chain)  # type: ignore[arg-type]
    assert found.copies == {entry.seq: entry for entry in one}
    chains = [
        Chain(name=each[0].chain, records=len(each), last=len(each), at=NOW, flaw=None)
        for each in (one, other)
    ]
    assert sorted(found.chains, key=lambda chain: chain.records) == sorted(
        chains, key=lambda chain: chain.records
    )
    assert database.asked[0] == {"chain": "", "seq": 0, "limit": 3}
    assert len(database.asked) == 4


def test_a_page_of_the_mirror_fits_into_memory() -> None:
    assert 100 <= module._AT_ONCE <= 10_000


def test_without_the_tables_nothing_was_ever_mirrored() -> None:
    found = mirrored(Copies(Missing("no such table")), "c")  # type: ignore[arg-type]
    assert (found.copies, found.chains) == ({}, ())
    with pytest.raises(Unreachable):
        mirrored(Copies(Unreachable("no answer")), "c")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [{"run": "r2"}, {"phase": "done"}, {"record": {}}, {"record": {"line": ""}}, {"record": {"chain": "", "seq": 1, "run": "", "observed": {}, "phase": "done", "at": "2026-03-01", "more": 1}}],
)  # fmt: skip
def test_a_copy_that_was_changed_ends_what_is_believed(tmp_path: Path, change: dict[str, Any]) -> None:
    entries = kept(tmp_path / "journal", records=5)
    told = rows(entries)
    told[2] = replace(told[2], **change)
    found = mirrored(Copies(told), entries[0].chain)  # type: ignore[arg-type]
    assert list(found.copies) == [1, 2]
    [chain] = found.chains
    assert (chain.records, chain.last, chain.at) == (5, 5, NOW)
    assert chain.flaw is not None
    assert (chain.flaw.source, chain.flaw.record, chain.flaw.kind) == (Source.MIRROR, 3, Kind.EDITED)
    assert chain.flaw.text == "record 3 is not as it was written: its hash is another"


def test_of_two_copies_that_do_not_follow_neither_is_believed(tmp_path: Path) -> None:
    entries, others = (kept(tmp_path / name, records=5) for name in ("journal", "other"))
    chain = entries[0].chain
    forged = entry_from_json(entry_as_json(_as(others[2], chain)))
    found = mirrored(Copies(rows([*entries[:2], forged, *entries[3:]])), chain)  # type: ignore[arg-type]
    assert list(found.copies) == [1]
    assert found.chains[0].flaw is not None
    assert found.chains[0].flaw.record == 3
    assert (found.chains[0].records, found.chains[0].last) == (5, 5)


def test_a_first_copy_that_follows_something_is_not_believed(tmp_path: Path) -> None:
    [first] = kept(tmp_path / "journal", records=1)
    forged = _sealed(replace(first, previous="e" * 64, hash=""))
    found = mirrored(Copies(rows([forged])), first.chain)  # type: ignore[arg-type]
    assert found.copies == {}
    assert found.chains[0].flaw is not None


def _as(entry: JournalEntry, chain: str) -> JournalEntry:
    return _sealed(replace(entry, chain=chain, hash=""))


def test_a_copy_that_nothing_is_whole_of_has_no_time(tmp_path: Path) -> None:
    entries = kept(tmp_path / "journal", records=1)
    told = [replace(rows(entries)[0], record={})]
    assert mirrored(Copies(told), entries[0].chain).chains[0].at is None  # type: ignore[arg-type]


# All together


@pytest.mark.parametrize(
    ("flaws", "vouches", "code"),
    [
        ((), (4, 4), Exit.HEALTHY),
        ((), (0, 0), Exit.HEALTHY),
        ((), (4, None), Exit.UNKNOWN),
        ((of_copy("c", 1, ""),), (None, 4), Exit.PROPOSED),
    ],
)
def test_what_is_wrong_goes_before_what_nobody_can_tell(
    flaws: Any, vouches: tuple[int | None, ...], code: Exit
) -> None:
    witnesses = tuple(Witness(name="w", vouches=each, text="") for each in vouches)
    file = File(path=Path(), chain=None, entries=[], torn=0, flaw=None)
    environment = Environment(name="x", database_url="", redis_url="", nats_url="")
    assert (
        Verification(environment=environment, file=file, flaws=flaws, witnesses=witnesses, others=()).exit
        is code
    )


def test_a_journal_that_is_whole_and_vouched_for(tmp_path: Path) -> None:
    entries, other = kept(tmp_path / "journal.jsonl"), kept(tmp_path / "other")
    found = verified(tmp_path, rows(entries, other), LogGroup([anchor(entries[1]), anchor(entries[3])]))
    assert (found.exit, found.flaws) == (Exit.HEALTHY, ())
    assert found.witnesses == (
        Witness(name="mirror", vouches=4, text="has 4 records of it, the last 4"),
        Witness(name="log group /j", vouches=4, text="has 2 anchors of it, the last on record 4"),
    )
    assert [chain.name for chain in found.others] == [other[0].chain]
    assert found.file.entries == entries
    assert found.environment.name == "staging"


def test_what_is_not_copied_or_anchored_yet_is_said(tmp_path: Path) -> None:
    found = verified(tmp_path, [], LogGroup([]))
    assert (found.exit, found.flaws) == (Exit.HEALTHY, ())
    assert found.witnesses == (
        Witness(name="mirror", vouches=0, text="has nothing to compare: the file is empty", hint=""),
        Witness(name="log group /j", vouches=0, text="has no anchor of this journal yet", hint=""),
    )
    assert Witness(name="", vouches=0, text="").hint == ""
    entries = kept(tmp_path / "journal.jsonl")
    assert verified(tmp_path, []).witnesses == (
        Witness(name="mirror", vouches=0, text="has no record of this journal yet"),
    )
    [witness] = verified(tmp_path, rows(entries[:2])).witnesses
    assert (witness.vouches, witness.text) == (
        2,
        "has 2 records of it, the last 2; the next run copies the rest",
    )


def test_who_cannot_be_asked_vouches_for_nothing(tmp_path: Path) -> None:
    kept(tmp_path / "journal.jsonl")
    found = verified(
        tmp_path,
        Unreachable("no answer", hint="wait"),
        LogGroup([], error=Missing("no group", hint="make it")),
    )
    assert found.exit is Exit.UNKNOWN
    assert (found.flaws, found.others) == ((), ())
    assert found.witnesses == (
        Witness(name="mirror", vouches=None, text="cannot be asked: no answer", hint="wait"),
        Witness(name="log group /j", vouches=None, text="cannot be asked: no group", hint="make it"),
    )


def test_more_anchors_than_are_read_vouch_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = kept(tmp_path / "journal.jsonl")
    monkeypatch.setattr("runbooks.engine.anchors._PAGES", 1)
    found = verified(tmp_path, rows(entries), LogGroup([anchor(entries[3])]))
    assert found.witnesses[1] == Witness(
        name="log group /j", vouches=None, text="has more than the 1 anchors that are read"
    )
    assert found.exit is Exit.UNKNOWN


def test_a_file_that_was_cut_short_is_told_by_both(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    entries = kept(path)
    path.write_bytes(b"".join(line + b"\n" for line in path.read_bytes().split(b"\n")[:2]))
    found = verified(tmp_path, rows(entries), LogGroup([anchor(entries[3])]))
    assert [(flaw.kind, flaw.record, flaw.found_by) for flaw in found.flaws] == [
        (Kind.TRUNCATED, 3, "mirror"),
        (Kind.TRUNCATED, 1, "log group"),
    ]
    assert found.exit is Exit.PROPOSED


def test_of_a_file_with_a_flaw_the_end_is_not_missed_too(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    entries = kept(path)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:2], lines[2].replace(b"ada", b"eve"), lines[3], b""]))
    found = verified(tmp_path, rows(entries), LogGroup([anchor(entries[3])]))
    assert [(flaw.kind, flaw.record, flaw.found_by) for flaw in found.flaws] == [(Kind.EDITED, 3, "file")]


def test_a_copy_that_is_wrong_is_told_of_any_chain(tmp_path: Path) -> None:
    entries, other = kept(tmp_path / "journal.jsonl"), kept(tmp_path / "other")
    told = [replace(row, record={}) if row.chain == other[0].chain else row for row in rows(entries, other)]
    assert [(flaw.source, flaw.chain) for flaw in verified(tmp_path, told).flaws] == [
        (Source.MIRROR, other[0].chain)
    ]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_journal_that_was_kept_here_before_is_missed_once(tmp_path: Path, replaced: bool) -> None:
    path = tmp_path / "journal.jsonl"
    before = kept(path)
    path.unlink()
    if replaced:
        kept(path)
    earlier = f"{place(path)}-elsewhen"
    logs = LogGroup([anchor(before[1])], others=(earlier,))
    found = verified(tmp_path, rows(before), logs)
    kind, end = (Kind.REPLACED, ": another stands in its place") if replaced else (Kind.MISSING, "")
    assert [(flaw.kind, flaw.chain, flaw.found_by, flaw.text.split("gone ")[1]) for flaw in found.flaws] == [
        (
            kind,
            before[0].chain,
            "mirror",
            f"(4 records of it mirrored, the last of 2026-03-01 12:00 UTC){end}",
        ),
        (kind, earlier, "log group", f"(it was anchored){end}"),
    ]


def test_of_a_mirrored_journal_of_which_nothing_is_whole_no_time_is_told(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    before = kept(path, records=1)
    path.unlink()
    found = verified(tmp_path, [replace(rows(before)[0], record={})])
    assert found.flaws[-1].text.endswith("is gone (1 record of it mirrored)")
    assert json.loads(json.dumps(found.flaws[-1].record)) == 1
