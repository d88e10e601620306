"""The journal: append-only JSON lines on disk, each record chained to the last by hash, synced before the act.

It needs no server, so it works when PostgreSQL is the patient. `mirror` copies records to PostgreSQL where that can be
reached, so that another operator on another host can see, resume and undo.
"""

import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from runbooks.engine.model import Phase
from runbooks.engine.plan import dumps
from sandbox.errors import ArrakisError

__all__ = ["Journal", "JournalEntry", "Record", "verify"]

_GENESIS = "0" * 64
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
        self._path, self.actor, self._clock = path, actor, clock
        self.mirror: Callable[[list[JournalEntry]], None] = lambda _: None

    def append(
        self,
        run: str,
        phase: Phase,
        *,
        action: str | None = None,
        observed: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> JournalEntry:
        """Write one record and sync it. Raises ArrakisError when it cannot: then nothing may be done."""
        [entry] = self.extend(run, [Record(phase=phase, action=action, observed=observed or {}, error=error)])
        return entry

    def extend(self, run: str, records: Sequence[Record]) -> list[JournalEntry]:
        """Write records and sync them together. Raises as `append`: then none of it may be done."""
        if not records:
            return []
        try:
            with self._locked() as file:
                entries = self._following(_last_record(file), run, records)
                file.seek(0, os.SEEK_END)
                file.write(b"".join(dumps(asdict(entry)).encode() + b"\n" for entry in entries))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ArrakisError(
                f"the journal cannot be written: {error.strerror}",
                hint="free some disk, or point RUNBOOKS_STATE_DIR elsewhere; nothing is done without its record",
            ) from error
        self.mirror(entries)
        return entries

    def entries(self) -> list[JournalEntry]:
        """Return all whole records, oldest first. Raises ArrakisError if the chain is broken."""
        if not self._path.exists():
            return []
        return verify(self._path.read_bytes())

    @contextmanager
    def _locked(self) -> Iterator[IO[bytes]]:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _following(
        self, last: JournalEntry | None, run: str, records: Sequence[Record]
    ) -> list[JournalEntry]:
        entries: list[JournalEntry] = []
        for record in records:
            entry = JournalEntry(
                chain=last.chain if last else uuid.uuid4().hex,
                seq=last.seq + 1 if last else 1,
                run=run,
                action=record.action,
                phase=record.phase,
                at=self._clock(),
                actor=self.actor,
                observed=record.observed,
                error=record.error,
                previous=last.hash if last else _GENESIS,
            )
            last = _sealed(entry)
            entries.append(last)
        return entries


def verify(data: bytes) -> list[JournalEntry]:
    """Return the records if each follows from the one before. Raises ArrakisError naming the first that does not.

    What follows the last newline is a write that a crash cut short: it was never acted on, and is passed over.
    """
    found: list[JournalEntry] = []
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
        entry = _read(line, f"record {number}")
        previous = found[-1] if found else None
        expected = (
            (previous.hash, previous.seq + 1, previous.chain) if previous else (_GENESIS, 1, entry.chain)
        )
        if (entry.previous, entry.seq, entry.chain) != expected:
            raise _broken(f"record {number}")
        found.append(entry)
    return found


def _broken(where: str) -> ArrakisError:
    return ArrakisError(
        f"the journal was changed at {where}",
        hint="keep the file, and compare it to the mirror; with RUNBOOKS_STATE_DIR elsewhere it goes on meanwhile",
    )


def _sealed(entry: JournalEntry) -> JournalEntry:
    content = {key: value for key, value in asdict(entry).items() if key != "hash"}
    digest = hashlib.sha256(dumps(content).encode()).hexdigest()
    return JournalEntry(**{**content, "hash": digest})


def _read(line: bytes, where: str) -> JournalEntry:
    try:
        return entry_from_json(json.loads(line))
    except (ValueError, KeyError, TypeError):
        raise _broken(where) from None


def entry_from_json(data: Mapping[str, Any]) -> JournalEntry:
    """Read a record back. Raises ValueError for what is no record, or not as it was written."""
    entry = JournalEntry(**{**data, "phase": Phase(data["phase"]), "at": datetime.fromisoformat(data["at"])})
    if _sealed(entry) != entry:
        raise ValueError("its hash does not match")
    return entry


def _last_record(file: IO[bytes]) -> JournalEntry | None:
    """Return the last whole record; a torn one after it is cut off, so that what follows is readable."""
    start = file.seek(0, os.SEEK_END)
    data, step = b"", _TAIL
    while start and data.count(b"\n") < 2:  # the last line's end, and that of the one before it
        start, step = max(0, start - step), 4 * step
        file.seek(start)
        data = file.read()
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        file.truncate(start + whole)
    lines = data[:whole].splitlines()
    return _read(lines[-1], "its last record") if lines else None
