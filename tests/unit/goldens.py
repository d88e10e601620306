"""Golden texts: what is made is as it was when somebody last looked at it.

`GOLDEN=write .venv/bin/pytest -n 0 tests/unit/test_{html,markdown,terminal,audit_text}.py` writes them anew; look at the difference
before you commit it.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["golden", "here"]

_FOLDER = Path(__file__).parent / "golden"


def golden(name: str, text: str) -> None:
    """Insist that a text is as the file of this name has it; with GOLDEN=write it becomes so."""
    file = _FOLDER / name
    if os.environ.get("GOLDEN") == "write":
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An operator in Berlin, who called ./inv."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        patch.setenv("RUNBOOKS_COMMAND", "./inv")
        patch.delenv("ARRAKIS_ENV", raising=False)
        time.tzset()
        yield
    time.tzset()
