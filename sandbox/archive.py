"""Archives: rows as lines of JSON in a gzip file, which says itself what it holds and proves that it is whole.

The first line is a header, the last one a summary: how many rows stand between them, and the SHA-256 of their lines. So
`zcat FILE | jq -c 'select(.id)'` reads the rows. Neither writing nor reading holds more than a line in memory. Pure but for the
file that is handed in.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import IO, Any

from sandbox.errors import ArrakisError

__all__ = ["Damaged", "Row", "Summary", "check", "read", "write"]

_FORMAT = 1
_SHORT = "it is cut short, or no gzip file"


class Damaged(ArrakisError):
    """An archive that is not as it was written, or another one than was asked for."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the archive is not as it was written: {why}", hint="keep it, and look who changed it"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of an archive: its line as it was written, and what is in it."""

    line: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How many rows an archive holds, and the SHA-256 of their lines, in hexadecimal."""

    rows: int
    sha256: str


def write(file: IO[bytes], header: Mapping[str, str], lines: Iterable[str]) -> Summary:
    """Write an archive of rows, each one line of JSON; return what it holds. Raises OSError where the file takes no more."""
    digest, rows = hashlib.sha256(), 0
    with gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as packed:
        packed.write(_line({"format": _FORMAT, **header}))
        for text in lines:
            line = text.encode() + b"\n"
            digest.update(line)
            packed.write(line)
            rows += 1
        summary = Summary(rows=rows, sha256=digest.hexdigest())
        packed.write(_line(asdict(summary)))
    return summary


def read(file: IO[bytes], header: Mapping[str, str]) -> Generator[Row, None, Summary]:
    """Yield an archive's rows from its beginning, and return its summary at the end.

    Raises Damaged at the end where the rows are not those that were written; before it where it is another archive, or no
    archive at all. So whoever must not trust it reads it twice.
    """
    file.seek(0)
    digest, rows = hashlib.sha256(), 0
    try:
        with gzip.GzipFile(fileobj=file, mode="rb") as packed:
            if _object(packed.readline()) != {"format": _FORMAT, **header}:
                raise Damaged("it is another one, by its first line")
            held = packed.readline()
            for following in packed:
                fields = _object(held)
                digest.update(held)
                rows += 1
                yield Row(line=held.decode().rstrip("\n"), fields=fields)
                held = following
            summary = Summary(rows=rows, sha256=digest.hexdigest())
            if _object(held) != asdict(summary):
                raise Damaged(f"its {rows} rows are not those that its last line tells of")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Damaged(_SHORT) from error
    return summary


def check(file: IO[bytes], header: Mapping[str, str], look: Callable[[Row], object]) -> Summary:
    """Read an archive to its end, looking at each row; return its summary. Raises Damaged, and what `look` raises."""
    rows = read(file, header)
    while True:
        try:
            look(next(rows))
        except StopIteration as end:
            summary: Summary = end.value
            return summary


def _line(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, sort_keys=True).encode() + b"\n"


def _object(line: bytes) -> Mapping[str, Any]:
    if not line:
        raise Damaged(_SHORT)
    try:
        value = json.loads(line)
    except ValueError as error:  # of UnicodeDecodeError, too
        raise Damaged("a line of it is no JSON") from error
    if not isinstance(value, dict):
        raise Damaged("a line of it is no object")
    return value
