"""A journal of a thousand records, all that can be done to one, and a forger who makes every hash anew."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from runbooks.engine.integrity import Kind
from runbooks.engine.journal import Journal, Record
from runbooks.engine.model import Phase

__all__ = [
    "FIELDS",
    "MUTATIONS",
    "RECORDS",
    "Changed",
    "deleted_span",
    "edited",
    "forged",
    "joined",
    "keep",
    "moved",
    "records_of",
    "ticking",
]

RECORDS = 1_000
_BEGAN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)

FIELDS: dict[str, Any] = {
    "chain": "f" * 32,
    "seq": 4_711,
    "run": "rb-sb-001-other",
    "action": "a-other",
    "phase": "failed",
    "at": "2020-01-01T00:00:00+00:00",
    "actor": "eve",
    "observed": {"name": "sandboxes"},
    "error": "",
    "previous": "e" * 64,
    "hash": "d" * 64,
}
"""For each of a record's fields another value."""


def ticking() -> Callable[[], datetime]:
    """Return a clock that gains a tenth of a second at each look."""
    ticks = count()
    return lambda: _BEGAN + timedelta(seconds=next(ticks) / 10)


def keep(journal: Journal, *, records: int = RECORDS, at_once: int = 50, run: str = "rb-sb-003-long") -> None:
    """Write one run of so many records."""
    made = [Record(phase=Phase.RUN_STARTED, observed={"plan": {"id": "p1", "undoes": None, "actions": []}})]
    for number in range(1, records - 1):
        phase, action = (Phase.STARTED, Phase.DONE)[number % 2 == 0], f"a{(number + 1) // 2}"
        made.append(Record(phase=phase, action=action, observed={"number": number, "name": "žluťoučký"}))
    made.append(Record(phase=Phase.RUN_ENDED, observed={"exit": 0}))
    for start in range(0, records, at_once):
        journal.extend(run, made[start : start + at_once])


def joined(lines: Sequence[bytes]) -> bytes:
    """Return the file that has these lines."""
    return b"".join(line + b"\n" for line in lines)


def records_of(lines: Sequence[bytes]) -> list[dict[str, Any]]:
    """Return what the lines say."""
    return [json.loads(line) for line in lines]


def forged(
    records: Sequence[dict[str, Any]], *, after: Sequence[bytes] = (), chain: str | None = None
) -> list[bytes]:
    """Return lines that follow those before without a fault and say what the records say: numbers and hashes are made anew."""
    lines, previous = [], json.loads(after[-1])["hash"] if after else "0" * 64
    for number, record in enumerate(records, len(after) + 1):
        content = {key: value for key, value in record.items() if key != "hash"}
        content |= {"seq": number, "previous": previous, "chain": chain or record["chain"]}
        previous = hashlib.sha256(_canonical(content)).hexdigest()
        lines.append(_canonical({**content, "hash": previous}))
    return lines


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Changed:
    """A journal's lines after something was done to them: what, and the first record that is wrong."""

    lines: list[bytes]
    kind: Kind
    record: int


def edited(lines: list[bytes], at: int, other: int) -> Changed:
    name = list(FIELDS)[other % len(FIELDS)]
    record = {**json.loads(lines[at - 1]), name: FIELDS[name]}
    return Changed([*lines[: at - 1], _canonical(record), *lines[at:]], Kind.EDITED, at)


def spaced(lines: list[bytes], at: int, _: int) -> Changed:
    """What it says is the same: yet somebody was there."""
    line = lines[at - 1].replace(b",", b", ", 1)
    return Changed([*lines[: at - 1], line, *lines[at:]], Kind.EDITED, at)


def doubled(lines: list[bytes], at: int, _: int) -> Changed:
    """A second hash behind the first, the one that everybody else knows: JSON takes the last."""
    record = {**json.loads(lines[at - 1]), "actor": "eve"}
    known = record.pop("hash")
    rest = _canonical(record)[:-1] + b',"hash":"' + known.encode() + b'"}'
    digest = hashlib.sha256(rest).hexdigest().encode()
    line = rest.replace(b',"observed":', b',"hash":"' + digest + b'","observed":', 1)
    return Changed([*lines[: at - 1], line, *lines[at:]], Kind.EDITED, at)


def deleted(lines: list[bytes], at: int, _: int) -> Changed:
    kind = Kind.TRUNCATED if at == len(lines) else Kind.MISSING
    return Changed([*lines[: at - 1], *lines[at:]], kind, at)


def deleted_span(lines: list[bytes], at: int, other: int) -> Changed:
    low, high = sorted((at, other))
    kind = Kind.TRUNCATED if high == len(lines) else Kind.MISSING
    return Changed([*lines[: low - 1], *lines[high:]], kind, low)


def duplicated(lines: list[bytes], at: int, other: int) -> Changed:
    low, high = sorted((at, other))
    return Changed([*lines[:high], lines[low - 1], *lines[high:]], Kind.INSERTED, high + 1)


def blank(lines: list[bytes], at: int, _: int) -> Changed:
    return Changed([*lines[: at - 1], b"", *lines[at - 1 :]], Kind.INSERTED, at)


def strange(lines: list[bytes], at: int, _: int) -> Changed:
    """A record of another journal, that would follow."""
    at = max(2, at)
    [other] = forged(records_of(lines[at - 1 : at]), after=lines[: at - 1], chain="other")
    return Changed([*lines[: at - 1], other, *lines[at - 1 :]], Kind.INSERTED, at)


def slipped_in(lines: list[bytes], at: int, _: int) -> Changed:
    """One record more, forged so that it follows the one before; what comes then was not made anew."""
    at = min(at, len(lines) - 1)
    more = {**json.loads(lines[at - 1]), "actor": "eve"}
    [line] = forged([more], after=lines[: at - 1])
    return Changed([*lines[: at - 1], line, *lines[at - 1 :]], Kind.INSERTED, at)


def resealed(lines: list[bytes], at: int, _: int) -> Changed:
    """One record edited and given its own new hash; what comes then was not made anew."""
    at = min(at, len(lines) - 2)
    record = {**json.loads(lines[at - 1]), "actor": "eve"}
    [line] = forged([record], after=lines[: at - 1])
    return Changed([*lines[: at - 1], line, *lines[at:]], Kind.EDITED, at)


def swapped(lines: list[bytes], at: int, _: int) -> Changed:
    at = min(at, len(lines) - 1)
    return Changed([*lines[: at - 1], lines[at], lines[at - 1], *lines[at + 1 :]], Kind.REORDERED, at)


def moved(lines: list[bytes], at: int, other: int) -> Changed:
    at, other = (at, other) if at != other else (1, len(lines))
    rest = [*lines[: at - 1], *lines[at:]]
    return Changed([*rest[: other - 1], lines[at - 1], *rest[other - 1 :]], Kind.REORDERED, min(at, other))


def truncated(lines: list[bytes], at: int, _: int) -> Changed:
    return Changed(lines[: at - 1], Kind.TRUNCATED, at)


MUTATIONS: tuple[Callable[[list[bytes], int, int], Changed], ...] = (
    edited,
    spaced,
    doubled,
    deleted,
    deleted_span,
    duplicated,
    blank,
    strange,
    slipped_in,
    resealed,
    swapped,
    moved,
    truncated,
)
"""Each takes lines and the numbers of two of them, and returns what came of it."""
