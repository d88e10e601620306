"""Whether a journal is as it was written: the first record that is not, and what was done to it. Pure.

The file alone shows whatever was done without making all later hashes anew. Whoever did that is shown by what was copied or
named elsewhere before: the mirrored records, and the anchors.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from runbooks.engine.anchors import Anchor
from runbooks.engine.journal import GENESIS, JournalEntry

__all__ = [
    "Flaw",
    "Kind",
    "Source",
    "in_chain",
    "in_file",
    "of_copy",
    "of_earlier",
    "to_anchors",
    "to_copies",
]

_Lines = Sequence[JournalEntry | None]


class Kind(StrEnum):
    """What was done to a record."""

    EDITED = "edited"
    MISSING = "missing"
    INSERTED = "inserted"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    REPLACED = "replaced"


class Source(StrEnum):
    """Where it was done, as far as it can be told."""

    FILE = "file"
    MIRROR = "mirror"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """The first record of a chain that is not as it was written; `record` is its number, and `found_by` what shows it."""

    source: Source
    chain: str
    record: int
    kind: Kind
    text: str
    found_by: str = "file"


def in_file(lines: _Lines, broken: int) -> Flaw:
    """Return what was done to a file; its line number `broken` is the first that does not follow. A line that is no record is None."""
    record, kind, text = _told(lines, broken)
    named = next((line.chain for line in lines if line), "")
    return Flaw(source=Source.FILE, chain=named, record=record, kind=kind, text=text)


def _told(lines: _Lines, broken: int) -> tuple[int, Kind, str]:
    here, before = lines[broken - 1], lines[broken - 2] if broken > 1 else None
    after = lines[broken] if broken < len(lines) else None
    follows = (broken, before.hash if before else GENESIS)
    if here is None and after and (after.seq, after.previous) == follows:
        return broken, Kind.INSERTED, f"line {broken} is no record"
    if here is None:
        return broken, Kind.EDITED, f"record {broken} is not as it was written: its hash is another"
    if before and here.chain != before.chain:
        return broken, Kind.INSERTED, f"line {broken} is a record of another chain, {here.chain}"
    if here.seq > broken:
        return _absent(lines, broken, here)
    if here.seq < broken:
        return _twice(lines, broken, here)
    if before and after and after.previous == here.hash:
        return broken - 1, Kind.EDITED, f"record {broken - 1} was edited and given a new hash"
    return broken, Kind.EDITED, f"record {broken} was edited and given a new hash, or the one before it"


def _absent(lines: _Lines, broken: int, here: JournalEntry) -> tuple[int, Kind, str]:
    later = [
        number for number, line in enumerate(lines, 1) if number > broken and line and line.seq == broken
    ]
    if later:
        return broken, Kind.REORDERED, f"record {broken} is not in its place: it stands in line {later[0]}"
    gone = f"record {broken} is" if here.seq == broken + 1 else f"records {broken} to {here.seq - 1} are"
    return broken, Kind.MISSING, f"{gone} missing"


def _twice(lines: _Lines, broken: int, here: JournalEntry) -> tuple[int, Kind, str]:
    """Of two records of the same number the true one is that which the next one follows."""
    following = {line.previous for line in lines if line and line.seq == here.seq + 1}
    twin = lines[here.seq - 1]
    if twin and twin.hash != here.hash and here.hash in following:
        return here.seq, Kind.INSERTED, f"a record {here.seq} was put in before the true one"
    return broken, Kind.INSERTED, f"in line {broken} a record {here.seq} stands once more"


def in_chain(last: JournalEntry | None, entry: JournalEntry) -> Flaw | None:
    """Return what is wrong with a mirrored record if the one before it, `last`, is there as well; None if nothing is."""
    adjoining = entry.seq == (last.seq if last else 0) + 1
    if not adjoining or entry.previous == (last.hash if last else GENESIS):
        return None
    text = f"record {entry.seq} does not follow the one before: one of them was edited and given a new hash"
    return of_copy(entry.chain, entry.seq, text)


def of_copy(chain: str, record: int, text: str) -> Flaw:
    """Return that a mirrored record was edited, as the mirror itself shows."""
    return Flaw(
        source=Source.MIRROR, chain=chain, record=record, kind=Kind.EDITED, text=text, found_by="mirror"
    )


def of_earlier(chain: str, told: str, *, found_by: str, replaced: bool) -> Flaw:
    """Return that the journal which was kept in this file is gone, or another stands in its place; `told` is what is known of it."""
    kind = Kind.REPLACED if replaced else Kind.MISSING
    text = f"the journal {chain}, which was kept here, is gone ({told})"
    return _of_file(chain, 1, kind, f"{text}: another stands in its place" if replaced else text, found_by)


def to_copies(
    ours: Sequence[JournalEntry], copies: Mapping[int, JournalEntry], *, whole: bool
) -> Flaw | None:
    """Return where a file's records first differ from the copies, by number; where it is not `whole` it ends before its end."""
    for entry in ours:
        copy = copies.get(entry.seq)
        if copy and copy.hash != entry.hash:
            return _differs(ours, copies, entry)
    last = max(copies, default=0)
    if not whole or last <= len(ours):
        return None
    text = f"the file ends with record {len(ours)}, and the mirror has records up to {last}"
    return _of_file(copies[last].chain, len(ours) + 1, Kind.TRUNCATED, text, "mirror")


def _differs(ours: Sequence[JournalEntry], copies: Mapping[int, JournalEntry], entry: JournalEntry) -> Flaw:
    number = entry.seq
    copy, next_copy = copies[number], copies.get(number + 1)
    next_one = ours[number] if number < len(ours) else None
    ours_is_next = next_copy is not None and _same(entry, next_copy)
    next_is_theirs = next_one is not None and _same(next_one, copy)
    if ours_is_next and next_is_theirs:
        kind, text = Kind.REORDERED, f"records {number} and {number + 1} have changed places"
    elif ours_is_next:
        kind, text = Kind.MISSING, f"record {number} was taken out"
    elif next_is_theirs:
        kind, text = Kind.INSERTED, f"a record was put in as number {number}"
    else:
        kind, text = Kind.EDITED, f"record {number} is not the one that was mirrored"
    return _of_file(entry.chain, number, kind, f"{text}, and what follows was given new hashes", "mirror")


def to_anchors(ours: Sequence[JournalEntry], anchors: Iterable[Anchor], *, whole: bool) -> Flaw | None:
    """Return the first of a file's records that may differ from what was anchored, behind the last anchor that agrees.

    `whole` is as in `to_copies`.
    """
    agreed = 0
    for anchor in sorted(anchors, key=lambda each: each.seq):
        if anchor.seq > len(ours):
            if not whole:
                return None
            text = f"the file ends with record {len(ours)}, and record {anchor.seq} was anchored; up to {agreed} they agree"
            return _of_file(anchor.chain, agreed + 1, Kind.TRUNCATED, text, "log group")
        if ours[anchor.seq - 1].hash != anchor.hash:
            some = (
                f"records {agreed + 1} to {anchor.seq}" if anchor.seq > agreed + 1 else f"record {anchor.seq}"
            )
            text = f"{some}: the anchored hash is another, so that something up to there was changed"
            return _of_file(anchor.chain, agreed + 1, Kind.EDITED, text, "log group")
        agreed = anchor.seq
    return None


def _of_file(chain: str, record: int, kind: Kind, text: str, found_by: str) -> Flaw:
    return Flaw(source=Source.FILE, chain=chain, record=record, kind=kind, text=text, found_by=found_by)


def _same(one: JournalEntry, other: JournalEntry) -> bool:
    """Whether two records say the same, whatever their numbers."""
    said = [
        (each.run, each.action, each.phase, each.at, each.actor, each.observed, each.error)
        for each in (one, other)
    ]
    return said[0] == said[1]
