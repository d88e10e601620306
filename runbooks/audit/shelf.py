"""The audits that were made on this host, the newest few: documents and pages in a folder for each environment."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from runbooks.audit.changes import changes
from runbooks.reports import files
from sandbox.errors import ArrakisError

__all__ = ["KEPT", "LAST", "NONE", "Shelf"]

KEPT = 10
"""How many audits of an environment are kept."""

LAST, NONE = "last", "none"
"""What an audit is compared with: the last one of the same, or nothing."""

_PATTERN = "audit-*.json"  # their names are in the order of time, but for those of one second
_SECOND = len("audit-20261126-180500")


class Shelf:
    """The audits of one environment."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        """Take where they are, and who is told of what cannot be read; the folder need not be there yet."""
        self._folder, self._tell = folder, tell

    def earlier(self, named: str, sections: Collection[str], *, now: str) -> Mapping[str, Any] | None:
        """Return an audit's document: the `last` one that looked at all these sections, None where none did; or one by id or file.

        `now` is the id of the audit that is compared with it. Raises ArrakisError where there is no such audit, or it cannot be
        read as one; of the last ones, what cannot be read is passed over.
        """
        if named == LAST:
            return next((each for each in self._before(now) if _covers(each, sections)), None)
        path = self._folder / f"{named}.json"
        return self._read(path if path.exists() else Path(named))

    def keep(self, document: dict[str, Any]) -> Path:
        """Write an audit's files, let go of all but the newest, and return its page's path. Raises OSError."""
        page = files.write(document, self._folder)
        # One from the future is older than this one: the clock was set back.
        made = _second(page.stem)
        kept = sorted(self._folder.glob(_PATTERN), key=lambda path: (_second(path.stem) <= made, path.stem))
        for old in kept[:-KEPT]:
            for suffix in (".html", ".md", ".json"):
                old.with_suffix(suffix).unlink(missing_ok=True)
        return page

    def _before(self, now: str) -> Iterator[Mapping[str, Any]]:
        for path in sorted(self._folder.glob(_PATTERN), reverse=True):
            if path.stem != now and _second(path.stem) <= _second(now):
                try:
                    yield self._read(path)
                except ArrakisError as error:
                    self._tell(f"{error}: passed over")

    def _read(self, path: Path) -> Mapping[str, Any]:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            datetime.fromisoformat(document["at"])
            changes(document, document)  # which reads all that is to be compared
        except FileNotFoundError:
            hint = f"--since {LAST}, or the .json of one: they are in {self._folder}"
            raise ArrakisError(f"there is no audit {path.stem}", hint=hint) from None
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            hint = f"name the .json that an audit wrote; --since {NONE} compares with nothing"
            raise ArrakisError(f"{path} cannot be read as an audit", hint=hint) from error
        return cast(Mapping[str, Any], document)


def _covers(document: Mapping[str, Any], sections: Collection[str]) -> bool:
    return set(sections) <= {each["name"] for each in document["procedures"]}


def _second(name: str) -> str:
    """Return the part of an audit's name that says when it was made: what follows tells those of one second apart."""
    return name[:_SECOND]
