"""The audits that were made on this host, the newest few: documents and pages in a folder for each environment."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from runbooks.reports import files
from sandbox.errors import ArrakisError

__all__ = ["KEPT", "Shelf"]

KEPT = 10
"""How many audits of an environment are kept."""

LAST = "last"
_PATTERN = "audit-*.json"  # their names are in the order of time


class Shelf:
    """The audits of one environment."""

    def __init__(self, folder: Path) -> None:
        """Take where they are; the folder need not be there yet."""
        self._folder = folder

    def earlier(self, named: str, sections: Collection[str]) -> Mapping[str, Any] | None:
        """Return an audit's document: the `last` one that looked at all these sections, None where none did; or one by id or file.

        Raises ArrakisError where there is no such audit, or it cannot be read as one.
        """
        if named == LAST:
            documents = (_read(path) for path in sorted(self._folder.glob(_PATTERN), reverse=True))
            return next((each for each in documents if _covers(each, sections)), None)
        path = self._folder / f"{named}.json"
        return _read(path if path.exists() else Path(named))

    def keep(self, document: dict[str, Any]) -> Path:
        """Write an audit's files, let go of all but the newest, and return its page's path. Raises OSError."""
        page = files.write(document, self._folder)
        for old in sorted(self._folder.glob(_PATTERN))[:-KEPT]:
            for suffix in (".html", ".md", ".json"):
                old.with_suffix(suffix).unlink(missing_ok=True)
        return page


def _covers(document: Mapping[str, Any], sections: Collection[str]) -> bool:
    return set(sections) <= {each["name"] for each in document["procedures"]}


def _read(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArrakisError(
            f"there is no audit {path.stem}", hint=f"--since {LAST}, or the file of one: {path.parent}"
        ) from None
    except (OSError, ValueError) as error:
        raise ArrakisError(f"{path} cannot be read as an audit", hint="--since none") from error
    if not isinstance(document, dict) or "audit" not in document:
        raise ArrakisError(f"{path} is no audit", hint="name the .json that an audit wrote")
    return document
