"""Whatever is done to one record of a thousand is found, and named: by the file itself, by the mirror, by the anchors."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runbooks.engine.anchors import EVERY, Anchor
from runbooks.engine.integrity import Flaw, Kind, to_anchors, to_copies
from runbooks.engine.journal import Journal, parsed, read, verify
from runbooks.engine.verification import File, read_file
from sandbox.errors import ArrakisError
from tests.proof.journals import (
    FIELDS,
    MUTATIONS,
    RECORDS,
    Changed,
    edited,
    forged,
    joined,
    keep,
    records_of,
    ticking,
)

NUMBERS = st.integers(1, RECORDS)
SAMPLE = settings(max_examples=20, deadline=None)
FEW = settings(max_examples=6, deadline=None)


class Whole:
    """A journal as it was written, and what its mirror and its anchors have of it. No dataclass: hypothesis would print it all."""

    def __init__(self, journal: Journal, path: Path) -> None:
        self.path = path
        self.entries = journal.entries()
        self.lines = journal.path.read_bytes().split(b"\n")[:-1]
        self.copies = {entry.seq: entry for entry in self.entries}
        self.anchors = [
            Anchor(chain=e.chain, seq=e.seq, hash=e.hash, run=e.run, at=e.at)
            for e in self.entries[EVERY - 1 :: EVERY]
        ]

    def judged(self, data: bytes) -> tuple[File, list[Flaw]]:
        """Return the file that has this data, and all that is found wrong with it, by the file first."""
        self.path.write_bytes(data)
        file = read_file(self.path)
        left = file.flaw is None
        shown = [file.flaw, to_copies(file.entries, self.copies, whole=left)]
        shown.append(to_anchors(file.entries, self.anchors, whole=left))
        return file, [flaw for flaw in shown if flaw]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Return a journal of a thousand records."""
    folder = tmp_path_factory.mktemp("journal")
    journal = Journal(folder / "whole.jsonl", actor="chani", clock=ticking())
    keep(journal, at_once=RECORDS)
    written = Whole(journal, folder / "journal.jsonl")
    assert len(written.entries) == RECORDS
    return written


def found(whole: Whole, changed: Changed) -> None:
    """See that what was done is found, and named as what it is."""
    file, flaws = whole.judged(joined(changed.lines))
    assert flaws, changed.kind
    assert (flaws[0].kind, flaws[0].record) == (changed.kind, changed.record), flaws[0]
    by_itself = changed.kind is not Kind.TRUNCATED
    assert (file.flaw is not None) == by_itself
    if by_itself:
        with pytest.raises(ArrakisError, match="the journal was changed at record"):
            verify(joined(changed.lines))


def test_what_nobody_touched_is_whole(whole: Whole) -> None:
    file, flaws = whole.judged(joined(whole.lines))
    assert (flaws, len(file.entries), file.torn) == ([], RECORDS, 0)
    assert file.entries == whole.entries


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize(
    ("at", "other"), [(1, 2), (2, RECORDS), (500, 501), (RECORDS, 1), (RECORDS, RECORDS)]
)
def test_whatever_is_done_at_the_ends_and_in_the_midst_is_found(
    whole: Whole, mutation: Any, at: int, other: int
) -> None:
    found(whole, mutation(whole.lines, at, other))


@SAMPLE
@given(mutation=st.sampled_from(MUTATIONS), at=NUMBERS, other=NUMBERS)
def test_whatever_is_done_anywhere_is_found(whole: Whole, mutation: Any, at: int, other: int) -> None:
    found(whole, mutation(whole.lines, at, other))


@pytest.mark.soak
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_whatever_is_done_to_any_record_is_found(whole: Whole, mutation: Any) -> None:
    for at in range(1, RECORDS + 1):
        found(whole, mutation(whole.lines, at, RECORDS + 1 - at))


# A line that is no record ends what is read of the file, and is named: the tests above show it. What follows is of lines alone.


def test_each_field_of_any_record_is_watched(whole: Whole) -> None:
    for at in range(1, RECORDS + 1):
        for field in range(len(FIELDS)):
            assert parsed(edited(whole.lines[at - 1 : at], 1, field).lines[0]) is None, (at, field)


def test_no_byte_of_some_records_can_be_another(whole: Whole) -> None:
    every_byte_counts(whole.lines[:: RECORDS // 100])


@pytest.mark.soak
def test_no_byte_of_all_records_can_be_another(whole: Whole) -> None:
    every_byte_counts(whole.lines)


def every_byte_counts(lines: list[bytes]) -> None:
    """See that a line with any byte of it changed, each time by another bit, is no record."""
    for line in lines:
        flipped = bytearray(line)
        assert parsed(bytes(flipped)) is not None
        for place in range(len(line)):
            flipped[place] ^= 1 << place % 8
            assert parsed(bytes(flipped)) is None, (place, line)
            flipped[place] = line[place]


@pytest.mark.soak
def test_no_bit_of_some_records_can_be_another(whole: Whole) -> None:
    for line in whole.lines[:: RECORDS // 10]:
        for place in range(len(line)):
            for mask in range(1, 256):
                assert parsed(line[:place] + bytes([line[place] ^ mask]) + line[place + 1 :]) is None


@FEW
@given(at=NUMBERS, byte=st.integers(0, 255).filter(lambda byte: byte != ord("\n")))
@example(at=RECORDS, byte=ord("\r"))
@example(at=1, byte=ord("\r"))
def test_no_line_can_end_otherwise(whole: Whole, at: int, byte: int) -> None:
    data = bytearray(joined(whole.lines))
    end = len(joined(whole.lines[:at])) - 1
    data[end] = byte
    file, flaws = whole.judged(bytes(data))
    assert flaws[0].record == at
    assert flaws[0].kind is (Kind.EDITED if at < RECORDS else Kind.TRUNCATED)
    assert (file.torn > 0) == (at == RECORDS)


# Cut short


def test_an_end_that_is_missing_is_found_by_the_mirror_and_to_the_nearest_anchor(whole: Whole) -> None:
    for length in range(RECORDS):
        left = whole.entries[:length]
        by_copies = to_copies(left, whole.copies, whole=True)
        by_anchors = to_anchors(left, whole.anchors, whole=True)
        assert by_copies is not None
        assert by_anchors is not None
        assert (by_copies.kind, by_copies.record) == (Kind.TRUNCATED, length + 1)
        assert (by_anchors.kind, by_anchors.record) == (Kind.TRUNCATED, length // EVERY * EVERY + 1)
    assert to_copies(whole.entries, whole.copies, whole=True) is None
    assert to_anchors(whole.entries, whole.anchors, whole=True) is None


@SAMPLE
@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_at_any_byte_is_found(whole: Whole, cut: float) -> None:
    data = joined(whole.lines)
    part = data[: int(len(data) * cut)]
    file, flaws = whole.judged(part)
    assert file.flaw is None  # which by itself is what a crash leaves
    assert file.torn == len(part) - part.rfind(b"\n") - 1
    ends = part.count(b"\n")
    expected = [(Kind.TRUNCATED, ends + 1), (Kind.TRUNCATED, ends // EVERY * EVERY + 1)]
    assert [(flaw.kind, flaw.record) for flaw in flaws] == expected


def test_a_torn_end_alone_is_told_and_nothing_is_wrong(whole: Whole) -> None:
    file, flaws = whole.judged(joined(whole.lines) + whole.lines[0][:40])
    assert (flaws, file.torn, len(file.entries)) == ([], 40, RECORDS)


# Whoever makes all hashes anew


def forge_edited(records: list[dict[str, Any]], at: int) -> Kind:
    records[at - 1]["actor"] = "eve"
    return Kind.EDITED


def forge_deleted(records: list[dict[str, Any]], at: int) -> Kind:
    del records[at - 1]
    return Kind.MISSING if at < RECORDS else Kind.TRUNCATED


def forge_inserted(records: list[dict[str, Any]], at: int) -> Kind:
    records.insert(at - 1, {**records[at - 1], "action": "a-never-done"})
    return Kind.INSERTED


def forge_swapped(records: list[dict[str, Any]], at: int) -> Kind:
    at = min(at, RECORDS - 1)
    records[at - 1 : at + 1] = reversed(records[at - 1 : at + 1])
    return Kind.REORDERED


@FEW
@given(forge=st.sampled_from([forge_edited, forge_deleted, forge_inserted, forge_swapped]), at=NUMBERS)
@example(forge=forge_edited, at=1)
@example(forge=forge_deleted, at=RECORDS)
@example(forge=forge_inserted, at=RECORDS)
def test_who_makes_all_hashes_anew_is_found_by_the_mirror_and_by_the_anchors(
    whole: Whole, forge: Any, at: int
) -> None:
    records = records_of(whole.lines)
    kind = forge(records, at)
    at = min(at, RECORDS - 1) if kind is Kind.REORDERED else at
    before = whole.lines[: at - 1]
    file, flaws = whole.judged(joined([*before, *forged(records[at - 1 :], after=before)]))
    assert file.flaw is None  # by itself it is a journal without a fault
    by_mirror, by_anchors = flaws
    assert (by_mirror.kind, by_mirror.record, by_mirror.found_by) == (kind, at, "mirror")
    assert by_anchors.found_by == "log group"
    assert by_anchors.record <= at <= by_anchors.record + EVERY - 1


def test_behind_the_last_anchor_the_file_alone_vouches(whole: Whole) -> None:
    """What this cannot show is said: nothing was kept elsewhere yet."""
    records, before = records_of(whole.lines[-50:]), whole.lines[:-50]
    records[0]["actor"] = "eve"
    entries = read(joined([*before, *forged(records, after=before)])).entries
    known = {seq: entry for seq, entry in whole.copies.items() if seq <= RECORDS - 50}
    assert to_copies(entries, known, whole=True) is None
    assert to_anchors(entries, whole.anchors[:-1], whole=True) is None
    assert to_copies(entries, whole.copies, whole=True) is not None


def test_a_forged_line_of_no_shape_is_no_record(whole: Whole) -> None:
    """Its hash is right: nothing may stumble over what it holds."""
    record = json.loads(whole.lines[0])
    for name, value in (
        ("seq", "1"),
        ("chain", None),
        ("observed", []),
        ("at", 7),
        ("phase", "x"),
        ("run", 1),
    ):
        [line] = forged([record])
        content = {**json.loads(line), name: value}
        content["hash"] = json.loads(forged_as_is(content))["hash"]
        assert parsed(forged_as_is(content)) is None, name


def forged_as_is(content: dict[str, Any]) -> bytes:
    """Return the line of a record whose hash is right, whatever it holds."""
    import hashlib

    bare = {key: value for key, value in content.items() if key != "hash"}
    text = json.dumps(bare, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(text).hexdigest()
    return json.dumps({**bare, "hash": digest}, sort_keys=True, separators=(",", ":")).encode()
