"""The journal, record by record: what is written where, and what stays as it was when something goes wrong."""

import errno
import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from runbooks.engine import journal as module
from runbooks.engine.journal import (
    GENESIS,
    Journal,
    JournalEntry,
    Reading,
    Record,
    digest,
    entry_of,
    parsed,
    place,
    read,
    verify,
)
from runbooks.engine.model import Phase
from runbooks.engine.plan import dumps
from sandbox.errors import ArrakisError, Halted
from tests.unit.plans import NOW


def ticking() -> Iterator[datetime]:
    at = NOW
    while True:
        yield at
        at += timedelta(seconds=1)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return which files and folders were synced, in their order; nothing is, which takes most of the time."""
    seen = list[str]()
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: seen.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
    )
    return seen


@pytest.fixture
def journal(tmp_path: Path, synced: list[str]) -> Journal:
    times = ticking()
    return Journal(tmp_path / "state" / "journal.jsonl", actor="ada", clock=lambda: next(times))


def lines(journal: Journal) -> list[bytes]:
    return journal.path.read_bytes().splitlines()


# Written


def test_a_record_says_all_that_it_was_given_and_follows_the_last(journal: Journal) -> None:
    first = journal.append("r1", Phase.STARTED, action="a1", observed={"n": 1}, error="why")
    second = journal.append("r2", Phase.PLANNED)
    chain = first.chain
    expected = [
        JournalEntry(chain=chain, seq=1, run="r1", action="a1", phase=Phase.STARTED, at=NOW, actor="ada", observed={"n": 1}, error="why", previous=GENESIS, hash=first.hash),
        JournalEntry(chain=chain, seq=2, run="r2", action=None, phase=Phase.PLANNED, at=NOW + timedelta(seconds=1), actor="ada", observed={}, error=None, previous=first.hash, hash=second.hash),
    ]  # fmt: skip
    assert [first, second] == expected == journal.entries()
    assert lines(journal) == [dumps(asdict(each)).encode() for each in expected]
    assert [each.hash for each in expected] == [digest(asdict(replace(each, hash=""))) for each in expected]
    assert GENESIS == "0" * 64


def test_records_are_written_together_and_told_to_mirror_and_anchor(journal: Journal) -> None:
    mirrored, anchored = list[list[JournalEntry]](), list[list[JournalEntry]]()
    journal.mirror, journal.anchor = mirrored.append, anchored.append
    made = journal.extend(
        "r1",
        [
            Record(phase=Phase.STARTED, action="a1"),
            Record(phase=Phase.DONE, action="a1", observed={"n": 1}, error="e"),
        ],
    )
    assert mirrored == anchored == [made] == [journal.entries()]
    assert (made[1].previous, made[1].observed, made[1].error) == (made[0].hash, {"n": 1}, "e")
    assert journal.extend("r1", []) == []
    assert len(mirrored) == 1


def test_nothing_to_write_makes_no_file(journal: Journal) -> None:
    assert (journal.extend("r1", []), journal.path.exists(), journal.entries()) == ([], False, [])


def test_the_file_is_synced_each_time_and_its_name_the_first_time(
    journal: Journal, synced: list[str]
) -> None:
    file, folder = str(journal.path), str(journal.path.parent)
    journal.append("r1", Phase.STARTED)
    assert synced == [folder, file]
    journal.append("r1", Phase.DONE)
    assert synced == [folder, file, file]
    assert journal.path.stat().st_mode & 0o777 == 0o600
    assert journal.path.parent.stat().st_mode & 0o777 == 0o700


def test_whoever_writes_is_alone_at_it(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    locks = list[int]()
    monkeypatch.setattr(fcntl, "flock", lambda file, how: locks.append(how))
    journal.append("r1", Phase.STARTED)
    assert locks == [fcntl.LOCK_EX]


def test_where_it_cannot_be_written_nothing_may_be_done(journal: Journal) -> None:
    journal.path.mkdir(parents=True)
    with pytest.raises(Halted, match="the journal cannot be written: Is a directory") as error:
        journal.append("r1", Phase.STARTED)
    assert "RUNBOOKS_STATE_DIR" in error.value.hint


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["write", "fsync"])
def test_what_is_only_half_there_is_taken_away_again(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, error: BaseException, where: str
) -> None:
    journal.append("r1", Phase.STARTED)
    before = journal.path.read_bytes()

    class Full(FileIO):
        """Takes seven bytes, and then none."""

        left = 7

        def write(self, data: Any) -> int:
            if where == "fsync":
                return super().write(data)
            if not self.left:
                raise error
            taken, self.left = super().write(data[: self.left]), 0
            return taken

    def failing(_: int) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(module, "FileIO", Full)
        if where == "fsync":
            patch.setattr(os, "fsync", failing)
        with pytest.raises(Halted if isinstance(error, OSError) else KeyboardInterrupt):
            journal.append("r1", Phase.DONE)
    assert journal.path.read_bytes() == before
    journal.append("r1", Phase.DONE)
    assert [each.seq for each in journal.entries()] == [1, 2]


def test_what_takes_a_few_bytes_at_a_time_is_written_whole(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(FileIO):
        def write(self, data: Any) -> int:
            return super().write(data[:5])

    monkeypatch.setattr(module, "FileIO", Slow)
    made = [journal.append("r1", Phase.STARTED, observed={"n": number}) for number in range(3)]
    assert journal.entries() == made


def test_a_disk_that_cannot_even_be_cut_back_says_the_first_thing_that_was_wrong(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(FileIO):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def truncate(self, size: int | None = None) -> int:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(module, "FileIO", Broken)
    with pytest.raises(Halted, match="No space left"):
        journal.append("r1", Phase.STARTED)


# Where it goes on


@pytest.mark.parametrize("tail", [10, 100, 1_000, 64 * 1024])
@pytest.mark.parametrize("torn", [b"", b"{", b'{"chain":"x"' * 30])
def test_it_goes_on_behind_the_last_whole_record(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, tail: int, torn: bytes
) -> None:
    monkeypatch.setattr(module, "_TAIL", tail)
    for number in range(3):
        journal.append("r1", Phase.STARTED, observed={"text": "x" * 200 * number})
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + torn)
    last = journal.append("r1", Phase.RUN_ENDED)
    assert last.seq == 4
    assert journal.path.read_bytes().startswith(whole)
    assert [each.seq for each in journal.entries()] == [1, 2, 3, 4]


def test_however_long_it_is_its_end_alone_is_read(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.extend("r1", [Record(phase=Phase.STARTED)] * 400)
    amounts = list[int]()

    class Counting(FileIO):
        def readall(self) -> bytes:
            data = super().readall()
            amounts.append(len(data))
            return data

    monkeypatch.setattr(module, "FileIO", Counting)
    assert journal.append("r1", Phase.RUN_ENDED).seq == 401
    assert amounts == [64 * 1024]


def test_a_first_write_that_was_cut_short_is_begun_anew(journal: Journal) -> None:
    journal.path.parent.mkdir()
    journal.path.write_bytes(b'{"chain":')
    assert journal.append("r1", Phase.STARTED).seq == 1
    assert len(journal.entries()) == 1


def test_it_does_not_go_on_behind_a_record_that_was_changed(journal: Journal) -> None:
    journal.append("r1", Phase.STARTED)
    journal.path.write_bytes(journal.path.read_bytes().replace(b"ada", b"eve"))
    with pytest.raises(ArrakisError, match="the journal was changed at its last record"):
        journal.append("r1", Phase.DONE)


# Read


def test_it_is_read_up_to_the_first_line_that_does_not_follow(journal: Journal) -> None:
    made = [journal.append("r1", Phase.STARTED, observed={"n": number}) for number in range(4)]
    whole = lines(journal)

    def reading(*some: bytes, torn: bytes = b"") -> Reading:
        return read(b"".join(line + b"\n" for line in some) + torn)

    assert reading() == Reading(entries=[], broken=None, torn=0)
    assert reading(*whole) == Reading(entries=made, broken=None, torn=0)
    assert reading(*whole, torn=b"abc") == Reading(entries=made, broken=None, torn=3)
    assert reading(*whole[1:]) == Reading(entries=[], broken=1, torn=0)
    assert reading(*whole[:2], whole[3], torn=b"x") == Reading(entries=made[:2], broken=3, torn=1)
    assert reading(*whole, whole[3]) == Reading(entries=made, broken=5, torn=0)
    assert reading(*whole[:2], b"", *whole[2:]).broken == 3
    assert verify(b"") == []
    assert verify(journal.path.read_bytes()) == made
    with pytest.raises(ArrakisError, match=r"the journal was changed at record 2$") as error:
        verify(b"\n".join([whole[0], *whole[2:], b""]))
    assert "journal-verify" in error.value.hint


def test_what_is_not_said_is_none() -> None:
    record = Record(phase=Phase.PLANNED)
    assert (record.action, record.observed, record.error) == (None, {}, None)
    entry = JournalEntry(
        chain="c",
        seq=1,
        run="r",
        action=None,
        phase=Phase.PLANNED,
        at=NOW,
        actor="a",
        observed={},
        error=None,
        previous="",
    )
    assert entry.hash == ""


@pytest.mark.parametrize("changes", [{"chain": "d"}, {"seq": 9}, {"previous": "e" * 64}])
def test_a_record_follows_by_its_number_its_chain_and_the_hash_before(
    journal: Journal, changes: dict[str, Any]
) -> None:
    first, second = (journal.append("r1", Phase.STARTED) for _ in range(2))
    for entries, broken in (
        ([replace(first, **changes)], None if "chain" in changes else 1),
        ([first, replace(second, **changes)], 2),
    ):
        sealed = [module._sealed(replace(each, hash="")) for each in entries]
        assert read(b"".join(dumps(asdict(each)).encode() + b"\n" for each in sealed)).broken == broken


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chain", 1),
        ("seq", "1"),
        ("seq", True),
        ("run", None),
        ("observed", []),
        ("phase", "x"),
        ("at", "noon"),
        ("at", 7),
        ("more", 1),
    ],
)
def test_what_is_no_record_is_none_though_its_hash_is_right(
    journal: Journal, field: str, value: object
) -> None:
    journal.append("r1", Phase.STARTED)
    record = {**json.loads(lines(journal)[0]), field: value}
    with pytest.raises((ValueError, TypeError)):
        entry_of(record)
    bare = {key: each for key, each in record.items() if key != "hash"}
    assert parsed(dumps({**bare, "hash": digest(bare)}).encode()) is None


def test_a_record_without_a_field_or_too_deep_is_none() -> None:
    for text in ('{"actor":"ada"', '{"observed":' + "[" * 100_000):
        named = hashlib.sha256(text.encode() + b"}").hexdigest()
        assert parsed(f'{text},"hash":"{named}"}}'.encode()) is None


@pytest.mark.parametrize("behind", ["actor", "at", "chain", "previous", "run", "seq"])
def test_a_hash_that_stands_elsewhere_makes_no_record(journal: Journal, behind: str) -> None:
    journal.append("r1", Phase.STARTED)
    whole = lines(journal)[0].decode()
    hashed = f',"hash":"{json.loads(whole)["hash"]}"'
    assert parsed(whole.encode()) is not None
    assert parsed(whole.replace(hashed, "").replace(f',"{behind}"', f'{hashed},"{behind}"').encode()) is None


def test_of_two_hashes_neither_makes_a_record(journal: Journal) -> None:
    """The first is that of all the rest, or the last is: JSON takes the last."""
    journal.append("r1", Phase.STARTED)
    begin, _, rest = lines(journal)[0].decode().partition(',"hash":"')
    known, rest = rest[:64], rest[65:-1]

    def hashed(digest: str) -> str:
        return f',"hash":"{digest}"'

    def of(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    last = f"{rest}{hashed(known)}}}"
    assert parsed(f"{begin}{hashed(of(begin + last))}{last}".encode()) is None
    first = f"{begin}{hashed('0' * 64)}"
    assert parsed(f"{first}{hashed(of(first + rest + '}'))}{rest}}}".encode()) is None


@pytest.mark.parametrize("line", [b"", b"{}", b"\xff", b'{"hash":"x"}'])
def test_a_line_that_is_none_is_none(line: bytes) -> None:
    assert parsed(line) is None


def test_a_hash_is_of_all_but_the_hash() -> None:
    assert digest({"a": 1, "hash": "x"}) == digest({"a": 1}) != digest({"a": 2})


# Which file of which machine


def test_a_chain_is_named_after_its_machine_and_its_file(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "a_b/c.d e")
    name = place(journal.path)
    assert name.startswith("a-b-c.d-e-")
    assert len(name) == len("a-b-c.d-e-") + 12
    assert journal.append("r1", Phase.STARTED).chain.startswith(f"{name}-")
    assert len(journal.entries()[0].chain) == len(name) + 13
    assert place(tmp_path / "other") != name
    link = tmp_path / "link"
    link.symlink_to(journal.path)
    assert place(link) == name


def test_another_machine_of_the_same_name_is_another_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "machine-id"
    real = Path

    def of(text: str | None) -> str:
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_text(text)
        return place(tmp_path / "journal")

    monkeypatch.setattr(module, "Path", lambda name: file if name == "/etc/machine-id" else real(name))
    assert len({of("one"), of("other"), of(None)}) == 3
    assert of("one\n") == of("one")
    assert of("") == of(None)
    which = hashlib.sha256(b"one:" + os.fsencode((tmp_path / "journal").resolve())).hexdigest()
    assert of("one").endswith(f"-{which[:12]}")
