"""Small JSON files that are read while they are written: whole or not at all, by their owner alone."""

import json
from pathlib import Path
from typing import Any

__all__ = ["read", "write"]


def read(path: Path) -> Any:
    """The JSON in a file; None where there is no file or no JSON."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def write(path: Path, value: object) -> None:
    """Put a value into a file in one step."""
    draft = path.with_suffix(".draft")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(value, indent=2))
    draft.replace(path)
