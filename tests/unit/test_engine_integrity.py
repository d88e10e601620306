"""Six records, and all that can be done to them: which one is named, as what, and in which words."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runbooks.engine.anchors import Anchor
from runbooks.engine.integrity import (
    Flaw,
    Kind,
    Source,
    in_chain,
    in_file,
    of_copy,
    of_earlier,
    to_anchors,
    to_copies,
)
from runbooks.engine.journal import GENESIS, JournalEntry, _sealed
from runbooks.engine.model import Phase

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EDITED, MISSING, INSERTED = Kind.EDITED, Kind.MISSING, Kind.INSERTED
REORDERED, TRUNCATED, REPLACED = Kind.REORDERED, Kind.TRUNCATED, Kind.REPLACED
Lines = list[JournalEntry | None]


def chained(entries: Sequence[JournalEntry], *, after: Sequence[JournalEntry] = ()) -> list[JournalEntry]:
    """Return entries that follow those before, their numbers and hashes made anew."""
    made = list(after)
    for entry in entries:
        last = made[-1] if made else None
        made.append(
            _sealed(replace(entry, seq=len(made) + 1, previous=last.hash if last else GENESIS, hash=""))
        )
    return made


def said(number: int) -> JournalEntry:
    return JournalEntry(
        chain="c",
        seq=number,
        run="r",
        action=f"a{number}",
        phase=Phase.DONE,
        at=NOW + timedelta(seconds=number),
        actor="ada",
        observed={"n": number},
        error=None,
        previous="",
    )


WHOLE = chained([said(number) for number in range(1, 7)])
OTHER = chained([said(9)], after=WHOLE[:2])[2]  # another third record, that would follow
STRANGE = replace(WHOLE[2], chain="d")


def file(kind: Kind, record: int, text: str, *, found_by: str = "file", chain: str = "c") -> Flaw:
    return Flaw(source=Source.FILE, chain=chain, record=record, kind=kind, text=text, found_by=found_by)


def test_what_was_done_and_where_is_told_by_these_words() -> None:
    assert [each.value for each in Kind] == [
        "edited",
        "missing",
        "inserted",
        "reordered",
        "truncated",
        "replaced",
    ]
    assert [each.value for each in Source] == ["file", "mirror"]


# By the file alone


@pytest.mark.parametrize(
    ("lines", "broken", "flaw"),
    [
        ([None, *WHOLE], 1, file(INSERTED, 1, "line 1 is no record")),
        ([*WHOLE[:3], None, *WHOLE[3:]], 4, file(INSERTED, 4, "line 4 is no record")),
        ([*WHOLE[:1], None, *WHOLE[1:]], 2, file(INSERTED, 2, "line 2 is no record")),
        ([*WHOLE[:3], None, *WHOLE[4:]], 4, file(EDITED, 4, "record 4 is not as it was written: its hash is another")),
        ([None, *WHOLE[1:]], 1, file(EDITED, 1, "record 1 is not as it was written: its hash is another")),
        ([*WHOLE[:5], None], 6, file(EDITED, 6, "record 6 is not as it was written: its hash is another")),
        ([None], 1, file(EDITED, 1, "record 1 is not as it was written: its hash is another", chain="")),
        ([*WHOLE[:2], STRANGE, *WHOLE[2:]], 3, file(INSERTED, 3, "line 3 is a record of another chain, d")),
        (WHOLE[1:], 1, file(MISSING, 1, "record 1 is missing")),
        (WHOLE[2:], 1, file(MISSING, 1, "records 1 to 2 are missing")),
        ([*WHOLE[:2], *WHOLE[3:]], 3, file(MISSING, 3, "record 3 is missing")),
        ([*WHOLE[:1], *WHOLE[4:]], 2, file(MISSING, 2, "records 2 to 4 are missing")),
        ([WHOLE[1], WHOLE[0], *WHOLE[2:]], 1, file(REORDERED, 1, "record 1 is not in its place: it stands in line 2")),
        ([*WHOLE[:2], *WHOLE[3:], WHOLE[2]], 3, file(REORDERED, 3, "record 3 is not in its place: it stands in line 6")),
        ([*WHOLE[:2], WHOLE[3], None, WHOLE[2], *WHOLE[4:]], 3, file(REORDERED, 3, "record 3 is not in its place: it stands in line 5")),
        ([*WHOLE, WHOLE[5]], 7, file(INSERTED, 7, "in line 7 a record 6 stands once more")),
        ([*WHOLE[:4], WHOLE[1], *WHOLE[4:]], 5, file(INSERTED, 5, "in line 5 a record 2 stands once more")),
        ([*WHOLE[:2], OTHER, *WHOLE[2:]], 4, file(INSERTED, 3, "a record 3 was put in before the true one")),
        ([*WHOLE[:2], OTHER, *WHOLE[2:4], None], 4, file(INSERTED, 3, "a record 3 was put in before the true one")),
        ([*WHOLE[:3], OTHER, *WHOLE[3:]], 4, file(INSERTED, 4, "in line 4 a record 3 stands once more")),
        ([*WHOLE[:2], OTHER, *WHOLE[3:]], 4, file(EDITED, 3, "record 3 was edited and given a new hash")),
        ([*WHOLE[:4], chained([said(5)], after=[*WHOLE[:3], OTHER])[4]], 5, file(EDITED, 5, "record 5 was edited and given a new hash, or the one before it")),
    ],
)  # fmt: skip
def test_what_was_done_to_a_file_is_told(lines: Lines, broken: int, flaw: Flaw) -> None:
    assert in_file(lines, broken) == flaw


def test_a_first_record_that_follows_something_was_edited() -> None:
    first = _sealed(replace(WHOLE[0], previous="e" * 64, hash=""))
    told = "record 1 was edited and given a new hash, or the one before it"
    assert in_file([first, *WHOLE[1:]], 1) == file(EDITED, 1, told)
    assert in_file([first], 1) == file(EDITED, 1, told)


# By the mirror alone


@pytest.mark.parametrize(
    ("last", "entry", "wrong"),
    [
        (None, WHOLE[0], False),
        (WHOLE[0], WHOLE[1], False),
        (WHOLE[0], WHOLE[4], False),  # what is between is not there: nobody can tell
        (None, WHOLE[3], False),
        (WHOLE[1], replace(WHOLE[2], previous="e" * 64), True),
        (None, replace(WHOLE[0], previous="e" * 64), True),
        (OTHER, WHOLE[3], True),
    ],
)
def test_a_mirrored_record_follows_the_one_before(
    last: JournalEntry | None, entry: JournalEntry, wrong: bool
) -> None:
    text = f"record {entry.seq} does not follow the one before: one of them was edited and given a new hash"
    assert in_chain(last, entry) == (of_copy("c", entry.seq, text) if wrong else None)


def test_an_edited_copy_is_the_mirrors() -> None:
    assert of_copy("c", 4, "why") == Flaw(
        source=Source.MIRROR, chain="c", record=4, kind=EDITED, text="why", found_by="mirror"
    )


@pytest.mark.parametrize(
    ("replaced", "kind", "text"),
    [
        (False, MISSING, "the journal c, which was kept here, is gone (2 records)"),
        (
            True,
            REPLACED,
            "the journal c, which was kept here, is gone (2 records): another stands in its place",
        ),
    ],
)
def test_a_journal_that_is_gone_is_told(replaced: bool, kind: Kind, text: str) -> None:
    assert of_earlier("c", "2 records", found_by="mirror", replaced=replaced) == file(
        kind, 1, text, found_by="mirror"
    )


# Against the copies


def forged(change: Callable[[list[JournalEntry]], object]) -> list[JournalEntry]:
    """Return the journal as whoever changed it and made all hashes anew has it."""
    entries = list(WHOLE)
    change(entries)
    return chained(entries)


ANOTHER: dict[str, Any] = {
    "run": "x",
    "action": "x",
    "phase": Phase.FAILED,
    "at": NOW,
    "actor": "x",
    "observed": {},
    "error": "x",
}
ALMOST_THE_FOURTH = [replace(WHOLE[3], **{field: value}) for field, value in ANOTHER.items()]


def swap(entries: list[JournalEntry]) -> None:
    entries[2:4] = entries[3], entries[2]


@pytest.mark.parametrize(
    ("ours", "kind", "record", "text"),
    [
        (forged(swap), REORDERED, 3, "records 3 and 4 have changed places"),
        (forged(lambda made: made.pop(2)), MISSING, 3, "record 3 was taken out"),
        (forged(lambda made: made.pop(0)), MISSING, 1, "record 1 was taken out"),
        (forged(lambda made: made.insert(2, said(9))), INSERTED, 3, "a record was put in as number 3"),
        (forged(lambda made: made.insert(5, said(9))), INSERTED, 6, "a record was put in as number 6"),
        (forged(lambda made: made.__setitem__(2, said(9))), EDITED, 3, "record 3 is not the one that was mirrored"),
        (forged(lambda made: made.__setitem__(5, said(9))), EDITED, 6, "record 6 is not the one that was mirrored"),
        *(
            (chained([*WHOLE[:2], almost, *WHOLE[3:]]), EDITED, 3, "record 3 is not the one that was mirrored")
            for almost in ALMOST_THE_FOURTH
        ),
    ],
)  # fmt: skip
def test_what_differs_from_its_copy_is_told(
    ours: list[JournalEntry], kind: Kind, record: int, text: str
) -> None:
    copies = {entry.seq: entry for entry in WHOLE}
    for whole in (True, False):
        told = f"{text}, and what follows was given new hashes"
        assert to_copies(ours, copies, whole=whole) == file(kind, record, told, found_by="mirror")


@pytest.mark.parametrize(
    ("ours", "known", "whole", "record"),
    [
        (WHOLE, WHOLE, True, None),
        (WHOLE, WHOLE[:3], True, None),
        (WHOLE, WHOLE[3:4], True, None),
        (WHOLE, [], True, None),
        ([], [], True, None),
        (WHOLE[:4], WHOLE, True, 5),
        ([], WHOLE, True, 1),
        (WHOLE[:4], WHOLE, False, None),
    ],
)
def test_what_is_copied_and_not_there_was_cut_off(
    ours: list[JournalEntry], known: list[JournalEntry], whole: bool, record: int | None
) -> None:
    text = f"the file ends with record {len(ours)}, and the mirror has records up to 6"
    flaw = file(TRUNCATED, record, text, found_by="mirror") if record else None
    assert to_copies(ours, {entry.seq: entry for entry in known}, whole=whole) == flaw


# Against the anchors


def anchor(number: int, digest: str = "") -> Anchor:
    entry = WHOLE[number - 1]
    return Anchor(chain="c", seq=number, hash=digest or entry.hash, run="r", at=entry.at)


@pytest.mark.parametrize(
    ("ours", "anchors", "whole", "flaw"),
    [
        (WHOLE, [], True, None),
        (WHOLE, [anchor(6), anchor(2)], True, None),
        (WHOLE[:6], [anchor(6)], False, None),
        (WHOLE[:4], [anchor(6), anchor(2)], True, (TRUNCATED, 3, "the file ends with record 4, and record 6 was anchored; up to 2 they agree")),
        ([], [anchor(1)], True, (TRUNCATED, 1, "the file ends with record 0, and record 1 was anchored; up to 0 they agree")),
        (WHOLE[:4], [anchor(6), anchor(2)], False, None),
        (WHOLE, [anchor(5, "x"), anchor(2)], True, (EDITED, 3, "records 3 to 5: the anchored hash is another, so that something up to there was changed")),
        (WHOLE, [anchor(3, "x"), anchor(2)], False, (EDITED, 3, "record 3: the anchored hash is another, so that something up to there was changed")),
        (WHOLE, [anchor(2, "x")], True, (EDITED, 1, "records 1 to 2: the anchored hash is another, so that something up to there was changed")),
        (WHOLE, [anchor(1, "x")], True, (EDITED, 1, "record 1: the anchored hash is another, so that something up to there was changed")),
    ],
)  # fmt: skip
def test_what_differs_from_its_anchor_is_told_behind_the_last_that_agrees(
    ours: list[JournalEntry], anchors: list[Anchor], whole: bool, flaw: tuple[Kind, int, str] | None
) -> None:
    assert to_anchors(ours, anchors, whole=whole) == (file(*flaw, found_by="log group") if flaw else None)
