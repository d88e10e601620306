"""Verifying a journal: the file by itself, then by the mirror and the anchors; and what other hosts have mirrored, by itself."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from runbooks.engine.anchors import Anchored, anchored
from runbooks.engine.copied import entry_from_json
from runbooks.engine.environment import Environment
from runbooks.engine.errors import Exit
from runbooks.engine.integrity import Flaw, in_chain, in_file, of_copy, of_earlier, to_anchors, to_copies
from runbooks.engine.journal import JournalEntry, parsed, place, read
from sandbox.errors import ArrakisError, Missing
from sandbox.facts import Fact, Known, Unknown, gather
from sandbox.ports import AwsReader, SqlReader, SqlSnapshot
from sandbox.text import counted

__all__ = ["Chain", "File", "Mirrored", "Verification", "Witness", "mirrored", "read_file", "verification"]

_AT_ONCE = 2_000  # mirrored records read by one statement


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A journal's file: its records up to the first that is not as it was written. `torn` bytes at its end were never acted on."""

    path: Path
    chain: str | None
    entries: Sequence[JournalEntry]
    torn: int
    flaw: Flaw | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What the mirror has of one journal: how many records, the last one's number and time, what is wrong with it."""

    name: str
    records: int
    last: int
    at: datetime | None
    flaw: Flaw | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrored:
    """All that the mirror has; `copies` are the records of one chain that are whole there, by number."""

    copies: Mapping[int, JournalEntry]
    chains: tuple[Chain, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """What something outside of the file says of it: up to which record it vouches, None where it cannot be asked."""

    name: str
    vouches: int | None
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What came of verifying a journal: `flaws` is empty where it is whole, `others` are the mirrored journals of other hosts."""

    environment: Environment
    file: File
    flaws: tuple[Flaw, ...]
    witnesses: tuple[Witness, ...]
    others: tuple[Chain, ...]

    @property
    def exit(self) -> Exit:
        """0 whole, 2 something was changed or is missing, 3 not all that vouches for it could be asked."""
        if self.flaws:
            return Exit.PROPOSED
        unasked = any(witness.vouches is None for witness in self.witnesses)
        return Exit.UNKNOWN if unasked else Exit.HEALTHY


def verification(environment: Environment, *, sql: SqlReader, aws: AwsReader, timeout: float) -> Verification:
    """Verify an environment's journal on this host, within `timeout` seconds. Raises ArrakisError where its file cannot be read."""
    path = environment.state / "journal.jsonl"
    chain, here, group = read_file(path).chain, place(path), environment.stack.journal_log_group
    probes: dict[str, Any] = {"mirror": lambda: mirrored(sql, chain)}
    if group is not None:
        probes["log group"] = lambda: anchored(aws, group, chain=chain, place=here)
    facts = gather(probes, deadline=timeout)
    file = read_file(path)  # after the others: a run may be under way, and what they have is on disk before
    mirror: Fact[Mirrored] = facts["mirror"]
    anchors: Fact[Anchored] | None = facts.get("log group")
    witnesses, flaws = [_of_mirror(file, mirror)], [file.flaw] if file.flaw else []
    flaws += _against_mirror(file, mirror, here)
    if anchors and group:
        witnesses.append(_of_anchors(group, anchors))
        flaws += _against_anchors(file, anchors, {flaw.chain for flaw in flaws})
    chains = mirror.value.chains if isinstance(mirror, Known) else ()
    return Verification(
        environment=environment,
        file=file,
        flaws=tuple(flaws),
        witnesses=tuple(witnesses),
        others=tuple(chain for chain in chains if chain.name != file.chain),
    )


def read_file(path: Path) -> File:
    """Read a journal's file; one that is not there has no records. Raises ArrakisError where it cannot be read."""
    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise ArrakisError(
            f"the journal cannot be read: {error.strerror}", hint=f"whose is {path}, and may you read it?"
        ) from error
    reading, flaw = read(data), None
    chain = reading.entries[0].chain if reading.entries else None
    if reading.broken:
        flaw = in_file([parsed(line) for line in data.split(b"\n")[:-1]], reading.broken)
        chain = chain or flaw.chain or None
    return File(path=path, chain=chain, entries=reading.entries, torn=reading.torn, flaw=flaw)


def mirrored(sql: SqlReader, chain: str | None) -> Mirrored:
    """Read the mirror, and keep one chain's records. Raises Unreachable or Denied; without the tables nothing was ever mirrored."""
    copies: dict[int, JournalEntry] = {}
    try:
        with sql.snapshot() as snapshot:
            chains = [
                _walked(name, rows, copies if name == chain else {})
                for name, rows in groupby(_rows(snapshot), key=lambda row: row.chain)
            ]
    except Missing:
        chains = []
    return Mirrored(copies=copies, chains=tuple(chains))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    chain: str
    seq: int
    run: str
    phase: str
    record: dict[str, Any]


def _rows(snapshot: SqlSnapshot) -> Iterator[_Row]:
    chain, seq = "", 0
    while rows := snapshot.rows("read/runs/copies", _Row, chain=chain, seq=seq, limit=_AT_ONCE):
        yield from rows
        chain, seq = rows[-1].chain, rows[-1].seq


def _walked(name: str, rows: Iterator[_Row], copies: dict[int, JournalEntry]) -> Chain:
    """Follow one chain through the mirror, and keep its records up to the first that is wrong."""
    last, flaw, records, number = None, None, 0, 0
    for row in rows:
        records, number = records + 1, row.seq
        if flaw:
            continue
        if (entry := _copy(row)) is None:
            flaw = of_copy(name, row.seq, f"record {row.seq} is not as it was written: its hash is another")
            continue
        if flaw := in_chain(last, entry):
            copies.pop(row.seq - 1, None)  # either of them may be the wrong one
            continue
        copies[row.seq] = last = entry
    return Chain(name=name, records=records, last=number, at=last.at if last else None, flaw=flaw)


def _copy(row: _Row) -> JournalEntry | None:
    try:
        entry = entry_from_json(row.record)
    except (ValueError, KeyError, TypeError):
        return None
    same = (entry.chain, entry.seq, entry.run, entry.phase) == (row.chain, row.seq, row.run, row.phase)
    return entry if same else None


def _of_mirror(file: File, mirror: Fact[Mirrored]) -> Witness:
    if isinstance(mirror, Unknown):
        return Witness(
            name="mirror", vouches=None, text=f"cannot be asked: {mirror.reason}", hint=mirror.hint
        )
    copies = mirror.value.copies
    last = max(copies, default=0)
    if not copies:
        text = (
            "has no record of this journal yet" if file.chain else "has nothing to compare: the file is empty"
        )
        return Witness(name="mirror", vouches=0, text=text)
    rest = any(entry.seq not in copies for entry in file.entries)
    text = f"has {counted(len(copies), 'record')} of it, the last {last}"
    return Witness(name="mirror", vouches=last, text=text + "; the next run copies the rest" * rest)


def _against_mirror(file: File, mirror: Fact[Mirrored], here: str) -> list[Flaw]:
    if isinstance(mirror, Unknown):
        return []
    copies, chains = mirror.value.copies, mirror.value.chains
    flaws = [chain.flaw for chain in chains if chain.flaw]
    if flaw := to_copies(file.entries, copies, whole=file.flaw is None):
        flaws.append(flaw)
    for chain in chains:
        if chain.name.startswith(f"{here}-") and chain.name != file.chain:
            told = f"{counted(chain.records, 'record')} of it mirrored" + _until(chain.at)
            replaced = file.chain is not None
            flaws.append(of_earlier(chain.name, told, found_by="mirror", replaced=replaced))
    return flaws


def _of_anchors(group: str, found: Fact[Anchored]) -> Witness:
    name = f"log group {group}"
    if isinstance(found, Unknown):
        return Witness(name=name, vouches=None, text=f"cannot be asked: {found.reason}", hint=found.hint)
    anchors = found.value.anchors
    if not found.value.whole:
        return Witness(
            name=name, vouches=None, text=f"has more than the {len(anchors)} anchors that are read"
        )
    if not anchors:
        return Witness(name=name, vouches=0, text="has no anchor of this journal yet")
    text = f"has {counted(len(anchors), 'anchor')} of it, the last on record {anchors[-1].seq}"
    return Witness(name=name, vouches=anchors[-1].seq, text=text)


def _against_anchors(file: File, found: Fact[Anchored], told: set[str]) -> list[Flaw]:
    if isinstance(found, Unknown):
        return []
    flaw = to_anchors(file.entries, found.value.anchors, whole=file.flaw is None)
    replaced = file.chain is not None
    gone = [
        of_earlier(chain, "it was anchored", found_by="log group", replaced=replaced)
        for chain in found.value.others
        if chain not in told
    ]
    return ([flaw] if flaw else []) + gone


def _until(at: datetime | None) -> str:
    return f", the last of {at:%Y-%m-%d %H:%M} UTC" if at else ""
