"""The journal: append-only JSON lines on disk, each record chained to the last by hash, synced before the act.

It needs no server, so it works when PostgreSQL is the patient. `mirror` copies records to PostgreSQL where that can be
reached, so that another operator on another host can see, resume and undo; `anchor` names the latest one elsewhere. What
whoever can write this file could hide from it alone, these two show.
"""

import fcntl
import hashlib
import json
import os
import re
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import Any

from runbooks.engine.model import Phase
from runbooks.engine.plan import dumps
from sandbox.errors import ArrakisError, Halted
from sandbox.private import make_folder, opened, sync_folder

__all__ = [
    "GENESIS",
    "Journal",
    "JournalEntry",
    "Reading",
    "Record",
    "as_record",
    "digest",
    "entry_of",
    "parsed",
    "place",
    "read",
    "verify",
]

GENESIS = "0" * 64
"""What the first record follows."""

_HASH, _BEHIND = b',"hash":"', b',"observed":'  # the names of a record are in order
_TAIL = 64 * 1024  # bytes read from the end, to begin with, to find the last record


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One record. `observed` is what was seen or, for a run's start, the whole plan."""

    chain: str
    seq: int
    run: str
    action: str | None
    phase: Phase
    at: datetime
    actor: str
    observed: Mapping[str, Any]
    error: str | None
    previous: str
    hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is to be written down, of a run or of one of its actions."""

    phase: Phase
    action: str | None = None
    observed: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


class Journal:
    """One environment's journal on this host."""

    def __init__(self, path: Path, *, actor: str, clock: Callable[[], datetime]) -> None:
        """Take the file, who acts, and the clock (UTC)."""
        self.path, self.actor, self._clock = path, actor, clock
        self.mirror: Callable[[list[JournalEntry]], None] = lambda _: None
        self.anchor: Callable[[list[JournalEntry]], None] = lambda _: None

    def append(
        self,
        run: str,
        phase: Phase,
        *,
        action: str | None = None,
        observed: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> JournalEntry:
        """Write one record and sync it. Raises Halted when it cannot: then nothing may be done."""
        [entry] = self.extend(run, [Record(phase=phase, action=action, observed=observed or {}, error=error)])
        return entry

    def extend(self, run: str, records: Sequence[Record]) -> list[JournalEntry]:
        """Write records and sync them together. Raises as `append`: then none of it may be done."""
        if not records:
            return []
        try:
            with self._locked() as file:
                last = _last_record(file)
                if last is None:  # the file's name has to last as well
                    sync_folder(self.path.parent)
                entries = self._following(last, run, records)
                _write(file, b"".join(dumps(as_record(entry)).encode() + b"\n" for entry in entries))
        except OSError as error:
            raise Halted(
                f"the journal cannot be written: {error.strerror}",
                hint="free some disk, or point RUNBOOKS_STATE_DIR elsewhere; nothing is done without its record",
            ) from error
        self.mirror(entries)
        self.anchor(entries)
        return entries

    def entries(self) -> list[JournalEntry]:
        """Return all whole records, oldest first. Raises ArrakisError if the chain is broken."""
        if not self.path.exists():
            return []
        return verify(self.path.read_bytes())

    @contextmanager
    def _locked(self) -> Iterator[FileIO]:
        make_folder(self.path.parent)
        # Without a buffer, which would try once more when it is closed, after a record was given up.
        with FileIO(opened(self.path, os.O_RDWR), "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _following(
        self, last: JournalEntry | None, run: str, records: Sequence[Record]
    ) -> list[JournalEntry]:
        entries: list[JournalEntry] = []
        for record in records:
            entry = JournalEntry(
                chain=last.chain if last else f"{place(self.path)}-{uuid.uuid4().hex[:12]}",
                seq=last.seq + 1 if last else 1,
                run=run,
                action=record.action,
                phase=record.phase,
                at=self._clock(),
                actor=self.actor,
                observed=record.observed,
                error=record.error,
                previous=last.hash if last else GENESIS,
            )
            last = _sealed(entry)
            entries.append(last)
        return entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a journal's file holds: the records of which each follows from the one before, up to the first line that does not.

    `broken` is that line's number, None where all follow. `torn` counts the bytes behind the last newline: a write that a
    crash cut short, which was never acted on.
    """

    entries: list[JournalEntry]
    broken: int | None
    torn: int


def read(data: bytes) -> Reading:
    """Read a journal's file."""
    *lines, torn = data.split(b"\n")
    found: list[JournalEntry] = []
    for line in lines:
        entry = parsed(line)
        if entry is None or not _follows(entry, found[-1] if found else None):
            return Reading(entries=found, broken=len(found) + 1, torn=len(torn))
        found.append(entry)
    return Reading(entries=found, broken=None, torn=len(torn))


def verify(data: bytes) -> list[JournalEntry]:
    """Return the records if each follows from the one before. Raises ArrakisError naming the first that does not."""
    reading = read(data)
    if reading.broken:
        raise _broken(f"record {reading.broken}")
    return reading.entries


def parsed(line: bytes) -> JournalEntry | None:
    """Return a line's record, None for what is no record, or not byte by byte as it was written."""
    before, _, rest = line.partition(_HASH)  # no value before it holds an unescaped quotation mark
    named, _, after = rest.partition(b'"')
    if not after.startswith(_BEHIND):  # the same, but elsewhere
        return None
    if hashlib.sha256(before + after).hexdigest().encode() != named:
        return None
    try:
        entry = entry_of(json.loads(line))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return entry if entry.hash == named.decode() else None  # of two hashes in a line JSON takes the last


def place(path: Path) -> str:
    """Return how the chains begin that are kept in this file of this machine: its name, and a digest of which file it is."""
    machine = Path("/etc/machine-id")
    known = machine.read_bytes().strip() if os.access(machine, os.R_OK) else b""
    which = known + b":" + os.fsencode(path.resolve())
    name = re.sub("[^A-Za-z0-9.]+", "-", socket.gethostname())
    return f"{name}-{hashlib.sha256(which).hexdigest()[:12]}"


def entry_of(data: Mapping[str, Any]) -> JournalEntry:
    """Return what a record's JSON says, whatever its hash. Raises ValueError, KeyError or TypeError for what is no record."""
    shape = (type(data["chain"]), type(data["seq"]), type(data["run"]), type(data["observed"]))
    if shape != (str, int, str, dict):
        raise ValueError("no record")
    return JournalEntry(**{**data, "phase": Phase(data["phase"]), "at": datetime.fromisoformat(data["at"])})


def as_record(entry: JournalEntry) -> dict[str, Any]:
    """Return what `dumps` makes a record's JSON of. Nothing is copied: a run's start holds its whole plan."""
    return {each.name: getattr(entry, each.name) for each in fields(entry)}


def digest(record: Mapping[str, Any]) -> str:
    """Return the hash of all that a record's JSON says; `parsed` takes it of the very bytes."""
    content = {key: value for key, value in record.items() if key != "hash"}
    return hashlib.sha256(dumps(content).encode()).hexdigest()


def _follows(entry: JournalEntry, last: JournalEntry | None) -> bool:
    if last is None:
        return (entry.previous, entry.seq) == (GENESIS, 1)
    return (entry.previous, entry.seq, entry.chain) == (last.hash, last.seq + 1, last.chain)


def _sealed(entry: JournalEntry) -> JournalEntry:
    return replace(entry, hash=digest(as_record(entry)))


def _broken(where: str) -> ArrakisError:
    return ArrakisError(
        f"the journal was changed at {where}",
        hint="`journal-verify` compares it to the mirror; keep the file, and RUNBOOKS_STATE_DIR elsewhere goes on meanwhile",
    )


def _last_record(file: FileIO) -> JournalEntry | None:
    """Return the last whole record; a torn one after it is cut off, so that what follows is readable."""
    start = file.seek(0, os.SEEK_END)
    data, step = b"", _TAIL
    while start and data.count(b"\n") < 2:  # the last line's end, and that of the one before it
        start, step = max(0, start - step), 4 * step
        file.seek(start)
        data = file.readall()
    *lines, torn = data.split(b"\n")
    if torn:
        file.truncate(start + len(data) - len(torn))
    if not lines:
        return None
    if (entry := parsed(lines[-1])) is None:
        raise _broken("its last record")
    return entry


def _write(file: FileIO, data: bytes) -> None:
    """Append it all, and sync it, or nothing of it: what is only half there may not look as if it were begun."""
    end = file.seek(0, os.SEEK_END)
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    except BaseException:  # Ctrl-C too
        with suppress(OSError):
            file.truncate(end)
        raise
