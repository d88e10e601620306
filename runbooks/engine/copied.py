"""Journal records as PostgreSQL keeps them, in jsonb, which cannot hold all that a journal can."""

import json
from collections.abc import Mapping
from typing import Any

from runbooks.engine.journal import JournalEntry, as_record, digest, entry_of, parsed
from runbooks.engine.plan import dumps

__all__ = ["entry_as_json", "entry_from_json"]

_LARGE = 1e16  # from here on Python writes a float with an exponent, and jsonb without


def entry_as_json(entry: JournalEntry) -> dict[str, Any]:
    """Return a record for jsonb. Where that cannot hold it, it is as near as can be, and `line` has it as the file does."""
    line = dumps(as_record(entry))
    record: dict[str, Any] = json.loads(line)
    held = _held(record)
    return record if held == record else {**held, "line": line}


def entry_from_json(data: Mapping[str, Any]) -> JournalEntry:
    """Read back what `entry_as_json` made. Raises ValueError for what is no record, or not as it was written."""
    if "line" not in data:
        entry = entry_of(data)
        if digest(data) != entry.hash:
            raise ValueError("its hash does not match")
        return entry
    found = parsed(str(data["line"]).encode())
    if found is None or entry_as_json(found) != data:
        raise ValueError("it is not what its line says")
    return found


def _held(value: Any) -> Any:
    """Return a value as jsonb gives it back: no NUL, no half of a character, no number that is none or comes back written otherwise."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_held(key): _held(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_held(each) for each in value]
    odd = isinstance(value, float) and (not abs(value) < _LARGE or str(value) == "-0.0")
    return str(value) if odd else value
