"""Archives and where they lie: what was written is read back, and what is not as it was written is not read."""

import gzip
import hashlib
import json
import os
import stat
from collections.abc import Callable
from io import BytesIO
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest
from botocore.response import StreamingBody  # type: ignore[import-untyped, unused-ignore]
from hypothesis import given
from hypothesis import strategies as st

from sandbox import archive, depots
from sandbox.adapters.aws import Aws
from sandbox.archive import Damaged, Row, Summary
from sandbox.depots import Folder, KeepingDepot
from sandbox.errors import ArrakisError, Conflict, Denied, Missing, Unreachable
from sandbox.stride import Stride

HEADER = {"archive": "public.sandbox_audit_log", "before": "2026-03-01T12:00:00+00:00"}
LINES = ['{"id": "a", "n": 1.50}', '{"id": "b", "text": "ä \\n ❄ \u2028 \\u0001"}', '{"id": "c"}']


def packed(lines: list[str] = LINES) -> bytes:
    file = BytesIO()
    archive.write(file, HEADER, lines)
    return file.getvalue()


def unread(_: Row) -> None:
    """Look at nothing."""


def repacked(change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    return gzip.compress(b"".join(change(gzip.decompress(packed()).splitlines(keepends=True))))


# ---- what they hold


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none())))
def test_what_was_written_is_read_back(rows: list[dict[str, object]]) -> None:
    lines, file = [json.dumps(row, ensure_ascii=False) for row in rows], BytesIO()
    summary = archive.write(file, HEADER, lines)
    assert [(row.line, row.fields) for row in archive.read(file, HEADER)] == list(
        zip(lines, rows, strict=True)
    )
    assert archive.check(file, HEADER, unread) == summary
    assert summary.rows == len(rows)


def test_a_person_can_read_it() -> None:
    lines = [json.loads(line) for line in gzip.decompress(packed()).splitlines()]
    assert lines[0] == {"format": 1, **HEADER}
    assert lines[1:-1] == [json.loads(line) for line in LINES]
    rows = b"".join(line.encode() + b"\n" for line in LINES)
    assert lines[-1] == {"rows": 3, "sha256": hashlib.sha256(rows).hexdigest()}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (packed()[:-20], "cut short"),
        (packed()[:40], "cut short"),
        (b"", "cut short"),
        (b"no archive", "no gzip file"),
        (
            bytes(byte ^ 1 if number == 60 else byte for number, byte in enumerate(packed())),
            "the archive is not as",
        ),
        (repacked(lambda lines: lines[:-1]), "not those that its last line tells of"),
        (repacked(lambda lines: [*lines[:2], *lines[3:]]), "its 2 rows are not those"),
        (repacked(lambda lines: [*lines[:2], lines[1], *lines[3:]]), "its 3 rows are not those"),
        (repacked(lambda lines: [*lines, b"{}\n"]), "its 4 rows are not those"),
        (repacked(lambda lines: [lines[0], b"[1]\n", *lines[2:]]), "no object"),
        (repacked(lambda lines: [lines[0], b"\xff\n", *lines[2:]]), "no JSON"),
        (repacked(lambda lines: [b'{"format": 2}\n', *lines[1:]]), "another one"),
        (repacked(lambda lines: lines[:1]), "cut short"),
    ],
    ids=count(),
)
def test_what_is_not_as_it_was_written_is_said(data: bytes, why: str) -> None:
    with pytest.raises(Damaged, match=why):
        archive.check(BytesIO(data), HEADER, unread)


def test_another_archive_is_not_taken_for_it() -> None:
    with pytest.raises(Damaged, match="another one"):
        next(archive.read(BytesIO(packed()), {**HEADER, "before": "2026-03-02T12:00:00+00:00"}))


# ---- a folder


@pytest.mark.parametrize(
    "address", ["s3://", "s3://UPPER/x", "s3://a", "s3:///x", "gs://bucket/x", "https://bucket.s3/x"]
)
def test_what_is_no_place_is_refused(address: str) -> None:
    with pytest.raises(ArrakisError, match="is no place for an archive"):
        depots.reading(address, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given_as", "address"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://my.bucket/a/b//", "s3://my.bucket/a/b"),
        ("/var/archive/", "/var/archive"),
        ("archive", str(Path.cwd() / "archive")),
        ("~/archive", str(Path.home() / "archive")),
    ],
)
def test_places_are_told_in_one_way(given_as: str, address: str) -> None:
    assert depots.reading(given_as, None).address == address  # type: ignore[arg-type]


def saying(text: bytes) -> Callable[[IO[bytes]], int]:
    return lambda file: file.write(text)


def test_a_folder_keeps_it_for_its_owner_alone_and_overwrites_nothing(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    (tmp_path / ".x.part").write_bytes(b"of somebody who was killed")
    assert not folder.holds("x")
    before = os.umask(0)
    try:
        assert folder.keep("x", saying(b"first")) == 5
    finally:
        os.umask(before)
    assert folder.holds("x")
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600
    with pytest.raises(Conflict):
        folder.keep("x", saying(b"second"))
    with folder.fetch("x") as file:
        assert file.read() == b"first"
    assert [each.name for each in tmp_path.iterdir()] == ["x"]


def test_what_fails_leaves_nothing_in_a_folder(tmp_path: Path) -> None:
    folder = Folder(tmp_path)

    def fail(file: IO[bytes]) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    def fill(file: IO[bytes]) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(KeyboardInterrupt):
        folder.keep("x", fail)
    with pytest.raises(ArrakisError, match=f"cannot be written to {tmp_path}: No space left on device"):
        folder.keep("x", fill)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Missing, match="there is no archive"):
        folder.fetch("x")


def test_a_folder_that_is_not_there_or_not_ours_is_said(tmp_path: Path) -> None:
    for look in (Folder(tmp_path / "no").check, lambda: Folder(tmp_path / "no").holds("x")):
        with pytest.raises(Missing, match="there is no folder"):
            look()
    Folder(tmp_path).check()


def test_a_folder_that_is_not_ours_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root, who may run the tests, may all
    with pytest.raises(Denied, match="is not ours to write to"):
        Folder(tmp_path).check()


def test_a_summary_is_of_rows_and_not_of_the_header() -> None:
    one, other = BytesIO(), BytesIO()
    assert archive.write(one, HEADER, LINES) == archive.write(other, {"archive": "x"}, LINES)
    assert archive.write(BytesIO(), HEADER, LINES[:2]) != archive.write(BytesIO(), HEADER, LINES[1:])
    assert archive.write(BytesIO(), HEADER, []) == Summary(
        rows=0, sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


# ---- a bucket


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Callable[..., KeepingDepot]:
    """Return a bucket that gives one prepared answer to each operation: an error's code, or an object's content."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    aws = Aws(region="eu-central-1")

    def answering(**answers: Any) -> KeepingDepot:
        for operation, answer in answers.items():
            status = SimpleNamespace(status_code=400 if isinstance(answer, str) else 200)
            error = {"Error": {"Code": answer, "Message": "said S3"}, "ResponseMetadata": {}}
            said = (status, error if isinstance(answer, str) else {"ResponseMetadata": {}, **answer})
            aws._client("s3").meta.events.register_first(
                f"before-call.s3.{operation}", lambda said=said, **_: said
            )
        return depots.keeping("s3://bucket/audit", aws)

    return answering


def test_an_object_is_fetched_whole(bucket: Callable[..., KeepingDepot]) -> None:
    depot = bucket(GetObject={"Body": StreamingBody(BytesIO(b"whole"), 5)})
    with depot.fetch("x") as file:
        file.seek(0)
        assert file.read() == b"whole"


def test_an_object_that_breaks_off_is_none(bucket: Callable[..., KeepingDepot]) -> None:
    depot = bucket(GetObject={"Body": StreamingBody(BytesIO(b"half"), 5)})
    with pytest.raises(Unreachable, match="s3:get_object: the answer ended too early"):
        depot.fetch("x")


@pytest.mark.parametrize(
    ("code", "error"), [("NoSuchKey", Missing), ("NoSuchBucket", Missing), ("AccessDenied", Denied)]
)
def test_an_object_that_is_not_to_be_had_is_said(
    bucket: Callable[..., KeepingDepot], code: str, error: type[ArrakisError]
) -> None:
    with pytest.raises(error):
        bucket(GetObject=code).fetch("x")


def test_an_object_is_not_overwritten(bucket: Callable[..., KeepingDepot]) -> None:
    with pytest.raises(Conflict, match="there is one already"):
        bucket(PutObject="PreconditionFailed").keep("x", saying(b"second"))


def test_only_the_very_key_is_found_in_a_bucket(bucket: Callable[..., KeepingDepot]) -> None:
    depot = bucket(ListObjectsV2={"Contents": [{"Key": "audit/x.gz"}]})
    assert depot.holds("x.gz")
    assert not depot.holds("x")


# ---- how much at a time


@pytest.mark.parametrize(
    ("seconds", "size"),
    [(0.2, 500), (0.4, 250), (2.0, 50), (60.0, 20), (0.15, 666), (0.01, 1000), (0.0, 1000)],
)
def test_a_step_is_as_large_as_is_soon_done(seconds: float, size: int) -> None:
    stride = Stride(500, least=20, most=1200)
    stride.took(seconds)
    assert stride.size == size
    stride.took(0.0)
    assert stride.size == min(2 * size, 1200)
